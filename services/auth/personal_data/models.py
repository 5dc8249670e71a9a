"""How far is an export or an erasure of a user, and when is it finished?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Self, get_args

from shared.messages.auth.errors import UserExportNotFinished, UserProcessNotFound
from shared.messages.personal_data import ProcessKind, ServiceName, ServicePartView, ThirdParty, UserProcessView

HOLDERS: Final[tuple[ServiceName, ...]] = get_args(ServiceName)
ASK_AGAIN: Final = timedelta(hours=1)
"""How long a service has for its part before it is ordered again."""
KEPT: Final = timedelta(days=180)
"""How long it is told that somebody was erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What keeps a service from being done.

    Attributes:
        outsider: who outside of Nest can't be asked.
        since: when that was first said.
        reason: what was said last.
    """

    outsider: ThirdParty
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserProcess:
    """An export or an erasure.

    Attributes:
        identifiers: what the user is known by, sealed for auth; None when nobody needs it any more.
        run: how often the parts were ordered.
        done: when each service was done.
        runs_done: which run of a service's export is the one that counts.
        waits: what keeps services from being done, where they have said so.
        requested_by: what sort of caller; never who.
        expires_at: when it is forgotten, the document of an export with it.
    """

    id: str
    kind: ProcessKind
    user_id: str
    identifiers: str | None
    delete_stripe_customer: bool
    run: int
    done: Mapping[ServiceName, datetime]
    runs_done: Mapping[ServiceName, int]
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    waits: Mapping[ServiceName, Wait] = field(default_factory=dict)
    version: int = 1

    @classmethod
    def begin(
        cls,
        kind: ProcessKind,
        user_id: str,
        *,
        id: str,  # noqa: A002 -- the field's name
        identifiers: str,
        requested_by: str,
        at: datetime,
        delete_stripe_customer: bool = False,
    ) -> Self:
        """A process whose parts are about to be ordered for the first time."""
        return cls(
            id=id,
            kind=kind,
            user_id=user_id,
            identifiers=identifiers,
            delete_stripe_customer=delete_stripe_customer,
            run=1,
            done={},
            runs_done={},
            requested_by=requested_by,
            requested_at=at,
        )

    @property
    def waits_for(self) -> tuple[ServiceName, ...]:
        """The services that are not done."""
        return tuple(service for service in HOLDERS if service not in self.done)

    def again(self) -> Self:
        """The same, its missing parts ordered once more."""
        return replace(self, run=self.run + 1)

    def part_done(self, service: ServiceName, *, run: int, kept_for: timedelta, at: datetime) -> Self:
        """The same when a service is done; with the last one it is finished.

        Args:
            service: which.
            run: of an export, which of its runs that was.
            kept_for: how long the document of an export is kept.
            at: now.
        """
        if service in self.done:
            return self
        after = replace(
            self,
            done={**self.done, service: at},
            runs_done={**self.runs_done, service: run},
            waits={other: wait for other, wait in self.waits.items() if other != service},
        )
        if after.waits_for:
            return after
        ends = at + (kept_for if self.kind == "export" else KEPT)
        return replace(after, identifiers=None, finished_at=at, expires_at=ends)

    def part_waits(self, service: ServiceName, outsider: ThirdParty, *, reason: str, at: datetime) -> Self:
        """The same when a service has said that it can't be done now."""
        known = self.waits.get(service)
        since = at if known is None else known.since
        return replace(self, waits={**self.waits, service: Wait(outsider=outsider, since=since, reason=reason)})

    def must_show_document(self, *, at: datetime) -> datetime:
        """Let the document of an export be read; tells when it was finished.

        Raises:
            UserProcessNotFound: it is no export, or its time is over.
            UserExportNotFinished: a service is not done yet.
        """
        if self.kind != "export" or (self.expires_at is not None and at >= self.expires_at):
            raise UserProcessNotFound
        if self.finished_at is None:
            raise UserExportNotFinished(waits_for=list(self.waits_for))
        return self.finished_at

    def view(self) -> UserProcessView:
        """As operators read it."""
        return UserProcessView(
            id=self.id,
            kind=self.kind,
            user_id=self.user_id,
            state="running" if self.finished_at is None else "done",
            requested_at=self.requested_at,
            finished_at=self.finished_at,
            expires_at=self.expires_at if self.kind == "export" else None,
            services=tuple(map(self._part, HOLDERS)),
        )

    def _part(self, service: ServiceName) -> ServicePartView:
        wait = self.waits.get(service)
        return ServicePartView(
            service=service,
            done_at=self.done.get(service),
            waits_for=wait and wait.outsider,
            waits_since=wait and wait.since,
            reason=wait and wait.reason,
        )
