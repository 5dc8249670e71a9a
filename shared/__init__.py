"""Code shared by all services: message contracts, the bus, storage, settings and telemetry."""
