"""Everything that the five services need on one machine: Kafka, MongoDB, Stripe double, inbox and settings.

Settings in the environment take precedence over those of the machine.

At the top only the imports for starting Kafka and MongoDB are allowed. The other imports take more than a second and
run while those two start.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.embedded import ports
from services.embedded.child_server import run_all
from services.embedded.console import Progress
from services.embedded.credentials import OperatorCredentials, generated_secrets, write_operator_credentials
from services.embedded.errors import PortTaken
from services.embedded.folder import lock_folder
from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo

if TYPE_CHECKING:
    from services.embedded.mail_inbox import Inbox
    from services.embedded.stripe import StripeUse

PARTITIONS = 4
"""Maximum partitions per topic: one machine needs no more, and each costs memory and files."""
DRAIN_SECONDS = 2
"""How long services may take to finish messages, of the five seconds for a stop."""

DEFAULTS: Mapping[str, str] = {
    "NEST_ENVIRONMENT": "dev",
    "NEST_STRIPE_LIVEMODE": "false",
    # The double has no rate limits.
    "NEST_STRIPE_CALLS_PER_SECOND": "1000",
    "NEST_SMTP_TLS": "none",
    "NEST_MAIL_FROM": "Demo <hello@demo.example>",
    "NEST_MAIL_PRODUCT_NAME": "Demo",
    "NEST_MAIL_SUPPORT_ADDRESS": "help@demo.example",
    # All requests of an app's own tests come from this machine.
    "NEST_LIMIT_LIFT_LOOPBACK": "true",
    # Enables every call of the accounts API that old clients make.
    "NEST_OLD_CLIENTS": "true",
    "NEST_ACCOUNTS_API": "true",
    "NEST_PHONE_API": "true",
    "NEST_TEXT_PROVIDER": "inbox",
    "NEST_WEBHOOK_PRIVATE_ADDRESSES": "true",
    "NEST_TEXT_COUNTRIES": "all",
    # The app under development runs on this machine.
    "NEST_TEXT_DOMAIN": "localhost",
    "NEST_TEST_LOGIN": "true",
    "NEST_CONSOLE_OPEN": "true",
    "NEST_USER_SEARCH": "part",
    "NEST_DRAIN_SECONDS": str(DRAIN_SECONDS),
    "NEST_LOG_FORMAT": "console",
}
"""Variables of the services that differ here from their defaults; the others are generated or addresses."""

_MODULES = (
    "services.embedded.demo",
    "services.embedded.mail_inbox",
    "services.embedded.stripe",
    "services.stripe_double",
    "shared.bus.topics",
)


@dataclass(frozen=True)
class Machine:
    """A machine on which services can be started."""

    folder: Path
    base_url: str
    """URL of the gateway, as in a browser, without a slash at the end."""
    inbox: Inbox
    stripe: StripeUse
    internal_key: str = field(repr=False)
    """The operators' key: `authorization: internal <key>`."""
    environment: dict[str, str] = field(repr=False)
    """The services' environment variables."""


@asynccontextmanager
async def run_machine(
    folder: Path, *, host: str, port: int, progress: Progress, modules: tuple[str, ...] = ()
) -> AsyncIterator[Machine]:
    """Run a machine while the context is entered.

    Args:
        folder: folder for all data.
        host: address of the gateway.
        port: port of the gateway.
        progress: receives the steps.
        modules: further modules to import while Kafka and MongoDB start.

    Raises:
        CannotStart: a part could not start; the text is one line with the remedy.
    """
    if not ports.is_free(port, host):
        raise PortTaken("Nest", port, "stop that program, or choose another port with --port or NEST_PORT")
    if any(_given("NEST_STRIPE_API_KEY").values()):
        from services.embedded.stripe import check_given  # noqa: PLC0415 - see the module's docstring

        check_given()  # before Kafka and MongoDB start
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(lock_folder(folder))
        kafka = None if os.environ.get("NEST_KAFKA_BOOTSTRAP") else EmbeddedKafka(folder, progress=progress)
        mongo = None if any(_given("NEST_MONGO_URL").values()) else EmbeddedMongo(folder, progress=progress)
        servers = [server for server in (kafka, mongo) if server]
        stack.push_async_callback(lambda: run_all(*(server.stop() for server in servers)))
        await run_all(*(server.start() for server in servers), asyncio.to_thread(_import, (*_MODULES, *modules)))
        base_url = ports.url(host, port)
        backing = {
            "NEST_KAFKA_BOOTSTRAP": kafka.bootstrap if kafka else os.environ["NEST_KAFKA_BOOTSTRAP"],
            **({"NEST_MONGO_URL": mongo.url} if mongo else _given("NEST_MONGO_URL")),
            # These come from the command line.
            "NEST_HOST": host,
            "NEST_PORT": str(port),
        }
        yield await _start_doubles(stack, folder, kafka, base_url, backing)


async def _start_doubles(
    stack: AsyncExitStack, folder: Path, kafka: EmbeddedKafka | None, base_url: str, backing: dict[str, str]
) -> Machine:
    """Start the inbox and the Stripe double, prepare Kafka, and make the services' settings."""
    from services.embedded.mail_inbox import Inbox  # noqa: PLC0415 - see the module's docstring
    from services.embedded.settings import EmbeddedSettings  # noqa: PLC0415
    from services.embedded.stripe import open_stripe  # noqa: PLC0415
    from shared.bus import topics  # noqa: PLC0415
    from shared.bus.kafka_connection import KafkaConnection  # noqa: PLC0415
    from shared.sealing import Sealer  # noqa: PLC0415
    from shared.settings import SettingsError, load, parse_keys  # noqa: PLC0415

    secrets = generated_secrets(folder)
    given = load(EmbeddedSettings)
    sealing_key = secrets.sealing_key if given.sealing_keys is None else given.sealing_keys.get_secret_value()
    try:
        inbox = Inbox(folder, Sealer(parse_keys(sealing_key)))
    except ValueError as invalid:
        raise SettingsError(f"NEST_SEALING_KEYS: {invalid}") from None
    starting: list[Coroutine[Any, Any, Any]] = [stack.enter_async_context(inbox)]
    if kafka is not None:
        prefix = os.environ.get("NEST_TOPIC_PREFIX", "")
        starting.append(topics.apply(KafkaConnection(kafka.bootstrap), prefix=prefix, max_partitions=PARTITIONS))
    await run_all(*starting)
    use = await stack.enter_async_context(open_stripe(folder, secrets, base_url))
    defaults = {
        "NEST_ISSUER": base_url,
        "NEST_SEALING_KEYS": secrets.sealing_key,
        "NEST_INTERNAL_KEYS": secrets.internal_key,
        "NEST_STRIPE_PORTAL_RETURN_URL": f"{base_url}/",
        "NEST_SMTP_HOST": ports.LOOPBACK,
        "NEST_SMTP_PORT": str(inbox.smtp_port),
        **DEFAULTS,
        **use.environment,
    }
    environment = backing.copy()
    for name, default in defaults.items():
        environment |= _given(name) or {name: default}
    keys = secrets.internal_key if given.internal_keys is None else given.internal_keys.get_secret_value()
    name, colon, key = keys.partition(",")[0].partition(":")
    internal_key = (key if colon else name).strip()
    write_operator_credentials(folder, OperatorCredentials(base_url, internal_key, environment))
    return Machine(folder, base_url, inbox, use, internal_key, environment)


def _given(variable: str) -> dict[str, str]:
    """Return the variable, and the variable of its file with an absolute path, as far as the environment has them."""
    file = variable + "_FILE"
    given = {name: os.environ[name] for name in (variable, file) if name in os.environ}
    return given | ({file: str(Path(given[file]).absolute())} if given.get(file) else {})


def _import(modules: tuple[str, ...]) -> None:
    for name in modules:
        import_module(name)
