"""A harness of the billing service beside a Stripe double."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from services.billing.app import INDEXES, opened
from services.billing.handlers import HANDLERS
from services.billing.settings import BillingSettings
from services.stripe_double import StripeDouble
from shared.ids import derived_message_id
from shared.messages import Command, Message
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.billing.stripe_events import StripeEvent, StripeReread, StripeThinEvent
from shared.messages.mailer.mails import SendMail
from shared.settings import load
from tests.service_harness import ServiceHarness

API_KEY = "sk_test_billing"
EVENT = StripeEvent.model_validate(
    {"id": "evt_1", "type": "x", "created": 0, "livemode": False, "data": {"object": {"object": "x", "id": "x"}}}
)


class Shop:
    """A Stripe account that sells one thing, and billing beside it.

    Attributes:
        harness: the billing service's.
        double: the Stripe account.
        price: what is sold.
        settings: billing's.
        users: the users that auth would know, by address.
    """

    def __init__(self, harness: ServiceHarness, double: StripeDouble, price: str, settings: BillingSettings) -> None:
        self.harness = harness
        self.double = double
        self.price = price
        self.settings = settings
        self.users: dict[str, str] = {}
        self._settled = 0

    async def post(self, path: str, **form: Any) -> dict[str, Any]:
        """An API call that isn't billing's."""
        return await post(self.double, path, **form)

    def events_of(self, subscription_id: str) -> list[dict[str, Any]]:
        """The events that Stripe made about a subscription, as they happened."""
        return [
            event
            for event in self.double.objects("event")
            if event["type"].startswith("customer.subscription.") and event["data"]["object"]["id"] == subscription_id
        ]

    async def a_second_later(self) -> None:
        """Let Stripe's time go on: it counts in whole seconds, and of two made in one none is the older."""
        await self.double.clock.advance(timedelta(seconds=1))

    async def deliver(self, event: dict[str, Any], *, follow: bool = True) -> None:
        """What the gateway makes of a webhook; a repeat has the same message id.

        What it orders is done at once, without ``follow`` by ``settle``.
        """
        known = len(self.harness.published)
        message_id = derived_message_id("stripe", "", "test", event["id"])
        message = EVENT.model_copy(update={"key": event["data"]["object"].get("customer") or event["id"]})
        await self.harness.deliver(message, id=message_id, body=json.dumps(event).encode())
        if follow:
            await self._follow(known)

    async def deliver_thin(self, event: dict[str, Any]) -> None:
        """What the gateway makes of a webhook with a thin event; what it orders is done at once."""
        known = len(self.harness.published)
        message_id = derived_message_id("stripe", "", "test", event["id"])
        related = event["related_object"] or {}
        message = StripeThinEvent(key=related.get("id", ""), id=event["id"], type=event["type"], livemode=False)
        await self.harness.deliver(message, id=message_id, body=json.dumps(event).encode())
        await self._follow(known)

    async def _follow(self, known: int) -> None:
        for order in self.harness.published[known:]:
            if isinstance(order, StripeReread):
                await self.harness.deliver(order)

    async def settle(self) -> None:
        """Hand billing all it ordered of itself, and auth's answers, until nothing is left."""
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
        """Every event there is, once, in order, and all that follows."""
        for event in self.double.objects("event"):
            await self.deliver(event)
        await self.settle()

    def mails(self) -> list[tuple[str, str]]:
        """The mails ordered so far: template and address."""
        return [
            (mail.template, self.harness.unseal_secret("mailer", mail.to))
            for mail in self.harness.published_of(SendMail)
        ]

    async def record(self, stripe_id: str) -> dict[str, Any]:
        """Our document of a subscription."""
        found = await self.harness.database["subscriptions"].find_one({"stpSubscriptionId": stripe_id})
        assert found is not None
        return found

    async def event_rows(self) -> list[dict[str, Any]]:
        """The events that billing keeps, in no order."""
        return await self.harness.database["stripe_events"].find().to_list()

    async def count(self, collection: str) -> int:
        """How many documents a collection has."""
        return await self.harness.database[collection].count_documents({})


async def post(double: StripeDouble, path: str, **form: Any) -> dict[str, Any]:
    """A POST to the double's API."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(double.url + path, data=form, headers={"authorization": f"Bearer {API_KEY}"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def settings() -> Callable[..., BillingSettings]:
    """Makes settings that would let the service start, with some of them changed."""
    usual: dict[str, Any] = {
        "kafka_bootstrap": "127.0.0.1:9092",
        "mongo_url": "mongodb://127.0.0.1:27017",
        "sealing_keys": "test:" + base64.b64encode(bytes(32)).decode(),
        "environment": "test",
        "stripe_livemode": False,
        "stripe_api_key": API_KEY,
        "stripe_calls_per_second": 2000,
        "stripe_trial_price": "price_1",
        "stripe_portal_return_url": "https://getbeak.app/account",
    }

    def make(**changed: Any) -> BillingSettings:
        return load(BillingSettings, **{**usual, **changed})

    return make


@pytest.fixture
async def double() -> AsyncIterator[StripeDouble]:
    """A Stripe account of this test's own."""
    async with StripeDouble(api_key=API_KEY) as double:
        yield double


@pytest.fixture
async def price(double: StripeDouble) -> str:
    """What the account sells, by the month."""
    form = {
        "currency": "usd",
        "unit_amount": "500",
        "recurring[interval]": "month",
        "product_data[name]": "Beak",
    }
    return str((await post(double, "/v1/prices", **form))["id"])


@pytest.fixture(scope="session")
def kept_database(unique: Callable[[], str], mongo_client: MongoClient[dict[str, Any]]) -> Iterator[str]:
    """A database for all tests of this worker: to make its collections and indexes takes longer than most tests."""
    name = f"{unique()}billing"
    yield name
    mongo_client.drop_database(name)


@pytest.fixture
def database_name(kept_database: str, mongo_client: MongoClient[dict[str, Any]]) -> str:
    """An empty database."""
    database = mongo_client[kept_database]
    for name in database.list_collection_names():
        database[name].delete_many({})
    return kept_database


@pytest.fixture
async def open_shop(
    mongo_url: str,
    database_name: str,
    double: StripeDouble,
    price: str,
    settings: Callable[..., BillingSettings],
) -> AsyncIterator[Callable[..., Any]]:
    """Opens a shop with some settings changed; the same twice is a second instance of the service."""
    harnesses: list[ServiceHarness] = []

    async def make(**changed: Any) -> Shop:
        chosen = settings(**{"stripe_api_base": double.url, "stripe_trial_price": price, **changed})
        harness = ServiceHarness(
            mongo_url,
            database_name,
            service="billing",
            handlers=HANDLERS,
            indexes=INDEXES,
            open_context=partial(opened, settings=chosen),
        )
        harnesses.append(await harness.__aenter__())
        return Shop(harness, double, price, chosen)

    yield make
    for harness in harnesses:
        await harness.__aexit__()


@pytest.fixture
async def shop(open_shop: Callable[..., Any]) -> Shop:
    """A shop with the usual settings."""
    opened_shop: Shop = await open_shop()
    return opened_shop
