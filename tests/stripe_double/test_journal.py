"""What survives a restart, kill -9 included."""

import asyncio
import signal
import sqlite3
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import stripe

from services.stripe_double import RetryPolicy, StripeDouble
from tests.stripe_double.shop import API_KEY, SECRET, USES_STRIPE, client_of, open_shop, receiving, until

pytestmark = USES_STRIPE


async def test_a_second_start_finds_what_the_first_stored(tmp_path: Path) -> None:
    async with open_shop(folder=tmp_path) as shop:
        subscription = await shop.subscription(trial_period_days=14, metadata={"user_id": "u1"})
        first = {
            kind: shop.double.objects(kind) for kind in ("account", "customer", "subscription", "invoice", "event")
        }
    async with StripeDouble(api_key=API_KEY, folder=tmp_path) as double, client_of(double) as client:
        assert {kind: double.objects(kind) for kind in first} == first
        assert (await client.v1.subscriptions.retrieve_async(subscription.id)).to_dict() == subscription.to_dict()
        await double.clock.advance(timedelta(days=14, hours=1))
        assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"


async def test_the_clock_stays_ahead(tmp_path: Path) -> None:
    async with StripeDouble(folder=tmp_path) as double:
        await double.clock.advance(timedelta(days=400))
        ahead = double.clock.now()
    async with StripeDouble(folder=tmp_path) as double:
        assert 0 <= double.clock.now() - ahead < 60


async def test_idempotency_keys_are_remembered(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        async with StripeDouble(api_key=API_KEY, folder=tmp_path) as double, client_of(double) as client:
            customer = await client.v1.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
            made.append(customer.id)
            assert len(double.objects("customer")) == 1
            with pytest.raises(stripe.IdempotencyError):
                await client.v1.customers.create_async({"name": "Grace"}, {"idempotency_key": "k1"})
    assert made[0] == made[1]


async def test_deliveries_that_waited_are_made_after_the_restart(tmp_path: Path) -> None:
    async with open_shop(folder=tmp_path, webhook_secrets=[SECRET]) as shop:
        await shop.customer(None)
    async with (
        receiving() as receiver,
        StripeDouble(folder=tmp_path, webhook_url=receiver.url, webhook_secrets=[SECRET]) as double,
    ):
        await double.webhooks.drain()
        assert receiver.types == ["product.created", "price.created", "customer.created"]
    async with StripeDouble(folder=tmp_path, webhook_secrets=[SECRET]) as double:
        assert double.webhooks.waiting == []


async def test_two_doubles_on_one_folder_are_refused(tmp_path: Path) -> None:
    async with StripeDouble(folder=tmp_path):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            async with StripeDouble(folder=tmp_path):
                pass


async def test_a_change_that_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    async with open_shop(folder=tmp_path) as shop:
        shop.double.account._journal.close()  # type: ignore[union-attr]
        with pytest.raises(stripe.APIError):
            await shop.customer(None)
        assert shop.double.objects("customer") == []
        assert "customer.created" not in shop.types()


PROGRAM = """
import asyncio, sys
from pathlib import Path
from services.stripe_double import StripeDouble

async def main():
    async with StripeDouble(api_key="sk_test_shop", folder=Path(sys.argv[1]), webhook_secrets=["whsec_shop"]) as double:
        print(double.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    answered = []
    for round_number in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        http = stripe.HTTPXClient(timeout=5)
        client = stripe.StripeClient(API_KEY, base_addresses={"api": url}, http_client=http, max_network_retries=0)  # type: ignore[typeddict-item]

        async def make(number: int, client: stripe.StripeClient = client, prefix: int = round_number) -> None:
            key = f"{prefix}:{number}"
            made = await client.v1.customers.create_async({"name": key}, {"idempotency_key": key})
            answered.append((made.id, key))

        calls = [asyncio.create_task(make(number)) for number in range(200)]
        wanted = 40 * (round_number + 1)
        await until(lambda wanted=wanted: len(answered) >= wanted)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await asyncio.gather(*calls, return_exceptions=True)
        process._transport.close()  # type: ignore[attr-defined]
        await http.close_async()
    async with (
        receiving() as receiver,
        StripeDouble(
            api_key=API_KEY,
            folder=tmp_path,
            webhook_url=receiver.url,
            webhook_secrets=[SECRET],
            retries=RetryPolicy(scale=0.001),
        ) as double,
        client_of(double) as again,
    ):
        names = {customer["id"]: customer["name"] for customer in double.objects("customer")}
        assert all(names[identifier] == key for identifier, key in answered)
        assert len(set(names.values())) == len(names)
        identifier, key = answered[-1]
        replayed = await again.v1.customers.create_async({"name": key}, {"idempotency_key": key})
        assert replayed.id == identifier
        await double.webhooks.drain()
        assert len(set(receiver.ids)) == len(names)
