"""Would every service start with these variables, and what do they allow that is dangerous?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from typing import Any, Final

from services.operator.doctor.findings import Finding, ok, problem, warning
from shared.settings import BusSettings, SettingsError, load

AREA: Final = "settings"
CLASSES: Final = {
    "gateway": "GatewaySettings",
    "auth": "AuthSettings",
    "billing": "BillingSettings",
    "mailer": "MailerSettings",
    "news": "NewsSettings",
}


class Told:
    """What the services are told by this environment.

    Attributes:
        settings: of each service that would start.
        wrong: of each that would not, why; a line for each variable.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.wrong: dict[str, list[str]] = {}
        for name, kind in CLASSES.items():
            settings: type[BusSettings] = getattr(import_module(f"services.{name}.settings"), kind)
            try:
                self.settings[name] = load(settings)
            except SettingsError as error:
                self.wrong[name] = str(error).splitlines()

    def first(self, name: str, default: Any = None) -> Any:
        """A setting as the first service that has it is told."""
        for settings in self.settings.values():
            if hasattr(settings, name):
                return getattr(settings, name)
        return default


async def look_at_settings(told: Told, *, elsewhere: bool) -> AsyncIterator[Finding]:
    """Which services would not start, and why.

    Args:
        told: what they are told.
        elsewhere: they run where we are not, so nothing is known of it.
    """
    if elsewhere:
        yield warning(
            AREA, "only the gateway is looked at", "run it where the services run, with their environment, for the rest"
        )
        return
    lines: dict[str, list[str]] = {}
    for name, wrong in told.wrong.items():
        for line in wrong:
            lines.setdefault(line, []).append(name)
    for line, names in lines.items():
        yield problem(AREA, f"{line} ({', '.join(names)})", "set the variable; docs/operations.md says to what")
    if told.settings:
        yield ok(AREA, f"{', '.join(told.settings)} would start")
    production = told.first("environment") == "production"
    for finding in _allowed(told, production=production):
        yield finding


def _allowed(told: Told, *, production: bool) -> list[Finding]:
    """What is dangerous, and allowed."""
    found = []
    if told.first("old_clients"):
        found.append(
            warning(
                AREA,
                "NEST_OLD_CLIENTS is on: passwords in URLs, short passwords, logging in with two ids alone",
                "turn it off as soon as the old clients are gone",
            )
        )
    if told.first("test_login"):
        found.append(
            warning(AREA, "NEST_TEST_LOGIN is on: anybody logs in without a code", "turn it off but for tests")
        )
    if told.first("limit_lift_loopback"):
        found.append(
            warning(
                AREA,
                "NEST_LIMIT_LIFT_LOOPBACK is on: no limits per network for this machine",
                "turn it off behind a proxy",
            )
        )
    gateway = told.settings.get("gateway")
    if gateway is not None and not gateway.internal_keys:
        found.append(
            warning(
                AREA, "NEST_INTERNAL_KEYS is empty: no operator can do anything", "give one of 16 characters or more"
            )
        )
    auth = told.settings.get("auth")
    if auth is not None:
        lifted = [rule for rule, limit in _limits(auth).items() if not limit]
        if lifted:
            found.append(
                warning(
                    AREA, f"no limit at all: {', '.join(sorted(lifted))}", "set them, or be robbed of texts and mails"
                )
            )
    if not production and told.settings:
        found.append(
            warning(
                AREA,
                f"NEST_ENVIRONMENT is {told.first('environment')}: what production refuses is allowed",
                "set production where people log in",
            )
        )
    return found


def _limits(auth: Any) -> Mapping[str, Any]:
    names = [name for name in type(auth).model_fields if name.startswith("limit_") and name != "limit_lift_loopback"]
    return {f"NEST_{name.upper()}": getattr(auth, name) for name in names}
