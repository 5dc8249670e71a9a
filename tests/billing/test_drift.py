"""What differs, in words; and how far a run is."""

from datetime import UTC, datetime, timedelta

import pytest

from services.billing.customers.models import ProviderMapping
from services.billing.runs import comparison as drift
from services.billing.runs.models import KEPT, STAGES, STALLED, Drift, Run, Standing, by_kind
from services.billing.stripe_api.models import StripeCustomer, StripeSubscription
from services.billing.subscriptions.models import Subscription, duplicates, rivals

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def customer(
    *, email: str | None = "ada@example.com", user_id: str | None = None, deleted: bool = False
) -> StripeCustomer:
    return StripeCustomer(id="cus_1", email=email, user_id=user_id, deleted=deleted)


def truth(*, id: str = "sub_1", status: str = "active", of: StripeCustomer | None = None) -> StripeSubscription:  # noqa: A002
    return StripeSubscription(
        id=id,
        customer=of or customer(),
        status=status,
        product_id="prod_1",
        user_id=None,
        trial_id=None,
        created=NOW,
        period_start=NOW,
        period_end=NOW + timedelta(days=30),
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


def held(*, id: str = "sub_1", taken_over: bool = False) -> Subscription:  # noqa: A002
    return Subscription.first_seen(f"ours_{id}", "user_1", truth(id=id), at=NOW, taken_over=taken_over)


def test_a_record_that_is_as_stripe_says_is_no_drift_whenever_it_was_read() -> None:
    later = truth()
    assert drift.of_subscription("sub_1", held(), later, "user_1") is None
    assert drift.of_subscription("sub_1", held(), later, None) is None


def test_each_field_that_differs_is_told_with_both_values() -> None:
    found = drift.of_subscription("sub_1", held(), truth(status="past_due"), "user_2")
    assert found is not None
    assert (found.kind, found.repairable, found.our_id) == ("differs", True, "ours_sub_1")
    assert found.different == [
        {"field": "user_id", "ours": "user_1", "theirs": "user_2"},
        {"field": "status", "ours": "active", "theirs": "past_due"},
    ]


@pytest.mark.parametrize(
    ("whose", "user_id", "kind"),
    [
        (customer(), None, "missing_here"),
        (customer(email=None), "user_1", "missing_here"),
        (customer(email=None), None, "nobody"),
        (customer(email=None, deleted=True), None, None),
    ],
)
def test_a_subscription_without_a_record_is_missing_if_it_could_have_one(
    whose: StripeCustomer, user_id: str | None, kind: str | None
) -> None:
    found = drift.of_subscription("sub_1", None, truth(of=whose), user_id)
    assert (None if found is None else found.kind) == kind


def test_what_stripe_does_not_have_is_beyond_repair() -> None:
    found = drift.of_subscription("sub_1", held(), None, None)
    assert found is not None
    assert (found.kind, found.repairable) == ("missing_there", False)


def test_a_customer_follows_its_own_metadata_alone() -> None:
    mapping = ProviderMapping(
        id="provmap_1", user_id="user_1", provider_type="stripe", provider_value="cus_1", created_at=NOW, updated_at=NOW
    )
    assert drift.of_customer("cus_1", None, customer()) is None
    assert drift.of_customer("cus_1", mapping, customer()) is None
    assert drift.of_customer("cus_1", mapping, customer(deleted=True)) is None
    moved = drift.of_customer("cus_1", mapping, customer(user_id="user_2"))
    assert moved is not None
    assert moved.different == [{"field": "user_id", "ours": "user_1", "theirs": "user_2"}]


def test_standing_drift_is_counted_by_object_and_kind_since_it_was_found() -> None:
    one = Drift(subject="payment", stripe_id="pi_1", our_id=None, kind="missing_here")
    first = Standing.of(one, at=NOW)
    later = first.seen(
        Drift(subject="payment", stripe_id="pi_1", our_id="p", kind="differs"), at=NOW + timedelta(hours=1)
    )
    assert (later.found_at, later.kind) == (NOW, "differs")
    other = Standing.of(Drift(subject="dispute", stripe_id="dp_1", our_id=None, kind="missing_here"), at=NOW)
    assert by_kind([first, later, other]) == {
        ("payment", "missing_here"): 1,
        ("payment", "differs"): 1,
        ("dispute", "missing_here"): 1,
    }


def test_a_duplicate_that_was_taken_over_is_a_rival_and_does_not_go() -> None:
    grace = timedelta(days=30)
    kept, of_old, new = held(id="sub_1"), held(id="sub_2", taken_over=True), held(id="sub_3")
    assert [pair[0] for pair in rivals([kept, of_old, new], at=NOW, grace=grace)] == [of_old, new]
    assert duplicates([kept, of_old, new], at=NOW, grace=grace) == [(new, kept)]
    assert (of_old.welcomed_at, new.welcomed_at) == (NOW, None)


def test_a_run_goes_through_the_stages_of_its_kind_and_is_over() -> None:
    run = Run.begin("run_1", "verify_lately", at=NOW, hours=2)
    seen = []
    while run.under_way:
        seen.append(run.stage)
        assert run.expects(run.step)
        assert not run.expects(run.step - 1)
        run = run.on("cursor", at=NOW)
        assert (run.cursor, run.look) == ("cursor", 0)
        run = run.past_stage(at=NOW)
        assert run.cursor is None
    assert tuple(seen) == STAGES["verify_lately"]
    assert (run.status, run.finished_at, run.expires_at) == ("done", NOW, NOW + KEPT)
    assert run.stopped(at=NOW) == run.gone_on(at=NOW) == run
    assert not run.expects(run.step)


def test_a_run_that_stopped_goes_on_and_one_that_nothing_moves_is_stalled() -> None:
    run = Run.begin("run_1", "sweep", at=NOW, days=30).counted(events=3).counted(events=2)
    assert run.counts == {"events": 5}
    stopped = run.stopped(at=NOW)
    assert not stopped.expects(0)
    resumed = stopped.gone_on(at=NOW)
    assert (resumed.status, resumed.resumed, resumed.expires_at) == ("running", 1, None)
    assert resumed.expects(0)
    waits = run.put_off(at=NOW)
    assert waits.expects(0)
    assert not waits.stalled(NOW + STALLED)
    assert waits.stalled(NOW + STALLED + timedelta(seconds=1))
    assert not stopped.stalled(NOW + 2 * STALLED)
