"""What do the five services need around them, and how does one machine give it to them?

A `Machine` holds the data folder and runs Kafka, MongoDB, the Stripe double and the inbox; its `environment` is
all that a service has to be told. Whatever the real environment already says goes first.

Only what starts Kafka and MongoDB is imported at the top: reading the rest of the source takes more than a second,
and that second is well spent while those two start.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from services.embedded import ports
from services.embedded.console import Progress
from services.embedded.credentials import OperatorCredentials, generated_secrets, write_operator_credentials
from services.embedded.errors import PortTaken
from services.embedded.folder import held
from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from services.embedded.server import together

if TYPE_CHECKING:
    from services.embedded.inbox import Inbox

DRAIN_SECONDS = 2
"""How long services finish what they have begun, out of the five seconds that a stop may take."""

_READ_MEANWHILE = (
    "services.embedded.demo",
    "services.embedded.inbox",
    "services.stripe_double",
    "services.embedded.kafka_topics",
)


@dataclass(frozen=True)
class Machine:
    """A machine on which services can be started."""

    folder: Path
    base_url: str
    """Where the gateway is to listen, as a browser says it, without a slash at the end."""
    inbox: Inbox
    internal_key: str
    """What operators say: `authorization: internal <key>`."""
    environment: dict[str, str]
    """The services' settings by the names of their variables."""


@asynccontextmanager
async def machine(
    folder: Path, *, host: str, port: int, progress: Progress, modules: tuple[str, ...] = ()
) -> AsyncIterator[Machine]:
    """A machine, for as long as the block lasts.

    Args:
        folder: where everything is kept.
        host: the address that the gateway is to listen on.
        port: and its port.
        progress: told what happens.
        modules: what will be needed later, imported while Kafka and MongoDB start.

    Raises:
        CannotStart: a part of it could not be started; the text is one line with what to do.
    """
    if not ports.is_free(port, host):
        raise PortTaken("Nest", port, "stop that program, or choose another port with --port or NEST_PORT")
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(held(folder))
        kafka, mongo = Kafka(folder, progress), Mongo(folder, progress)
        stack.push_async_callback(lambda: together(kafka.stop(), mongo.stop()))
        await together(
            kafka.start(),
            mongo.start(),
            asyncio.to_thread(_read, (*_READ_MEANWHILE, *modules)),
        )
        yield await _surround(stack, folder, kafka, mongo, host=host, port=port)


async def _surround(
    stack: AsyncExitStack, folder: Path, kafka: Kafka, mongo: Mongo, *, host: str, port: int
) -> Machine:
    from services.embedded.demo import trial_price  # noqa: PLC0415 - see the top
    from services.embedded.inbox import Inbox  # noqa: PLC0415
    from services.embedded.kafka_topics import make_ready  # noqa: PLC0415
    from services.stripe_double import StripeDouble  # noqa: PLC0415

    base_url = f"http://{ports.LOOPBACK if host == '0.0.0.0' else host}:{port}"
    secrets = generated_secrets(folder)
    inbox = Inbox(folder)
    stripe = StripeDouble(
        api_key=secrets.stripe_api_key,
        webhook_url=f"{base_url}/1/webhook/stripe",
        webhook_secrets=[secrets.webhook_secret],
        folder=folder,
    )
    await together(
        stack.enter_async_context(inbox),
        stack.enter_async_context(stripe),
        *([make_ready(kafka.own)] if kafka.own else []),
    )
    ours = {
        "NEST_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "NEST_MONGO_URL": mongo.url,
        # Those of the command line, which may have come from there.
        "NEST_HOST": host,
        "NEST_PORT": str(port),
    }
    default = {
        "NEST_ENVIRONMENT": "dev",
        "NEST_ISSUER": base_url,
        "NEST_SEALING_KEYS": secrets.sealing_key,
        "NEST_INTERNAL_KEYS": secrets.internal_key,
        "NEST_STRIPE_LIVEMODE": "false",
        "NEST_STRIPE_API_KEY": secrets.stripe_api_key,
        "NEST_STRIPE_API_BASE": stripe.url,
        # The double has no limits, and whoever plays with it should not wait.
        "NEST_STRIPE_CALLS_PER_SECOND": "1000",
        "NEST_STRIPE_WEBHOOK_SECRETS": secrets.webhook_secret,
        "NEST_STRIPE_TRIAL_PRICE": await trial_price(secrets.stripe_api_key, stripe.url),
        "NEST_STRIPE_PORTAL_RETURN_URL": f"{base_url}/",
        "NEST_SMTP_HOST": ports.LOOPBACK,
        "NEST_SMTP_PORT": str(inbox.smtp_port),
        "NEST_SMTP_TLS": "none",
        "NEST_MAIL_FROM": "Beak <hello@beak.example>",
        "NEST_MAIL_PRODUCT_NAME": "Beak",
        "NEST_MAIL_SUPPORT_ADDRESS": "help@beak.example",
        # An app's own tests all come from this machine.
        "NEST_LIMIT_LIFT_LOOPBACK": "true",
        # So that every call of the accounts API works as it did before Nest.
        "NEST_OLD_CLIENTS": "true",
        "NEST_TEXT_PROVIDER": "inbox",
        "NEST_TEXT_COUNTRIES": "all",
        # Where a browser on this machine finds the app that is being written.
        "NEST_TEXT_DOMAIN": "localhost",
        "NEST_TEST_LOGIN": "true",
        "NEST_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "NEST_LOG_FORMAT": "console",
    }
    environment = default | {name: os.environ[name] for name in default if name in os.environ} | ours
    internal_key = environment["NEST_INTERNAL_KEYS"].partition(",")[0].strip()
    write_operator_credentials(folder, OperatorCredentials(base_url, internal_key, environment))
    return Machine(folder, base_url, inbox, internal_key, environment)


def _read(modules: tuple[str, ...]) -> None:
    for name in modules:
        import_module(name)


class Kafka:
    """NEST_KAFKA_BOOTSTRAP, else an embedded Kafka.

    Attributes:
        bootstrap: its address, once started.
        own: the embedded one, if it is that.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.bootstrap = os.environ.get("NEST_KAFKA_BOOTSTRAP", "")
        self.own = None if self.bootstrap else EmbeddedKafka(folder, progress=progress)

    async def start(self) -> None:
        """Returns when it takes requests; raises CannotStart."""
        if self.own:
            await self.own.start()
            self.bootstrap = self.own.bootstrap

    async def stop(self) -> None:
        """Returns when it is gone; leaves one that the environment names alone."""
        if self.own:
            await self.own.stop()


class Mongo:
    """NEST_MONGO_URL, else an embedded MongoDB.

    Attributes:
        url: its address, once started.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.url = os.environ.get("NEST_MONGO_URL", "")
        self._own = None if self.url else EmbeddedMongo(folder, progress=progress)

    async def start(self) -> None:
        """Returns when it takes requests; raises CannotStart."""
        if self._own:
            await self._own.start()
            self.url = self._own.url

    async def stop(self) -> None:
        """Returns when it is gone; leaves one that the environment names alone."""
        if self._own:
            await self._own.stop()
