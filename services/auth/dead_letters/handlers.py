"""How do operators see what was put aside, and let it be handled after all; and what if somebody in it is erased?

Here, for all services: where the audit is, and so that the letters of a service can be seen while it is down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.dead_letters.store import Replay
from services.auth.dead_letters.views import preview, whole
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
    """A page of letters, newest first, or one of them.

    Raises:
        DeadLetterNotFound: there is no such letter, or not any more.
        InvalidCursor: no page of ours ended so.
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
                _chosen(query.filter, auth), topic=query.filter.topic, limit=query.limit, cursor=query.cursor
            )
        except InvalidQueueCursor:
            raise InvalidCursor from None
    marks = [letter.dedup_key for letter in page.letters]
    removed = await auth.removed_letters.among(marks)
    letters = [letter for letter in page.letters if letter.dedup_key not in removed]
    if query.id is not None and not letters:
        raise DeadLetterNotFound
    replays = await auth.replays.of(marks)
    views = []
    for letter in letters:
        replay = replays.get(letter.dedup_key)
        known = (letter, auth.dead_letters.service(letter), None if replay is None else replay.at)
        views.append(preview(*known) if query.id is None else whole(*known, body_from=query.body_from))
    return DeadLettersView(letters=tuple(views), next_cursor=page.next_cursor)


@audited("replay_dead_letters")
async def replay_dead_letters(command: ReplayDeadLetters, work: Work, auth: Auth) -> ReplayedDeadLettersView:
    """Put letters back, in their order, and remember which.

    They are put back before they are marked, as a mail is handed over before its delivery says so: a crash between the
    two puts them back once more, under their own ids, which their services' inboxes know.

    Raises:
        InvalidCursor: no call of ours ended so.
    """
    gone: list[str] = []
    if command.ids is not None:
        found = await auth.dead_letters.find(command.ids)
        page = Page(list(found.values()), None)
        gone = [one for one in dict.fromkeys(command.ids) if one not in found]
    else:
        chosen = command.filter or DeadLetterFilter()
        try:
            page = await auth.dead_letters.oldest(
                _chosen(chosen, auth), topic=chosen.topic, limit=command.limit, cursor=command.cursor
            )
        except InvalidQueueCursor:
            raise InvalidCursor from None
    marks = [letter.dedup_key for letter in page.letters]
    removed, replays = await auth.removed_letters.among(marks), await auth.replays.of(marks)
    done = [ReplayedView(id=one, outcome="gone") for one in gone]
    async with auth.dead_letters.sender() as sender:
        replaying = _Replaying(command, work, auth, sender, removed, replays)
        done += [ReplayedView(id=letter.id, outcome=await replaying.replay(letter)) for letter in page.letters]
    return ReplayedDeadLettersView(letters=tuple(done), next_cursor=page.next_cursor)


@dataclass(frozen=True, slots=True)
class _Replaying:
    """One order to replay, under way."""

    command: ReplayDeadLetters
    work: Work
    auth: Auth
    sender: Sender
    removed: frozenset[str]
    replays: dict[str, Replay]
    here: set[str] = field(default_factory=set)
    """What was put back by this order: two letters may be about one record."""

    async def replay(self, letter: DeadLetter) -> Outcome:
        """Put one letter back, if it may be."""
        if letter.source is None or not letter.group:
            return "not_ours"
        if letter.dedup_key in self.removed:
            return "gone"
        if letter.sealed:
            return "closed"
        before = self.replays.get(letter.dedup_key)
        if letter.dedup_key in self.here or (before is not None and not self.command.again):
            return "replayed_before"
        now = int(self.work.now.timestamp() * 1000)
        remembered_since = now - int(self.auth.remembered.total_seconds() * 1000)
        too_old = letter.message_time is not None and letter.message_time < remembered_since
        if too_old and not self.command.although_too_old:
            return "too_old"
        await self.sender.replay(letter, forced_at=now if too_old else None)
        fault_point("R1")
        self.here.add(letter.dedup_key)
        if before is None:
            self.auth.replays.add(Replay(mark=letter.dedup_key, letter_id=letter.id, at=self.work.now), self.work)
        else:
            self.auth.replays.save(replace(before, at=self.work.now, count=before.count + 1), self.work)
        return "replayed"


def _chosen(wanted: DeadLetterFilter, auth: Auth) -> Callable[[DeadLetter], bool]:
    """Whether a letter has all that a filter names; its topic is looked after elsewhere."""

    def chosen(letter: DeadLetter) -> bool:
        return (
            (wanted.reason is None or letter.reason == wanted.reason)
            and (wanted.type is None or letter.header("type") == wanted.type)
            and (wanted.service is None or auth.dead_letters.service(letter) == wanted.service)
            and (wanted.since is None or (letter.written_at is not None and letter.written_at >= wanted.since))
            and (wanted.until is None or (letter.written_at is not None and letter.written_at < wanted.until))
        )

    return chosen
