"""Settings of the connection to Kafka that production accepts."""

from __future__ import annotations

from typing import Final

KAFKA: Final = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "SCRAM-SHA-512",
    "kafka_user": "nest",
    "kafka_password": "the password of a test",
}
"""By field."""
KAFKA_VARIABLES: Final = {f"NEST_{name.upper()}": value for name, value in KAFKA.items()}
"""The same by variable."""
