"""Check of the services' settings: would each service start, and which dangerous options are set?"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Iterator
from importlib import import_module
from typing import Any, Final

from services.operator.doctor.findings import Finding, ok, problem, skipped, warning
from services.operator.settings import DiagnosticSettings
from shared.settings import SettingsError, load, parse_keys
from shared.variables import FILE, PREFIX, VariableSettings

PROCESSES: Final = ("gateway", "auth", "billing", "mailer", "news")


class LoadedSettings:
    """The services' settings in this environment.

    An environment may be that of one service, as in its pod, of several, or of none. A service belongs to it if it is
    in ``required``, or if a variable of its own is set, such as ``NEST_AUTH_MONGO_URL``. Of the other services, those
    whose variables are missing here have another environment.

    Attributes:
        settings: those of every service that would start, by service.
        errors: lines about services that would not start although they belong here, or with wrong values, by service.
        absent: lines about the missing variables of services with another environment, by service.
        belonging: the services that belong to this environment.
    """

    def __init__(self, required: Collection[str] = ()) -> None:
        self.settings: dict[str, Any] = {}
        self.errors: dict[str, list[str]] = {}
        self.absent: dict[str, list[str]] = {}
        self.belonging = {name for name in PROCESSES if name in required or has_own_variable(name)}
        for service in PROCESSES:
            settings = getattr(import_module(f"services.{service}.settings"), f"{service.title()}Settings")
            try:
                self.settings[service] = load(settings)
            except SettingsError as error:
                lines = str(error).splitlines()
                missing = [] if service in self.belonging else [line for line in lines if is_missing(line)]
                if missing:
                    self.absent[service] = missing
                if wrong := [line for line in lines if line not in missing]:
                    self.errors[service] = wrong

    def sealing_keys(self) -> dict[str, bytes] | None:
        """Return the sealing keys, the active one first; None if no service would start and they are not set."""
        for settings in self.settings.values():
            keys: dict[str, bytes] = settings.master_keys()
            return keys
        try:
            return parse_keys(load(DiagnosticSettings).sealing_keys.get_secret_value())
        except (SettingsError, ValueError):
            return None

    def first(self, name: str, default: Any = None) -> Any:
        """Return a setting of the first service that has it."""
        for settings in self.settings.values():
            if hasattr(settings, name):
                return getattr(settings, name)
        return default


def has_own_variable(process: str) -> bool:
    """Whether a variable of this process only is set, such as ``NEST_AUTH_KAFKA_PASSWORD``."""
    names = [f"{PREFIX}{process}_{name}".upper() for name in VariableSettings.OWN]
    return any(os.environ.get(name) or os.environ.get(name + FILE) for name in names)


def is_missing(line: str) -> bool:
    """Whether a line of a ``SettingsError`` is about a variable that this environment does not have."""
    name = line.partition(":")[0]
    return name.startswith(PREFIX) and name not in os.environ


async def check_settings(loaded: LoadedSettings, *, services_known: bool) -> AsyncIterator[Finding]:
    """Report services that would not start, with the reasons, and dangerous options.

    If the environment is not that of the services, nothing is checked.
    """
    if not services_known:
        yield skipped(
            "only the gateway is checked: this environment has no settings of Kafka, MongoDB and the services",
            "run nest doctor where the services run, with their environment",
        )
        return
    services: dict[str, list[str]] = {}
    for service, lines in loaded.errors.items():
        for line in lines:
            services.setdefault(line, []).append(service)
    for line, names in services.items():
        yield problem(f"{line} ({', '.join(names)})", "set the variable; docs/settings.md lists its values")
    if loaded.settings:
        yield ok(f"{', '.join(loaded.settings)} would start")
    for service, lines in loaded.absent.items():
        yield skipped(
            f"{service} has another environment: {', '.join(line.partition(':')[0] for line in lines)} not set here",
            "run nest doctor in it too; if it should be this one, --service reports what is missing",
        )
    for finding in _dangers(loaded):
        yield finding


def _dangers(loaded: LoadedSettings) -> Iterator[Finding]:
    if loaded.first("old_clients"):
        yield warning(
            "NEST_OLD_CLIENTS is on: passwords in URLs, short passwords, and logins, changes and deletions with IDs"
            " alone are accepted",
            "turn it off once the old clients are gone",
            embedded="apps that are older than Nest are served (NEST_OLD_CLIENTS), by design on a developer's machine",
        )
    if loaded.first("test_login"):
        yield warning(
            "NEST_TEST_LOGIN is on: anybody can log in without a code",
            "turn it off outside of tests",
            embedded="tests can log in without a code (NEST_TEST_LOGIN), by design on a developer's machine",
        )
    if loaded.first("unauthenticated_records") == "accept":
        yield warning(
            "NEST_UNAUTHENTICATED_RECORDS is accept: everyone who reaches Kafka can act as Nest",
            "remove it once every process has run this release for a day",
        )
    if loaded.first("limit_lift_loopback"):
        yield warning(
            "NEST_LIMIT_LIFT_LOOPBACK is on: requests from this machine have no network rate limits",
            "turn it off behind a proxy",
            embedded="requests from this machine have no network rate limits (NEST_LIMIT_LIFT_LOOPBACK), by design",
        )
    gateway, auth = loaded.settings.get("gateway"), loaded.settings.get("auth")
    if gateway is not None and not gateway.internal_keys:
        yield warning(
            "NEST_INTERNAL_KEYS is empty: no operator can call Nest",
            "add one: ops:<key>, with a key of openssl rand -hex 24",
        )
    unlimited = sorted(
        f"NEST_{name.upper()}"
        for name in (type(auth).model_fields if auth is not None else ())
        if name.startswith("limit_") and name != "limit_lift_loopback" and not getattr(auth, name)
    )
    if unlimited:
        yield warning(
            f"no rate limit: {', '.join(unlimited)}", "set them, or attackers send texts and mails at your cost"
        )
    environment = loaded.first("environment")
    if loaded.settings and environment != "production":
        yield warning(
            f"NEST_ENVIRONMENT is {environment}: options that production refuses are allowed",
            "set it to production where users log in",
            embedded=f"NEST_ENVIRONMENT is {environment}, by design on a developer's machine",
        )
