"""The rules of the mailer: deliveries, addresses, consents. No I/O, no clock; time comes in as ``at``."""
