"""Handlers that list and replay the dead letters of all services.

Auth handles them for every service, since the audit is here, and since an operator must be able to see the dead letters
of a service that is down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.dead_letters.store import Replay
from services.auth.dead_letters.views import view
from shared.bus.work import Work
from shared.dead_letters.queue import InvalidQueueCursor, Page, Sender
from shared.dead_letters.records import DeadLetter
from shared.errors import InvalidCursor
from shared.fault_points import fault_point
from shared.messages.auth.dead_letters import (
    DeadLetterFilter,
    DeadLettersView,
    ListDeadLetters,
    Outcome,
    ReplayDeadLetters,
    ReplayedDeadLettersView,
    ReplayedView,
)
from shared.messages.auth.errors import DeadLetterNotFound


async def list_dead_letters(query: ListDeadLetters, work: Work, auth: Auth) -> DeadLettersView:
    """Return a page of dead letters, newest first, or a single one.

    Raises:
        DeadLetterNotFound: there is no such dead letter, or it has been removed.
        InvalidCursor: the cursor is not from an earlier page.
    """
    if query.id is not None:
        found = await auth.dead_letters.find([query.id])
        if query.id not in found:
            raise DeadLetterNotFound
        work.annotate(resource_id=query.id)
        page = Page([found[query.id]], None)
    else:
        try:
            page = await auth.dead_letters.newest(
                _matching(query.filter, auth), topic=query.filter.topic, limit=query.limit, cursor=query.cursor
            )
        except InvalidQueueCursor:
            raise InvalidCursor from None
    dedup_keys = [letter.dedup_key for letter in page.letters]
    removed = await auth.removed_letters.among(dedup_keys)
    letters = [letter for letter in page.letters if letter.dedup_key not in removed]
    if query.id is not None and not letters:
        raise DeadLetterNotFound
    replays = await auth.replays.by_id(dedup_keys)
    body_start = None if query.id is None else query.body_from
    views = []
    for letter in letters:
        replay = replays.get(letter.dedup_key)
        replayed_at = None if replay is None else replay.at
        views.append(view(letter, auth.dead_letters.service(letter), replayed_at, body_start=body_start))
    return DeadLettersView(letters=tuple(views), next_cursor=page.next_cursor)


@audited("replay_dead_letters")
async def replay_dead_letters(command: ReplayDeadLetters, work: Work, auth: Auth) -> ReplayedDeadLettersView:
    """Replay dead letters in their order, and store which.

    They are sent before the replay is stored. After a crash in between they are sent again, under the same message IDs,
    which the inboxes of the services recognize.

    Raises:
        InvalidCursor: the cursor is not from an earlier call.
    """
    gone: list[str] = []
    if command.ids is not None:
        found = await auth.dead_letters.find(command.ids)
        page = Page(list(found.values()), None)
        gone = [letter_id for letter_id in dict.fromkeys(command.ids) if letter_id not in found]
    else:
        wanted = command.filter or DeadLetterFilter()
        try:
            page = await auth.dead_letters.oldest(
                _matching(wanted, auth), topic=wanted.topic, limit=command.limit, cursor=command.cursor
            )
        except InvalidQueueCursor:
            raise InvalidCursor from None
    dedup_keys = [letter.dedup_key for letter in page.letters]
    removed, replays = await auth.removed_letters.among(dedup_keys), await auth.replays.by_id(dedup_keys)
    outcomes = [ReplayedView(id=letter_id, outcome="gone") for letter_id in gone]
    async with auth.dead_letters.sender() as sender:
        replayer = _Replayer(command, work, auth, sender, removed, replays)
        outcomes += [ReplayedView(id=letter.id, outcome=await replayer.replay(letter)) for letter in page.letters]
    return ReplayedDeadLettersView(letters=tuple(outcomes), next_cursor=page.next_cursor)


@dataclass(frozen=True, slots=True)
class _Replayer:
    """Replays the dead letters of one command."""

    command: ReplayDeadLetters
    work: Work
    auth: Auth
    sender: Sender
    removed: frozenset[str]
    replays: dict[str, Replay]
    done: set[str] = field(default_factory=set)
    """Deduplication keys replayed by this command: two dead letters may be about one record."""

    async def replay(self, letter: DeadLetter) -> Outcome:
        """Replay a dead letter if it can be replayed, and return the outcome."""
        if letter.source is None or not letter.group:
            return "not_ours"
        if letter.dedup_key in self.removed:
            return "gone"
        if letter.sealed:
            return "closed"
        earlier = self.replays.get(letter.dedup_key)
        if letter.dedup_key in self.done or (earlier is not None and not self.command.again):
            return "replayed_before"
        now = int(self.work.now.timestamp() * 1000)
        oldest_in_inbox = now - int(self.auth.inbox_retention.total_seconds() * 1000)
        too_old = letter.message_time is not None and letter.message_time < oldest_in_inbox
        if too_old and not self.command.although_too_old:
            return "too_old"
        await self.sender.replay(letter, forced_at=now if too_old else None)
        fault_point("R1")
        self.done.add(letter.dedup_key)
        if earlier is None:
            replay = Replay(id=letter.dedup_key, letter_id=letter.id, at=self.work.now)
            self.auth.replays.add(replay, self.work)
        else:
            self.auth.replays.save(replace(earlier, at=self.work.now, count=earlier.count + 1), self.work)
        return "replayed"


def _matching(wanted: DeadLetterFilter, auth: Auth) -> Callable[[DeadLetter], bool]:
    """A predicate for all conditions of a filter except the topic."""

    def matches(letter: DeadLetter) -> bool:
        return (
            (wanted.reason is None or letter.reason == wanted.reason)
            and (wanted.type is None or letter.header("type") == wanted.type)
            and (wanted.service is None or auth.dead_letters.service(letter) == wanted.service)
            and (wanted.since is None or (letter.written_at is not None and letter.written_at >= wanted.since))
            and (wanted.until is None or (letter.written_at is not None and letter.written_at < wanted.until))
        )

    return matches
