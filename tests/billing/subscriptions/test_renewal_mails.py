"""Mails before a renewal: its announcement by country, and a card that expires before it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.billing.settings import BillingSettings
from shared.messages.billing.subscriptions import CheckSubscriptionRenewal
from shared.messages.mailer.mails import SendMail
from shared.settings import SettingsError
from tests.billing.conftest import ADA, Shop, post

NOTICES = "FR:45,US-CA:30,*:10"


def mails(shop: Shop, template: str) -> list[dict[str, Any]]:
    """The variables of all mails of a template."""
    ordered = [mail for mail in shop.harness.published_of(SendMail) if mail.template == template]
    return [shop.harness.variables_of(mail) for mail in ordered]


async def subscription(shop: Shop, interval: str = "year") -> dict[str, Any]:
    """A subscription of Ada that was followed."""
    price = await post(
        shop.double,
        "/v1/prices",
        **{
            "currency": "usd",
            "unit_amount": "6000",
            "recurring[interval]": interval,
            "product_data[name]": "Beak",
        },
    )
    made = shop.double.simulate.checkout(price["id"], email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    return made


def renewal_of(shop: Shop, made: dict[str, Any]) -> datetime:
    items = shop.double.object("subscription", made["id"])["items"]
    [item] = items["data"] if isinstance(items, dict) else items
    return datetime.fromtimestamp(item["current_period_end"], UTC)


async def run_checks(shop: Shop, until: datetime, *, repeats: int = 1) -> None:
    """Deliver the checks that are due until then, soonest first, each at its time."""
    made: set[datetime] = set()
    while True:
        checks = [each for each in await shop.harness.delayed() if isinstance(each[1], CheckSubscriptionRenewal)]
        due = next((each for each in checks if each[0] <= until and each[0] not in made), None)
        if due is None:
            return
        made.add(due[0])
        await shop.double.clock.advance(max(due[0] - shop.double.clock.time, timedelta(0)))
        shop.harness.now = due[0]
        for _ in range(repeats):
            await shop.harness.deliver(due[1])


async def set_card(shop: Shop, made: dict[str, Any], expires: datetime) -> None:
    """Let the card of a subscription be valid until the end of a month."""
    account = shop.double.account
    current = account.get("subscription", made["id"])
    customer = account.get("customer", made["customer"])
    method = current["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    stored = account.get("payment_method", method)
    with account.change():
        account.put({**stored, "card": {**stored["card"], "exp_month": expires.month, "exp_year": expires.year}})


@pytest.mark.parametrize(
    ("address", "days"),
    [
        ({"address[country]": "FR"}, 45),
        ({"address[country]": "US", "address[state]": "CA"}, 30),
        ({"address[country]": "US", "address[state]": "NY"}, 10),
        ({}, 10),
    ],
)
async def test_a_yearly_renewal_is_announced_as_the_country_asks(
    open_shop: Callable[..., Any], address: dict[str, str], days: int
) -> None:
    shop: Shop = await open_shop(renewal_notices=NOTICES)
    made = await subscription(shop)
    # The address is read when the mail is due.
    if address:
        await shop.post(f"/v1/customers/{made['customer']}", **address)
    renewal = renewal_of(shop, made)
    await run_checks(shop, renewal - timedelta(days=days, seconds=1))
    assert mails(shop, "renewal-upcoming") == []
    await run_checks(shop, renewal, repeats=2)
    [mail] = mails(shop, "renewal-upcoming")
    assert datetime.fromisoformat(mail["renews_at"]) == renewal
    assert (mail["price"], mail["interval"]) == ("60.00 USD", "year")
    assert mail["link"] == shop.settings.stripe_portal_return_url


@pytest.mark.parametrize(("interval", "notices"), [("month", "*:10"), ("year", ""), ("year", "FR:10")])
async def test_other_renewals_are_not_announced(open_shop: Callable[..., Any], interval: str, notices: str) -> None:
    shop: Shop = await open_shop(renewal_notices=notices)
    made = await subscription(shop, interval)
    await run_checks(shop, renewal_of(shop, made))
    assert mails(shop, "renewal-upcoming") == []


async def test_a_cancelled_subscription_announces_no_renewal(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(renewal_notices="*:10")
    made = await subscription(shop)
    renewal = renewal_of(shop, made)
    # The event about the cancellation has not arrived.
    shop.double.simulate.cancel(made["id"])
    await run_checks(shop, renewal)
    assert mails(shop, "renewal-upcoming") == []


@pytest.mark.parametrize(("months", "mailed"), [(-2, 0), (-1, 1), (0, 0), (12, 0)])
async def test_a_card_that_expires_before_the_renewal_is_mailed_once(shop: Shop, months: int, mailed: int) -> None:
    # A month before the renewal the card is valid until its end; a card of the month of the renewal still pays for it.
    made = await subscription(shop, "month")
    renewal = renewal_of(shop, made)
    month = renewal.year * 12 + renewal.month - 1 + months
    await set_card(shop, made, datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC))
    await run_checks(shop, renewal, repeats=2)
    found = mails(shop, "card-expiring")
    assert len(found) == mailed
    if mailed:
        assert found[0]["expires"] == f"{month % 12 + 1:02}/{month // 12}"
        assert (len(found[0]["card"]), found[0]["link"]) == (4, shop.settings.stripe_portal_return_url)


async def test_a_check_that_arrives_early_reads_nothing(shop: Shop) -> None:
    made = await subscription(shop)
    [check] = [each for _, each in await shop.harness.delayed() if isinstance(each, CheckSubscriptionRenewal)]
    path = f"/v1/subscriptions/{made['id']}"
    before = shop.reads(path)
    await shop.harness.deliver(check)
    assert shop.reads(path) == before


@pytest.mark.parametrize(
    "value", ["de:30", "DE", "DE:0", "DE:91", "DEU:30", "DE:30,DE:20", "US-CALI:3", "DE:x", "DE:1:2"]
)
def test_invalid_notices_are_refused(settings: Callable[..., BillingSettings], value: str) -> None:
    with pytest.raises(SettingsError):
        settings(renewal_notices=value)
