r"""What if somebody wrote a record whose header names are not UTF-8? Clients in C can; aiokafka's reader can't take it.

It raises in the middle of a batch, for ever: the partition stands still, the loop spins, and what was fetched along
with it from other partitions is passed over. So a fetch in which that happens is read again, by aiokafka's own reader
in Python, with the wrong bytes of such names escaped (``\xff``). Other fetches are read as ever.
"""

from __future__ import annotations

from typing import Any, SupportsIndex

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy


class _Bytes(bytearray):
    """Bytes whose slices decode whatever they are."""

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return _Bytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return bytes(self).decode(encoding, errors)


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch whose header names may be any bytes."""

    _buffer: bytearray

    def __iter__(self) -> _Batch:
        super().__iter__()
        self._buffer = _Bytes(self._buffer)
        return self


class _Batches(_MemoryRecordsPy):  # type: ignore[misc]
    """A fetch's batches, read so, from the one with a record that was not given out yet."""

    def __init__(self, data: bytes, next_offset: int) -> None:
        super().__init__(data)
        self._next_offset = next_offset

    def next_batch(self) -> _Batch | None:
        while (data := self._next_slice) is not None:
            self._cache_next()
            batch = _Batch(data)
            # aiokafka goes on behind each batch that it was handed, also one that it has passed already: what follows
            # would be given out once more.
            if batch.next_offset > self._next_offset:
                return batch
        return None


class _Fetched(MemoryRecords):  # type: ignore[misc]
    """A fetch's batches, with the bytes that they were read from."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _Records(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of a fetch; one with such names is read again from where its reader gave up."""

    _records: _Fetched | _Batches

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except UnicodeDecodeError:
            if isinstance(self._records, _Batches):
                raise
            self._records = _Batches(self._records.data, self.next_fetch_offset)
            self._records_iterator = self._unpack_records()
            return super().__next__()


def patch_aiokafka() -> None:
    """Make all consumers of this process read so; once or more often."""
    fetcher.MemoryRecords = _Fetched
    fetcher.PartitionRecords = _Records
