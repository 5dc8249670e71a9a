from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.billing.stripe_api.models import StripeCustomer, StripeSubscription, SubscriptionItem
from services.billing.subscriptions.duplicates import Duplicate, Exclusions, live_duplicates
from services.billing.subscriptions.models import AccessPolicy, Subscription, current

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
GRACE = 30 * DAY
POLICY = AccessPolicy(grace=GRACE, unpaid_grace=3 * DAY, leeway=2 * HOUR)


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


def duplicates(
    subscriptions: list[Subscription], *, at: datetime = NOW, groups: tuple[Any, ...] = ()
) -> list[Duplicate]:
    return live_duplicates(subscriptions, at=at, policy=POLICY, exclusions=Exclusions(tuple(map(frozenset, groups))))


def cancellable(
    subscriptions: list[Subscription], *, at: datetime = NOW, groups: tuple[Any, ...] = ()
) -> list[tuple[Subscription, Subscription]]:
    return [
        (each.subscription, each.kept) for each in duplicates(subscriptions, at=at, groups=groups) if each.cancellable
    ]


def item(product: str, price: str = "price_1", quantity: int = 1) -> SubscriptionItem:
    return SubscriptionItem(
        stp_item_id=f"si_{product}_{price}", stp_product_id=product, stp_price_id=price, quantity=quantity
    )


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
def test_a_subscription_is_active_until_its_period_and_the_leeway_end(
    status: str,
    active: bool,  # noqa: FBT001
) -> None:
    assert stored(status=status).active(NOW, POLICY) is active
    assert not stored(status=status, period_end=NOW - 2 * HOUR).active(NOW, POLICY)


@pytest.mark.parametrize(
    ("changed", "minutes"),
    [
        pytest.param({}, 120, id="renews"),
        pytest.param({"status": "trialing", "trial_end": NOW}, 120, id="a trial becomes a subscription"),
        pytest.param(
            {"status": "past_due", "overdue_since": NOW - DAY, "paid": True}, 120, id="unpaid, in its grace period"
        ),
        pytest.param({"cancel_at": NOW + 60 * DAY}, 120, id="to end after a later period"),
        pytest.param({"schedule_ends_at": NOW + 60 * DAY}, 120, id="a schedule ends it after a later period"),
        pytest.param({"cancel_at_period_end": True}, 0, id="to end with its period"),
        pytest.param({"cancel_at": NOW}, 0, id="to end at a date"),
        pytest.param({"schedule_ends_at": NOW}, 0, id="a schedule ends it with its period"),
        pytest.param({"status": "incomplete"}, 0, id="a checkout in progress"),
        pytest.param(
            {"status": "past_due", "overdue_since": NOW - 29 * DAY - 23 * HOUR, "paid": True},
            60,
            id="its grace period ends first",
        ),
    ],
)
def test_what_renews_stays_active_for_the_leeway(changed: dict[str, Any], minutes: int) -> None:
    record = stored(period_end=NOW, **changed)
    end = NOW + timedelta(minutes=minutes)
    assert record.access_ends_at(POLICY) == end
    assert record.active(end - timedelta(milliseconds=1), POLICY)
    assert not record.active(end, POLICY)


@pytest.mark.parametrize(
    ("changed", "days"),
    [
        pytest.param({"paid": True}, 30, id="paid before"),
        pytest.param({"paid": True, "payable": False}, 30, id="paid before, and its card removed"),
        pytest.param({"trial_start": NOW - 14 * DAY}, 30, id="a trial whose card was declined"),
        pytest.param({"trial_start": NOW - 14 * DAY, "payable": False}, 3, id="a trial without a card"),
        pytest.param({}, 3, id="a first bank debit that was returned"),
    ],
)
def test_the_grace_period_depends_on_payments_and_payment_methods(changed: dict[str, Any], days: int) -> None:
    record = stored(status="past_due", overdue_since=NOW, **changed)
    assert record.grace_ends_at(POLICY) == NOW + days * DAY


def test_a_record_of_an_earlier_release_keeps_its_grace_period_until_it_is_read() -> None:
    earlier = replace(stored(status="past_due", overdue_since=NOW), had_trial=None)
    assert earlier.grace_ends_at(POLICY) == NOW + GRACE


TRIAL = {"status": "trialing", "trial_start": NOW - 5 * DAY, "trial_end": NOW + 9 * DAY}


@pytest.mark.parametrize(
    ("older", "newer", "loser"),
    [
        pytest.param({**TRIAL, "payable": False}, {"paid": True}, "older", id="a trial without a card, and a payment"),
        pytest.param(TRIAL, {"paid": True}, "older", id="a trial with a card, and a payment"),
        pytest.param({"free": True}, {"paid": True}, "older", id="a free price, and a payment"),
        pytest.param({"free": True}, TRIAL, "older", id="a free price, and a trial with a card"),
        pytest.param(
            {"status": "past_due", "paid": True, "overdue_since": NOW},
            {"paid": True},
            "older",
            id="overdue, and a payment",
        ),
        pytest.param({"paid": True}, {"paid": True}, "newer", id="two payments"),
        pytest.param({"paid": True}, TRIAL, "newer", id="a payment, and a trial"),
        pytest.param({**TRIAL, "paid": True}, {"paid": True}, "newer", id="a payment whose next one was moved"),
        pytest.param(TRIAL, TRIAL, "newer", id="two trials"),
        pytest.param({"free": True}, {**TRIAL, "payable": False}, "newer", id="free, and a trial without a card"),
        pytest.param({"product_id": "prod_2"}, {"paid": True}, None, id="another product"),
        pytest.param({"status": "incomplete"}, {"paid": True}, None, id="a checkout in progress"),
    ],
)
def test_what_is_paid_beats_what_is_not(older: dict[str, Any], newer: dict[str, Any], loser: str | None) -> None:
    first, second = stored("a", created=NOW - DAY, **older), stored("b", created=NOW, **newer)
    expected = {"older": [(first, second)], "newer": [(second, first)], None: []}[loser]
    assert cancellable([second, first]) == expected
    kept = first if loser != "older" else second
    if first.status != "incomplete" and loser is not None:
        assert current([second, first], at=NOW, policy=POLICY) is kept


@pytest.mark.parametrize(
    ("products", "groups", "cancelled"),
    [
        pytest.param((["a"], ["a"]), (), True, id="one product"),
        pytest.param((["a"], ["b"]), (), False, id="two products"),
        pytest.param((["a"], ["b"]), (["a", "b"],), True, id="two products of a group"),
        pytest.param((["a"], ["b"]), (["a", "c"], ["b", "d"]), False, id="two groups"),
        pytest.param((["a", "b"], ["b"]), (), True, id="a part of the other"),
        pytest.param((["a"], ["a", "b"]), (), False, id="more than the other"),
    ],
)
def test_only_subscriptions_for_the_same_products_are_duplicates(
    products: tuple[list[str], list[str]],
    groups: tuple[list[str], ...],
    cancelled: bool,  # noqa: FBT001
) -> None:
    older, newer = (
        stored(name, created=NOW - age * DAY, items=tuple(map(item, of_one)))
        for name, age, of_one in zip("xy", (2, 1), products, strict=True)
    )
    assert cancellable([older, newer], groups=groups) == ([(newer, older)] if cancelled else [])


def test_a_moved_subscription_is_no_reason_to_cancel() -> None:
    own, other = stored("a", created=NOW - 2 * DAY), stored("b", created=NOW - DAY)
    moved = other.follow("user_2", stripe_subscription(id="sub_b"), read_at=NOW, at=NOW)
    assert moved.moved_at == NOW
    assert [each.cancellable for each in duplicates([own, moved])] == [False]


def test_a_record_of_an_earlier_release_changes_by_its_new_fields_alone_without_an_event() -> None:
    older = replace(stored(), items=(), standing=None, paid=None)
    read = stripe_subscription(items=(item("prod_1"),), schedule_ends_at=NOW + DAY)
    updated = older.follow("user_1", read, read_at=NOW + DAY, at=NOW + DAY)
    assert (older.changes(updated), updated.products) == ((), {"prod_1"})
    changed = replace(read, items=(item("prod_1", quantity=9),))
    assert updated.changes(updated.follow("user_1", changed, read_at=NOW + DAY, at=NOW)) == ("items",)


@pytest.mark.parametrize("status", ["active", "trialing", "past_due"])
def test_paid_trialing_and_past_due_subscriptions_entitle(status: str) -> None:
    assert stored(status=status).entitled(NOW, POLICY)


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired", "unpaid", "paused", "canceled", "hibernating"])
def test_other_and_unknown_statuses_entitle_to_nothing(status: str) -> None:
    assert not stored(status=status).entitled(NOW, POLICY)


def test_only_voided_invoices_suspend_the_service() -> None:
    on_hold = stored(collection_paused="void")
    assert (on_hold.active(NOW, POLICY), on_hold.entitled(NOW, POLICY)) == (True, False)
    assert stored(collection_paused="keep_as_draft").entitled(NOW, POLICY)
    assert stored(collection_paused="mark_uncollectible").entitled(NOW, POLICY)


def test_after_the_grace_period_another_subscription_may_be_live() -> None:
    overdue = stored("a", status="past_due", created=NOW - 90 * DAY, overdue_since=NOW - GRACE + DAY, paid=True)
    assert overdue.active(NOW, POLICY)
    later = NOW + DAY
    assert not overdue.active(later, POLICY)
    assert not overdue.entitled(later, POLICY)
    newer = stored("b", created=NOW)
    assert cancellable([overdue, newer]) == [(newer, overdue)]
    assert cancellable([overdue, newer], at=later) == []
    assert current([overdue, newer], at=later, policy=POLICY) is newer


def test_a_cancelled_subscription_does_not_renew() -> None:
    assert stored().will_renew
    assert not stored(cancel_at_period_end=True).will_renew
    assert not stored(cancel_at=NOW + DAY).will_renew
    assert not stored(schedule_ends_at=NOW + 30 * DAY).will_renew
    assert stored(schedule_ends_at=NOW + 31 * DAY).will_renew
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
    assert not ended.live(NOW, POLICY)


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
    assert cancellable([newer, *others, oldest]) == [(newer, oldest), (others[2], oldest)]
    assert cancellable([oldest, others[0], others[1]]) == []


def test_of_two_created_in_one_second_always_the_same_one_is_kept() -> None:
    first, second = stored("x"), stored("y")
    assert cancellable([first, second]) == cancellable([second, first]) == [(second, first)]


def test_a_duplicate_that_was_taken_over_is_not_cancelled() -> None:
    kept, newer = stored("1"), stored("3")
    taken_over = Subscription.first_seen("ours_2", "user_1", stripe_subscription(id="sub_2"), at=NOW, taken_over=True)
    assert [each.subscription for each in duplicates([kept, taken_over, newer])] == [taken_over, newer]
    assert cancellable([kept, taken_over, newer]) == [(newer, kept)]
    assert (taken_over.welcomed_at, newer.welcomed_at) == (NOW, None)


def test_a_live_subscription_is_current_before_a_checkout() -> None:
    checkout, live = stored("a", status="incomplete", created=NOW - 9 * DAY), stored("b")
    assert current([checkout, live], at=NOW, policy=POLICY) is live
    assert current([checkout], at=NOW, policy=POLICY) is checkout
    assert current([stored("c", status="canceled")], at=NOW, policy=POLICY) is None


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
