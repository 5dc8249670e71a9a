"""Test environment of the Stripe double: a double with a price, stripe-python's client, a webhook receiver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import stripe

from services.stripe_double import StripeDouble
from services.stripe_double.server import Listener

API_KEY = "sk_test_shop"
SECRET = "whsec_shop"
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""Start of the clock in tests that count days: the first month has 31."""


async def until(condition: Callable[[], Any], within: float = 5) -> None:
    """Wait until a condition holds, at most `within` seconds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the condition has no event to wait for
            await asyncio.sleep(0.01)


@dataclass
class Shop:
    """A double with a monthly price of 10.00 USD, and a client of it."""

    double: StripeDouble
    client: stripe.StripeClient
    price: str

    @property
    def api(self) -> Any:
        """The v1 services of stripe-python."""
        return self.client.v1

    async def advance(self, **span: float) -> None:
        """Advance the clock by `timedelta(**span)`."""
        await self.double.clock.advance(timedelta(**span))

    async def customer(self, payment_method: str | None = "pm_card_visa", **params: Any) -> Any:
        """Create a customer, with a default payment method unless it is None."""
        payment = {}
        if payment_method:
            payment = {
                "payment_method": payment_method,
                "invoice_settings": {"default_payment_method": payment_method},
            }
        return await self.api.customers.create_async({"email": "ada@example.com", **payment, **params})

    async def another_price(self, amount: int = 3000, interval: str = "month") -> str:
        """Create a price of another product; return its ID."""
        product = (await self.api.products.create_async({"name": "Beak Pro"})).id
        params = {"currency": "usd", "unit_amount": amount, "recurring": {"interval": interval}, "product": product}
        return str((await self.api.prices.create_async(params)).id)

    async def subscription(self, customer: str | None = None, **params: Any) -> Any:
        """Create a subscription to the monthly price, by default for a new customer with a good card."""
        customer = customer or (await self.customer()).id
        items = [{"price": self.price}]
        return await self.api.subscriptions.create_async({"customer": customer, "items": items, **params})

    async def incomplete_subscription(self) -> tuple[Any, Any]:
        """Create a subscription whose first payment is open; return it and its payment intent."""
        customer = await self.customer(None)
        subscription = await self.subscription(customer.id, payment_behavior="default_incomplete")
        return subscription, await self.payment_intent(subscription)

    async def past_due_subscription(self) -> Any:
        """Create a subscription whose first renewal was declined once."""
        subscription = await self.subscription()
        self.double.simulate.decline(subscription.customer)
        await self.advance(days=31, hours=2)
        return await self.read(subscription)

    async def read(self, subscription: Any, *expand: str) -> Any:
        """Retrieve a subscription again."""
        return await self.api.subscriptions.retrieve_async(subscription.id, {"expand": list(expand)})

    async def payment_intent(self, subscription: Any) -> Any:
        """Retrieve the payment intent of a subscription's latest invoice."""
        payments = await self.api.invoice_payments.list_async({"invoice": subscription.latest_invoice})
        return await self.api.payment_intents.retrieve_async(payments.data[0].payment.payment_intent)

    def types(self, after: int = 0) -> list[str]:
        """Return the types of all events but the first `after`, oldest first."""
        return [event["type"] for event in self.double.objects("event")][after:]

    def events(self, event_type: str) -> list[dict[str, Any]]:
        """Return the events of one type, oldest first."""
        return [event for event in self.double.objects("event") if event["type"] == event_type]


@asynccontextmanager
async def client_of(double: StripeDouble, *, client_retries: int = 0, timeout: float = 5) -> AsyncIterator[Any]:
    """Open stripe-python's client of a double."""
    http = stripe.HTTPXClient(timeout=timeout)
    try:
        yield stripe.StripeClient(
            API_KEY, base_addresses={"api": double.url}, http_client=http, max_network_retries=client_retries
        )
    finally:
        await http.close_async()


@asynccontextmanager
async def open_shop(*, client_retries: int = 0, timeout: float = 5, **options: Any) -> AsyncIterator[Shop]:
    """Open a shop with the options of `client_of` and of `StripeDouble`."""
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
    """A webhook endpoint that records its deliveries."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next responses; 200 after that."""
    bodies: list[bytes] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    delay: float = 0.0
    """Seconds before each response."""
    most_concurrent: int = 0
    """The highest number of concurrent requests."""
    _concurrent: int = 0

    @property
    def ids(self) -> list[str]:
        """The IDs of the received events, in the order of arrival."""
        return [json.loads(body)["id"] for body in self.bodies]

    @property
    def types(self) -> list[str]:
        """The types of the received events, in the order of arrival."""
        return [json.loads(body)["type"] for body in self.bodies]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Receive one delivery."""
        self._concurrent += 1
        self.most_concurrent = max(self.most_concurrent, self._concurrent)
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        self.bodies.append(body)
        self.signatures.append(dict(scope["headers"])[b"stripe-signature"].decode())
        await asyncio.sleep(self.delay)
        self._concurrent -= 1
        status = self.statuses.pop(0) if self.statuses else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


@asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """Open a receiver that listens on a free port."""
    receiver = Receiver()
    listener = Listener(receiver, "127.0.0.1", 0)
    await listener.open()
    receiver.url = f"http://127.0.0.1:{listener.port}/1/webhook/stripe"
    try:
        yield receiver
    finally:
        await listener.close()
