"""A shop for the double's tests: the double, stripe-python's client for it, something to sell, someone to listen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import stripe

from services.stripe_double import StripeDouble
from services.stripe_double.serving import Listener

API_KEY = "sk_test_shop"
SECRET = "whsec_shop"
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
USES_STRIPE = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""stripe-python hands httpx its bodies in a way that httpx wants changed; `pytestmark` of every test with a client."""


async def until(condition: Callable[[], Any], within: float = 5) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event to set
            await asyncio.sleep(0.01)


@dataclass
class Shop:
    """The double with a monthly price of 10.00 USD."""

    double: StripeDouble
    client: stripe.StripeClient
    price: str

    @property
    def api(self) -> Any:
        """The v1 services of stripe-python."""
        return self.client.v1

    async def advance(self, **span: float) -> None:
        """Lets so much time pass, as `timedelta(**span)`."""
        await self.double.clock.advance(timedelta(**span))

    async def customer(self, payment_method: str | None = "pm_card_visa", **params: Any) -> Any:
        """A customer who pays by a card, or by none."""
        paying = {}
        if payment_method:
            paying = {
                "payment_method": payment_method,
                "invoice_settings": {"default_payment_method": payment_method},
            }
        return await self.api.customers.create_async({"email": "ada@example.com", **paying, **params})

    async def subscription(self, customer: str | None = None, **params: Any) -> Any:
        """A subscription to the monthly price."""
        customer = customer or (await self.customer()).id
        items = [{"price": self.price}]
        return await self.api.subscriptions.create_async({"customer": customer, "items": items, **params})

    async def read(self, subscription: Any, *expand: str) -> Any:
        """The subscription as it is now."""
        return await self.api.subscriptions.retrieve_async(subscription.id, {"expand": list(expand)})

    def types(self, after: int = 0) -> list[str]:
        """The types of all events, oldest first, without the first `after`."""
        return [event["type"] for event in self.double.objects("event")][after:]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of one type, oldest first."""
        return [event for event in self.double.objects("event") if event["type"] == kind]


@asynccontextmanager
async def client_of(double: StripeDouble, *, client_retries: int = 0, timeout: float = 5) -> AsyncIterator[Any]:
    """stripe-python's client for a double."""
    http = stripe.HTTPXClient(timeout=timeout)
    try:
        yield stripe.StripeClient(
            API_KEY, base_addresses={"api": double.url}, http_client=http, max_network_retries=client_retries
        )
    finally:
        await http.close_async()


@asynccontextmanager
async def open_shop(*, client_retries: int = 0, timeout: float = 5, **options: Any) -> AsyncIterator[Shop]:
    """A double of its own, with the options of `StripeDouble`, and a client with those of `client_of`."""
    async with AsyncExitStack() as stack:
        double = await stack.enter_async_context(StripeDouble(api_key=API_KEY, **options))
        client = await stack.enter_async_context(client_of(double, client_retries=client_retries, timeout=timeout))
        price = await client.v1.prices.create_async(
            {
                "currency": "usd",
                "unit_amount": 1000,
                "recurring": {"interval": "month"},
                "product_data": {"name": "Beak"},
            }
        )
        yield Shop(double, client, price.id)


@dataclass
class Receiver:
    """A webhook endpoint that keeps what it gets."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """What the next requests are answered, then 200."""
    bodies: list[bytes] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    pause: float = 0.0
    """Seconds before it answers."""
    busiest: int = 0
    """The most requests that were under way at once."""
    _under_way: int = 0

    @property
    def ids(self) -> list[str]:
        """The ids of the events received, in the order of arrival."""
        return [json.loads(body)["id"] for body in self.bodies]

    @property
    def types(self) -> list[str]:
        """The types of the events received, in the order of arrival."""
        return [json.loads(body)["type"] for body in self.bodies]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Takes one delivery."""
        self._under_way += 1
        self.busiest = max(self.busiest, self._under_way)
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        self.bodies.append(body)
        self.signatures.append(dict(scope["headers"])[b"stripe-signature"].decode())
        await asyncio.sleep(self.pause)
        self._under_way -= 1
        status = self.statuses.pop(0) if self.statuses else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens on a free port."""
    receiver = Receiver()
    listener = Listener(receiver, "127.0.0.1", 0)
    await listener.open()
    receiver.url = f"http://127.0.0.1:{listener.port}/1/webhook/stripe"
    try:
        yield receiver
    finally:
        await listener.close()
