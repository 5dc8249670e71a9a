"""Which Stripe the embedded mode uses: the double, or a real test account, which another double plays."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embedded import ports
from services.embedded.credentials import generated_secrets
from services.embedded.errors import CannotStart
from services.embedded.stripe import check_given, open_stripe
from services.stripe_double import StripeDouble, signature
from tests.nest_up import nest_up, rest, start
from tests.stack import eventually

BASE = "http://127.0.0.1:8080"
KEY, SECRET = "sk_test_of_a_real_account", "whsec_that_stripe_listen_prints"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of Stripe."""
    for name in ("API_KEY", "API_KEY_FILE", "WEBHOOK_SECRETS", "API_BASE", "LIVEMODE", "TRIAL_PRICE"):
        monkeypatch.delenv(f"NEST_STRIPE_{name}", raising=False)
    return monkeypatch


@pytest.fixture
async def account() -> AsyncIterator[StripeDouble]:
    """The real account."""
    async with StripeDouble(api_key=KEY) as double:
        yield double


GIVEN: dict[str, tuple[dict[str, str], str]] = {
    "live secret key": ({"API_KEY": "sk_live_51abcdef"}, r"live key \(sk_live_…\)"),
    "live restricted key": ({"API_KEY": "rk_live_51abcdef", "WEBHOOK_SECRETS": SECRET}, r"live key \(rk_live_…\)"),
    "publishable key": ({"API_KEY": "pk_test_1"}, "must begin with sk_test_ or rk_test_"),
    "live mode": ({"API_KEY": KEY, "WEBHOOK_SECRETS": SECRET, "LIVEMODE": "true"}, "LIVEMODE must be false"),
    "no webhook secret": ({"API_KEY": KEY}, "stripe listen --print-secret"),
    "empty webhook secret": ({"API_KEY": KEY, "WEBHOOK_SECRETS": ""}, "stripe listen --print-secret"),
}


@pytest.mark.parametrize(("given", "line"), GIVEN.values(), ids=GIVEN)
def test_unusable_settings_are_refused_in_one_line(
    environment: pytest.MonkeyPatch, given: dict[str, str], line: str
) -> None:
    for name, value in given.items():
        environment.setenv(f"NEST_STRIPE_{name}", value)
    with pytest.raises(CannotStart, match=line) as refused:
        check_given()
    assert "\n" not in str(refused.value)
    assert "51abcdef" not in str(refused.value)


async def test_double_keeps_its_port_and_waits_for_the_gateway(tmp_path: Path) -> None:
    urls = []
    for _ in range(2):
        async with open_stripe(tmp_path, generated_secrets(tmp_path), BASE) as used:
            assert used.double is not None
            assert used.text == "a double on this machine"
            assert used.environment["NEST_STRIPE_API_BASE"] == used.double.url
            assert (used.double.webhooks.url, used.double.deliveries) == (None, [])
            urls.append(used.double.url)
    assert urls[0] == urls[1]


async def test_real_account_is_used_with_its_own_settings(
    environment: pytest.MonkeyPatch, tmp_path: Path, account: StripeDouble
) -> None:
    for name, value in {"API_KEY": KEY, "WEBHOOK_SECRETS": SECRET, "API_BASE": account.url}.items():
        environment.setenv(f"NEST_STRIPE_{name}", value)
    async with open_stripe(tmp_path, generated_secrets(tmp_path), BASE) as used:
        assert used.double is None
        assert used.text == "your test account (sk_test_of_a…)"
        assert used.environment["NEST_STRIPE_TRIAL_PRICE"] == account.objects("price")[0]["id"]
        assert used.environment["NEST_STRIPE_CALLS_PER_SECOND"] == "20"
        assert KEY not in repr(used)
    environment.setenv("NEST_STRIPE_TRIAL_PRICE", "price_1")
    async with open_stripe(tmp_path, generated_secrets(tmp_path), BASE) as used:
        assert used.environment["NEST_STRIPE_TRIAL_PRICE"] == "price_1"
    assert len(account.objects("price")) == 1
    environment.delenv("NEST_STRIPE_API_KEY")
    with pytest.raises(CannotStart, match="has data of a real Stripe account"):
        async with open_stripe(tmp_path, generated_secrets(tmp_path), BASE):
            pass


async def test_unusable_account_is_one_line(
    environment: pytest.MonkeyPatch, tmp_path: Path, account: StripeDouble
) -> None:
    environment.setenv("NEST_STRIPE_WEBHOOK_SECRETS", SECRET)
    for key, base, line in (
        ("sk_test_unknown", account.url, r"refuses NEST_STRIPE_API_KEY \(401\): check the key"),
        (KEY, "http://127.0.0.1:1", "can't be reached at http://127.0.0.1:1"),
    ):
        environment.setenv("NEST_STRIPE_API_KEY", key)
        environment.setenv("NEST_STRIPE_API_BASE", base)
        with pytest.raises(CannotStart, match=line):
            async with open_stripe(tmp_path, generated_secrets(tmp_path), BASE):
                pass
        assert not (tmp_path / "stripe-account").exists()


async def test_folder_of_the_double_is_not_mixed_with_a_real_account(
    environment: pytest.MonkeyPatch, tmp_path: Path, account: StripeDouble
) -> None:
    async with open_stripe(tmp_path, generated_secrets(tmp_path), BASE):
        pass
    for name, value in {"API_KEY": KEY, "WEBHOOK_SECRETS": SECRET, "API_BASE": account.url}.items():
        environment.setenv(f"NEST_STRIPE_{name}", value)
    with pytest.raises(CannotStart, match="has data of the Stripe double"):
        async with open_stripe(tmp_path, generated_secrets(tmp_path), BASE):
            pass


@asynccontextmanager
async def real_stripe(webhook_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A process that plays Stripe and `stripe listen`; yields a client of its API."""
    port = ports.any_free()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.stripe_double", "--port", str(port), "--api-key", KEY),
        *("--webhook-url", webhook_url, "--webhook-secret", SECRET),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        assert b"listens" in await process.stdout.readline()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", auth=(KEY, "")) as client:
            yield client
    finally:
        process.kill()
        await process.wait()


@pytest.mark.slow
async def test_nest_up_works_with_a_real_account(tmp_path: Path) -> None:
    port = ports.any_free()
    webhook_url = f"http://127.0.0.1:{port}/1/webhook/stripe"
    async with real_stripe(webhook_url) as stripe:
        variables = {
            "NEST_STRIPE_API_KEY": KEY,
            "NEST_STRIPE_WEBHOOK_SECRETS": SECRET,
            "NEST_STRIPE_API_BASE": str(stripe.base_url).rstrip("/"),
        }
        async with nest_up(tmp_path, port, variables) as nest, httpx.AsyncClient(base_url=nest.base_url) as client:
            assert "your test account (sk_test_of_a…)" in nest.output
            assert not (tmp_path / "stripe.sqlite").exists()
            assert f"stripe listen --forward-to {webhook_url}" in (await client.get("/dev/billing")).text
            key = json.loads((tmp_path / "secrets.json").read_text())["internal_key"]

            async def call(method: str, **body: Any) -> Any:
                headers = {"authorization": f"internal {key}"}
                response = await client.post(f"/1/2026-12-01/{method}", json=body, headers=headers)
                return response.json() if response.is_success else None

            price = (await stripe.get("/v1/prices")).json()["data"][0]["id"]
            paid = {"price": price, "email": "ada@example.com"}
            assert (await stripe.post("/_double/simulate/checkout", json=paid)).is_success

            async def entitled() -> bool:
                user = await call("find_user", identifier_type="email", identifier_value=paid["email"])
                state = user and await call("get_customer_state", user_id=user["id"])
                return bool(state and state["entitled"])

            await eventually(entitled, what="the subscription of the real account")
            deliveries = (await stripe.get("/_double/deliveries")).json()
            # Stripe made the price, and sent its events, before the gateway listened.
            assert {each["status"] for each in deliveries if each["type"].startswith("customer.")} == {200}
            # The double's secret of this folder counts for nothing.
            secret = json.loads((tmp_path / "secrets.json").read_text())["webhook_secret"]
            body = b'{"id": "evt_1", "object": "event", "type": "customer.created"}'
            forged = await client.post(
                "/1/webhook/stripe", content=body, headers={"stripe-signature": signature(body, [secret])}
            )
            assert forged.status_code == 400
        live = await start(tmp_path / "live", ports.any_free(), {"NEST_STRIPE_API_KEY": "sk_live_51abcdef"})
        printed = await rest(live)
        assert await live.wait() != 0
        assert "NEST_STRIPE_API_KEY is a live key (sk_live_…)" in printed
        assert "starting Apache Kafka" not in printed
