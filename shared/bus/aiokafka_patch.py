r"""Patches of aiokafka: records whose header names are not UTF-8, and a stop during an outage.

Kafka clients in C can write such records. aiokafka's reader raises in the middle of the batch, on every attempt: the
partition never advances, the poll loop spins, and records of other partitions in the same fetch are lost. With this
patch a fetch in which that happens is read again by aiokafka's own reader in Python, which escapes the wrong bytes of
header names (``\xff``). Other fetches are read as without the patch.

A consumer that is stopped while a failed fetch waits for its next try raises ``CancelledError`` from ``stop``, as if
the caller had been cancelled: aiokafka awaits the fetch that it has just cancelled. With the patch the fetch ends
quietly, as it does when it is cancelled at any other point.
"""

from __future__ import annotations

import asyncio
from typing import Any, SupportsIndex

from aiokafka.consumer import consumer, fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

from shared.bus.connection_backoff import use_connection_backoff
from shared.bus.fetcher import IdleFetcher


class _LenientBytes(bytearray):
    """Bytes whose slices decode without errors."""

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        item = super().__getitem__(index)
        return _LenientBytes(item) if isinstance(index, slice) else item

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return bytes(self).decode(encoding, errors)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A batch whose header names may be any bytes."""

    _buffer: bytearray

    def __iter__(self) -> _LenientBatch:
        super().__iter__()
        self._buffer = _LenientBytes(self._buffer)
        return self


class _LenientBatches(_MemoryRecordsPy):  # type: ignore[misc]
    """The lenient batches of a fetch, from the first one with a record at or after ``next_offset``."""

    def __init__(self, data: bytes, next_offset: int) -> None:
        super().__init__(data)
        self._next_offset = next_offset

    def next_batch(self) -> _LenientBatch | None:
        while (data := self._next_slice) is not None:
            self._cache_next()
            batch = _LenientBatch(data)
            # aiokafka sets its position to the end of every batch it gets. A batch that was already read would set it
            # back, and the records after it would be returned twice.
            if batch.next_offset > self._next_offset:
                return batch
        return None


class _FetchedBatches(MemoryRecords):  # type: ignore[misc]
    """The batches of a fetch together with their bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _PatchedRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of a fetch; after a decoding error it continues with lenient batches."""

    _records: _FetchedBatches | _LenientBatches

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except UnicodeDecodeError:
            if isinstance(self._records, _LenientBatches):
                raise
            self._records = _LenientBatches(self._records.data, self.next_fetch_offset)
            self._records_iterator = self._unpack_records()
            return super().__next__()


class _PatchedFetcher(IdleFetcher):
    """A fetcher that can be closed while a failed fetch waits for its next try."""

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        try:
            return await super()._proc_fetch_request(assignment, node_id, request)
        except asyncio.CancelledError:
            return False


def patch_aiokafka() -> None:
    """Patch all clients of this process; may be called repeatedly."""
    use_connection_backoff()
    consumer.Fetcher = _PatchedFetcher
    fetcher.MemoryRecords = _FetchedBatches
    fetcher.PartitionRecords = _PatchedRecords
