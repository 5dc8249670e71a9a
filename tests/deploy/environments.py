"""Environment variables of the services, and a check that a service would start with a given environment."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from typer.main import get_command

from services import cli
from services.auth.settings import AuthSettings
from services.billing.settings import BillingSettings
from services.gateway.settings import GatewaySettings
from services.mailer.settings import MailerSettings
from services.news.settings import NewsSettings
from services.reference.settings import COMMANDS
from shared.settings import BusSettings, load
from shared.variables import PREFIX, VariableSettings

ROOT: Final = Path(__file__).parents[2]
COMMAND_LINE: Final[Any] = get_command(cli.app)
"""Built once, because that takes 0.1 s."""
SETTINGS: Final[dict[str, type[BusSettings]]] = {
    "gateway": GatewaySettings,
    "auth": AuthSettings,
    "billing": BillingSettings,
    "mailer": MailerSettings,
    "news": NewsSettings,
}
STAND_INS: Final = {
    "NEST_SEALING_KEYS": f"k1:{base64.b64encode(bytes(32)).decode()}",
    **{
        f"NEST_{name}_KAFKA_PASSWORD": "a password of a test"
        for name in ("GATEWAY", "AUTH", "BILLING", "MAILER", "NEWS", "OPERATOR")
    },
    "NEST_MONGO_URL": "mongodb://nest:hunter2@mongo:27017/?replicaSet=rs0",
    **{
        f"NEST_{name}_MONGO_URL": f"mongodb://{name.lower()}:hunter2@mongo:27017/?replicaSet=rs0"
        for name in ("AUTH", "BILLING", "MAILER", "NEWS")
    },
    "NEST_INTERNAL_KEYS": "test:7f4e1c02b9a86d35e0c17b94d2f6a358",
    "NEST_STRIPE_API_KEY": "sk_test_of_a_test",
    "NEST_STRIPE_WEBHOOK_SECRETS": "whsec_of_one_single_test",
    "NEST_STRIPE_TRIAL_PRICE": "price_of_a_test",
    "NEST_STRIPE_PORTAL_RETURN_URL": "https://example.com/account",
    "NEST_SMTP_PASSWORD": "a password of a test",
    "NEST_SMTP_SECOND_PASSWORD": "",
    "NEST_MAIL_WEBHOOK_SECRETS": "",
    "NEST_TWILIO_AUTH_TOKEN": "a token of a test",
    "NEST_MAILCHIMP_API_KEY": "",
    "NEST_MAIL_FROM": "Example <mail@example.com>",
    "NEST_MAIL_PRODUCT_NAME": "Example",
    "NEST_MAIL_SUPPORT_ADDRESS": "support@example.com",
}
"""Values that an operator fills in."""


def variables(service: str) -> set[str]:
    """Return the environment variables that a service reads and that are not its own."""
    return {SETTINGS[service].variable(name) for name in SETTINGS[service].model_fields}


def own_variables(process: str) -> set[str]:
    """Return the environment variables that only one process reads."""
    return {f"{PREFIX}{process}_{name}".upper() for name in VariableSettings.OWN}


def other_variables() -> set[str]:
    """Return the variables that stand for documented ones, and those of the commands of `nest`.

    They are those of files with secrets, and those of one process.
    """
    found: set[str] = set()
    for kind in (*SETTINGS.values(), *COMMANDS):
        for field in kind.model_fields:
            own = {f"{PREFIX}{kind.PROCESS}_{field}".upper()} if kind.PROCESS and field in kind.OWN else set()
            names = own | {kind.variable(field)}
            found |= names | ({f"{name}_FILE" for name in names} if kind.secret(field) else set())
    return found


def all_variables() -> set[str]:
    """Return the environment variables of all services."""
    return set().union(*map(variables, SETTINGS))


def command_variables() -> set[str]:
    """Return the environment variables that the `nest` command reads as options."""
    return {str(option.envvar) for command in _commands(COMMAND_LINE) for option in command.params} - {"None"}


def settings(service: str, environment: Mapping[str, str]) -> BusSettings:
    """Load the settings of a service from exactly this environment.

    Raises:
        SettingsError: the service would not start.
    """
    with patch.dict(os.environ, environment, clear=True):
        return load(SETTINGS[service])


def command_named(words: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Parse a command line of `nest` in this environment and return the command's path; nothing is run.

    Raises:
        Exception: typer's, for a command line that does not parse.
    """
    with patch.dict(os.environ, environment or {}, clear=True):
        command = COMMAND_LINE
        context = command.make_context("nest", list(words))
        while hasattr(context.command, "commands"):
            name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context(name, rest, parent=context)
        return str(context.command_path)


def _commands(command: Any) -> list[Any]:
    children = [child for each in getattr(command, "commands", {}).values() for child in _commands(each)]
    return [command, *children]
