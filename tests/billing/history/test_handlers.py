"""Billing history: what a person's money life looks like to an operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from shared.messages import Sealed, iso_milliseconds
from shared.messages.billing.disputes import DisputeFundsReinstated, DisputeFundsWithdrawn
from shared.messages.billing.history import CreditNoteIssued, FollowCreditNote, ListBillingHistory
from shared.messages.personal_data import EraseUserFromBilling
from tests.billing.conftest import ADA, Shop


async def history(shop: Shop, user_id: str = "user_ada", limit: int = 100) -> list[dict[str, Any]]:
    """All entries of a user, oldest first, read page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await shop.harness.deliver(ListBillingHistory(user_id=user_id, limit=limit, cursor=cursor))
        found += page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found[::-1]


def stripe_time(created: dict[str, Any]) -> str:
    """When an object was created in Stripe."""
    return iso_milliseconds(datetime.fromtimestamp(created["created"], UTC))


def of_event(entries: list[dict[str, Any]], event: str) -> dict[str, Any]:
    """The only entry of this event, without the fields that it does not have."""
    [found] = [entry for entry in entries if entry["event"] == event]
    return {name: value for name, value in found.items() if value not in (None, [])}


async def test_refunds_disputes_with_funds_and_credit_notes_are_in_the_history(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    note = await shop.post("/v1/credit_notes", invoice=made["latest_invoice"], amount=100, reason="order_change")
    shop.double.simulate.refund(made["id"], amount=200)
    opened = shop.double.simulate.dispute(made["id"])
    await shop.deliver_all()
    shop.double.simulate.close_dispute(opened["id"], "won")
    await shop.deliver_all()
    # Everything is delivered again, as by Stripe's retries and a sweep.
    await shop.harness.deliver(FollowCreditNote(credit_note_id=note["id"]))

    entries = await history(shop, limit=2)
    assert len(entries) == len({entry["id"] for entry in entries})
    assert sorted(entry["event"] for entry in entries) == [
        "credit-note-issued",
        "dispute-closed",
        "dispute-funds-reinstated",
        "dispute-funds-withdrawn",
        "dispute-opened",
        "payment-refunded",
        "payment-succeeded",
        "subscription-started",
    ]
    assert of_event(entries, "credit-note-issued") | {"id": "", "at": ""} == {
        "id": "",
        "at": "",
        "event": "credit-note-issued",
        "stp_credit_note_id": note["id"],
        "status": "issued",
        "reason": "order_change",
        "amount": 100,
        "currency": "usd",
    }
    assert of_event(entries, "payment-refunded")["amount_refunded"] == 200
    assert of_event(entries, "dispute-funds-withdrawn")["funds"] == 500
    assert of_event(entries, "dispute-funds-reinstated")["funds"] == 500
    assert [event.funds for event in shop.harness.published_of(DisputeFundsWithdrawn)] == [500]
    assert [event.funds for event in shop.harness.published_of(DisputeFundsReinstated)] == [500]
    assert [event.amount for event in shop.harness.published_of(CreditNoteIssued)] == [100]


async def test_each_change_is_in_the_history_once_at_the_time_that_stripe_gives(shop: Shop) -> None:
    """Stripe's events arrive an hour late. Changes without a time in Stripe have the time of their recording."""
    sim, clock = shop.double.simulate, shop.double.clock
    made = sim.checkout(shop.price, email="ada@example.com", metadata=ADA)
    invoice, dispute = made["latest_invoice"], {}
    expected: dict[str, str] = {}

    async def cancel_now() -> None:
        sim.cancel(made["id"], at="now")

    async def issue() -> None:
        await shop.post("/v1/credit_notes", invoice=invoice, amount=100)

    steps: list[tuple[Callable[[], Any], dict[str, Literal["stripe", "recorded"]]]] = [
        (lambda: None, {"subscription-started": "stripe", "payment-succeeded": "stripe"}),
        (lambda: sim.cancel(made["id"]), {"cancellation-planned": "stripe"}),
        (lambda: sim.reactivate(made["id"]), {"cancellation-withdrawn": "recorded"}),
        (issue, {"credit-note-issued": "stripe"}),
        (lambda: sim.refund(made["id"], amount=200), {"payment-refunded": "recorded"}),
        (
            lambda: dispute.update(sim.dispute(made["id"], amount=300)),
            {"dispute-opened": "stripe", "dispute-funds-withdrawn": "stripe"},
        ),
        (
            lambda: sim.close_dispute(dispute["id"], "won"),
            {"dispute-funds-reinstated": "stripe", "dispute-closed": "recorded"},
        ),
        (cancel_now, {"subscription-ended": "stripe"}),
    ]
    for change, kinds in steps:
        made_at = clock.time
        done = change()
        if inspect.isawaitable(done):
            await done
        await clock.advance(timedelta(hours=1))
        shop.harness.now = clock.time
        await shop.deliver_all()
        expected |= {kind: iso_milliseconds(made_at if by == "stripe" else clock.time) for kind, by in kinds.items()}
    await shop.deliver_all()

    entries = [each for each in await history(shop, limit=3) if each["event"] != "subscription-changed"]
    assert [(each["event"], each["at"]) for each in entries] == [
        (each["event"], expected[each["event"]]) for each in entries
    ]
    assert sorted(each["event"] for each in entries) == sorted(expected)
    assert of_event(entries, "cancellation-planned")["ends_at"]
    assert of_event(entries, "cancellation-withdrawn")["renews_at"]
    assert of_event(entries, "dispute-funds-withdrawn")["funds_currency"] == "usd"


async def test_a_declined_renewal_and_a_voided_credit_note_are_in_the_history(shop: Shop) -> None:
    made = await shop.declined_renewal()
    attempt = shop.double.object("charge", shop.payment_intent_of(made)["latest_charge"])
    note = await shop.post("/v1/credit_notes", invoice=made["latest_invoice"], amount=100)
    await shop.deliver_all()
    await shop.next_second()
    void_at = shop.double.clock.time
    await shop.post(f"/v1/credit_notes/{note['id']}/void")
    await shop.double.clock.advance(timedelta(hours=1))
    await shop.deliver_all()

    entries = await history(shop)
    failed = of_event(entries, "payment-failed")
    assert (failed["at"], failed["decline"]) == (stripe_time(attempt), "generic_decline")
    assert of_event(entries, "credit-note-issued")["at"] == stripe_time(note)
    voided = of_event(entries, "credit-note-voided")
    assert (voided["at"], voided["status"], voided["amount"]) == (iso_milliseconds(void_at), "void", 100)


async def test_a_plan_change_has_the_plans_before_and_after(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    item = made["items"]["data"][0]["id"] if isinstance(made["items"], dict) else made["items"][0]["id"]
    await shop.post(f"/v1/subscriptions/{made['id']}", **{"items[0][id]": item, "items[0][quantity]": 9})
    await shop.deliver_all()
    changed = of_event(await history(shop), "plan-changed")
    assert [each["quantity"] for each in (*changed["before"], *changed["after"])] == [1, 9]


async def test_a_dispute_of_an_earlier_release_announces_no_old_movement(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    opened = shop.double.simulate.dispute(made["id"])
    await shop.deliver_all()
    former = {"$unset": {"fundsWithdrawn": "", "fundsReinstated": ""}}
    await shop.harness.database["disputes"].update_one({}, former)
    known = len(shop.harness.published_of(DisputeFundsWithdrawn))
    shop.double.simulate.close_dispute(opened["id"], "lost")
    await shop.deliver_all()
    assert len(shop.harness.published_of(DisputeFundsWithdrawn)) == known


async def test_an_unknown_credit_note_is_missing(shop: Shop) -> None:
    await shop.harness.deliver(FollowCreditNote(credit_note_id="cn_none"))
    assert await shop.count("billing_history") == 0


async def test_an_erasure_removes_the_history(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    assert await history(shop)
    await shop.harness.deliver(EraseUserFromBilling(process_id="p", user_id="user_ada", identifiers=Sealed.of("[]")))
    await shop.settle()
    assert await history(shop) == []


@pytest.mark.parametrize("cursor", ["x", "YWJj"])
async def test_an_invalid_cursor_is_refused(cursor: str, shop: Shop) -> None:
    with pytest.raises(Exception, match="invalid_cursor"):
        await shop.harness.deliver(ListBillingHistory(user_id="user_ada", cursor=cursor))
