"""What every process must be told before it starts; whatever is missing or dangerous stops it at once, by name."""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.sealing import KEY_BYTES
from shared.telemetry import log

PREFIX = "NEST_"
PRODUCTION = "production"


class SettingsError(Exception):
    """The environment lacks something, or says something that can't be; the text has a line for each."""


class BusSettings(BaseSettings):
    """What every process needs: the bus, the sealing keys, where it runs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True)

    kafka_bootstrap: str = Field(min_length=3)
    """``host:port`` of brokers, separated by commas."""
    topic_prefix: str = Field(default="", pattern=r"^[a-z0-9_.-]*$")
    """Leads every topic and consumer group, so that several deployments can share a Kafka."""
    environment: str = Field(default=PRODUCTION, pattern=r"^[a-z][a-z0-9]*$")
    """``production``, or a word that leads every id: ``dev``."""
    sealing_keys: SecretStr
    """Master keys for secrets on the bus and at rest: ``id:base64 of 32 bytes``, separated by commas, the one that
    seals first."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    otlp_endpoint: str | None = None
    """Where traces go (OTLP over HTTP); none by default."""
    drain_seconds: float = Field(default=20.0, gt=0, le=300)
    """How long a stop waits for messages under way."""

    @field_validator("sealing_keys")
    @classmethod
    def _well_formed(cls, value: SecretStr) -> SecretStr:
        parse_keys(value.get_secret_value())
        return value

    @property
    def production(self) -> bool:
        """Whether real people and real money are on the other side."""
        return self.environment == PRODUCTION

    def master_keys(self) -> dict[str, bytes]:
        """The sealing keys by id, the active one first."""
        return parse_keys(self.sealing_keys.get_secret_value())


class ServiceSettings(BusSettings):
    """What a service needs besides: its database, and how it takes messages."""

    mongo_url: str = Field(min_length=10)
    """``mongodb://…`` of a replica set."""
    database_prefix: str = Field(default="nest_", pattern=r"^[a-zA-Z0-9_-]*$", max_length=40)
    """Leads the name of each service's database."""
    inbox_retention: timedelta = Field(default=timedelta(days=8), ge=timedelta(seconds=1))
    """How long a handled message is remembered: at least as long as its topic keeps it, and 24 hours."""
    in_flight: int = Field(default=256, ge=1, le=10_000)
    """How many messages a process handles at once."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Where ``/healthz`` and ``/metrics`` are served; nowhere by default."""
    health_host: str = "127.0.0.1"


Settings = TypeVar("Settings", bound=BaseSettings)
CommaSeparated = Annotated[tuple[str, ...], NoDecode]
"""A tuple setting, written with commas between its parts; give its field ``split_commas`` as a before-validator."""


def split_commas(value: Any) -> Any:
    """``"a, b"`` as ``("a", "b")``; anything but a text as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def refuse_in_production(value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 -- as pydantic calls it
    """A validator of what only tests and developers may switch on; ``environment`` is declared before it.

    Raises:
        ValueError: it is on in production.
    """
    if value and info.data.get("environment", PRODUCTION) == PRODUCTION:
        raise ValueError("is refused in production")
    return value


def load(settings: type[Settings], **given: Any) -> Settings:
    """Read settings from the environment.

    Raises:
        SettingsError: with a line for each variable that is missing or wrong.
    """
    try:
        return settings(**given)
    except ValidationError as wrong:
        lines = []
        for error in wrong.errors(include_url=False, include_input=False, include_context=False):
            name = PREFIX + "_".join(str(part) for part in error["loc"][:1]).upper() if error["loc"] else "settings"
            message = "is not set" if error["type"] == "missing" else error["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}")
        raise SettingsError("\n".join(lines)) from None


def parse_keys(text: str) -> dict[str, bytes]:
    """Keys written as ``id:base64``, separated by commas.

    Raises:
        ValueError: none, one that is not so written, two with one id, or one that hasn't 32 bytes.
    """
    keys: dict[str, bytes] = {}
    for part in text.split(","):
        key_id, colon, encoded = part.strip().partition(":")
        if not colon or not key_id.isalnum() or key_id in keys:
            raise ValueError("write it as id:base64,id:base64, each id once, letters and digits")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError(f"the key {key_id!r} is not base64") from None
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key {key_id!r} has {len(key)} bytes instead of {KEY_BYTES}")
        keys[key_id] = key
    return keys


class OldClientsSettings(BusSettings):
    """What auth and the gateway must be told alike."""

    old_clients_in_production: bool = False
    """Says that ``old_clients`` is meant in production, too."""
    old_clients: bool = Field(default=False, validate_default=True)
    """Serve what old clients of the accounts API ask for: passwords in URLs, logging in with two ids alone, passwords
    of 6 characters, the deletion token for whoever knows an owner's id."""

    @field_validator("old_clients")
    @classmethod
    def _knowingly(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 -- pydantic's signature
        production = info.data.get("environment") == PRODUCTION
        if value and production and not info.data.get("old_clients_in_production"):
            raise ValueError("puts passwords into URLs; if it is meant, set NEST_OLD_CLIENTS_IN_PRODUCTION too")
        return value

    def warn_of_old_clients(self) -> None:
        """Say it in the log when they are served."""
        if self.old_clients:
            log.warning("old clients are served: passwords in URLs, short passwords, logging in with two ids alone")
