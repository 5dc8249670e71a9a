from hypothesis import given
from hypothesis import strategies as st

from shared.bus.offset_tracker import OffsetTracker


def test_without_a_finished_record_there_is_no_position() -> None:
    tracker = OffsetTracker()
    tracker.add(7, 0)
    assert tracker.position is None


def test_the_position_stops_at_the_first_unfinished_record() -> None:
    tracker = OffsetTracker()
    for offset in (5, 6, 7):
        tracker.add(offset, 0)
    tracker.finish(6)
    assert tracker.position is None
    tracker.finish(5)
    assert tracker.position == 7
    tracker.finish(7)
    assert tracker.position == 8


@st.composite
def partitions(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Ascending offsets with the gaps of compaction and transactions, and an order in which they are finished."""
    offsets = sorted(draw(st.sets(st.integers(min_value=0, max_value=300), min_size=1, max_size=40)))
    return offsets, draw(st.permutations(offsets))


@given(partitions())
def test_the_position_follows_the_unbroken_run_of_finished_records(partition: tuple[list[int], list[int]]) -> None:
    offsets, finishing_order = partition
    tracker = OffsetTracker()
    for offset in offsets:
        tracker.add(offset, 0)
    finished: set[int] = set()
    for offset in finishing_order:
        tracker.finish(offset)
        finished.add(offset)
        run = [offset for index, offset in enumerate(offsets) if finished.issuperset(offsets[: index + 1])]
        assert tracker.position == (run[-1] + 1 if run else None)


def test_a_committed_position_returns_only_after_it_advanced() -> None:
    tracker = OffsetTracker()
    for offset in (1, 2, 3):
        tracker.add(offset, 0)
    tracker.finish(1)
    tracker.position = None
    tracker.finish(3)
    assert tracker.position is None
    tracker.finish(2)
    assert tracker.position == 4


def test_oldest_is_the_timestamp_of_the_first_unfinished_record() -> None:
    tracker = OffsetTracker()
    assert tracker.oldest is None
    for offset in (5, 6, 7):
        tracker.add(offset, offset * 1000)
    tracker.finish(6)
    assert tracker.oldest == 5000
    tracker.finish(5)
    assert tracker.oldest == 7000
    tracker.finish(7)
    assert tracker.oldest is None


@given(partitions())
def test_it_knows_which_records_are_finished(partition: tuple[list[int], list[int]]) -> None:
    offsets, finishing_order = partition
    tracker = OffsetTracker()
    assert tracker.first_unfinished is None
    for offset in offsets:
        tracker.add(offset, 0)
    for number, offset in enumerate(finishing_order):
        unfinished = set(finishing_order[number:])
        assert {each for each in offsets if not tracker.has_finished(each)} == unfinished
        assert tracker.first_unfinished == min(unfinished)
        tracker.position = None  # as after a commit
        tracker.finish(offset)
    assert tracker.first_unfinished == offsets[-1] + 1
    assert not tracker.has_finished(offsets[-1] + 1)
