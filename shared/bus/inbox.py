"""How does a message take effect once? Its inbox row commits together with its state, and many messages to a commit.

The row is inbox and outbox in one: the message's id guards against a second run, and the reply and messages it holds
are what goes out again when a crash came between the commit and the publishing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from pymongo import ASCENDING, IndexModel, ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from shared.batch_loader import BatchLoader
from shared.bus.bulk_writes import Targets, VersionConflict, targets, write_all
from shared.bus.envelope import Envelope
from shared.bus.row_encryption import RowEncryption
from shared.bus.work import Insert, Work
from shared.errors import Refusal
from shared.fault_points import fault_point
from shared.mongo import (
    WRITE_CONCERN,
    Client,
    Collection,
    Database,
    Document,
    dependency_down,
    end_abandoned_transactions,
)
from shared.telemetry import COMMITS, log

GROUP_SIZE: Final = 64
DUPLICATE_KEY: Final = 11000
COMMIT_TRIES: Final = 3
CLOCK_MARGIN: Final = timedelta(hours=1)
"""How much longer than promised a row is kept: whoever dates a message may have a clock ahead of MongoDB's."""
DONE: Final = "done"


class Contended(VersionConflict):
    """Another transaction holds what this one writes: MongoDB asks for another try, a little later.

    Usually over in milliseconds; a minute after a process died, if nobody ends the transaction it was in: see
    ``Inbox.free_abandoned``.
    """


@dataclass(slots=True)
class Outcome:
    """What became of a message.

    Attributes:
        kind: ``done``, or the kind of the refusal.
        body: the reply's JSON (sealed for the gateway if the message says so), None for no body.
        messages: what leaves, in order.
        answers: whether the caller is answered with it (not when the message was forwarded).
        replayed: it was done before; this is what the inbox row kept.
        kept: whether a repeat gets the same answer; otherwise the message runs again.
    """

    kind: str = DONE
    body: bytes | None = None
    messages: list[Envelope] = field(default_factory=list)
    answers: bool = True
    replayed: bool = False
    kept: bool = True


class AlreadyDone(Exception):
    """The inbox holds this message already."""


@dataclass(slots=True)
class _Pending:
    work: Work
    outcome: Outcome
    targets: Targets
    done: asyncio.Future[None]


class Inbox:
    """The inbox and the timers of one service, and the only place where its state is written.

    Args:
        client: the service's MongoDB client.
        database: the service's database.
        retention: how long a message is remembered; older ones must not be handled any more.
        service: for metrics.
        keeping: what rows keep of messages.
        group_size: how many messages may share a commit, 1 to 64.
    """

    COLLECTION: Final = "inbox"
    TIMERS: Final = "timers"

    def __init__(
        self,
        client: Client,
        database: Database,
        *,
        retention: timedelta,
        service: str,
        keeping: RowEncryption,
        group_size: int = GROUP_SIZE,
    ) -> None:
        self._client = client
        self._keeping = keeping
        self._rows: Collection = database[self.COLLECTION]
        self._known = BatchLoader(self._rows)
        self._timers: Collection = database[self.TIMERS]
        self._group_size = group_size
        self._sizes = COMMITS.labels(service)
        self._waiting: list[_Pending] = []
        self._committing: asyncio.Task[None] | None = None
        self._free_again = 0.0
        self.retention = retention

    def indexes(self) -> Mapping[str, list[IndexModel]]:
        """What must be there before the first message."""
        expiry = IndexModel(
            [("at", ASCENDING)], expireAfterSeconds=int((self.retention + CLOCK_MARGIN).total_seconds())
        )
        return {self.COLLECTION: [expiry], self.TIMERS: [IndexModel([("at", ASCENDING)])]}

    async def find(self, message: Envelope) -> Outcome | None:
        """What became of a message earlier, or None.

        Raises:
            FingerprintDiffers: its id is known from a message that said something else.
        """
        row = await self._known.find_one(message.id)
        return None if row is None else self._outcome_of(row, message)

    async def free_abandoned(self) -> None:
        """End what holds documents in the name of processes that are gone; at most once a second."""
        if time.monotonic() < self._free_again:
            return
        self._free_again = time.monotonic() + 1.0
        try:
            ended = await end_abandoned_transactions(self._client)
        except PyMongoError as failure:
            # Then MongoDB ends them itself, later.
            log.warning("abandoned transactions not ended", error=type(failure).__name__)
        else:
            if ended:
                log.warning("abandoned transactions ended", count=ended)

    async def commit(self, work: Work, outcome: Outcome) -> None:
        """Store a message's outcome and everything its work holds, or nothing of it.

        Returns once it is durable. Works that become ready while a commit is under way share the next one.

        Raises:
            AlreadyDone: the inbox holds the message; nothing was stored.
            VersionConflict, Contended: a guard failed; nothing was stored, the handler must run again.
            Refusal: the one an insert names for a taken key; nothing was stored.
            KeyError, TypeError: a document has no ``_id``, or one that isn't a plain value.
            PyMongoError: MongoDB could not be reached or refused; whether it was stored is not known.
        """
        pending = _Pending(work, outcome, targets(work.writes), asyncio.get_running_loop().create_future())
        self._waiting.append(pending)
        if self._committing is None:
            # One at a time: a second beside it made both smaller, and cost a fifth of the throughput on two cores.
            self._committing = asyncio.create_task(self._commit_waiting())
        await pending.done

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                await self._commit_group(self._next_group())
        finally:
            # Here, not in a callback of the task: between its end and a callback a work could come to wait for a
            # committer that only seems to run.
            self._committing = None

    async def _commit_group(self, group: list[_Pending]) -> None:
        try:
            await self._transaction(group)
        except Exception as failure:  # noqa: BLE001 -- whatever it is, the works that wait are told
            if len(group) == 1:
                _settle(group[0], _meaning(failure, group[0]))
            elif dependency_down(failure):
                for pending in group:
                    _settle(pending, failure)
            else:
                # One of them spoils it for all: each for itself, and only that one is told.
                await self._one_by_one(group)
        except BaseException:
            for pending in group:
                pending.done.cancel()
            raise
        else:
            for pending in group:
                _settle(pending, None)

    def _next_group(self) -> list[_Pending]:
        """Up to ``group_size`` waiting works, no two of which are in each other's way."""
        group: list[_Pending] = []
        left: list[_Pending] = []
        messages: set[str] = set()
        touched = Targets()
        for position, pending in enumerate(self._waiting):
            if len(group) == self._group_size:
                left.extend(self._waiting[position:])
                break
            if pending.work.id in messages or pending.targets.disturb(touched):
                left.append(pending)
            else:
                messages.add(pending.work.id)
                touched.add(pending.targets)
                group.append(pending)
        self._waiting = left
        return group

    async def _one_by_one(self, group: list[_Pending]) -> None:
        away: Exception | None = None
        for pending in group:
            if away is not None:
                # One has waited for MongoDB in vain; the others need not do so one after the other.
                _settle(pending, away)
                continue
            try:
                await self._transaction([pending])
            except Exception as failure:  # noqa: BLE001 -- as above
                away = failure if dependency_down(failure) else None
                _settle(pending, _meaning(failure, pending))
            else:
                _settle(pending, None)

    async def _transaction(self, group: list[_Pending]) -> None:
        fault_point("V1")
        async with self._client.start_session() as session:
            await session.start_transaction(read_concern=ReadConcern("local"), write_concern=WRITE_CONCERN)
            try:
                await self._write(group, session)
            except BaseException:
                if session.in_transaction:
                    await session.abort_transaction()
                raise
            await _commit(session)
        self._sizes.observe(len(group))
        fault_point("V2")

    async def _write(self, group: list[_Pending], session: AsyncClientSession) -> None:
        rows = [self._row(pending.work, pending.outcome) for pending in group if pending.outcome.kept]
        if rows:
            await self._rows.insert_many(rows, session=session)
        timers = [
            {"_id": message.id, "at": at, **self._keeping.row(message)}
            for pending in group
            for at, message in pending.work.timers
        ]
        if timers:
            # An order for later that is there already is the same order.
            await self._timers.bulk_write(
                [ReplaceOne({"_id": timer["_id"]}, timer, upsert=True) for timer in timers], session=session
            )
        await write_all([write for pending in group for write in pending.work.writes], session)

    def _outcome_of(self, row: Document, message: Envelope) -> Outcome:
        """What an inbox row keeps, to be sent again in answer to ``message``."""
        if not self._keeping.is_of(row["hash"], message):
            raise FingerprintDiffers
        return Outcome(
            kind=row["kind"],
            body=self._keeping.reply_of(row["reply"]),
            messages=[self._keeping.message(kept, message) for kept in row["messages"]],
            answers=row["answers"],
            replayed=True,
        )

    def _row(self, work: Work, outcome: Outcome) -> Document:
        return {
            "_id": work.id,
            "at": work.now,
            "hash": self._keeping.hash(work.cause),
            "kind": outcome.kind,
            "reply": self._keeping.reply(work.cause, outcome.body),
            "answers": outcome.answers,
            "messages": [self._keeping.row(message) for message in outcome.messages],
        }


class FingerprintDiffers(Exception):
    """A message came with the id of another one that said something else."""


async def _commit(session: AsyncClientSession) -> None:
    """Commit, again while the answer is unknown: MongoDB remembers a transaction it has committed."""
    for attempt in range(COMMIT_TRIES):
        try:
            await session.commit_transaction()
        except PyMongoError as failure:
            if not failure.has_error_label("UnknownTransactionCommitResult") or attempt == COMMIT_TRIES - 1:
                raise
        else:
            return


def _settle(pending: _Pending, failure: BaseException | None) -> None:
    if pending.done.done():
        return
    if failure is None:
        pending.done.set_result(None)
    else:
        pending.done.set_exception(failure)


def _meaning(failure: Exception, pending: _Pending) -> BaseException:
    """What a failed commit of one work says: done before, moved, refused, or a fault."""
    if isinstance(failure, BulkWriteError):
        for error in failure.details.get("writeErrors", ()):
            if error["code"] == DUPLICATE_KEY:
                return _taken(error, pending)
    if isinstance(failure, OperationFailure) and failure.has_error_label("TransientTransactionError"):
        return Contended(str(failure.code))
    return failure


def _taken(error: Mapping[str, Any], pending: _Pending) -> BaseException:
    document = error["op"]
    if document.get("_id") == pending.work.id and "hash" in document:
        return AlreadyDone()
    for write in pending.work.writes:
        if isinstance(write, Insert) and write.document is document and write.taken is not None:
            return write.taken if isinstance(write.taken, Refusal) else write.taken()
    return VersionConflict()
