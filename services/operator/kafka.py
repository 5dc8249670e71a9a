"""The connection of operator commands to Kafka."""

from __future__ import annotations

from services.operator.client import CommandError
from services.operator.settings import OperatorSettings
from shared.bus.kafka_connection import KafkaConnection
from shared.settings import SettingsError, load


def connection(bootstrap: str, *, process: str = "operator") -> KafkaConnection:
    """Return the connection to these brokers, with the protocol and credentials of the environment.

    Args:
        bootstrap: ``host:port`` of the brokers; empty: that of the environment.
        process: whose credentials are used, if it has some of its own.

    Raises:
        CommandError: a setting is missing or invalid.
    """
    try:
        settings = type("ProcessSettings", (OperatorSettings,), {"PROCESS": process})
        return load(settings, **({"kafka_bootstrap": bootstrap} if bootstrap else {})).kafka
    except SettingsError as invalid:
        raise CommandError("; ".join(str(invalid).splitlines())) from None
