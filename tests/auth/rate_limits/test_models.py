from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.rate_limits.models import SLOTS, KnownDevices, Limit, Rule, UsageLog, seconds

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
NONE = timedelta(0)
SECOND = timedelta(seconds=1)
windows = st.sampled_from([timedelta(seconds=12), timedelta(minutes=1), timedelta(minutes=5), timedelta(hours=1)])
rules = st.builds(Rule, count=st.integers(1, 6), within=windows)
limits = st.lists(rules, min_size=1, max_size=3, unique_by=lambda rule: rule.within).map(
    lambda found: Limit(tuple(found))
)
pauses = st.lists(st.integers(0, 900_000).map(lambda ms: timedelta(milliseconds=ms)), max_size=60)


def used(limit: Limit, *ago: timedelta) -> UsageLog:
    uses = UsageLog("id")
    for each in sorted(ago, reverse=True):
        uses = uses.with_use(limit, at=NOW - each)
    return uses


def naive_wait(limit: Limit, times: list[datetime], at: datetime) -> timedelta:
    """From the list of all uses there ever were, millisecond by rule: how long until all rules have room."""
    wait = NONE
    for rule in limit.rules:
        ends = sorted(time + rule.within for time in times if time + rule.within > at)
        if len(ends) >= rule.count:
            wait = max(wait, ends[-rule.count] - at)
    return wait


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("1/1m, 5/1h, 10/1d", [(1, 60), (5, 3600), (10, 86_400)]),
        ("30/5m", [(30, 300)]),
        (" 7 / 90s ", [(7, 90)]),
        ("none", []),
        (" NONE ", []),
    ],
)
def test_a_limit_is_written_as_counts_within_stretches_of_time(text: str, rules: list[tuple[int, int]]) -> None:
    limit = Limit.parse(text)
    assert [(rule.count, rule.within.total_seconds()) for rule in limit.rules] == rules


@pytest.mark.parametrize(
    "text", ["", "5", "5/h", "0/1h", "5/0m", "-1/1h", "5/1w", "5/1h,", "5 an hour", "1/1m;2/1h", "5/32d", "٣/1h"]
)
def test_a_limit_written_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it as|nothing is counted"):
        Limit.parse(text)


@given(limits)
def test_a_limit_is_shown_as_it_is_written(limit: Limit) -> None:
    assert Limit.parse(str(limit)) == limit


def test_a_limit_is_shown_in_the_largest_units() -> None:
    assert str(Limit.parse("1/60s, 5/60m, 10/24h, 7/90s")) == "1/1m, 5/1h, 10/1d, 7/90s"
    assert str(Limit.parse("none")) == "none"


def test_one_stretch_of_time_has_one_count() -> None:
    with pytest.raises(ValueError, match="once how many"):
        Limit.parse("5/60m, 10/1h")


def test_there_is_room_until_the_count_is_reached() -> None:
    limit = Limit.parse("2/1m")
    assert limit.wait((), at=NOW) == NONE
    assert limit.wait(used(limit, NONE).times, at=NOW) == NONE
    assert limit.wait(used(limit, NONE, NONE).times, at=NOW) == timedelta(minutes=1)


def test_the_window_slides_with_the_oldest_use_that_counts() -> None:
    limit = Limit.parse("2/1m")
    times = used(limit, timedelta(seconds=50), timedelta(seconds=20)).times
    assert limit.wait(times, at=NOW) == timedelta(seconds=10)
    assert limit.wait(times, at=NOW + timedelta(seconds=10)) == NONE


def test_of_several_rules_the_longest_wait_holds() -> None:
    limit = Limit.parse("1/1m, 2/1h")
    times = used(limit, timedelta(minutes=30), timedelta(seconds=10)).times
    assert limit.wait(times, at=NOW) == timedelta(minutes=30)


def test_no_rules_never_wait_and_remember_nothing() -> None:
    limit = Limit.parse("none")
    assert limit.wait([NOW] * 9, at=NOW) == NONE
    assert limit.most == 0


@given(limits, pauses)
def test_a_limit_judges_as_the_list_of_all_uses_would(limit: Limit, pauses: list[timedelta]) -> None:
    at, uses, every = NOW, UsageLog("id"), list[datetime]()
    for pause in pauses:
        at += pause
        wait = limit.wait(uses.times, at=at)
        assert wait == naive_wait(limit, every, at)
        if wait == NONE:
            uses = uses.with_use(limit, at=at)
            every.append(at)
        else:
            # What was told is true: not a millisecond earlier, and then indeed.
            assert limit.wait(uses.times, at=at + wait) == NONE
            assert limit.wait(uses.times, at=at + wait - timedelta(milliseconds=1)) > NONE
        assert len(uses.times) <= limit.most


@given(limits, st.lists(st.integers(-3_000, 3_000), max_size=20))
def test_clocks_that_differ_keep_uses_in_order(limit: Limit, skews: list[int]) -> None:
    uses = UsageLog("id")
    for skew in skews:
        uses = uses.with_use(limit, at=NOW + timedelta(milliseconds=skew))
    assert list(uses.times) == sorted(uses.times)
    assert uses.version == 0


@given(rules, pauses)
def test_grains_never_allow_more_than_the_rule_and_wait_at_most_a_grain_longer(
    rule: Rule, pauses: list[timedelta]
) -> None:
    at, counts, every = NOW, dict[int, int](), list[datetime]()
    for pause in pauses:
        at += pause
        wait = rule.wait_of_slots(counts, at=at)
        exactly = naive_wait(Limit((rule,)), every, at)
        assert exactly <= wait + timedelta(milliseconds=1)
        assert wait <= exactly + rule.within / SLOTS + timedelta(milliseconds=1)
        if wait == NONE:
            counts[rule.grain(at)] = counts.get(rule.grain(at), 0) + 1
            every.append(at)
            assert len([time for time in every if time > at - rule.within]) <= rule.count
        else:
            assert rule.wait_of_slots(counts, at=at + wait + timedelta(milliseconds=1)) == NONE


@pytest.mark.parametrize(
    ("wait", "said"), [(NONE, 1), (timedelta(milliseconds=1), 1), (SECOND, 1), (timedelta(seconds=1.001), 2)]
)
def test_who_waits_as_long_as_told_has_waited_enough(wait: timedelta, said: int) -> None:
    assert seconds(wait) == said


def test_a_person_is_known_by_their_latest_traits() -> None:
    familiar = KnownDevices("id").with_traits(["first"])
    for number in range(KnownDevices.MOST):
        familiar = familiar.with_traits([f"{number}"])
    assert len(familiar.traits) == KnownDevices.MOST
    assert "first" not in familiar.traits
    assert familiar.traits[-1] == f"{KnownDevices.MOST - 1}"


def test_a_trait_is_known_once() -> None:
    assert KnownDevices("id").with_traits(["a", "b"]).with_traits(["a"]).traits == ("b", "a")
