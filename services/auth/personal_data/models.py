"""Processes that export or erase a user's personal data in all services."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Self, get_args

from shared.documents import stored_as
from shared.messages.auth.errors import UserExportNotFinished, UserProcessNotFound
from shared.messages.personal_data import ProcessKind, ServiceName, ServicePartView, ThirdParty, UserProcessView

SERVICES: Final[tuple[ServiceName, ...]] = get_args(ServiceName)
REORDER_AFTER: Final = timedelta(hours=1)
"""How long a service has for its part before the part is ordered again."""
ERASURE_RETENTION: Final = timedelta(days=180)
"""How long a finished erasure can be looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why a service can't finish its part yet: a third party does not respond.

    ``since`` is the time of the first report, ``reason`` the last reported reason.
    """

    third_party: ThirdParty = stored_as("outsider")
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserProcess:
    """An export or an erasure.

    Attributes:
        identifiers: identifiers of the user, sealed for auth; None once the process has finished.
        run: how often the parts have been ordered.
        done: when each service finished its part.
        runs_done: the run in which each service finished its part; of an export only the parts of that run count.
        waits: why services can't finish, as far as reported. Missing in documents that are older than the field.
        requested_by: kind of the caller, never a name.
        expires_at: when the process, and the document of an export, are deleted.
    """

    id: str
    kind: ProcessKind
    user_id: str
    identifiers: str | None
    delete_stripe_customer: bool = False
    run: int = 1
    done: dict[ServiceName, datetime] = field(default_factory=dict)
    runs_done: dict[ServiceName, int] = field(default_factory=dict)
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    waits: dict[ServiceName, Wait] = field(default_factory=dict)
    version: int = 1

    @property
    def pending_services(self) -> tuple[ServiceName, ...]:
        """The services that have not finished their part."""
        return tuple(service for service in SERVICES if service not in self.done)

    def next_run(self) -> Self:
        """Count another order of the pending parts."""
        return replace(self, run=self.run + 1)

    def finish_part(self, service: ServiceName, *, run: int, export_retention: timedelta, at: datetime) -> Self:
        """Mark a service's part, from this run, as finished; with the last part the process finishes."""
        if service in self.done:
            return self
        process = replace(
            self,
            done={**self.done, service: at},
            runs_done={**self.runs_done, service: run},
            waits={other: wait for other, wait in self.waits.items() if other != service},
        )
        if process.pending_services:
            return process
        retention = export_retention if self.kind == "export" else ERASURE_RETENTION
        return replace(process, identifiers=None, finished_at=at, expires_at=at + retention)

    def note_wait(self, service: ServiceName, third_party: ThirdParty, *, reason: str, at: datetime) -> Self:
        """Note that a service can't finish its part yet."""
        earlier = self.waits.get(service)
        since = at if earlier is None else earlier.since
        return replace(self, waits={**self.waits, service: Wait(third_party=third_party, since=since, reason=reason)})

    def must_have_document(self, *, at: datetime) -> datetime:
        """Check that the document of an export can be read, and return when the export finished.

        Raises:
            UserProcessNotFound: the process is not an export, or its document has expired.
            UserExportNotFinished: a service has not finished its part.
        """
        if self.kind != "export" or (self.expires_at is not None and at >= self.expires_at):
            raise UserProcessNotFound
        if self.finished_at is None:
            raise UserExportNotFinished(waits_for=list(self.pending_services))
        return self.finished_at

    def view(self) -> UserProcessView:
        """The process as shown to operators."""
        return UserProcessView(
            id=self.id,
            kind=self.kind,
            user_id=self.user_id,
            state="running" if self.finished_at is None else "done",
            requested_at=self.requested_at,
            finished_at=self.finished_at,
            expires_at=self.expires_at if self.kind == "export" else None,
            services=tuple(map(self._part_view, SERVICES)),
        )

    def _part_view(self, service: ServiceName) -> ServicePartView:
        wait = self.waits.get(service)
        return ServicePartView(
            service=service,
            done_at=self.done.get(service),
            waits_for=wait and wait.third_party,
            waits_since=wait and wait.since,
            reason=wait and wait.reason,
        )
