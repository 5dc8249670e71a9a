from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.billing.stripe_api.models import StripeCustomer, StripeSubscription
from services.billing.subscriptions.models import Subscription, current, duplicates_to_cancel, live_duplicates

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
GRACE = 30 * DAY


def stripe_subscription(**changed: Any) -> StripeSubscription:
    default = StripeSubscription(
        id="sub_1",
        customer=StripeCustomer(id="cus_1", email="ada@example.com", user_id=None, deleted=False),
        status="active",
        product_id="prod_1",
        user_id=None,
        trial_id=None,
        created=NOW - DAY,
        period_start=NOW - DAY,
        period_end=NOW + 30 * DAY,
        cancel_at=None,
        cancel_at_period_end=False,
        canceled_at=None,
        ended_at=None,
        trial_start=None,
        trial_end=None,
        coupons=frozenset(),
        duplicate_of=None,
        livemode=False,
    )
    return replace(default, **changed)


def stored(name: str = "1", **changed: Any) -> Subscription:
    return Subscription.first_seen(f"ours_{name}", "user_1", stripe_subscription(id=f"sub_{name}", **changed), at=NOW)


@pytest.mark.parametrize(
    ("status", "active"),
    [
        ("active", True),
        ("trialing", True),
        ("past_due", True),
        ("incomplete", True),
        ("incomplete_expired", False),
        ("unpaid", False),
        ("paused", False),
        ("canceled", False),
        ("a_future_status", False),
    ],
)
def test_a_subscription_is_active_until_its_period_ends(status: str, active: bool) -> None:  # noqa: FBT001
    assert stored(status=status).active(NOW, GRACE) is active
    assert not stored(status=status, period_end=NOW).active(NOW, GRACE)


@pytest.mark.parametrize("status", ["active", "trialing", "past_due"])
def test_paid_trialing_and_past_due_subscriptions_entitle(status: str) -> None:
    assert stored(status=status).entitled(NOW, GRACE)


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired", "unpaid", "paused", "canceled", "hibernating"])
def test_other_and_unknown_statuses_entitle_to_nothing(status: str) -> None:
    assert not stored(status=status).entitled(NOW, GRACE)


def test_only_voided_invoices_suspend_the_service() -> None:
    on_hold = stored(collection_paused="void")
    assert (on_hold.active(NOW, GRACE), on_hold.entitled(NOW, GRACE)) == (True, False)
    assert stored(collection_paused="keep_as_draft").entitled(NOW, GRACE)
    assert stored(collection_paused="mark_uncollectible").entitled(NOW, GRACE)


def test_after_the_grace_period_another_subscription_may_be_live() -> None:
    overdue = stored("a", status="past_due", created=NOW - 90 * DAY, overdue_since=NOW - GRACE + DAY)
    assert overdue.active(NOW, GRACE)
    later = NOW + DAY
    assert not overdue.active(later, GRACE)
    assert not overdue.entitled(later, GRACE)
    newer = stored("b", created=NOW)
    assert duplicates_to_cancel([overdue, newer], at=NOW, grace=GRACE) == [(newer, overdue)]
    assert duplicates_to_cancel([overdue, newer], at=later, grace=GRACE) == []
    assert current([overdue, newer], at=later, grace=GRACE) is newer


def test_a_cancelled_subscription_does_not_renew() -> None:
    assert stored().will_renew
    assert not stored(cancel_at_period_end=True).will_renew
    assert not stored(cancel_at=NOW + DAY).will_renew
    assert not stored(status="canceled").will_renew


@pytest.mark.parametrize(
    ("age", "notice_age", "left", "due"),
    [
        pytest.param(11, 0, 3, True, id="three days before the end"),
        pytest.param(11, 0.1, 2.9, True, id="a little later"),
        pytest.param(0, 0, 3, False, id="a new trial of three days"),
        pytest.param(0, 0, 2, False, id="a new trial of two days"),
        pytest.param(14, 0, 2, False, id="an extension by two days"),
        pytest.param(11, 0, 10, False, id="extended after the notice"),
        pytest.param(11, 4, -1, False, id="ended after the notice"),
        pytest.param(11, 0, 0, False, id="ending now"),
    ],
)
def test_a_notice_three_days_before_the_end_of_a_trial_causes_one_mail(
    age: float,
    notice_age: float,
    left: float,
    due: bool,  # noqa: FBT001
) -> None:
    read = stripe_subscription(status="trialing", trial_start=NOW - age * DAY, trial_end=NOW + left * DAY)
    record = Subscription.first_seen("ours", "user_1", read, at=NOW)
    assert record.trial_end_mail_due(read, [NOW - notice_age * DAY], at=NOW) is due
    assert not record.trial_end_mail_due(read, [], at=NOW)
    assert read.trial_end is not None
    assert not record.notified_of_trial_end(read.trial_end).trial_end_mail_due(read, [NOW - notice_age * DAY], at=NOW)


def test_an_ended_trial_does_not_end_soon() -> None:
    read = stripe_subscription(status="active", trial_start=NOW - 11 * DAY, trial_end=NOW + 3 * DAY)
    assert not read.trial_ends_soon(NOW, at=NOW)


def test_an_end_planned_by_flag_or_by_date_is_at_period_end() -> None:
    by_flag = stored(cancel_at_period_end=True, canceled_at=NOW)
    assert (by_flag.cancel_type, by_flag.cancel_at) == ("period_end", by_flag.ends_at)
    by_date = stored(cancel_at=NOW + DAY, canceled_at=NOW)
    assert (by_date.cancel_type, by_date.cancel_at) == ("period_end", NOW + DAY)


def test_a_cancellation_now_is_immediate() -> None:
    ended = stored(status="canceled", canceled_at=NOW, ended_at=NOW)
    assert (ended.cancel_type, ended.cancel_at, ended.cancelled_at, ended.ends_at) == ("immediate", NOW, NOW, NOW)
    assert ended.ended
    assert not ended.live(NOW, GRACE)


def test_an_expired_checkout_has_no_cancel_type() -> None:
    expired = stored(status="incomplete_expired", ended_at=NOW)
    assert (expired.cancel_type, expired.cancel_at) == (None, None)


def test_an_earlier_reading_changes_nothing() -> None:
    later = stored()
    updated = later.follow(
        "user_1", stripe_subscription(status="past_due"), read_at=NOW - timedelta(milliseconds=1), at=NOW
    )
    assert updated is later


def test_an_equal_reading_updates_read_at_only() -> None:
    before = stored()
    after = before.follow("user_1", stripe_subscription(), read_at=NOW + DAY, at=NOW + DAY)
    assert (after.read_at, after.updated_at, before.changes(after)) == (NOW + DAY, NOW, ())


def test_changes_have_the_stored_names_of_the_fields() -> None:
    before = stored()
    after = before.follow(
        "user_2", stripe_subscription(status="canceled", canceled_at=NOW, ended_at=NOW), read_at=NOW + DAY, at=NOW + DAY
    )
    assert before.changes(after) == ("userId", "status", "endsAt", "cancelAt", "cancelType", "cancelledAt")
    assert after.updated_at == NOW + DAY


def test_the_oldest_live_subscription_is_kept() -> None:
    oldest, newer = stored("b", created=NOW - 9 * DAY), stored("c", created=NOW - 3 * DAY)
    others = [stored("a", created=NOW - 20 * DAY, status="canceled"), stored("d", status="incomplete"), stored("e")]
    assert duplicates_to_cancel([newer, *others, oldest], at=NOW, grace=GRACE) == [(newer, oldest), (others[2], oldest)]
    assert duplicates_to_cancel([oldest, others[0], others[1]], at=NOW, grace=GRACE) == []


def test_of_two_created_in_one_second_always_the_same_one_is_kept() -> None:
    first, second = stored("x"), stored("y")
    assert (
        duplicates_to_cancel([first, second], at=NOW, grace=GRACE)
        == duplicates_to_cancel([second, first], at=NOW, grace=GRACE)
        == [(second, first)]
    )


def test_a_duplicate_that_was_taken_over_is_not_cancelled() -> None:
    kept, newer = stored("1"), stored("3")
    taken_over = Subscription.first_seen("ours_2", "user_1", stripe_subscription(id="sub_2"), at=NOW, taken_over=True)
    assert [pair[0] for pair in live_duplicates([kept, taken_over, newer], at=NOW, grace=GRACE)] == [taken_over, newer]
    assert duplicates_to_cancel([kept, taken_over, newer], at=NOW, grace=GRACE) == [(newer, kept)]
    assert (taken_over.welcomed_at, newer.welcomed_at) == (NOW, None)


def test_a_live_subscription_is_current_before_a_checkout() -> None:
    checkout, live = stored("a", status="incomplete", created=NOW - 9 * DAY), stored("b")
    assert current([checkout, live], at=NOW, grace=GRACE) is live
    assert current([checkout], at=NOW, grace=GRACE) is checkout
    assert current([stored("c", status="canceled")], at=NOW, grace=GRACE) is None


@pytest.mark.parametrize("status", ["active", "trialing", "past_due", "unpaid", "paused", "canceled"])
def test_a_started_subscription_is_welcomed_once_in_any_status(status: str) -> None:
    read = stripe_subscription(status=status)
    record = Subscription.first_seen("ours", "user_1", read, at=NOW)
    assert record.welcome_due(read, at=NOW)
    assert not record.welcomed(NOW).welcome_due(read, at=NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "incomplete"},
        {"status": "incomplete_expired"},
        {"duplicate_of": "ours_0"},
        {"created": NOW - 31 * DAY},
    ],
)
def test_checkouts_duplicates_and_old_subscriptions_are_not_welcomed(changed: dict[str, Any]) -> None:
    read = stripe_subscription(**changed)
    assert not Subscription.first_seen("ours", "user_1", read, at=NOW).welcome_due(read, at=NOW)


def test_subscriptions_except_trials_need_the_required_coupon() -> None:
    assert not stripe_subscription().lacks(None)
    assert stripe_subscription().lacks("staff")
    assert stripe_subscription(coupons=frozenset({"other"})).lacks("staff")
    assert not stripe_subscription(coupons=frozenset({"staff"})).lacks("staff")
    assert not stripe_subscription(trial_start=NOW).lacks("staff")
