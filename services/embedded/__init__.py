"""Everything on one machine without Docker: Kafka, MongoDB, a Stripe double and an inbox."""
