"""A harness of the billing service with a Stripe double."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from services.billing.app import INDEXES, open_context
from services.billing.handlers import HANDLERS
from services.billing.settings import BillingSettings
from services.billing.stripe_api.calls import Timeouts
from services.stripe_double import StripeDouble
from services.stripe_double.invoices import payment_intent_of
from shared.ids import derived_message_id
from shared.messages import Command, Message
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.billing.plans import SyncCatalog
from shared.messages.billing.stripe_events import StripeEvent, StripeReread, StripeThinEvent
from shared.messages.mailer.mails import SendMail
from shared.settings import load
from tests.service_harness import ServiceHarness

API_KEY = "sk_test_billing"
ADA = {"user_id": "user_ada"}
"""Metadata that names the user Ada."""
MONTH = timedelta(days=32)
FAST = Timeouts(attempt=0.3, call=3.0, portal=0.4, retry_pause=0.01)
EVENT = StripeEvent.model_validate(
    {"id": "evt_1", "type": "x", "created": 0, "livemode": False, "data": {"object": {"object": "x", "id": "x"}}}
)


class Shop:
    """The billing service with a Stripe account that sells one price.

    Attributes:
        harness: of the billing service.
        double: the Stripe account.
        price: ID of the price.
        settings: of the billing service.
        users: user IDs that auth returns, by address.
    """

    def __init__(self, harness: ServiceHarness, double: StripeDouble, price: str, settings: BillingSettings) -> None:
        self.harness = harness
        self.double = double
        self.price = price
        self.settings = settings
        self.users: dict[str, str] = {}
        self._settled = 0

    async def post(self, path: str, **form: Any) -> dict[str, Any]:
        """Call the Stripe API as another client than billing."""
        return await post(self.double, path, **form)

    def events_of(self, subscription_id: str) -> list[dict[str, Any]]:
        """The events about a subscription, in the order of creation."""
        return [
            event
            for event in self.double.objects("event")
            if event["type"].startswith("customer.subscription.") and event["data"]["object"]["id"] == subscription_id
        ]

    async def next_second(self) -> None:
        """Advance Stripe's clock, whose whole seconds decide which of two subscriptions is the older one."""
        await self.double.clock.advance(timedelta(seconds=1))

    async def deliver(self, event: dict[str, Any], *, process: bool = True) -> None:
        """Deliver an event as the gateway does; a repeat has the same message ID.

        Args:
            event: Stripe's event.
            process: deliver the commands that it causes at once; otherwise ``settle`` delivers them.
        """
        known = len(self.harness.published)
        message_id = derived_message_id("stripe", "", "test", event["id"])
        message = EVENT.model_copy(update={"key": event["data"]["object"].get("customer") or event["id"]})
        await self.harness.deliver(message, id=message_id, body=json.dumps(event).encode())
        if process:
            await self._process(known)

    async def deliver_thin(self, event: dict[str, Any]) -> None:
        """Deliver a thin event as the gateway does, and the commands that it causes."""
        known = len(self.harness.published)
        message_id = derived_message_id("stripe", "", "test", event["id"])
        related = event["related_object"] or {}
        message = StripeThinEvent(key=related.get("id", ""), id=event["id"], type=event["type"], livemode=False)
        await self.harness.deliver(message, id=message_id, body=json.dumps(event).encode())
        await self._process(known)

    async def _process(self, known: int) -> None:
        for command in self.harness.published[known:]:
            if isinstance(command, StripeReread):
                await self.harness.deliver(command)

    async def settle(self) -> None:
        """Deliver the commands that billing published to itself, and auth's replies, until none is left."""
        while self._settled < len(self.harness.published):
            message: Message = self.harness.published[self._settled]
            self._settled += 1
            if isinstance(message, EnsureUser):
                user_id = self.users.setdefault(message.email, f"user_{len(self.users) + 1}")
                await self.harness.deliver(
                    UserEnsured(key=message.reference, reference=message.reference, user_id=user_id)
                )
            elif isinstance(message, Command) and message.service == "billing":
                await self.harness.deliver(message)

    async def deliver_all(self) -> None:
        """Deliver every event once, in order, and all commands that follow."""
        for event in self.double.objects("event"):
            await self.deliver(event)
        await self.settle()

    async def read_catalog(self) -> None:
        """Read all products and prices, as a new installation does."""
        await self.harness.deliver(SyncCatalog())
        await self.settle()

    async def subscribe_twice(self, **second: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Two subscriptions of Ada; the events of the second one are not delivered yet."""
        first = self.double.simulate.checkout(self.price, email="ada@example.com", metadata=ADA)
        await self.deliver_all()
        await self.next_second()
        return first, self.double.simulate.checkout(self.price, customer=first["customer"], metadata=ADA, **second)

    def subscription_with_events(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A subscription of Ada with six events."""
        made = self.double.simulate.checkout(self.price, email="ada@example.com", metadata=ADA)
        for _ in range(2):
            self.double.simulate.cancel(made["id"])
            self.double.simulate.reactivate(made["id"])
        return made, self.events_of(made["id"])

    async def deliver_types(self, *types: str) -> None:
        """Deliver all events of these types, in order, and all commands that follow."""
        for event in self.double.objects("event"):
            if event["type"] in types:
                await self.deliver(event)
        await self.settle()

    async def declined_renewal(self, **options: Any) -> dict[str, Any]:
        """A subscription of Ada whose renewal was declined."""
        made = self.double.simulate.checkout(self.price, email="ada@example.com", metadata=ADA, **options)
        self.double.simulate.decline(made["customer"])
        await self.double.clock.advance(MONTH)
        self.harness.now = self.double.clock.time
        return self.double.object("subscription", made["id"])

    def payment_intent_of(self, subscription: dict[str, Any]) -> dict[str, Any]:
        """The payment intent of the latest invoice of a subscription."""
        invoice = self.double.object("subscription", subscription["id"])["latest_invoice"]
        found = payment_intent_of(self.double.account, self.double.object("invoice", invoice))
        assert found is not None
        return self.double.object("payment_intent", found["id"])

    def reads(self, path: str) -> int:
        """The number of times that billing read this path of the Stripe API."""
        return sum(call.path == path for call in self.double.log if call.method == "GET")

    def mails(self) -> list[tuple[str, str]]:
        """Template and address of the mails ordered so far."""
        return [
            (mail.template, self.harness.unseal_secret("mailer", mail.to))
            for mail in self.harness.published_of(SendMail)
        ]

    async def record(self, stripe_id: str) -> dict[str, Any]:
        """The document of a subscription."""
        found = await self.harness.database["subscriptions"].find_one({"stpSubscriptionId": stripe_id})
        assert found is not None
        return found

    async def payment(self, intent_id: str) -> dict[str, Any]:
        """The document of a payment intent."""
        found = await self.harness.database["payments"].find_one({"stpPaymentIntentId": intent_id})
        assert found is not None
        return found

    async def event_rows(self) -> list[dict[str, Any]]:
        """The documents of all events, in no order."""
        return await self.harness.database["stripe_events"].find().to_list()

    async def count(self, collection: str) -> int:
        """The number of documents in a collection."""
        return await self.harness.database[collection].count_documents({})


async def post(double: StripeDouble, path: str, **form: Any) -> dict[str, Any]:
    """Send a POST request to the double's API."""
    async with httpx.AsyncClient() as client:
        response = await client.post(double.url + path, data=form, headers={"authorization": f"Bearer {API_KEY}"})
    assert response.status_code == 200, response.text
    created: dict[str, Any] = response.json()
    return created


async def metered_price(shop: "Shop") -> str:
    """The ID of a new metered price."""
    meter = await post(
        shop.double,
        "/v1/billing/meters",
        **{"display_name": "Calls", "event_name": "calls", "default_aggregation[formula]": "sum"},
    )
    form = {"recurring[interval]": "month", "recurring[usage_type]": "metered", "recurring[meter]": str(meter["id"])}
    fields = {"currency": "usd", "unit_amount": "1", "product_data[name]": "Calls", **form}
    return str((await post(shop.double, "/v1/prices", **fields))["id"])


def counter(name: str, **labels: str) -> float:
    """The value of a Prometheus counter."""
    return REGISTRY.get_sample_value(f"{name}_total", labels) or 0.0


@pytest.fixture
def settings() -> Callable[..., BillingSettings]:
    """A factory of valid settings, some of them changed."""
    defaults: dict[str, Any] = {
        "kafka_bootstrap": "127.0.0.1:9092",
        "mongo_url": "mongodb://nest:hunter2@127.0.0.1:27017",
        "sealing_keys": "test:" + base64.b64encode(bytes(32)).decode(),
        "environment": "test",
        "stripe_livemode": False,
        "stripe_api_key": API_KEY,
        "stripe_calls_per_second": 2000,
        "stripe_trial_price": "price_1",
        "stripe_portal_return_url": "https://getbeak.app/account",
    }

    def make(**changed: Any) -> BillingSettings:
        return load(BillingSettings, **{**defaults, **changed})

    return make


@pytest.fixture
async def double() -> AsyncIterator[StripeDouble]:
    """An empty Stripe account."""
    async with StripeDouble(api_key=API_KEY) as double:
        yield double


@pytest.fixture
async def price(double: StripeDouble) -> str:
    """The ID of a monthly price."""
    form = {
        "currency": "usd",
        "unit_amount": "500",
        "recurring[interval]": "month",
        "product_data[name]": "Beak",
    }
    return str((await post(double, "/v1/prices", **form))["id"])


@pytest.fixture
def database_name(emptied_database: Callable[[str], str]) -> str:
    """An empty database."""
    return emptied_database("billing")


@pytest.fixture
async def open_shop(
    mongo_url: str,
    database_name: str,
    double: StripeDouble,
    price: str,
    settings: Callable[..., BillingSettings],
) -> AsyncIterator[Callable[..., Any]]:
    """A factory of shops, some settings changed; a second shop is a second instance of the service."""
    harnesses: list[ServiceHarness] = []

    async def make(**changed: Any) -> Shop:
        chosen = settings(**{"stripe_api_base": double.url, "stripe_trial_price": price, **changed})
        harness = ServiceHarness(
            mongo_url,
            database_name,
            service="billing",
            handlers=HANDLERS,
            indexes=INDEXES,
            open_context=partial(open_context, settings=chosen),
        )
        harnesses.append(await harness.__aenter__())
        return Shop(harness, double, price, chosen)

    yield make
    for harness in harnesses:
        await harness.__aexit__()


@pytest.fixture
async def shop(open_shop: Callable[..., Any]) -> Shop:
    """A shop with the default settings."""
    opened_shop: Shop = await open_shop()
    return opened_shop
