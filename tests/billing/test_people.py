"""What billing hands over, removes and keeps when a person is exported or erased."""

import json
from typing import Any

import httpx

from services.stripe_double import FaultKind
from shared.ids import derived_message_id
from shared.messages import Sealed
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.mailer.mails import SendMail
from shared.messages.personal_data import (
    AddExportedPart,
    ConfirmErasure,
    EraseUserFromBilling,
    ExportUserFromBilling,
    NoteErasureWait,
)
from tests.billing.conftest import API_KEY, Shop

USER, OTHER = "user_1", "user_2"


def about(user_id: str = USER) -> dict[str, Any]:
    known = Sealed.of(json.dumps([["email", "ada@example.com"]]))
    return {"process_id": "userproc_1", "user_id": user_id, "identifiers": known}


async def subscribed(shop: Shop, user_id: str = USER, email: str = "ada@example.com") -> tuple[str, str]:
    """A customer of a user's, and their subscription, paid and recorded."""
    customer = await shop.post(
        "/v1/customers",
        email=email,
        payment_method="pm_card_visa",
        **{"metadata[user_id]": user_id, "invoice_settings[default_payment_method]": "pm_card_visa"},
    )
    subscription = await shop.post("/v1/subscriptions", customer=customer["id"], **{"items[0][price]": shop.price})
    await shop.deliver_all()
    return customer["id"], subscription["id"]


async def erased(shop: Shop, **more: Any) -> None:
    """The order, and all that it orders of billing itself."""
    shop.harness.clear()
    waiting: list[Any] = [EraseUserFromBilling(**about(), **more)]
    while waiting:
        shop.harness.clear()
        await shop.harness.deliver(waiting.pop())
        waiting += [message for message in shop.harness.published_of(EraseUserFromBilling) if not message.again]


async def test_all_that_billing_holds_on_a_user_is_handed_over(shop: Shop) -> None:
    customer, subscription = await subscribed(shop)
    await subscribed(shop, OTHER, "bob@example.com")
    shop.harness.clear()
    waiting: list[Any] = [ExportUserFromBilling(**about(), run=1)]
    held: dict[str, list[Any]] = {}
    while waiting:
        await shop.harness.deliver(waiting.pop())
        waiting = shop.harness.published_of(ExportUserFromBilling)
        for part in shop.harness.published_of(AddExportedPart):
            held.setdefault(part.collection, []).extend(json.loads(shop.harness.unseal_secret("auth", part.documents)))
        last = shop.harness.published_of(AddExportedPart)[-1].last
        shop.harness.clear()
    assert last
    assert [mapping["providerValue"] for mapping in held["provider_mappings"]] == [customer]
    assert [record["stpSubscriptionId"] for record in held["subscriptions"]] == [subscription]
    assert {payment["userId"] for payment in held["payments"]} == {USER}


async def test_of_an_erased_user_payments_stay_and_nobodys(shop: Shop) -> None:
    await subscribed(shop)
    await subscribed(shop, OTHER, "bob@example.com")
    payments = await shop.count("payments")
    await erased(shop)
    assert [confirmed.holder for confirmed in shop.harness.published_of(ConfirmErasure)] == ["billing"]
    assert await shop.count("payments") == payments
    for name in ("provider_mappings", "subscriptions", "trials", "payments", "disputes"):
        assert await shop.harness.database[name].count_documents({"userId": USER}) == 0, name
    assert await shop.harness.database["subscriptions"].count_documents({"userId": OTHER}) == 1


async def test_a_webhook_that_comes_later_brings_nobody_back(shop: Shop) -> None:
    customer, subscription = await subscribed(shop)
    await erased(shop)
    shop.harness.clear()
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {API_KEY}"}) as stripe:
        await stripe.delete(f"{shop.double.url}/v1/subscriptions/{subscription}")
    events = shop.double.objects("event")
    for number, event in enumerate(events):
        # As if Stripe told all of it again, under new ids.
        await shop.deliver({**event, "id": f"evt_again_{number}"})
    await shop.settle()
    assert shop.harness.published_of(EnsureUser) == []
    assert shop.harness.published_of(SendMail) == []
    assert await shop.count("subscriptions") == 0
    assert await shop.harness.database["payments"].count_documents({"userId": {"$ne": None}}) == 0
    outcomes = {row["outcome"] for row in await shop.event_rows() if row["objectId"] == subscription}
    assert outcomes == {"read", "erased"}
    assert customer in {row["_id"] for row in await shop.harness.database["erased"].find().to_list()}


async def test_stripe_forgets_the_customer_if_asked(shop: Shop) -> None:
    customer, _ = await subscribed(shop)
    await erased(shop)
    kept = {each["id"] for each in shop.double.objects("customer") if not each.get("deleted")}
    assert customer in kept
    other, _ = await subscribed(shop, "user_3", "eve@example.com")
    order = EraseUserFromBilling(**about("user_3"), delete_stripe_customer=True)
    for number in range(2):
        shop.harness.clear()
        await shop.harness.deliver(order, id=derived_message_id("test", str(number)))
    assert other not in {each["id"] for each in shop.double.objects("customer") if not each.get("deleted")}
    assert shop.harness.published_of(ConfirmErasure)


async def test_an_erasure_without_anything_to_erase_is_confirmed(shop: Shop) -> None:
    await erased(shop, delete_stripe_customer=True)
    assert shop.harness.published_of(ConfirmErasure)


async def test_while_stripe_is_away_the_process_says_so_and_it_is_tried_until_done(shop: Shop) -> None:
    customer, _ = await subscribed(shop)
    shop.double.faults.add(FaultKind.SERVER_ERROR, method="DELETE")
    order = EraseUserFromBilling(**about("user_3"), delete_stripe_customer=True)
    other, _ = await subscribed(shop, "user_3", "eve@example.com")
    for number in range(2):
        shop.harness.clear()
        await shop.harness.deliver(order, id=derived_message_id("test", str(number)))
    [note] = shop.harness.published_of(NoteErasureWait)
    assert (note.holder, note.waits_for, note.reason) == ("billing", "stripe", "StripeUnavailable")
    assert shop.harness.published_of(ConfirmErasure) == []
    shop.double.faults.clear()
    again = [message for _, message in await shop.harness.delayed() if isinstance(message, EraseUserFromBilling)]
    await shop.harness.deliver(next(message for message in again if message.user_id == "user_3"))
    assert shop.harness.published_of(ConfirmErasure)
    assert other not in {each["id"] for each in shop.double.objects("customer") if not each.get("deleted")}
    assert customer in {each["id"] for each in shop.double.objects("customer") if not each.get("deleted")}


async def test_what_auth_says_late_of_an_erased_user_attaches_no_customer(shop: Shop) -> None:
    await erased(shop)
    card = {"payment_method": "pm_card_visa", "invoice_settings[default_payment_method]": "pm_card_visa"}
    customer = await shop.post("/v1/customers", email="ada@example.com", **card)
    await shop.post("/v1/subscriptions", customer=customer["id"], **{"items[0][price]": shop.price})
    await shop.harness.deliver(UserEnsured(key=customer["id"], reference=customer["id"], user_id=USER))
    assert await shop.count("provider_mappings") == 0
    shop.harness.clear()
    await shop.deliver_all()
    assert shop.harness.published_of(EnsureUser) == []
    assert await shop.count("subscriptions") == 0
    assert await shop.harness.database["payments"].count_documents({"userId": {"$ne": None}}) == 0
