"""Settings from environment variables; a start with a missing or dangerous setting fails and names the variable."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from shared.bus.record_macs import RecordMacs
from shared.kafka_settings import EnvironmentSettings, KafkaSettings
from shared.mongo_urls import check_url
from shared.otel_settings import OtelSettings, is_endpoint
from shared.sealing import KEY_BYTES, Sealer
from shared.telemetry import configure_logging, log, parse_levels
from shared.tracing import Tracing
from shared.variables import DEVELOPMENT, Unit, VariableSettings
from shared.variables import PRODUCTION as PRODUCTION  # noqa: PLC0414 -- for other modules too
from shared.variables import SettingsError as SettingsError  # noqa: PLC0414


class BusSettings(OtelSettings, KafkaSettings, EnvironmentSettings):
    """Settings of every process: Kafka, sealing keys, environment, logs."""

    SECTIONS: ClassVar = {
        "environment": "Deployment",
        "kafka_insecure_in_production": "Kafka",
        "topic_prefix": "Deployment",
        "sealing_keys": "Sealing keys and records",
        "instance": "Process",
        "log_level": "Logs",
        "drain_seconds": "Process",
        "health_port": "Health and metrics",
    }

    topic_prefix: str = Field(default="", pattern=r"^[a-z0-9_.-]*$")
    """Prefix of every topic and consumer group, so that several deployments can share one Kafka."""
    sealing_keys: SecretStr
    """Master keys for secrets on the bus and in databases: ``id:base64 of 32 bytes``, separated by commas, the active
    one first (docs/operations.md#sealing-keys). ``echo "k1:$(openssl rand -base64 32)"`` generates one."""
    unauthenticated_records: Literal["refuse", "accept"] = "refuse"
    """``accept`` while processes of a release run that writes records without a MAC, or their records are needed:
    everyone who reaches Kafka can then act as Nest. Records with a wrong MAC are always refused
    (docs/operations.md#records-without-a-mac)."""
    instance: str = Field(default="", pattern=r"^[a-zA-Z0-9._-]*$", max_length=200)
    """Name of this process among those of its service, the same again after a restart. By default the host name and the
    lowest number that is free on this machine (docs/operations.md#restarts)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of the entries that are written."""
    log_format: Literal["json", "console"] = "json"
    """``json``: one line per entry; ``console``: for people."""
    log_levels: str = Field(default="", max_length=4_096)
    """Levels of modules that differ from ``NEST_LOG_LEVEL``: ``shared.bus=debug,aiokafka=info``. Libraries log from
    ``warning`` on by default."""
    log_sample_ratio: Annotated[float, Unit("of the lines")] = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
    """Ratio of the calls and messages that have a line in the log, from 0 to 1. Refused and failed ones always have
    one (docs/observability.md#logs)."""
    otlp_endpoint: Annotated[SecretStr, AfterValidator(is_endpoint)] | None = None
    """Earlier name of ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` (docs/observability.md#traces)."""
    drain_seconds: float = Field(default=20.0, gt=0, le=300)
    """How long a stop waits for unfinished messages."""

    @field_validator("sealing_keys")
    @classmethod
    def _well_formed(cls, value: SecretStr) -> SecretStr:
        parse_keys(value.get_secret_value())
        return value

    @field_validator("log_levels")
    @classmethod
    def _are_levels(cls, value: str) -> str:
        parse_levels(value)
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_only_endpoint(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and info.data.get("otel_exporter_otlp_traces_endpoint") is not None:
            raise ValueError("is set, and OTEL_EXPORTER_OTLP_TRACES_ENDPOINT too: remove one of them")
        return value

    def configure_logging(self, service: str) -> None:
        """Log as the settings say."""
        configure_logging(
            service,
            level=self.log_level,
            levels=parse_levels(self.log_levels),
            console=self.log_format == "console",
            sample=self.log_sample_ratio,
        )

    def tracing(self, service: str) -> Tracing:
        """Return what records the spans of a service."""
        export = self.trace_export(self.otlp_endpoint)
        return Tracing(service, export, environment=self.environment, instance=self.instance)

    def master_keys(self) -> dict[str, bytes]:
        """Return the sealing keys by key ID, the active one first."""
        return parse_keys(self.sealing_keys.get_secret_value())

    def record_macs(self, sealer: Sealer) -> RecordMacs:
        """Return what computes and checks the MACs of records."""
        return RecordMacs(sealer, prefix=self.topic_prefix, accept_missing=self.unauthenticated_records == "accept")

    def warn_of_unauthenticated_records(self) -> None:
        """Log a warning if records without a MAC are accepted."""
        if self.unauthenticated_records == "accept":
            log.warning(
                "records without a MAC are accepted",
                risks="everyone who reaches Kafka can act as Nest",
                until="the roll-out",
            )


class ServiceSettings(BusSettings):
    """Settings of every service with a database and a consumer."""

    mongo_url: SecretStr = Field(min_length=10)
    """``mongodb://…`` of a replica set, in production with credentials. Options that weaken durability or consistency
    are refused (docs/operations.md#durability)."""
    database_prefix: str = Field(default="nest_", pattern=r"^[a-zA-Z0-9_-]*$", max_length=40)
    """Prefix of the name of each service's database."""
    inbox_retention: timedelta = Field(default=timedelta(days=8), ge=timedelta(seconds=1))
    """How long a handled message is remembered; at least the retention of its topic plus 24 hours."""
    in_flight: Annotated[int, Unit("messages")] = Field(default=256, ge=1, le=10_000)
    """Queries that a process handles at the same time, and as many other messages."""
    unknown_type_hours: float = Field(default=6, gt=0, le=7 * 24)
    """How long a message of a type that only another release knows waits before it becomes a dead letter."""
    paused_minutes: float = Field(default=5, ge=0, le=24 * 60)
    """How long a partition may be paused before ``/healthz`` fails."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of ``/healthz`` and ``/metrics``; they are not served by default."""
    health_host: str = "127.0.0.1"
    """Address of the health port; ``::`` for every address, of IPv4 and IPv6."""

    @field_validator("mongo_url")
    @classmethod
    def _is_usable(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        check_url(value, credentials_required=in_production(info))
        return value


class OldClientsSettings(BusSettings):
    """Settings of old clients of the accounts API; auth and the gateway must have the same."""

    old_clients_in_production: bool = False
    """Confirms ``old_clients`` in production."""
    old_clients: bool = Field(default=False, validate_default=True)
    """Serve clients written before Nest: passwords in URLs, login with two IDs and no password, passwords of 6
    characters, changes and the deletion token for anybody who knows an owner's ID, deletion of an application for
    anybody who knows its key. Logs a warning, except in the environment ``dev``; on in the embedded mode
    (docs/http-api.md#old-clients)."""

    @field_validator("old_clients")
    @classmethod
    def _confirmed_in_production(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 -- pydantic's signature
        production = info.data.get("environment") == PRODUCTION
        if value and production and not info.data.get("old_clients_in_production"):
            raise ValueError("puts passwords into URLs; to confirm it, set NEST_OLD_CLIENTS_IN_PRODUCTION too")
        return value

    def warn_of_old_clients(self) -> None:
        """Log a warning if old clients are served; in the environment of the embedded mode, only ``info``."""
        if self.old_clients:
            write = log.info if self.environment == DEVELOPMENT else log.warning
            write(
                "old clients are served",
                risks="passwords in URLs, short passwords, logins, changes and deletions with IDs and no password",
            )


Settings = TypeVar("Settings", bound=VariableSettings)
CommaSeparated = Annotated[tuple[str, ...], NoDecode]
"""Tuple setting, written as text separated by commas; needs ``split_commas`` as a before-validator."""


def split_commas(value: Any) -> Any:
    """Convert ``"a, b"`` to ``("a", "b")``; return anything but text as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def refuse_in_production(value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 -- pydantic's signature
    """Reject a setting for tests and development in production; a validator of fields after ``environment``."""
    if value and in_production(info):
        raise ValueError("is refused in production")
    return value


def in_production(info: ValidationInfo) -> bool:
    """Return whether a validator of a field after ``environment`` must apply the rules of production.

    An invalid ``environment`` counts as production.
    """
    return bool(info.data.get("environment", PRODUCTION) == PRODUCTION)


def without_credentials(value: str | None) -> str | None:
    """Reject a URL with a user name or password, which would be readable in logs and mails; None is accepted."""
    if value is not None and "@" in urlsplit(value).netloc:
        raise ValueError("must not contain a user name or password")
    return value


def load(settings: type[Settings], **values: Any) -> Settings:
    """Load settings from the environment; ``values`` override it.

    Raises:
        SettingsError: variables are missing or invalid; the text names all of them.
    """
    try:
        return settings(**values)
    finally:
        # The variables of this frame are part of a traceback, and may be secrets.
        values.clear()


def load_all(kinds: Iterable[type[BusSettings]]) -> list[BusSettings]:
    """Load the settings of several services of one process.

    Raises:
        SettingsError: as ``load``; the text has one line for every wrong setting of all services.
    """
    loaded: list[BusSettings] = []
    lines: dict[str, None] = {}
    for kind in kinds:
        try:
            loaded.append(load(kind))
        except SettingsError as invalid:
            lines.update(dict.fromkeys(str(invalid).splitlines()))
    if lines:
        raise SettingsError("\n".join(lines))
    return loaded


def parse_keys(text: str) -> dict[str, bytes]:
    """Parse keys written as ``id:base64``, separated by commas.

    Raises:
        ValueError: the text has another form, an ID occurs twice, or a key does not have 32 bytes. The error contains
            no ID, which is a secret if somebody writes key and ID in the wrong order.
    """
    keys: dict[str, bytes] = {}
    for number, part in enumerate(text.split(","), start=1):
        key_id, colon, encoded = part.strip().partition(":")
        if not colon or not key_id.isalnum() or key_id in keys:
            raise ValueError("write it as id:base64,id:base64 with a different alphanumeric id for each key")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError(f"key {number} is not base64") from None
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {number} has {len(key)} bytes instead of {KEY_BYTES}")
        keys[key_id] = key
    return keys
