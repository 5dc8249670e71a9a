from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.billing.disputes.models import Dispute
from services.billing.stripe_api.payment_models import StripeDispute

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
DISPUTED = StripeDispute(
    id="dp_1",
    status="needs_response",
    reason="fraudulent",
    amount=500,
    currency="usd",
    charge_id="ch_1",
    customer_id="cus_1",
    payment_intent_id="pi_1",
    respond_by=None,
    created=NOW,
    livemode=False,
)


def test_an_earlier_reading_changes_nothing() -> None:
    dispute = Dispute.first_seen("dispute_1", "user_ada", DISPUTED, None, at=NOW)
    lost = replace(DISPUTED, status="lost")
    assert dispute.follow("user_ada", lost, None, read_at=NOW - timedelta(seconds=1), at=NOW) is dispute
