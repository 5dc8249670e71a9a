"""Inbox: commits the outcome and the state changes of messages, many messages to one transaction.

An inbox row is inbox and outbox in one. Its ``_id`` is the message ID, so that no message takes effect twice. It holds
the reply and the published messages, which are sent again from it if the process crashed between the commit and the
sending.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from shared.batch_loader import BatchLoader
from shared.bus.bulk_writes import Targets, VersionConflict, bulk_writes, execute, inserts, puts, targets
from shared.bus.envelope import Envelope
from shared.bus.row_encryption import RowEncryption
from shared.bus.work import Insert, Work
from shared.errors import Refusal
from shared.fault_points import fault_point
from shared.indexes import expiry_index
from shared.metrics import COMMITS, WORKS_WAITING
from shared.mongo import WRITE_CONCERN, Client, Collection, Database, Document, dependency_down, kill_idle_transactions
from shared.telemetry import log
from shared.tracing import active_span, batch_span

if TYPE_CHECKING:
    from shared.spans import RecordedSpan

GROUP_SIZE: Final = 64
"""Maximum number of messages in one transaction."""
QUIET_TURNS: Final = 12
"""A group is complete once no further work has become ready for so many turns of the event loop, some 0.1 ms."""
DUPLICATE_KEY: Final = 11000
COMMIT_MESSAGES: Final = "nest.commit.messages"
"""Attribute of a commit's span: the number of messages in it."""
COMMIT_ATTEMPTS: Final = 3
BACKGROUND_INTERVAL: Final = 0.025
"""Shortest interval between two commits of works that no caller waits for, seconds."""
CLOCK_MARGIN: Final = timedelta(hours=1)
"""Rows are kept longer than the retention by this much, because the clock of a sender may be ahead of MongoDB's."""
THROTTLED_KEPT: Final = timedelta(hours=1)
"""How long the row of a throttled message is kept: longer than it takes until another instance handles the records of a
dead one, but not for days, because a flood causes many such rows."""
THROTTLED_EXPIRY: Final = expiry_index("expiresAt", partialFilterExpression={"expiresAt": {"$type": "date"}})
"""Expiry of these rows; partial, since no other row has the field."""
DONE: Final = "done"


class WriteConflict(VersionConflict):
    """Another transaction has written a document that this one writes (MongoDB: TransientTransactionError).

    It is over in milliseconds, except after a crash: MongoDB keeps the transaction of a dead process for a minute. See
    ``Inbox.kill_abandoned_transactions``.
    """


class AlreadyHandled(Exception):
    """The inbox holds this message."""


class MessageIdReused(Exception):
    """The message has the ID of an earlier message with different content."""


@dataclass(slots=True)
class Outcome:
    """Outcome of a message.

    Attributes:
        kind: ``done``, or the kind of the refusal.
        body: JSON of the reply, sealed for the gateway if the message class says so; None for no body.
        messages: messages to send, in order.
        replies: False if the reply to the caller comes from a forwarded command.
        replayed: True if the message was handled before and this is its stored outcome.
        throttled: True if only another delivery of the same record gets this outcome, and only if a caller waited for
            it. A repeat by the client is handled again.
    """

    kind: str = DONE
    body: bytes | None = None
    messages: list[Envelope] = field(default_factory=list)
    replies: bool = True
    replayed: bool = False
    throttled: bool = False


@dataclass(slots=True)
class _Pending:
    """A work that waits for its commit; ``span`` is that of its message."""

    work: Work
    outcome: Outcome
    targets: Targets
    committed: asyncio.Future[None]
    span: RecordedSpan | None


class Inbox:
    """Inbox and timers of one service; the only writer of its state.

    A message is remembered for ``retention``; older ones must not be handled. Works that no caller waits for arrive one
    by one, and a commit costs a millisecond of CPU for one as for twenty: they are committed with the next urgent work,
    such as one whose caller waits, or else no sooner than ``background_interval`` seconds after the last commit.
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
        encryption: RowEncryption,
        background_interval: float = 0.0,
    ) -> None:
        self._client = client
        self._encryption = encryption
        self._rows: Collection = database[self.COLLECTION]
        self._loader = BatchLoader(self._rows)
        self._timers: Collection = database[self.TIMERS]
        self._sizes = COMMITS.labels(service)
        self._works_waiting = WORKS_WAITING.labels(service)
        self._waiting: list[_Pending] = []
        self._committer: asyncio.Task[None] | None = None
        self._background_interval = background_interval
        self._last_commit = -background_interval
        self._last_size = 0
        self._pause_over = asyncio.Event()
        self._next_kill = 0.0
        self.retention = retention

    def indexes(self) -> Mapping[str, list[IndexModel]]:
        """Indexes to create before the first message."""
        kept = self.retention + CLOCK_MARGIN
        return {
            self.COLLECTION: [expiry_index("at", kept), THROTTLED_EXPIRY],
            self.TIMERS: [
                IndexModel([("at", ASCENDING)]),
                expiry_index("sentAt", kept),
            ],
        }

    async def find(self, message: Envelope) -> Outcome | None:
        """Return the stored outcome of a message; None if it was not handled.

        Raises:
            MessageIdReused: an earlier message with the same ID had different content.
        """
        ids = (message.id, _throttled_id(message)) if message.waited_for else (message.id,)
        row = await self._loader.find_first(*ids)
        return None if row is None else self._outcome_of(row, message)

    async def drop_messages(self, row_ids: Sequence[str], *, replies: bool = False) -> None:
        """Remove the messages from rows, except forwarded ones; raise PyMongoError if MongoDB is unavailable.

        Repeats of a forwarded message need it, since its receiver replies to each of them.

        Args:
            row_ids: the rows.
            replies: remove their replies too. A repeat of such a message is recognized and gets no reply.
        """
        change: Document = {"$pull": {"messages": {"forwarded": {"$in": [False, None]}}}}
        if replies:
            change["$set"] = {"reply": None, "answers": False}
        await self._rows.update_many({"_id": {"$in": list(row_ids)}}, change)

    async def drop_sent_timers(self, row_ids: Sequence[str]) -> None:
        """Delete timers that were sent, unless they were ordered anew; raise PyMongoError if MongoDB is unavailable."""
        await self._timers.delete_many({"_id": {"$in": list(row_ids)}, "sentAt": {"$exists": True}})

    async def kill_abandoned_transactions(self) -> None:
        """Kill the transactions of dead processes, which block documents; at most once a second."""
        if time.monotonic() < self._next_kill:
            return
        self._next_kill = time.monotonic() + 1.0
        try:
            killed = await kill_idle_transactions(self._client)
        except PyMongoError as failure:
            # MongoDB aborts them itself after a minute.
            log.warning("abandoned transactions not killed", error=type(failure).__name__)
        else:
            if killed:
                log.warning("abandoned transactions killed", count=killed)

    async def commit(self, work: Work, outcome: Outcome) -> None:
        """Store an outcome together with all writes of its work, atomically; return when it is durable.

        Works that become ready during a commit share the next one.

        Raises:
            AlreadyHandled: the inbox holds the message; nothing was stored.
            VersionConflict, WriteConflict: a version has changed; nothing was stored, the handler must run again.
            Refusal: the one that an Insert names, because a unique index rejected it; nothing was stored.
            KeyError, TypeError: a document has no ``_id``, or one that is not hashable.
            PyMongoError: MongoDB is unavailable or rejected a write; whether anything was stored is unknown.
        """
        committed = asyncio.get_running_loop().create_future()
        pending = _Pending(work, outcome, targets(work.writes), committed, active_span())
        self._waiting.append(pending)
        if self._ends_pause(pending):
            self._pause_over.set()
        if self._committer is None:
            # One transaction at a time: two at once made both smaller and cost a fifth of the throughput on two cores.
            self._committer = asyncio.create_task(self._commit_waiting())
        with self._works_waiting.track_inprogress():
            await pending.committed
        work.increment_counters()

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                await self._background_pause()
                await self._works_join()
                self._last_commit = time.monotonic()
                group = self._next_group()
                self._last_size = len(group)
                await self._commit_group(group)
        finally:
            # Reset here, not in a done callback: a work added between the end of the task and its callback would wait
            # for a committer that has already ended.
            self._committer = None

    async def _background_pause(self) -> None:
        """Wait until the interval is over, or for an urgent work, or until the next group is full."""
        pause = self._last_commit + self._background_interval - time.monotonic()
        if pause > 0 and not any(map(self._ends_pause, self._waiting)):
            self._pause_over.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._pause_over.wait()

    async def _works_join(self) -> None:
        """Let works join the next group for as long as they become ready one after another.

        One read of MongoDB, or one fetch from Kafka, lets many handlers go on, and each needs some turns of the event
        loop until its work is ready. Without this the first one would begin a commit of its own. A single work does not
        wait if the last commit was of a single one too.
        """
        quiet = 0 if self._last_size > 1 or len(self._waiting) > 1 else QUIET_TURNS
        while quiet < QUIET_TURNS and len(self._waiting) < GROUP_SIZE:
            before = len(self._waiting)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._waiting) == before else 0

    def _ends_pause(self, pending: _Pending) -> bool:
        return pending.work.urgent or len(self._waiting) >= GROUP_SIZE

    def _next_group(self) -> list[_Pending]:
        """Take up to ``GROUP_SIZE`` waiting works, no two of which conflict."""
        group: list[_Pending] = []
        left: list[_Pending] = []
        message_ids: set[str] = set()
        touched = Targets()
        for position, pending in enumerate(self._waiting):
            if len(group) == GROUP_SIZE:
                left.extend(self._waiting[position:])
                break
            if pending.work.id in message_ids or pending.targets.conflict_with(touched):
                left.append(pending)
            else:
                message_ids.add(pending.work.id)
                touched.add(pending.targets)
                group.append(pending)
        self._waiting = left
        return group

    async def _commit_group(self, group: list[_Pending]) -> None:
        """Commit works in one transaction; if that fails, one by one, so that only the failing one is rejected."""
        try:
            with batch_span("commit", [pending.span for pending in group], COMMIT_MESSAGES):
                await self._transaction(group)
        except Exception as failure:  # noqa: BLE001 -- passed on to the waiting works
            if len(group) == 1:
                _settle(group[0], _interpreted(failure, group[0]))
            elif dependency_down(failure):
                for pending in group:
                    _settle(pending, failure)
            else:
                await self._commit_one_by_one(group)
        except BaseException:
            for pending in group:
                pending.committed.cancel()
            raise
        else:
            for pending in group:
                _settle(pending, None)

    async def _commit_one_by_one(self, group: list[_Pending]) -> None:
        outage: Exception | None = None
        for pending in group:
            if outage is not None:
                # One work has waited for MongoDB until its timeout; the rest of the group fails without waiting.
                _settle(pending, outage)
                continue
            try:
                with batch_span("commit", [pending.span], COMMIT_MESSAGES):
                    await self._transaction([pending])
            except Exception as failure:  # noqa: BLE001 -- passed on to the waiting work
                outage = failure if dependency_down(failure) else None
                _settle(pending, _interpreted(failure, pending))
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
            await _commit_transaction(session)
        self._sizes.observe(len(group))
        fault_point("V2")

    async def _write(self, group: list[_Pending], session: AsyncClientSession) -> None:
        rows = [
            self._row(pending.work, pending.outcome)
            for pending in group
            if pending.work.cause.waited_for or not pending.outcome.throttled
        ]
        timers = [
            {"_id": message.id, "at": at, **self._encryption.message_row(message)}
            for pending in group
            for at, message in pending.work.timers
        ]
        writes = bulk_writes(write for pending in group for write in pending.work.writes)
        # The rows come first: a repeated message must fail because of its row, not because of a version that its first
        # delivery has changed. A timer with the same message ID orders the same effect, so it is replaced.
        await execute([inserts(self._rows, rows), puts(self._timers, timers), *writes], session)

    def _row(self, work: Work, outcome: Outcome) -> Document:
        return {
            "_id": _throttled_id(work.cause) if outcome.throttled else work.id,
            "at": work.now,
            **({"expiresAt": work.now + THROTTLED_KEPT} if outcome.throttled else {}),
            "hash": self._encryption.content_hash(work.cause),
            "kind": outcome.kind,
            "reply": self._encryption.reply_row(work.cause, outcome.body),
            "answers": outcome.replies,
            "messages": [self._encryption.message_row(message) for message in outcome.messages],
        }

    def _outcome_of(self, row: Document, message: Envelope) -> Outcome:
        if not self._encryption.matches(row["hash"], message):
            raise MessageIdReused
        return Outcome(
            kind=row["kind"],
            body=self._encryption.reply_of(row["reply"]),
            messages=[self._encryption.message_of(each, message) for each in row["messages"]],
            replies=row["answers"],
            replayed=True,
        )


def _throttled_id(message: Envelope) -> str:
    """Return the row ID of a throttled message: a repeat by the client has another reply ID, a redelivery has not."""
    return f"{message.id}:{message.reply_id}"


async def _commit_transaction(session: AsyncClientSession) -> None:
    """Commit, and repeat while the result is unknown: MongoDB recognizes a transaction that it has committed."""
    for attempt in range(COMMIT_ATTEMPTS):
        try:
            await session.commit_transaction()
        except PyMongoError as failure:
            if not failure.has_error_label("UnknownTransactionCommitResult") or attempt == COMMIT_ATTEMPTS - 1:
                raise
        else:
            return


def _settle(pending: _Pending, failure: BaseException | None) -> None:
    if not pending.committed.done():
        if failure is None:
            pending.committed.set_result(None)
        else:
            pending.committed.set_exception(failure)


def _interpreted(failure: Exception, pending: _Pending) -> BaseException:
    """Return what the failed commit of a single work means: AlreadyHandled, a conflict, a refusal, or the failure."""
    if isinstance(failure, BulkWriteError):
        for error in failure.details.get("writeErrors", ()):
            if error["code"] == DUPLICATE_KEY:
                return _duplicate_key(error, pending)
    if isinstance(failure, OperationFailure) and failure.has_error_label("TransientTransactionError"):
        return WriteConflict(str(failure.code))
    return failure


def _duplicate_key(error: Mapping[str, Any], pending: _Pending) -> BaseException:
    document = error["op"]
    if document.get("_id") in (pending.work.id, _throttled_id(pending.work.cause)) and "hash" in document:
        return AlreadyHandled()
    for write in pending.work.writes:
        if isinstance(write, Insert) and write.document is document and write.taken is not None:
            return write.taken if isinstance(write.taken, Refusal) else write.taken()
    return VersionConflict()
