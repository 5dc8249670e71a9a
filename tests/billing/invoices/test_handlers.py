"""Links to invoices, read from Stripe when they are opened."""

from typing import Any

import pytest

from services.billing.stripe_api.calls import Timeouts
from services.billing.subscriptions.portal import SESSIONS
from services.stripe_double import FaultKind
from shared.messages.billing.invoices import GetInvoiceLink
from tests.billing.conftest import ADA, Shop
from tests.service_harness import Refused


def link(user_id: str = "user_ada", **fields: Any) -> GetInvoiceLink:
    return GetInvoiceLink(user_id=user_id, **fields)


async def refusal(shop: Shop, query: GetInvoiceLink) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(query)
    return refused.value.kind, refused.value.code


async def test_payment_link_opens_the_open_invoice_and_later_the_portal(shop: Shop) -> None:
    made = await shop.declined_renewal()
    await shop.deliver_all()
    (invoice,) = [each for each in shop.double.objects("invoice") if each["status"] == "open"]
    query = link(subscription_id=made["id"])
    assert (await shop.harness.deliver(query))["url"] == invoice["hosted_invoice_url"]
    shop.double.simulate.recover(made["customer"])
    assert (await shop.harness.deliver(query))["url"].startswith(f"{shop.double.url}/p/session/")


@pytest.mark.parametrize(("page", "field"), [("hosted", "hosted_invoice_url"), ("pdf", "invoice_pdf")])
async def test_invoice_link_opens_its_page_or_its_pdf(page: str, field: str, shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    (invoice,) = shop.double.objects("invoice")
    assert (await shop.harness.deliver(link(invoice_id=invoice["id"], page=page)))["url"] == invoice[field]


async def test_nobody_opens_the_invoice_of_another_user(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    (invoice,) = shop.double.objects("invoice")
    for query in (
        link("user_bob", invoice_id=invoice["id"]),
        link("user_bob", subscription_id=made["id"]),
        link(invoice_id="in_none"),
        link(subscription_id="sub_none"),
        link(),
    ):
        assert await refusal(shop, query) == ("not_found", "not_found")


async def test_links_are_limited_and_unavailable_without_stripe(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    query = link(invoice_id=shop.double.objects("invoice")[0]["id"])
    shop.harness.context.stripe.calls.timeouts = Timeouts(portal=0.2, retry_pause=0.01)
    shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    assert await refusal(shop, query) == ("unavailable", "unavailable")
    for _ in range(SESSIONS - 1):
        await shop.harness.deliver(query)
    assert await refusal(shop, query) == ("throttled", "too_many_portal_sessions")
