"""Synchronization of a dispute's record, its events and the mails to operators with Stripe."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.stripe_double import FaultKind
from shared.messages.billing.disputes import DisputeClosed, DisputeOpened, FollowDispute, ListDisputes
from shared.messages.billing.payments import FollowPayment, PaymentSucceeded
from shared.messages.mailer.mails import DisputeVariables, SendMail
from tests.billing.conftest import ADA, FAST, Shop, counter
from tests.service_harness import Refused

OPERATORS = "operators@example.com"


@pytest.fixture
async def shop(open_shop: Callable[..., Any]) -> Shop:
    """A shop with an operators address."""
    opened_shop: Shop = await open_shop(operators_address=OPERATORS)
    return opened_shop


async def record(shop: Shop, dispute_id: str) -> dict[str, Any]:
    """The document of a dispute."""
    found = await shop.harness.database["disputes"].find_one({"stpDisputeId": dispute_id})
    assert found is not None
    return found


def mails(shop: Shop) -> list[DisputeVariables]:
    """The variables of the mails to operators."""
    found = [mail for mail in shop.harness.published_of(SendMail) if mail.template == "dispute"]
    assert {shop.harness.unseal_secret("mailer", mail.to) for mail in found} <= {OPERATORS}
    return [
        DisputeVariables.model_validate_json(shop.harness.unseal_secret("mailer", mail.variables)) for mail in found
    ]


def announced(shop: Shop) -> list[tuple[str, str]]:
    """Name and status of the published events about disputes, without those about their funds."""
    return [
        (type(event).__name__, event.status)
        for event in shop.harness.published
        if isinstance(event, DisputeOpened | DisputeClosed)
    ]


def disputed(shop: Shop, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A subscription and a dispute about its payment."""
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    return made, shop.double.simulate.dispute(made["id"], **options)


async def test_a_dispute_is_stored_with_its_user_announced_and_mailed(shop: Shop) -> None:
    made, dispute = disputed(shop, amount=300)
    # No event about the payment was delivered before.
    await shop.deliver_types("charge.dispute.created")
    document = await record(shop, dispute["id"])
    payment = await shop.harness.database["payments"].find_one({"stpPaymentIntentId": dispute["payment_intent"]})
    assert payment is not None
    assert document["_id"].startswith("test_dispute_")
    assert {name: document[name] for name in document if name not in ("_id", "version", "readAt")} == {
        "userId": "user_ada",
        "paymentId": payment["_id"],
        "stpDisputeId": dispute["id"],
        "stpChargeId": dispute["charge"],
        "stpPaymentIntentId": dispute["payment_intent"],
        "stpInvoiceId": made["latest_invoice"],
        "stpSubscriptionId": made["id"],
        "stpCustomerId": made["customer"],
        "status": "needs_response",
        "reason": "fraudulent",
        "amount": 300,
        "currency": "usd",
        "fundsWithdrawn": 300,
        "fundsReinstated": 0,
        "fundsCurrency": "usd",
        "withdrawnAt": datetime.fromtimestamp(dispute["created"], UTC),
        "reinstatedAt": None,
        "respondBy": datetime.fromtimestamp(dispute["evidence_details"]["due_by"], UTC),
        "stpCreatedAt": datetime.fromtimestamp(dispute["created"], UTC),
        "createdAt": document["createdAt"],
        "updatedAt": document["createdAt"],
    }
    assert (payment["disputed"], payment["userId"]) == (True, "user_ada")
    (event,) = shop.harness.published_of(DisputeOpened)
    assert (event.user_id, event.dispute_id, event.payment_id) == ("user_ada", document["_id"], payment["_id"])
    (mail,) = mails(shop)
    assert mail.model_dump() == {
        "dispute_id": dispute["id"],
        "amount": "3.00 USD",
        "reason": "fraudulent",
        "outcome": None,
        "link": f"{shop.double.url}/test/payments/{dispute['payment_intent']}",
    }


@pytest.mark.parametrize(
    ("inquiry", "outcome"), [(False, "won"), (False, "lost"), (False, "prevented"), (True, "warning_closed")]
)
async def test_the_end_of_a_dispute_is_announced_and_mailed_once(shop: Shop, inquiry: bool, outcome: str) -> None:  # noqa: FBT001
    _, dispute = disputed(shop, inquiry=inquiry)
    await shop.deliver_all()
    shop.double.simulate.close_dispute(dispute["id"], outcome)
    await shop.deliver_all()
    await shop.deliver_all()
    opened = "warning_needs_response" if inquiry else "needs_response"
    assert announced(shop) == [("DisputeOpened", opened), ("DisputeClosed", outcome)]
    assert [mail.outcome for mail in mails(shop)] == [None, outcome]
    assert (await record(shop, dispute["id"]))["status"] == outcome


async def test_a_closed_dispute_that_is_first_seen_causes_all_events_and_mails(shop: Shop) -> None:
    _, dispute = disputed(shop)
    shop.double.simulate.close_dispute(dispute["id"], "lost")
    await shop.deliver_types("charge.dispute.closed")
    await shop.deliver_types("charge.dispute.created", "charge.dispute.funds_withdrawn")
    assert announced(shop) == [("DisputeOpened", "lost"), ("DisputeClosed", "lost")]
    assert [mail.outcome for mail in mails(shop)] == [None, "lost"]


async def test_an_old_dispute_that_is_first_seen_causes_no_mail(shop: Shop) -> None:
    _, dispute = disputed(shop)
    shop.harness.now += timedelta(days=40)
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    assert mails(shop) == []
    shop.double.simulate.close_dispute(dispute["id"], "won")
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    # The decision is recent although the dispute is old.
    assert [mail.outcome for mail in mails(shop)] == ["won"]


async def test_an_inquiry_that_becomes_a_chargeback_stays_one_dispute(shop: Shop) -> None:
    _, dispute = disputed(shop, inquiry=True)
    await shop.deliver_all()
    shop.double.simulate.escalate_dispute(dispute["id"])
    await shop.deliver_all()
    assert (await record(shop, dispute["id"]))["status"] == "needs_response"
    shop.double.simulate.close_dispute(dispute["id"], "lost")
    await shop.deliver_all()
    assert [name for name, _ in announced(shop)] == ["DisputeOpened", "DisputeClosed"]
    assert await shop.count("disputes") == 1


async def test_submitted_evidence_changes_the_status(shop: Shop) -> None:
    _, dispute = disputed(shop)
    await shop.post(f"/v1/disputes/{dispute['id']}", **{"evidence[uncategorized_text]": "it was her", "submit": "true"})
    await shop.deliver_types("charge.dispute.updated")
    assert (await record(shop, dispute["id"]))["status"] == "under_review"


async def test_a_second_decision_is_announced_and_mailed_again(shop: Shop) -> None:
    _, dispute = disputed(shop)
    shop.double.simulate.close_dispute(dispute["id"], "won")
    await shop.deliver_all()
    account = shop.double.account
    with account.change():
        account.update(account.get("dispute", dispute["id"]), status="lost")
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    assert [event.status for event in shop.harness.published_of(DisputeClosed)] == ["won", "lost"]
    assert [mail.outcome for mail in mails(shop)] == [None, "won", "lost"]


async def test_a_dispute_gets_its_user_with_its_payment(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    dispute = shop.double.simulate.dispute(made["id"])
    for event in shop.double.objects("event"):
        if event["type"].startswith("charge.dispute."):
            await shop.deliver(event)
    assert (await record(shop, dispute["id"]))["userId"] is None
    # The mail to operators does not wait for the user.
    assert len(mails(shop)) == 1
    await shop.settle()
    user_id = shop.users["ada@example.com"]
    assert (await record(shop, dispute["id"]))["userId"] == user_id
    assert [event.user_id for event in shop.harness.published_of(PaymentSucceeded)] == [user_id]


async def test_a_dispute_that_determines_its_payments_user_is_stored_once(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    dispute = shop.double.simulate.dispute(made["id"])
    await shop.deliver(next(e for e in shop.double.objects("event") if e["type"] == "charge.dispute.created"))
    shop.harness.clear()
    # The user becomes known otherwise, and one message changes both records.
    await shop.post(f"/v1/customers/{made['customer']}", **{"metadata[user_id]": "user_ada"})
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    assert (await record(shop, dispute["id"]))["userId"] == "user_ada"


async def test_a_dispute_without_payment_intent_gets_the_customers_user(shop: Shop) -> None:
    made, dispute = disputed(shop)
    await shop.deliver_all()
    account = shop.double.account
    with account.change():
        charge = account.update(account.get("charge", dispute["charge"]), payment_intent=None, disputed=False)
        old = account.put(
            {**account.get("dispute", dispute["id"]), "id": "dp_1old", "payment_intent": None, "charge": charge["id"]}
        )
    await shop.harness.deliver(FollowDispute(dispute_id=old["id"]))
    document = await record(shop, "dp_1old")
    assert (document["userId"], document["paymentId"], document["stpCustomerId"]) == (
        "user_ada",
        None,
        made["customer"],
    )
    assert mails(shop)[-1].link == f"{shop.double.url}/test/payments/{charge['id']}"


async def test_disputes_without_an_operators_address_are_counted(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop()
    before = counter("nest_disputes_untold")
    _, dispute = disputed(shop)
    shop.double.simulate.close_dispute(dispute["id"], "lost")
    await shop.deliver_all()
    assert counter("nest_disputes_untold") == before + 2
    assert mails(shop) == []
    assert [name for name, _ in announced(shop)] == ["DisputeOpened", "DisputeClosed"]


async def test_a_missing_dispute_is_not_recorded(shop: Shop) -> None:
    await shop.harness.deliver(FollowDispute(dispute_id="dp_none"))
    assert (await shop.count("disputes"), shop.harness.published) == (0, [])


async def test_an_unknown_status_is_stored_and_counted(shop: Shop) -> None:
    _, dispute = disputed(shop)
    account = shop.double.account
    with account.change():
        account.update(account.get("dispute", dispute["id"]), status="a_future_status")
    before = counter("nest_stripe_unknown_payment_statuses")
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    assert counter("nest_stripe_unknown_payment_statuses") == before + 1
    assert announced(shop) == [("DisputeOpened", "a_future_status")]


async def test_a_dispute_is_recorded_after_an_outage_of_stripe(shop: Shop) -> None:
    _, dispute = disputed(shop)
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.deliver_types("charge.dispute.created")
    ((_, retry),) = await shop.harness.delayed()
    assert (retry.dispute_id, retry.attempt) == (dispute["id"], 2)
    await shop.harness.deliver(retry)
    assert (await record(shop, dispute["id"]))["status"] == "needs_response"


async def test_disputes_and_payments_of_the_other_mode_are_not_recorded(shop: Shop) -> None:
    _, dispute = disputed(shop)
    account = shop.double.account
    with account.change():
        account.update(account.get("dispute", dispute["id"]), livemode=True)
        account.update(account.get("payment_intent", dispute["payment_intent"]), livemode=True)
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    await shop.harness.deliver(FollowPayment(payment_intent_id=dispute["payment_intent"]))
    assert (await shop.count("disputes"), await shop.count("payments")) == (0, 0)


async def test_disputes_are_listed_newest_first_by_user_and_status(shop: Shop) -> None:
    _, first = disputed(shop)
    await shop.next_second()
    of_bob = shop.double.simulate.checkout(shop.price, email="bob@example.com", metadata={"user_id": "user_bob"})
    second = shop.double.simulate.dispute(of_bob["id"])
    shop.double.simulate.close_dispute(first["id"], "lost")
    await shop.deliver_all()

    async def listed(**query: Any) -> list[str]:
        page = await shop.harness.deliver(ListDisputes(**query))
        return [each["stp_dispute_id"] for each in page["disputes"]]

    assert await listed() == [second["id"], first["id"]]
    assert await listed(user_id="user_ada") == [first["id"]]
    assert await listed(status="lost") == [first["id"]]
    assert await listed(user_id="user_bob", status="lost") == []
    page = await shop.harness.deliver(ListDisputes(limit=1))
    assert await listed(cursor=page["next_cursor"]) == [first["id"]]
    with pytest.raises(Refused, match="invalid_cursor"):
        await listed(cursor="invalid")
