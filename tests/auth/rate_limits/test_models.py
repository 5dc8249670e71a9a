from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.rate_limits.models import SLOTS_PER_WINDOW, KnownDevices, Limit, Rule, UseLog, retry_after_seconds

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
ZERO = timedelta(0)
SECOND = timedelta(seconds=1)
windows = st.sampled_from([timedelta(seconds=12), timedelta(minutes=1), timedelta(minutes=5), timedelta(hours=1)])
rules = st.builds(Rule, count=st.integers(1, 6), window=windows)
limits = st.lists(rules, min_size=1, max_size=3, unique_by=lambda rule: rule.window).map(
    lambda rules: Limit(tuple(rules))
)
pauses = st.lists(st.integers(0, 900_000).map(lambda ms: timedelta(milliseconds=ms)), max_size=60)


def log_of_uses(limit: Limit, *ago: timedelta) -> UseLog:
    uses = UseLog("id")
    for each in sorted(ago, reverse=True):
        uses = uses.with_use(limit, at=NOW - each)
    return uses


def naive_wait(limit: Limit, times: list[datetime], at: datetime) -> timedelta:
    """Time until all rules allow one more use, computed from a list of all uses."""
    wait = ZERO
    for rule in limit.rules:
        ends = sorted(time + rule.window for time in times if time + rule.window > at)
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
def test_limit_is_parsed_as_counts_per_window(text: str, rules: list[tuple[int, int]]) -> None:
    limit = Limit.parse(text)
    assert [(rule.count, rule.window.total_seconds()) for rule in limit.rules] == rules


@pytest.mark.parametrize(
    "text", ["", "5", "5/h", "0/1h", "5/0m", "-1/1h", "5/1w", "5/1h,", "5 an hour", "1/1m;2/1h", "5/32d", "٣/1h"]
)
def test_malformed_limit_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"write rules such as|a window can't be longer"):
        Limit.parse(text)


@given(limits)
def test_formatted_limit_parses_to_the_same_limit(limit: Limit) -> None:
    assert Limit.parse(str(limit)) == limit


def test_limit_is_formatted_in_the_largest_units() -> None:
    assert str(Limit.parse("1/60s, 5/60m, 10/24h, 7/90s")) == "1/1m, 5/1h, 10/1d, 7/90s"
    assert str(Limit.parse("none")) == "none"


def test_two_rules_with_one_window_are_rejected() -> None:
    with pytest.raises(ValueError, match="only one count"):
        Limit.parse("5/60m, 10/1h")


def test_uses_are_allowed_until_the_count_is_reached() -> None:
    limit = Limit.parse("2/1m")
    assert limit.wait((), at=NOW) == ZERO
    assert limit.wait(log_of_uses(limit, ZERO).times, at=NOW) == ZERO
    assert limit.wait(log_of_uses(limit, ZERO, ZERO).times, at=NOW) == timedelta(minutes=1)


def test_window_slides_with_the_oldest_counted_use() -> None:
    limit = Limit.parse("2/1m")
    times = log_of_uses(limit, timedelta(seconds=50), timedelta(seconds=20)).times
    assert limit.wait(times, at=NOW) == timedelta(seconds=10)
    assert limit.wait(times, at=NOW + timedelta(seconds=10)) == ZERO


def test_longest_wait_of_several_rules_applies() -> None:
    limit = Limit.parse("1/1m, 2/1h")
    times = log_of_uses(limit, timedelta(minutes=30), timedelta(seconds=10)).times
    assert limit.wait(times, at=NOW) == timedelta(minutes=30)


def test_limit_without_rules_never_waits_and_needs_no_uses() -> None:
    limit = Limit.parse("none")
    assert limit.wait([NOW] * 9, at=NOW) == ZERO
    assert limit.max_count == 0


@given(limits, pauses)
def test_limit_agrees_with_a_list_of_all_uses(limit: Limit, pauses: list[timedelta]) -> None:
    at, uses, every = NOW, UseLog("id"), list[datetime]()
    for pause in pauses:
        at += pause
        wait = limit.wait(uses.times, at=at)
        assert wait == naive_wait(limit, every, at)
        if wait == ZERO:
            uses = uses.with_use(limit, at=at)
            every.append(at)
        else:
            # The wait is exact to the millisecond.
            assert limit.wait(uses.times, at=at + wait) == ZERO
            assert limit.wait(uses.times, at=at + wait - timedelta(milliseconds=1)) > ZERO
        assert len(uses.times) <= limit.max_count


@given(limits, st.lists(st.integers(-3_000, 3_000), max_size=20))
def test_uses_stay_sorted_when_clocks_differ(limit: Limit, skews: list[int]) -> None:
    uses = UseLog("id")
    for skew in skews:
        uses = uses.with_use(limit, at=NOW + timedelta(milliseconds=skew))
    assert list(uses.times) == sorted(uses.times)
    assert uses.version == 0


@given(rules, pauses)
def test_slots_never_exceed_the_rule_and_wait_at_most_one_slot_longer(rule: Rule, pauses: list[timedelta]) -> None:
    at, counts, every = NOW, dict[int, int](), list[datetime]()
    for pause in pauses:
        at += pause
        wait = rule.wait_by_slots(counts, at=at)
        exact = naive_wait(Limit((rule,)), every, at)
        assert exact <= wait + timedelta(milliseconds=1)
        assert wait <= exact + rule.window / SLOTS_PER_WINDOW + timedelta(milliseconds=1)
        if wait == ZERO:
            counts[rule.slot(at)] = counts.get(rule.slot(at), 0) + 1
            every.append(at)
            assert len([time for time in every if time > at - rule.window]) <= rule.count
        else:
            assert rule.wait_by_slots(counts, at=at + wait + timedelta(milliseconds=1)) == ZERO


@pytest.mark.parametrize(
    ("wait", "expected"), [(ZERO, 1), (timedelta(milliseconds=1), 1), (SECOND, 1), (timedelta(seconds=1.001), 2)]
)
def test_retry_after_is_rounded_up_to_whole_seconds(wait: timedelta, expected: int) -> None:
    assert retry_after_seconds(wait) == expected


def test_only_the_latest_device_hashes_are_kept() -> None:
    known = KnownDevices("id").with_hashes(["first"])
    for number in range(KnownDevices.MAX_HASHES):
        known = known.with_hashes([f"{number}"])
    assert len(known.hashes) == KnownDevices.MAX_HASHES
    assert "first" not in known.hashes
    assert known.hashes[-1] == f"{KnownDevices.MAX_HASHES - 1}"


def test_repeated_device_hash_moves_to_the_end() -> None:
    assert KnownDevices("id").with_hashes(["a", "b"]).with_hashes(["a"]).hashes == ("b", "a")
