"""An offset passes only records that are finished, whatever order they end in."""

from hypothesis import given
from hypothesis import strategies as st

from shared.bus.offset_tracker import OffsetTracker


def test_without_a_finished_record_there_is_no_position() -> None:
    progress = OffsetTracker()
    progress.add(7, 0)
    assert progress.position is None


def test_the_position_stops_at_the_first_unfinished_record() -> None:
    progress = OffsetTracker()
    for offset in (5, 6, 7):
        progress.add(offset, 0)
    progress.finish(6)
    assert progress.position is None
    progress.finish(5)
    assert progress.position == 7
    progress.finish(7)
    assert progress.position == 8


@st.composite
def partitions(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Rising offsets, with the gaps that compaction and transactions leave, and an order in which they end."""
    offsets = sorted(draw(st.sets(st.integers(min_value=0, max_value=300), min_size=1, max_size=40)))
    return offsets, draw(st.permutations(offsets))


@given(partitions())
def test_the_position_follows_the_unbroken_run_of_finished_records(partition: tuple[list[int], list[int]]) -> None:
    offsets, ends = partition
    progress = OffsetTracker()
    for offset in offsets:
        progress.add(offset, 0)
    finished: set[int] = set()
    for offset in ends:
        progress.finish(offset)
        finished.add(offset)
        beginning = [one for position, one in enumerate(offsets) if finished.issuperset(offsets[: position + 1])]
        assert progress.position == (beginning[-1] + 1 if beginning else None)


def test_a_committed_position_returns_only_after_it_advanced() -> None:
    progress = OffsetTracker()
    for offset in (1, 2, 3):
        progress.add(offset, 0)
    progress.finish(1)
    progress.position = None
    progress.finish(3)
    assert progress.position is None
    progress.finish(2)
    assert progress.position == 4


def test_oldest_is_the_timestamp_of_the_first_unfinished_record() -> None:
    progress = OffsetTracker()
    assert progress.oldest is None
    for offset in (5, 6, 7):
        progress.add(offset, offset * 1000)
    progress.finish(6)
    assert progress.oldest == 5000
    progress.finish(5)
    assert progress.oldest == 7000
    progress.finish(7)
    assert progress.oldest is None
