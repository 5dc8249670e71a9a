"""Billing's part of exports and erasures."""

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


def identify(user_id: str = USER) -> dict[str, Any]:
    identifiers = Sealed.of(json.dumps([["email", "ada@example.com"]]))
    return {"process_id": "userproc_1", "user_id": user_id, "identifiers": identifiers}


async def subscribe(shop: Shop, user_id: str = USER, email: str = "ada@example.com") -> tuple[str, str]:
    """IDs of a new customer of a user and of its paid and recorded subscription."""
    customer = await shop.post(
        "/v1/customers",
        email=email,
        payment_method="pm_card_visa",
        **{"metadata[user_id]": user_id, "invoice_settings[default_payment_method]": "pm_card_visa"},
    )
    subscription = await shop.post("/v1/subscriptions", customer=customer["id"], **{"items[0][price]": shop.price})
    await shop.deliver_all()
    return customer["id"], subscription["id"]


async def erase(shop: Shop, **options: Any) -> None:
    """Deliver the erasure command, and the commands that follow."""
    shop.harness.clear()
    commands: list[Any] = [EraseUserFromBilling(**identify(), **options)]
    while commands:
        shop.harness.clear()
        await shop.harness.deliver(commands.pop())
        commands += [message for message in shop.harness.published_of(EraseUserFromBilling) if not message.again]


async def test_an_export_contains_all_data_of_the_user(shop: Shop) -> None:
    customer, subscription = await subscribe(shop)
    await subscribe(shop, OTHER, "bob@example.com")
    shop.harness.clear()
    commands: list[Any] = [ExportUserFromBilling(**identify(), run=1)]
    exported: dict[str, list[Any]] = {}
    while commands:
        await shop.harness.deliver(commands.pop())
        commands = shop.harness.published_of(ExportUserFromBilling)
        for part in shop.harness.published_of(AddExportedPart):
            exported.setdefault(part.collection, []).extend(
                json.loads(shop.harness.unseal_secret("auth", part.documents))
            )
        last = shop.harness.published_of(AddExportedPart)[-1].last
        shop.harness.clear()
    assert last
    assert [mapping["providerValue"] for mapping in exported["provider_mappings"]] == [customer]
    assert [record["stpSubscriptionId"] for record in exported["subscriptions"]] == [subscription]
    assert {payment["userId"] for payment in exported["payments"]} == {USER}


async def test_payments_of_an_erased_user_stay_without_user(shop: Shop) -> None:
    await subscribe(shop)
    await subscribe(shop, OTHER, "bob@example.com")
    payments = await shop.count("payments")
    await erase(shop)
    assert [confirmed.holder for confirmed in shop.harness.published_of(ConfirmErasure)] == ["billing"]
    assert await shop.count("payments") == payments
    for name in ("provider_mappings", "subscriptions", "trials", "payments", "disputes"):
        assert await shop.harness.database[name].count_documents({"userId": USER}) == 0, name
    assert await shop.harness.database["subscriptions"].count_documents({"userId": OTHER}) == 1


async def test_a_webhook_after_the_erasure_restores_nothing(shop: Shop) -> None:
    customer, subscription = await subscribe(shop)
    await erase(shop)
    shop.harness.clear()
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {API_KEY}"}) as stripe:
        await stripe.delete(f"{shop.double.url}/v1/subscriptions/{subscription}")
    events = shop.double.objects("event")
    for number, event in enumerate(events):
        # As if Stripe sent all events again under new IDs.
        await shop.deliver({**event, "id": f"evt_again_{number}"})
    await shop.settle()
    assert shop.harness.published_of(EnsureUser) == []
    assert shop.harness.published_of(SendMail) == []
    assert await shop.count("subscriptions") == 0
    assert await shop.harness.database["payments"].count_documents({"userId": {"$ne": None}}) == 0
    outcomes = {row["outcome"] for row in await shop.event_rows() if row["objectId"] == subscription}
    assert outcomes == {"read", "erased"}
    assert customer in {row["_id"] for row in await shop.harness.database["erased"].find().to_list()}


async def test_the_customer_is_deleted_in_stripe_on_request_only(shop: Shop) -> None:
    customer, _ = await subscribe(shop)
    await erase(shop)
    customers = {each["id"] for each in shop.double.objects("customer") if not each.get("deleted")}
    assert customer in customers
    other, _ = await subscribe(shop, "user_3", "eve@example.com")
    command = EraseUserFromBilling(**identify("user_3"), delete_stripe_customer=True)
    for number in range(2):
        shop.harness.clear()
        await shop.harness.deliver(command, id=derived_message_id("test", str(number)))
    assert other not in {each["id"] for each in shop.double.objects("customer") if not each.get("deleted")}
    assert shop.harness.published_of(ConfirmErasure)


async def test_an_erasure_without_anything_to_erase_is_confirmed(shop: Shop) -> None:
    await erase(shop, delete_stripe_customer=True)
    assert shop.harness.published_of(ConfirmErasure)


async def test_an_erasure_reports_an_outage_of_stripe_and_is_retried(shop: Shop) -> None:
    customer, _ = await subscribe(shop)
    shop.double.faults.add(FaultKind.SERVER_ERROR, method="DELETE")
    command = EraseUserFromBilling(**identify("user_3"), delete_stripe_customer=True)
    other, _ = await subscribe(shop, "user_3", "eve@example.com")
    for number in range(2):
        shop.harness.clear()
        await shop.harness.deliver(command, id=derived_message_id("test", str(number)))
    [note] = shop.harness.published_of(NoteErasureWait)
    assert (note.holder, note.waits_for, note.reason) == ("billing", "stripe", "StripeUnavailable")
    assert shop.harness.published_of(ConfirmErasure) == []
    shop.double.faults.clear()
    retries = [message for _, message in await shop.harness.delayed() if isinstance(message, EraseUserFromBilling)]
    await shop.harness.deliver(next(message for message in retries if message.user_id == "user_3"))
    assert shop.harness.published_of(ConfirmErasure)
    assert other not in {each["id"] for each in shop.double.objects("customer") if not each.get("deleted")}
    assert customer in {each["id"] for each in shop.double.objects("customer") if not each.get("deleted")}


async def test_a_late_reply_of_auth_about_an_erased_user_maps_no_customer(shop: Shop) -> None:
    await erase(shop)
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
