"""What do the five services need around them, and how does one machine give it to them?

A `Machine` holds the data folder and runs Kafka, MongoDB, the Stripe double and the inbox; its `environment` is
all that a service has to be told. Whatever the real environment already says goes first.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.embedded import demo, ports
from services.embedded.dead_members import show_out_dead_members
from services.embedded.errors import PortTaken
from services.embedded.folder import held
from services.embedded.inbox import Inbox
from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from services.embedded.own_secrets import own_secrets
from services.embedded.progress import Progress
from services.embedded.stripe import StripeDouble
from services.embedded.together import together
from shared import topics

PARTITIONS = 4
"""Of each topic; one machine has no use for more, and each costs memory and files."""
DRAIN_SECONDS = 2
"""How long services finish what they have begun, out of the five seconds that a stop may take."""


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
async def machine(folder: Path, *, host: str, port: int, progress: Progress) -> AsyncIterator[Machine]:
    """A machine, for as long as the block lasts.

    Raises:
        CannotStart: a part of it could not be started; the text is one line with what to do.
    """
    if not ports.is_free(port, host):
        raise PortTaken("Nest", port, "stop that program, or choose another port with --port or NEST_PORT")
    base_url = f"http://{ports.LOOPBACK if host == '0.0.0.0' else host}:{port}"
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(held(folder))
        secrets = own_secrets(folder)
        inbox = Inbox(folder)
        stripe = StripeDouble(
            api_key=secrets.stripe_api_key,
            webhook_url=f"{base_url}/1/webhook/stripe",
            webhook_secrets=[secrets.webhook_secret],
            folder=folder,
        )
        kafka, mongo = _Kafka(folder, progress), _Mongo(folder, progress)
        await together(*(stack.enter_async_context(part) for part in (inbox, stripe, kafka, mongo)))
        price = await demo.trial_price(secrets.stripe_api_key, stripe.url)
        environment = {
            "NEST_ENVIRONMENT": "dev",
            "NEST_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "NEST_MONGO_URL": mongo.url,
            "NEST_HOST": host,
            "NEST_PORT": str(port),
            "NEST_ISSUER": base_url,
            "NEST_SEALING_KEYS": secrets.sealing_key,
            "NEST_INTERNAL_KEYS": secrets.internal_key,
            "NEST_STRIPE_LIVEMODE": "false",
            "NEST_STRIPE_API_KEY": secrets.stripe_api_key,
            "NEST_STRIPE_API_BASE": stripe.url,
            "NEST_STRIPE_WEBHOOK_SECRETS": secrets.webhook_secret,
            "NEST_STRIPE_TRIAL_PRICE": price,
            "NEST_STRIPE_PORTAL_RETURN_URL": f"{base_url}/",
            "NEST_SMTP_HOST": ports.LOOPBACK,
            "NEST_SMTP_PORT": str(inbox.smtp_port),
            "NEST_SMTP_TLS": "none",
            "NEST_MAIL_FROM": "Beak <hello@beak.example>",
            "NEST_MAIL_PRODUCT_NAME": "Beak",
            "NEST_MAIL_SUPPORT_ADDRESS": "help@beak.example",
            "NEST_DRAIN_SECONDS": str(DRAIN_SECONDS),
            "NEST_LOG_FORMAT": "console",
        }
        given = {name: value for name, value in os.environ.items() if name in environment}
        yield Machine(folder, base_url, inbox, secrets.internal_key, environment | given)


class _Kafka:
    """The Kafka that the environment names, else one of our own with the topics made."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.bootstrap = os.environ.get("NEST_KAFKA_BOOTSTRAP", "")
        self._own = None if self.bootstrap else EmbeddedKafka(folder, progress=progress)

    async def __aenter__(self) -> None:
        if self._own:
            await self._own.start()
            self.bootstrap = self._own.bootstrap
            await topics.apply(self.bootstrap, most_partitions=PARTITIONS)
            if self._own.left_over:
                await show_out_dead_members(self._own, topics.SERVICES)

    async def __aexit__(self, *_: object) -> None:
        if self._own:
            await self._own.stop()


class _Mongo:
    """The MongoDB that the environment names, else one of our own."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.url = os.environ.get("NEST_MONGO_URL", "")
        self._own = None if self.url else EmbeddedMongo(folder, progress=progress)

    async def __aenter__(self) -> None:
        if self._own:
            await self._own.start()
            self.url = self._own.url

    async def __aexit__(self, *_: object) -> None:
        if self._own:
            await self._own.stop()
