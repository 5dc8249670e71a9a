from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.billing.stripe_api.models import StripeCustomer, StripeSubscription
from services.billing.subscriptions.models import STATUSES, Subscription, current, duplicates
from services.billing.trials.models import Trial, TrialDevice

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
GRACE = 30 * DAY
DEVICE = TrialDevice(beak_id="beak_1", fingerprint="print_1")


def truth(**changed: Any) -> StripeSubscription:
    usual = StripeSubscription(
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
    return replace(usual, **changed)


def held(name: str = "1", **changed: Any) -> Subscription:
    return Subscription.first_seen(f"ours_{name}", "user_1", truth(id=f"sub_{name}", **changed), at=NOW)


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
        ("a_word_of_tomorrow", False),
    ],
)
def test_a_status_counts_as_active_only_while_its_period_lasts(status: str, active: bool) -> None:  # noqa: FBT001
    assert held(status=status).active(NOW, GRACE) is active
    assert not held(status=status, period_end=NOW).active(NOW, GRACE)


@pytest.mark.parametrize("status", ["active", "trialing", "past_due"])
def test_what_is_paid_for_tried_or_in_grace_entitles(status: str) -> None:
    assert held(status=status).entitled(NOW, GRACE)


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired", "unpaid", "paused", "canceled", "hibernating"])
def test_a_checkout_in_progress_and_all_that_is_not_live_or_not_known_entitle_to_nothing(status: str) -> None:
    assert not held(status=status).entitled(NOW, GRACE)


def test_while_invoices_are_voided_the_service_is_on_hold_and_while_they_are_kept_it_is_not() -> None:
    on_hold = held(collection_paused="void")
    assert (on_hold.active(NOW, GRACE), on_hold.entitled(NOW, GRACE)) == (True, False)
    assert held(collection_paused="keep_as_draft").entitled(NOW, GRACE)
    assert held(collection_paused="mark_uncollectible").entitled(NOW, GRACE)


def test_grace_ends_although_stripe_goes_on_and_the_place_is_free_for_another() -> None:
    overdue = held("a", status="past_due", created=NOW - 90 * DAY, overdue_since=NOW - GRACE + DAY)
    assert overdue.active(NOW, GRACE)
    later = NOW + DAY
    assert not overdue.active(later, GRACE)
    assert not overdue.entitled(later, GRACE)
    anew = held("b", created=NOW)
    assert duplicates([overdue, anew], at=NOW, grace=GRACE) == [(anew, overdue)]
    assert duplicates([overdue, anew], at=later, grace=GRACE) == []
    assert current([overdue, anew], at=later, grace=GRACE) is anew


def test_what_will_end_or_has_ended_will_not_renew() -> None:
    assert held().will_renew
    assert not held(cancel_at_period_end=True).will_renew
    assert not held(cancel_at=NOW + DAY).will_renew
    assert not held(status="canceled").will_renew


@pytest.mark.parametrize(
    ("begun", "told", "left", "due"),
    [
        pytest.param(11, 0, 3, True, id="three days before the end"),
        pytest.param(11, 0.1, 2.9, True, id="a little late"),
        pytest.param(0, 0, 3, False, id="a trial of three days, just begun"),
        pytest.param(0, 0, 2, False, id="a trial of two days, just begun"),
        pytest.param(14, 0, 2, False, id="an extension by two days"),
        pytest.param(11, 0, 10, False, id="extended since the notice"),
        pytest.param(11, 4, -1, False, id="over since the notice"),
        pytest.param(11, 0, 0, False, id="ended now"),
    ],
)
def test_a_trials_end_is_worth_a_mail_when_notice_was_given_in_time_for_it(
    begun: float,
    told: float,
    left: float,
    due: bool,  # noqa: FBT001
) -> None:
    seen = truth(status="trialing", trial_start=NOW - begun * DAY, trial_end=NOW + left * DAY)
    record = Subscription.first_seen("ours", "user_1", seen, at=NOW)
    assert record.trial_end_due(seen, [NOW - told * DAY], at=NOW) is due
    assert not record.trial_end_due(seen, [], at=NOW)
    assert seen.trial_end is not None
    assert not record.told_of_trial_end(seen.trial_end).trial_end_due(seen, [NOW - told * DAY], at=NOW)


def test_a_trial_that_is_over_heralds_nothing() -> None:
    seen = truth(status="active", trial_start=NOW - 11 * DAY, trial_end=NOW + 3 * DAY)
    assert not seen.heralds_end(NOW, at=NOW)


def test_every_known_status_is_one_of_eight() -> None:
    assert len(STATUSES) == 8


def test_an_end_planned_by_flag_or_by_date_is_at_period_end() -> None:
    by_flag = held(cancel_at_period_end=True, canceled_at=NOW)
    assert (by_flag.cancel_type, by_flag.cancel_at) == ("period_end", by_flag.ends_at)
    by_date = held(cancel_at=NOW + DAY, canceled_at=NOW)
    assert (by_date.cancel_type, by_date.cancel_at) == ("period_end", NOW + DAY)


def test_an_end_at_once_is_immediate_and_ends_the_record_then() -> None:
    ended = held(status="canceled", canceled_at=NOW, ended_at=NOW)
    assert (ended.cancel_type, ended.cancel_at, ended.cancelled_at, ended.ends_at) == ("immediate", NOW, NOW, NOW)
    assert ended.ended
    assert not ended.live(NOW, GRACE)


def test_what_nobody_cancelled_has_no_cancel_type() -> None:
    expired = held(status="incomplete_expired", ended_at=NOW)
    assert (expired.cancel_type, expired.cancel_at) == (None, None)


def test_an_earlier_reading_never_overwrites_a_later_one() -> None:
    later = held()
    after = later.follow("user_1", truth(status="past_due"), read_at=NOW - timedelta(milliseconds=1), at=NOW)
    assert after is later


def test_a_reading_that_changes_nothing_moves_the_fence_and_not_the_time_of_change() -> None:
    before = held()
    after = before.follow("user_1", truth(), read_at=NOW + DAY, at=NOW + DAY)
    assert (after.read_at, after.updated_at, before.changes(after)) == (NOW + DAY, NOW, ())


def test_changes_are_named_as_they_are_kept() -> None:
    before = held()
    after = before.follow(
        "user_2", truth(status="canceled", canceled_at=NOW, ended_at=NOW), read_at=NOW + DAY, at=NOW + DAY
    )
    assert before.changes(after) == ("userId", "status", "endsAt", "cancelAt", "cancelType", "cancelledAt")
    assert after.updated_at == NOW + DAY


def test_the_oldest_live_subscription_stays_and_a_checkout_in_progress_is_no_duplicate() -> None:
    oldest, newer = held("b", created=NOW - 9 * DAY), held("c", created=NOW - 3 * DAY)
    others = [held("a", created=NOW - 20 * DAY, status="canceled"), held("d", status="incomplete"), held("e")]
    assert duplicates([newer, *others, oldest], at=NOW, grace=GRACE) == [(newer, oldest), (others[2], oldest)]
    assert duplicates([oldest, others[0], others[1]], at=NOW, grace=GRACE) == []


def test_of_two_made_in_one_second_the_same_one_stays_whoever_asks() -> None:
    one, other = held("x"), held("y")
    assert (
        duplicates([one, other], at=NOW, grace=GRACE) == duplicates([other, one], at=NOW, grace=GRACE) == [(other, one)]
    )


def test_the_current_subscription_is_a_live_one_before_a_checkout_in_progress() -> None:
    checkout, live = held("a", status="incomplete", created=NOW - 9 * DAY), held("b")
    assert current([checkout, live], at=NOW, grace=GRACE) is live
    assert current([checkout], at=NOW, grace=GRACE) is checkout
    assert current([held("c", status="canceled")], at=NOW, grace=GRACE) is None


@pytest.mark.parametrize("status", ["active", "trialing", "past_due", "unpaid", "paused", "canceled"])
def test_whoever_lived_is_welcomed_whenever_we_first_see_it(status: str) -> None:
    seen = truth(status=status)
    fresh = Subscription.first_seen("ours", "user_1", seen, at=NOW)
    assert fresh.welcome_due(seen, at=NOW)
    assert not fresh.welcomed(NOW).welcome_due(seen, at=NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "incomplete"},
        {"status": "incomplete_expired"},
        {"duplicate_of": "ours_0"},
        {"created": NOW - 31 * DAY},
    ],
)
def test_no_welcome_for_what_never_lived_is_a_duplicate_or_old(changed: dict[str, Any]) -> None:
    seen = truth(**changed)
    assert not Subscription.first_seen("ours", "user_1", seen, at=NOW).welcome_due(seen, at=NOW)


def test_a_trial_needs_no_coupon_and_others_need_the_one_that_is_asked_for() -> None:
    assert not truth().lacks(None)
    assert truth().lacks("staff")
    assert truth(coupons=frozenset({"other"})).lacks("staff")
    assert not truth(coupons=frozenset({"staff"})).lacks("staff")
    assert not truth(trial_start=NOW).lacks("staff")


def test_an_unfinished_trial_goes_on_for_its_device_alone_and_a_finished_one_for_nobody() -> None:
    trial = Trial.reserve("trial_1", "user_1", DEVICE, customer_id=None, email="sealed", at=NOW)
    assert trial.goes_on_for(DEVICE)
    assert not trial.goes_on_for(TrialDevice(beak_id="beak_1", fingerprint="print_2"))
    finished = trial.finish(truth(trial_start=NOW, trial_end=NOW + 14 * DAY), at=NOW)
    assert not finished.goes_on_for(DEVICE)
    assert (finished.starts_at, finished.ends_at, finished.email) == (NOW, NOW + 14 * DAY, None)


def test_a_trials_keys_differ_by_step_and_generation_and_are_trusted_for_23_hours() -> None:
    trial = Trial.reserve("trial_1", "user_1", DEVICE, customer_id=None, email="sealed", at=NOW)
    assert [trial.key("customer", 0), trial.key("customer", 1)] == ["trial_1:customer", "trial_1:customer:1"]
    assert not trial.unsure(NOW + timedelta(hours=23))
    assert trial.unsure(NOW + timedelta(hours=23, seconds=1))
