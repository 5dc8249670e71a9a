"""`nest stripe setup` against the Stripe double."""

from __future__ import annotations

import asyncio
import base64
import re
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from services.billing.events.handlers import NEEDED_EVENTS
from services.billing.stripe_api.calls import API_VERSION
from services.cli import app
from services.stripe_double import FaultKind, StripeDouble

API_KEY = "sk_test_setup"
URL = "https://api.beak.example/1/webhook/stripe"
PLANS = """
[features]
reports = "Reports"

[[products]]
key = "pro"
name = "Beak Pro"
marketing_features = ["Reports"]
features = ["reports"]
metadata = {nest_max_quantity = "50"}

[[products.prices]]
lookup_key = "pro_monthly"
interval = "month"
currency = "usd"
amounts = {usd = 1000, eur = 900}
tax_behavior = "exclusive"
trial_days = 14

[[products.prices]]
lookup_key = "pro_yearly"
interval = "year"
currency = "usd"
amounts = {usd = 10000}
"""


@dataclass
class Account:
    """An account of Stripe, and the plans file of its owner."""

    double: StripeDouble
    plans: Path

    async def setup(self, *words: str) -> Result:
        """Run `nest stripe setup` with the plans file."""
        arguments = ["stripe", "setup", "--file", str(self.plans), *words]
        return await asyncio.to_thread(CliRunner().invoke, app, arguments)

    async def apply(self) -> Result:
        """Run it with `--apply`."""
        result = await self.setup("--apply")
        assert result.exit_code == 0, result.output
        return result

    async def post(self, path: str, **form: str) -> Any:
        async with httpx.AsyncClient() as client:
            response = await client.post(
                self.double.url + path, data=form, headers={"authorization": f"Bearer {API_KEY}"}
            )
        assert response.status_code == 200, response.text
        return response.json()

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return self.double.objects(kind)

    def price(self, key: str) -> dict[str, Any]:
        (found,) = [each for each in self.objects("price") if each["lookup_key"] == key]
        return found


@pytest.fixture
async def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Account]:
    """An empty account, whose key and URL are in the environment."""
    plans = tmp_path / "plans.toml"
    plans.write_text(PLANS)
    async with StripeDouble(api_key=API_KEY) as double:
        for name, value in {
            "NEST_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
            "NEST_MONGO_URL": "mongodb://127.0.0.1:27017",
            "NEST_SEALING_KEYS": "test:" + base64.b64encode(bytes(32)).decode(),
            "NEST_ENVIRONMENT": "test",
            "NEST_ISSUER": "https://api.beak.example",
            "NEST_STRIPE_LIVEMODE": "false",
            "NEST_STRIPE_API_KEY": API_KEY,
            "NEST_STRIPE_API_BASE": double.url,
            "NEST_STRIPE_CALLS_PER_SECOND": "2000",
            "NEST_STRIPE_TRIAL_PRICE": "price_1",
            "NEST_STRIPE_PORTAL_RETURN_URL": "https://beak.example/account",
        }.items():
            monkeypatch.setenv(name, value)
        yield Account(double, plans)


async def test_plan_changes_nothing(account: Account) -> None:
    planned = await account.setup()
    assert planned.exit_code == 0, planned.output
    assert "7 create" in planned.output
    assert [each.method for each in account.double.log if each.executed] == []
    assert "whsec_" not in planned.output


async def test_address_of_this_machine_gets_no_endpoint(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEST_ISSUER", "http://127.0.0.1:8080")
    applied = await account.apply()
    assert "stripe listen --forward-to http://127.0.0.1:8080/1/webhook/stripe" in applied.output
    assert account.objects("webhook_endpoint") == []
    assert account.objects("price") != []


async def test_invalid_setting_is_named_without_a_traceback(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEST_STRIPE_LIVEMODE", "true")
    refused = await account.setup()
    assert refused.exit_code == 1
    assert isinstance(refused.exception, SystemExit)
    assert "nest: NEST_STRIPE_API_KEY: a test key contradicts NEST_STRIPE_LIVEMODE" in refused.output


async def test_setup_is_complete_and_its_repeat_changes_nothing(account: Account) -> None:
    applied = await account.apply()
    (endpoint,) = account.objects("webhook_endpoint")
    assert (endpoint["url"], endpoint["api_version"], set(endpoint["enabled_events"])) == (
        URL,
        API_VERSION,
        set(NEEDED_EVENTS),
    )
    assert applied.output.count("NEST_STRIPE_WEBHOOK_SECRETS=whsec_") == 1
    (portal,) = account.objects("billing_portal.configuration")
    monthly, yearly = account.price("pro_monthly"), account.price("pro_yearly")
    assert sorted(portal["features"]["subscription_update"]["products"][0]["prices"]) == sorted(
        (monthly["id"], yearly["id"])
    )
    assert (monthly["unit_amount"], monthly["recurring"]["trial_period_days"]) == (1000, 14)
    (product,) = account.objects("product")
    assert product["metadata"] == {"nest": "true", "nest_setup": "pro", "nest_max_quantity": "50"}
    before = len(account.objects("event"))
    repeated = await account.apply()
    assert "7 unchanged" in repeated.output
    assert "whsec_" not in repeated.output
    assert len(account.objects("event")) == before


async def test_secret_is_written_to_a_new_file_for_its_owner_alone(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    applied = await account.setup("--apply", "--secret-file", str(path))
    assert applied.exit_code == 0, applied.output
    assert "whsec_" not in applied.output
    assert (path.read_text()[:6], stat.S_IMODE(path.stat().st_mode)) == ("whsec_", 0o600)
    again = await account.setup("--apply", "--secret-file", str(path))
    assert again.exit_code == 1


async def drift_events(account: Account) -> None:
    (endpoint,) = account.objects("webhook_endpoint")
    await account.post(f"/v1/webhook_endpoints/{endpoint['id']}", **{"enabled_events[0]": "charge.refunded"})


async def drift_disabled(account: Account) -> None:
    (endpoint,) = account.objects("webhook_endpoint")
    await account.post(f"/v1/webhook_endpoints/{endpoint['id']}", disabled="true")


async def drift_version(account: Account) -> None:
    (endpoint,) = account.double.account.all("webhook_endpoint")
    with account.double.account.change():
        account.double.account.update(endpoint, api_version="2020-08-27")


async def drift_amount(account: Account) -> None:
    account.plans.write_text(PLANS.replace("usd = 1000,", "usd = 1200,"))


async def drift_other_currency(account: Account) -> None:
    account.plans.write_text(PLANS.replace("eur = 900", "eur = 950"))


async def drift_new_currency(account: Account) -> None:
    account.plans.write_text(PLANS.replace("{usd = 10000}", "{usd = 10000, jpy = 15000}"))


async def drift_trial(account: Account) -> None:
    account.plans.write_text(PLANS.replace("trial_days = 14", ""))


async def drift_archived_product(account: Account) -> None:
    (product,) = account.objects("product")
    await account.post(f"/v1/products/{product['id']}", active="false")


async def drift_archived_price(account: Account) -> None:
    await account.post(f"/v1/prices/{account.price('pro_yearly')['id']}", active="false")


async def drift_only_price(account: Account) -> None:
    """The plans of the portal consist of one product with one price, whose amount changes."""
    only = PLANS[: PLANS.rindex("[[products.prices]]")]
    account.plans.write_text(only)
    await account.apply()
    account.plans.write_text(only.replace("usd = 1000,", "usd = 1200,"))


async def drift_new_product(account: Account) -> None:
    account.plans.write_text(
        PLANS + PLANS[PLANS.index("[[products]]") :].replace("pro_", "team_").replace('"pro"', '"team"')
    )


async def drift_portal(account: Account) -> None:
    (portal,) = account.objects("billing_portal.configuration")
    form = {"features[invoice_history][enabled]": "false"}
    await account.post(f"/v1/billing_portal/configurations/{portal['id']}", **form)


@pytest.mark.parametrize(
    ("drift", "shown"),
    [
        (drift_events, "update    webhook endpoint"),
        (drift_disabled, 'status: "disabled" -> "enabled"'),
        (drift_version, 'api_version: "2020-08-27"'),
        (drift_amount, "unit_amount: 1000 -> 1200"),
        (drift_other_currency, "currency_options.eur.unit_amount: 900 -> 950"),
        (drift_new_currency, "currency_options.jpy: null"),
        (drift_trial, "recurring.trial_period_days: 14 -> null"),
        (drift_archived_product, "active: false -> true"),
        (drift_archived_price, "active: false -> true"),
        (drift_only_price, '"prices": ["(new)"]'),
        (drift_new_product, '"product": "(new)"'),
        (drift_portal, "features.invoice_history.enabled: false -> true"),
    ],
)
async def test_drift_is_shown_and_corrected(account: Account, drift: Any, shown: str) -> None:
    await account.apply()
    await drift(account)
    planned = await account.setup()
    assert shown in planned.output
    applied = await account.apply()
    announced = [line[12:].replace(": ", " ", 1) for line in planned.output.splitlines() if line[:1] in set("+~±")]
    assert [line[6:] for line in applied.output.splitlines() if line.startswith("done: ")] == announced
    repeated = await account.setup()
    assert re.search(r"^\d+ unchanged$", repeated.output, re.MULTILINE), repeated.output


@pytest.mark.parametrize(
    ("others", "products", "named"),
    [
        ({}, "", True),
        ({"metadata[nest]": "false"}, "", False),
        ({"metadata[nest]": "true"}, "", False),
        ({"active": "false"}, "", False),
        ({}, "prod_1", False),
    ],
)
async def test_products_that_leave_the_list_of_plans_are_named(
    others: dict[str, str],
    products: str,
    named: bool,  # noqa: FBT001
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEST_STRIPE_PRODUCTS", products)
    form = {"currency": "usd", "unit_amount": "500", "recurring[interval]": "month"}
    trial = await account.post("/v1/prices", **form, **{"product_data[name]": "Beak Trial"})
    if others:
        await account.post(f"/v1/products/{trial['product']}", **others)
    warning = f"! list_plans will no longer show Beak Trial ({trial['product']})"
    assert (warning in (await account.setup()).output) is named
    applied = await account.apply()
    assert ("nest=true in Stripe" in applied.output) is named
    assert "list_plans" not in (await account.setup()).output


async def test_changed_amount_moves_the_lookup_key_to_a_new_price(account: Account) -> None:
    await account.apply()
    former = account.price("pro_monthly")["id"]
    await drift_amount(account)
    await account.apply()
    current = account.price("pro_monthly")
    assert (current["id"] != former, current["unit_amount"]) == (True, 1200)
    (archived,) = [each for each in account.objects("price") if each["id"] == former]
    assert (archived["active"], archived["lookup_key"]) == (False, None)


async def test_missing_rights_are_named_and_nothing_is_changed(account: Account) -> None:
    for path in ("/v1/prices*", "/v1/disputes*"):
        account.double.faults.add(FaultKind.REFUSED, path=path, status=403)
    refused = await account.setup("--apply")
    assert refused.exit_code == 1
    assert [line for line in refused.output.splitlines() if "right missing" in line] == [
        "! right missing: Disputes: read (disputes)",
        "! right missing: Prices: read (list_plans)",
        "! right missing: Prices: write (nest stripe setup --apply)",
    ]
    assert account.objects("product") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("products = [", "can't read"),
        ('[[products]]\nkey = "a"\nname = "A"\ncolour = "red"', "colour"),
        (PLANS.replace('features = ["reports"]', 'features = ["sso"]'), "features lacks sso"),
        (PLANS.replace("pro_yearly", "pro_monthly"), "lookup_key pro_monthly appears twice"),
        (PLANS.replace("{usd = 10000}", "{eur = 10000}"), "lacks the default currency usd"),
        (PLANS.replace("usd = 10000", "usd = -1"), "greater than or equal to 0"),
    ],
)
async def test_invalid_file_is_refused_before_any_call(account: Account, text: str, says: str) -> None:
    account.plans.write_text(text)
    refused = await account.setup()
    assert refused.exit_code == 1
    assert says in refused.output
    assert account.double.log == []
