from datetime import UTC, datetime, timedelta

from services.billing.stripe_api.models import StripeCustomer, StripeSubscription
from services.billing.trials.models import Trial, TrialDevice

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DEVICE = TrialDevice(beak_id="beak_1", fingerprint="print_1")


def test_a_pending_trial_continues_on_its_device_only() -> None:
    trial = Trial.reserve("trial_1", "user_1", DEVICE, customer_id=None, email="sealed", at=NOW)
    assert trial.continues_on(DEVICE)
    assert not trial.continues_on(TrialDevice(beak_id="beak_1", fingerprint="print_2"))
    subscription = StripeSubscription(
        id="sub_1",
        customer=StripeCustomer(id="cus_1", email=None, user_id=None, deleted=False),
        status="trialing",
        product_id="prod_1",
        user_id=None,
        trial_id="trial_1",
        created=NOW,
        period_start=NOW,
        period_end=NOW + timedelta(days=14),
        cancel_at=None,
        cancel_at_period_end=False,
        canceled_at=None,
        ended_at=None,
        trial_start=NOW,
        trial_end=NOW + timedelta(days=14),
        coupons=frozenset(),
        duplicate_of=None,
        livemode=False,
    )
    finished = trial.finish(subscription, at=NOW)
    assert not finished.continues_on(DEVICE)
    assert (finished.starts_at, finished.ends_at, finished.email) == (NOW, NOW + timedelta(days=14), None)


def test_idempotency_keys_of_a_trial_expire_after_23_hours() -> None:
    trial = Trial.reserve("trial_1", "user_1", DEVICE, customer_id=None, email="sealed", at=NOW)
    assert not trial.keys_expired(NOW + timedelta(hours=23))
    assert trial.keys_expired(NOW + timedelta(hours=23, seconds=1))
