"""Access of `nest doctor` to Kafka and MongoDB, as far as this environment has credentials."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
)
from pydantic import Field, SecretStr
from pymongo.errors import OperationFailure

from services.operator.doctor.settings import PROCESSES, LoadedSettings, is_missing
from services.operator.settings import OperatorSettings
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import SERVICES
from shared.kafka_settings import KafkaSettings
from shared.mongo import Client, Database, connect, database
from shared.mongo_urls import InvalidMongoUrl
from shared.settings import SettingsError, load
from shared.variables import VariableSettings

UNAUTHORIZED: Final = 13
"""MongoDB's error code of a user without the right for a command."""
KAFKA_DENIALS: Final = {
    TopicAuthorizationFailedError: "a topic",
    GroupAuthorizationFailedError: "a consumer group",
    ClusterAuthorizationFailedError: "the cluster",
}


@dataclass(frozen=True)
class KafkaAccess:
    """The connection to Kafka as the user of one process, or why there is none.

    Attributes:
        connection: the connection; None without usable settings.
        wrong: lines about variables with wrong values.
        missing: lines about variables that are not set.
    """

    connection: KafkaConnection | None = None
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def kafka_access() -> KafkaAccess:
    """Return the access as the operator, else as the first service of which this environment has the credentials."""
    wrong: dict[str, None] = {}
    missing: dict[str, None] = {}
    for process in (OperatorSettings.PROCESS, *PROCESSES):
        try:
            return KafkaAccess(load(_kafka_settings(process)).kafka)
        except SettingsError as invalid:
            for line in str(invalid).splitlines():
                (missing if is_missing(line) else wrong)[line] = None
    return KafkaAccess(None, list(wrong), list(missing))


def _kafka_settings(process: str) -> type[KafkaSettings]:
    class _Settings(KafkaSettings):
        PROCESS = process

    return _Settings


@dataclass(frozen=True)
class MongoAccess:
    """The databases of the services, with the credentials that this environment has for each.

    Attributes:
        databases: the database of each service with a connection string, by service.
        clients: the client of each connection string, with the services that it is for.
        required: services whose database this environment must be able to read: those that belong to it, and all if
            each of them would start.
        invalid: lines about connection strings that can't be used.
    """

    databases: dict[str, Database] = field(default_factory=dict)
    clients: list[tuple[Client, list[str]]] = field(default_factory=list)
    required: frozenset[str] = frozenset()
    invalid: list[str] = field(default_factory=list)

    async def readable(self) -> Mapping[str, Database]:
        """Return the databases that their users may read.

        Raises:
            PyMongoError: MongoDB is unavailable, or refuses a login.
        """
        may = await asyncio.gather(*map(_may_read, self.databases.values()))
        return {name: each for (name, each), allowed in zip(self.databases.items(), may, strict=True) if allowed}


def mongo_access(loaded: LoadedSettings) -> MongoAccess:
    """Return the access to the databases. The clients connect with their first command."""
    invalid: dict[str, None] = {}
    by_url: dict[str, list[str]] = {}
    prefixes = {}
    for service in SERVICES:
        try:
            settings = load(_mongo_settings(service))
        except SettingsError as unusable:
            invalid.update(dict.fromkeys(str(unusable).splitlines()))
            continue
        if settings.mongo_url is not None and settings.mongo_url.get_secret_value():
            by_url.setdefault(settings.mongo_url.get_secret_value(), []).append(service)
            prefixes[service] = settings.database_prefix
    databases, clients = {}, []
    for url, services in by_url.items():
        try:
            client = connect(url, application="nest-doctor", timeout=8.0)
        except InvalidMongoUrl as unusable:
            invalid.update({f"{variable_of(service)}: {unusable}": None for service in services})
            continue
        clients.append((client, services))
        databases.update({name: database(client, prefixes[name] + name) for name in services})
    whole = set(SERVICES) <= set(loaded.settings)
    required = {name for name in databases if whole or name in loaded.belonging}
    return MongoAccess(
        {name: databases[name] for name in SERVICES if name in databases}, clients, frozenset(required), list(invalid)
    )


class _MongoSettings(VariableSettings):
    mongo_url: SecretStr | None = None
    database_prefix: str = Field(default="nest_", pattern=r"^[a-zA-Z0-9_-]*$", max_length=40)


def _mongo_settings(service: str) -> type[_MongoSettings]:
    class _Settings(_MongoSettings):
        PROCESS = service

    return _Settings


def variable_of(service: str) -> str:
    """Return the variable that a service's connection string comes from."""
    own = f"NEST_{service.upper()}_MONGO_URL"
    names = (own, f"{own}_FILE", "NEST_MONGO_URL", "NEST_MONGO_URL_FILE")
    return next((name for name in names if os.environ.get(name)), "NEST_MONGO_URL")


async def _may_read(own: Database) -> bool:
    try:
        await own["inbox"].find_one({}, {"_id": 1})
    except OperationFailure as failure:
        if failure.code == UNAUTHORIZED:
            return False
        raise
    return True


def denial(failure: BaseException) -> str | None:
    """Return what a user lacks the right to read, if that is the reason of a failure."""
    cause: BaseException | None = failure
    while cause is not None:
        for kind, resource in KAFKA_DENIALS.items():
            if isinstance(cause, kind):
                return f"the Kafka user may not read {resource}{_named(cause.args)}"
        if isinstance(cause, OperationFailure) and cause.code == UNAUTHORIZED:
            return "the MongoDB user may not read it"
        cause = cause.__cause__
    return None


def _named(arguments: Iterable[object]) -> str:
    """Return the names in the arguments of Kafka's error."""
    names = [each for argument in arguments for each in (argument if isinstance(argument, set) else [])]
    return f" ({', '.join(sorted(map(str, names)))})" if names else ""
