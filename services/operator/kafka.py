"""The connection of operator commands to Kafka."""

from __future__ import annotations

from services.operator.client import CommandError
from services.operator.settings import OperatorSettings
from shared.bus.kafka_connection import KafkaConnection
from shared.settings import SettingsError, load


def connection(bootstrap: str) -> KafkaConnection:
    """Return the connection to these brokers, with the protocol and credentials of the environment.

    Raises:
        CommandError: a setting is missing or invalid.
    """
    try:
        return load(OperatorSettings, kafka_bootstrap=bootstrap).kafka
    except SettingsError as invalid:
        raise CommandError("; ".join(str(invalid).splitlines())) from None
