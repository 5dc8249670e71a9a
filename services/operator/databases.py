"""Databases of the services, for operator commands that have the services' variables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Final

import typer
from pymongo.errors import PyMongoError

from services.operator.client import CommandError
from services.operator.settings import DatabaseSettings
from shared.bus.topics import SERVICES
from shared.migrations import Migrations
from shared.mongo import OPERATION_SECONDS, Database, connect, database, describe_failure
from shared.mongo_urls import InvalidMongoUrl
from shared.settings import load, parse_keys
from shared.variables import SettingsError

COMMAND_SECONDS: Final = 600.0
"""Timeout of one operation; counting the documents of a large collection reads all of it."""


@asynccontextmanager
async def opened_database(
    service: str, *, timeout: float = OPERATION_SECONDS
) -> AsyncIterator[tuple[Database, dict[str, bytes]]]:
    """Open the database of a service with its credentials, and return it with the sealing keys.

    Args:
        service: name of the service.
        timeout: seconds that one operation may take.

    Raises:
        CommandError: a setting is missing or invalid, or MongoDB fails while the context is entered.
    """
    settings_class = type("ServiceDatabaseSettings", (DatabaseSettings,), {"PROCESS": service})
    try:
        settings: DatabaseSettings = load(settings_class)
        keys = parse_keys(settings.sealing_keys.get_secret_value())
        client = connect(settings.mongo_url, application="nest-operator", timeout=timeout)
    except (SettingsError, InvalidMongoUrl, ValueError) as invalid:
        raise CommandError("; ".join(str(invalid).splitlines())) from None
    try:
        yield database(client, settings.database_prefix + service), keys
    except PyMongoError as failure:
        reason = describe_failure(failure)[:300]
        raise CommandError(f"MongoDB failed ({type(failure).__name__}: {reason}); run it again to continue") from None
    finally:
        await client.close()


def chosen_services(services: Sequence[str] | None) -> list[str]:
    """Return the services of an option, all those with a database by default; raise typer.BadParameter for others."""
    if unknown := sorted(set(services or ()) - set(SERVICES)):
        raise typer.BadParameter(f"no service with a database: {', '.join(unknown)}")
    return list(services or SERVICES)


def migrations_of(service: str) -> Migrations:
    """Return the migrations of a service."""
    found: Migrations = import_module(f"services.{service}.app").MIGRATIONS
    return found
