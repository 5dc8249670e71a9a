"""Environment variables of the commands of `nest` for operators."""

from __future__ import annotations

from pydantic import SecretStr

from shared.kafka_settings import KafkaSettings
from shared.variables import VariableSettings


class AccessSettings(VariableSettings):
    """Access to the HTTP API; without these variables, commands use a profile or the Nest of the data folder."""

    url: str = ""
    """URL of the gateway, for the commands that call its HTTP API; set it together with the key."""
    internal_key: SecretStr | None = None
    """One of the keys in ``NEST_INTERNAL_KEYS``, without its name."""
    profile: str = ""
    """Profile of ``nest login``, for the same commands; ``--profile`` and ``NEST_URL`` take precedence."""


class OperatorSettings(KafkaSettings):
    """Access to Kafka."""

    PROCESS = "operator"


class DatabaseSettings(VariableSettings):
    """Access to the databases, with the variables of the services."""

    sealing_keys: SecretStr
    """As for the services."""
    mongo_url: SecretStr
    """As for the services."""
    database_prefix: str = "nest_"
    """As for the services."""


class DiagnosticSettings(VariableSettings):
    """What ``nest doctor`` needs even if no service would start."""

    sealing_keys: SecretStr = SecretStr("")
    """As for the services."""
