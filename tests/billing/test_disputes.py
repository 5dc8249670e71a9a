"""Disputes follow Stripe and are walked to their person; operators hear of each occasion once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.billing.stripe_api.calls import Patience
from services.stripe_double import FaultKind
from shared.messages.billing.disputes import DisputeClosed, DisputeEvent, DisputeOpened, FollowDispute, ListDisputes
from shared.messages.billing.payments import FollowPayment, PaymentSucceeded
from shared.messages.mailer.mails import DisputeVariables, SendMail
from tests.billing.conftest import Shop
from tests.service_harness import Refused

FAST = Patience(attempt=0.3, call=1.0, portal=0.4, pause=0.01)
ADA = {"user_id": "user_ada"}
OPERATORS = "operators@example.com"


@pytest.fixture
async def shop(open_shop: Callable[..., Any]) -> Shop:
    """A shop whose operators have an address."""
    opened_shop: Shop = await open_shop(operators_address=OPERATORS)
    return opened_shop


async def record(shop: Shop, dispute_id: str) -> dict[str, Any]:
    """Our document of a dispute."""
    found = await shop.harness.database["disputes"].find_one({"stpDisputeId": dispute_id})
    assert found is not None
    return found


async def deliver(shop: Shop, *types: str) -> None:
    """Every event of some types, in order, and all that follows."""
    for event in shop.double.objects("event"):
        if event["type"] in types:
            await shop.deliver(event)
    await shop.settle()


def mails(shop: Shop) -> list[DisputeVariables]:
    """What the mails to the operators show."""
    found = [mail for mail in shop.harness.published_of(SendMail) if mail.template == "dispute"]
    assert {shop.harness.unseal_secret("mailer", mail.to) for mail in found} <= {OPERATORS}
    return [
        DisputeVariables.model_validate_json(shop.harness.unseal_secret("mailer", mail.variables)) for mail in found
    ]


def facts(shop: Shop) -> list[tuple[str, str]]:
    """What was announced of disputes: name and status."""
    return [(type(said).__name__, said.status) for said in shop.harness.published if isinstance(said, DisputeEvent)]


def disputed(shop: Shop, **given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A subscription and a dispute about its payment."""
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    return made, shop.double.simulate.dispute(made["id"], **given)


async def test_a_dispute_is_walked_to_its_user_stored_announced_and_mailed(shop: Shop) -> None:
    made, dispute = disputed(shop, amount=300)
    # Nothing has told of the payment yet.
    await deliver(shop, "charge.dispute.created")
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
        "respondBy": datetime.fromtimestamp(dispute["evidence_details"]["due_by"], UTC),
        "stpCreatedAt": datetime.fromtimestamp(dispute["created"], UTC),
        "createdAt": document["createdAt"],
        "updatedAt": document["createdAt"],
    }
    assert (payment["disputed"], payment["userId"]) == (True, "user_ada")
    (said,) = shop.harness.published_of(DisputeOpened)
    assert (said.user_id, said.dispute_id, said.payment_id) == ("user_ada", document["_id"], payment["_id"])
    (mail,) = mails(shop)
    assert mail.model_dump() == {
        "dispute_id": dispute["id"],
        "amount": "3.00 USD",
        "reason": "fraudulent",
        "outcome": None,
        "link": f"https://dashboard.stripe.com/test/payments/{dispute['payment_intent']}",
    }


@pytest.mark.parametrize(
    ("inquiry", "outcome"), [(False, "won"), (False, "lost"), (False, "prevented"), (True, "warning_closed")]
)
async def test_its_end_is_announced_and_mailed_once(shop: Shop, inquiry: bool, outcome: str) -> None:  # noqa: FBT001
    _, dispute = disputed(shop, inquiry=inquiry)
    await shop.deliver_all()
    shop.double.simulate.close_dispute(dispute["id"], outcome)
    await shop.deliver_all()
    await shop.deliver_all()
    opened = "warning_needs_response" if inquiry else "needs_response"
    assert facts(shop) == [("DisputeOpened", opened), ("DisputeClosed", outcome)]
    assert [mail.outcome for mail in mails(shop)] == [None, outcome]
    assert (await record(shop, dispute["id"]))["status"] == outcome


async def test_one_that_is_over_when_it_is_first_seen_is_told_of_as_much(shop: Shop) -> None:
    _, dispute = disputed(shop)
    shop.double.simulate.close_dispute(dispute["id"], "lost")
    await deliver(shop, "charge.dispute.closed")
    await deliver(shop, "charge.dispute.created", "charge.dispute.funds_withdrawn")
    assert facts(shop) == [("DisputeOpened", "lost"), ("DisputeClosed", "lost")]
    assert [mail.outcome for mail in mails(shop)] == [None, "lost"]


async def test_an_old_one_seen_for_the_first_time_is_recorded_without_a_mail(shop: Shop) -> None:
    _, dispute = disputed(shop)
    shop.harness.now += timedelta(days=40)
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    assert mails(shop) == []
    shop.double.simulate.close_dispute(dispute["id"], "won")
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    # That it was decided is news although it is old.
    assert [mail.outcome for mail in mails(shop)] == ["won"]


async def test_an_inquiry_that_becomes_a_chargeback_stays_one_dispute(shop: Shop) -> None:
    _, dispute = disputed(shop, inquiry=True)
    await shop.deliver_all()
    shop.double.simulate.escalate_dispute(dispute["id"])
    await shop.deliver_all()
    assert (await record(shop, dispute["id"]))["status"] == "needs_response"
    shop.double.simulate.close_dispute(dispute["id"], "lost")
    await shop.deliver_all()
    assert [name for name, _ in facts(shop)] == ["DisputeOpened", "DisputeClosed"]
    assert await shop.count("disputes") == 1


async def test_evidence_given_is_seen(shop: Shop) -> None:
    _, dispute = disputed(shop)
    await shop.post(f"/v1/disputes/{dispute['id']}", **{"evidence[uncategorized_text]": "it was her", "submit": "true"})
    await deliver(shop, "charge.dispute.updated")
    assert (await record(shop, dispute["id"]))["status"] == "under_review"


async def test_a_bank_that_decides_anew_is_told_of_anew(shop: Shop) -> None:
    _, dispute = disputed(shop)
    shop.double.simulate.close_dispute(dispute["id"], "won")
    await shop.deliver_all()
    account = shop.double.account
    with account.change():
        account.update(account.get("dispute", dispute["id"]), status="lost")
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    assert [said.status for said in shop.harness.published_of(DisputeClosed)] == ["won", "lost"]
    assert [mail.outcome for mail in mails(shop)] == [None, "won", "lost"]


async def test_its_user_comes_with_the_payments(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    dispute = shop.double.simulate.dispute(made["id"])
    for event in shop.double.objects("event"):
        if event["type"].startswith("charge.dispute."):
            await shop.deliver(event)
    assert (await record(shop, dispute["id"]))["userId"] is None
    # Operators don't wait for that.
    assert len(mails(shop)) == 1
    await shop.settle()
    user_id = shop.users["ada@example.com"]
    assert (await record(shop, dispute["id"]))["userId"] == user_id
    assert [said.user_id for said in shop.harness.published_of(PaymentSucceeded)] == [user_id]


async def test_a_dispute_that_finds_its_payments_user_is_stored_once(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    dispute = shop.double.simulate.dispute(made["id"])
    await shop.deliver(next(e for e in shop.double.objects("event") if e["type"] == "charge.dispute.created"))
    shop.harness.clear()
    # The mapping is there by another way, and both records are to be changed by one message.
    await shop.post(f"/v1/customers/{made['customer']}", **{"metadata[user_id]": "user_ada"})
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    assert (await record(shop, dispute["id"]))["userId"] == "user_ada"


async def test_one_of_a_charge_without_a_payment_intent_is_its_customers(shop: Shop) -> None:
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
    assert mails(shop)[-1].link == f"https://dashboard.stripe.com/test/payments/{charge['id']}"


async def test_without_an_address_of_the_operators_it_is_counted(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop()
    before = REGISTRY.get_sample_value("nest_disputes_untold_total") or 0.0
    _, dispute = disputed(shop)
    shop.double.simulate.close_dispute(dispute["id"], "lost")
    await shop.deliver_all()
    assert (REGISTRY.get_sample_value("nest_disputes_untold_total") or 0.0) == before + 2
    assert mails(shop) == []
    assert [name for name, _ in facts(shop)] == ["DisputeOpened", "DisputeClosed"]


async def test_one_that_stripe_does_not_have_is_nothing(shop: Shop) -> None:
    await shop.harness.deliver(FollowDispute(dispute_id="dp_elsewhere"))
    assert (await shop.count("disputes"), shop.harness.published) == (0, [])


async def test_a_status_that_nest_does_not_know_is_stored_and_counted(shop: Shop) -> None:
    _, dispute = disputed(shop)
    account = shop.double.account
    with account.change():
        account.update(account.get("dispute", dispute["id"]), status="in_the_stars")
    before = REGISTRY.get_sample_value("nest_stripe_unknown_payment_statuses_total") or 0.0
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    assert (REGISTRY.get_sample_value("nest_stripe_unknown_payment_statuses_total") or 0.0) == before + 1
    assert facts(shop) == [("DisputeOpened", "in_the_stars")]


async def test_a_dispute_waits_while_stripe_is_away(shop: Shop) -> None:
    _, dispute = disputed(shop)
    shop.harness.context.stripe.calls.patience = FAST
    shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await deliver(shop, "charge.dispute.created")
    ((_, again),) = await shop.harness.delayed()
    assert (again.dispute_id, again.attempt) == (dispute["id"], 2)
    await shop.harness.deliver(again)
    assert (await record(shop, dispute["id"]))["status"] == "needs_response"


async def test_nothing_of_the_other_mode_is_followed(shop: Shop) -> None:
    made, dispute = disputed(shop)
    account = shop.double.account
    with account.change():
        account.update(account.get("dispute", dispute["id"]), livemode=True)
        account.update(account.get("payment_intent", dispute["payment_intent"]), livemode=True)
    await shop.harness.deliver(FollowDispute(dispute_id=dispute["id"]))
    await shop.harness.deliver(FollowPayment(payment_intent_id=dispute["payment_intent"]))
    assert made
    assert (await shop.count("disputes"), await shop.count("payments")) == (0, 0)


async def test_they_are_listed_newest_first_by_user_and_status(shop: Shop) -> None:
    _, first = disputed(shop)
    await shop.a_second_later()
    bobs = shop.double.simulate.checkout(shop.price, email="bob@example.com", metadata={"user_id": "user_bob"})
    second = shop.double.simulate.dispute(bobs["id"])
    shop.double.simulate.close_dispute(first["id"], "lost")
    await shop.deliver_all()

    async def listed(**asked: Any) -> list[str]:
        page = await shop.harness.deliver(ListDisputes(**asked))
        return [each["stp_dispute_id"] for each in page["disputes"]]

    assert await listed() == [second["id"], first["id"]]
    assert await listed(user_id="user_ada") == [first["id"]]
    assert await listed(status="lost") == [first["id"]]
    assert await listed(user_id="user_bob", status="lost") == []
    page = await shop.harness.deliver(ListDisputes(limit=1))
    assert await listed(cursor=page["next_cursor"]) == [first["id"]]
    with pytest.raises(Refused, match="invalid_cursor"):
        await listed(cursor="nobody's")
