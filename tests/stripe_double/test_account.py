import asyncio
import signal
import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import stripe

from services.stripe_double import RetryPolicy, StripeDouble
from tests.stripe_double.shop import API_KEY, SECRET, START, client_of, open_receiver, open_shop, until


async def test_a_restart_restores_all_objects(tmp_path: Path) -> None:
    async with open_shop(folder=tmp_path) as shop:
        subscription = await shop.subscription(trial_period_days=14, metadata={"user_id": "u1"})
        first = {
            kind: shop.double.objects(kind) for kind in ("account", "customer", "subscription", "invoice", "event")
        }
        port = urlsplit(shop.double.url).port or 0
    # The links of invoices lead to the port, which is not stored.
    async with StripeDouble(api_key=API_KEY, folder=tmp_path, port=port) as double, client_of(double) as client:
        assert {kind: double.objects(kind) for kind in first} == first
        assert (await client.v1.subscriptions.retrieve_async(subscription.id)).to_dict() == subscription.to_dict()
        await double.clock.advance(timedelta(days=14, hours=1))
        assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"


async def test_a_restart_restores_the_clock(tmp_path: Path) -> None:
    async with StripeDouble(folder=tmp_path) as double:
        await double.clock.advance(timedelta(days=400))
        ahead = double.clock.now()
    async with StripeDouble(folder=tmp_path) as double:
        assert 0 <= double.clock.now() - ahead < 60


async def test_a_restart_restores_idempotency_keys(tmp_path: Path) -> None:
    customer_ids = []
    for _ in range(2):
        async with StripeDouble(api_key=API_KEY, folder=tmp_path) as double, client_of(double) as client:
            customer = await client.v1.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
            customer_ids.append(customer.id)
            assert len(double.objects("customer")) == 1
            with pytest.raises(stripe.IdempotencyError):
                await client.v1.customers.create_async({"name": "Grace"}, {"idempotency_key": "k1"})
    assert customer_ids[0] == customer_ids[1]


async def test_pending_deliveries_are_made_after_a_restart(tmp_path: Path) -> None:
    async with open_shop(folder=tmp_path, webhook_secrets=[SECRET]) as shop:
        await shop.customer(None)
    async with (
        open_receiver() as receiver,
        StripeDouble(folder=tmp_path, webhook_url=receiver.url, webhook_secrets=[SECRET]) as double,
    ):
        await double.webhooks.drain()
        assert receiver.types == ["product.created", "price.created", "customer.created"]
    async with StripeDouble(folder=tmp_path, webhook_secrets=[SECRET]) as double:
        assert double.webhooks.pending == []


async def test_a_second_double_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with StripeDouble(folder=tmp_path):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            async with StripeDouble(folder=tmp_path):
                pass


async def test_a_change_that_cannot_be_stored_is_rolled_back(tmp_path: Path) -> None:
    async with open_shop(folder=tmp_path) as shop:
        shop.double.account._database.close()  # type: ignore[union-attr]
        with pytest.raises(stripe.APIError):
            await shop.customer(None)
        assert shop.double.objects("customer") == []
        assert "customer.created" not in shop.types()


PROGRAM = (
    *(sys.executable, "-m", "services.stripe_double", "--port", "0"),
    *("--api-key", API_KEY, "--webhook-secret", SECRET, "--folder"),
)


async def test_kill_9_loses_no_change_that_was_confirmed(tmp_path: Path) -> None:
    confirmed = []
    for round_number in range(2):
        process = await asyncio.create_subprocess_exec(*PROGRAM, str(tmp_path), stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[-1]
        http = stripe.HTTPXClient(timeout=5)
        client = stripe.StripeClient(API_KEY, base_addresses={"api": url}, http_client=http, max_network_retries=0)  # type: ignore[typeddict-item]

        async def make(number: int, client: stripe.StripeClient = client, prefix: int = round_number) -> None:
            key = f"{prefix}:{number}"
            customer = await client.v1.customers.create_async({"name": key}, {"idempotency_key": key})
            confirmed.append((customer.id, key))

        calls = [asyncio.create_task(make(number)) for number in range(80)]
        wanted = 30 * (round_number + 1)
        await until(lambda wanted=wanted: len(confirmed) >= wanted)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await asyncio.gather(*calls, return_exceptions=True)
        process._transport.close()  # type: ignore[attr-defined]
        await http.close_async()
    async with (
        open_receiver() as receiver,
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
        assert all(names[identifier] == key for identifier, key in confirmed)
        assert len(set(names.values())) == len(names)
        identifier, key = confirmed[-1]
        replayed = await again.v1.customers.create_async({"name": key}, {"idempotency_key": key})
        assert replayed.id == identifier
        await double.webhooks.drain()
        assert len(set(receiver.ids)) == len(names)


async def test_members_stored_under_former_names_are_renamed(tmp_path: Path) -> None:
    async with open_shop(folder=tmp_path, start=START) as shop:
        subscription = await shop.subscription(trial_period_days=2)
        await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    with closing(sqlite3.connect(tmp_path / "stripe.sqlite")) as connection:
        for kind, former, current in (
            ("subscription", "_quiet", "_defer_events"),
            ("subscription", "_told_trial_end", "_notified_trial_end"),
            ("subscription", "_told_renewal", "_notified_renewal"),
            ("_key", "asked", "fingerprint"),
        ):
            query = "UPDATE objects SET body = CAST(replace(CAST(body AS TEXT), ?, ?) AS BLOB) WHERE kind = ?"
            assert connection.execute(query, (f'"{current}"', f'"{former}"', kind)).rowcount
        connection.commit()
    async with StripeDouble(api_key=API_KEY, folder=tmp_path) as double, client_of(double) as client:
        again = await client.v1.customers.create_async({}, {"idempotency_key": "k1"})
        assert again.last_response.headers["idempotent-replayed"] == "true"
        await double.clock.advance(timedelta(days=3))
        assert double.object("subscription", subscription.id)["status"] == "active"
        types = [event["type"] for event in double.objects("event")]
        assert types.count("customer.subscription.trial_will_end") == 1
