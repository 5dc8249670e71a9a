"""How is all that Nest holds on somebody exported or erased? By a process that waits for each service, however long."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from prometheus_client import Counter

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.dead_letters.erasure import remove_letters
from services.auth.personal_data.models import ASK_AGAIN, UserProcess
from services.auth.sessions.handlers import remove_sessions
from services.auth.users.models import Identifier
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.auth.errors import UserNotFound
from shared.messages.personal_data import (
    AddExportedPart,
    ConfirmErasure,
    ContinueUserProcess,
    EraseUser,
    EraseUserData,
    EraseUserFromAuth,
    EraseUserFromBilling,
    EraseUserFromMailer,
    EraseUserFromNews,
    ExportUser,
    ExportUserData,
    ExportUserFromAuth,
    ExportUserFromBilling,
    ExportUserFromMailer,
    ExportUserFromNews,
    GetUserExport,
    GetUserProcess,
    NoteErasureWait,
    ServiceName,
    UserExportView,
    UserProcessView,
)
from shared.personal_data.erasure import erase_batch, erase_part, finish_erasure
from shared.personal_data.export import export_part
from shared.personal_data.subjects import DataSubject
from shared.telemetry import log

_LATE: Final = Counter(
    "nest_user_parts_late",
    "Parts of exports and erasures that were not done within an hour of their order, each hour anew.",
    ["kind", "service"],
)
OWN: Final = "auth.people"
"""What auth keeps of people's exports, and of how they were known, is sealed for this alone."""
PAGE_BYTES: Final = 256 * 1024
"""JSON in one page, before the part that goes beyond it."""
MOST_PARTS: Final = 50
EXPORT_PARTS: Final[Mapping[ServiceName, type[ExportUserData]]] = {
    "auth": ExportUserFromAuth,
    "billing": ExportUserFromBilling,
    "mailer": ExportUserFromMailer,
    "news": ExportUserFromNews,
}
ERASE_PARTS: Final[Mapping[ServiceName, type[EraseUserData]]] = {
    "auth": EraseUserFromAuth,
    "billing": EraseUserFromBilling,
    "mailer": EraseUserFromMailer,
    "news": EraseUserFromNews,
}


@audited("export_user")
async def export_user(command: ExportUser, work: Work, auth: Auth) -> UserProcessView:
    """Begin an export: order every service's part.

    Raises:
        UserNotFound: there is no such user.
    """
    user = await auth.users.get(command.user_id)
    work.annotate(user_id=user.id)
    identifiers = await auth.identifiers.of_user(user.id)
    process = UserProcess.begin(
        "export",
        user.id,
        id=work.new_id("userproc"),
        identifiers=_sealed(identifiers, auth),
        requested_by=work.caller.kind,
        at=work.now,
    )
    auth.user_processes.add(process, work)
    work.annotate(resource_id=process.id)
    _order_parts(process, work, auth)
    return process.view()


@audited("erase_user")
async def erase_user(command: EraseUser, work: Work, auth: Auth) -> UserProcessView:
    """Begin an erasure: user, identifiers, and the links and codes on their way go now; the rest is ordered.

    Who logs in at the same time holds the identifier and uses the link, so one of the two runs again: either the
    session is there for the parts to find, or the link is unknown. So no link of before makes a user after.

    Raises:
        UserNotFound: there is no such user, and none was erased.
    """
    try:
        user = await auth.users.get(command.user_id)
    except UserNotFound:
        earlier = await auth.user_processes.find_erasure(command.user_id)
        if earlier is None:
            raise
        work.annotate(user_id=earlier.user_id, resource_id=earlier.id)
        return earlier.view()
    identifiers = await auth.identifiers.of_user(user.id)
    process = UserProcess.begin(
        "erasure",
        user.id,
        id=work.new_id("userproc"),
        identifiers=_sealed(identifiers, auth),
        requested_by=work.caller.kind,
        at=work.now,
        delete_stripe_customer=command.delete_stripe_customer,
    )
    work.annotate(user_id=user.id, resource_id=process.id)
    auth.users.remove(user, work)
    for identifier in identifiers:
        auth.identifiers.remove(identifier, work)
    person = _person(user.id, identifiers)
    # First the audit of them: it can't be found once they are gone.
    tried = auth.people.tried(await auth.people.logins(person))
    await erase_batch(person, work, (tried, *auth.people.ways_in))
    auth.user_processes.add(process, work)
    _order_parts(process, work, auth)
    return process.view()


async def continue_user_process(command: ContinueUserProcess, work: Work, auth: Auth) -> None:
    """Order the missing parts again; nothing when it is finished, or gone."""
    process = await auth.user_processes.find(command.process_id)
    if process is None or process.finished_at is not None:
        return
    for service in process.waits_for:
        _LATE.labels(process.kind, service).inc()
    log.warning("user process goes on", process=process.id, kind=process.kind, waits_for=list(process.waits_for))
    process = process.again()
    auth.user_processes.save(process, work)
    _order_parts(process, work, auth)


async def add_exported_part(command: AddExportedPart, work: Work, auth: Auth) -> None:
    """Keep a part, sealed; the last one makes its service done. What comes after that, or too late, is dropped."""
    process = await auth.user_processes.find(command.process_id)
    if process is None or command.holder in process.done:
        return
    documents = auth.unseal(command.documents)
    auth.user_export_parts.add(command, process, auth.sealer.seal(OWN, documents.encode()), work)
    if command.last:
        done = process.part_done(command.holder, run=command.run, kept_for=auth.user_export_retention, at=work.now)
        auth.user_processes.save(done, work)


async def confirm_erasure(command: ConfirmErasure, work: Work, auth: Auth) -> None:
    """Note that a service is done."""
    process = await auth.user_processes.find(command.process_id)
    if process is None or command.holder in process.done:
        return
    done = process.part_done(command.holder, run=process.run, kept_for=auth.user_export_retention, at=work.now)
    auth.user_processes.save(done, work)


async def note_erasure_wait(command: NoteErasureWait, work: Work, auth: Auth) -> None:
    """Keep what a service waits for, until it is done."""
    process = await auth.user_processes.find(command.process_id)
    if process is None or command.holder in process.done:
        return
    waits = process.part_waits(command.holder, command.waits_for, reason=command.reason, at=work.now)
    auth.user_processes.save(waits, work)


async def get_user_process(query: GetUserProcess, _work: Work, auth: Auth) -> UserProcessView:
    """How far an export or an erasure is.

    Raises:
        UserProcessNotFound: there is none, or not any more.
    """
    return (await auth.user_processes.get(query.process_id)).view()


async def get_user_export(query: GetUserExport, work: Work, auth: Auth) -> UserExportView:
    """A page of what an export has brought together.

    Raises:
        UserProcessNotFound, UserExportNotFinished: as ``UserProcess.must_show_document``.
    """
    process = await auth.user_processes.get(query.process_id)
    work.annotate(user_id=process.user_id, resource_id=process.id)
    finished_at = process.must_show_document(at=work.now)
    parts = await auth.user_export_parts.of(process, skip=query.cursor, most=MOST_PARTS)
    services: dict[str, dict[str, list[dict[str, Any]]]] = {}
    size = taken = 0
    for part in parts:
        text = auth.sealer.unseal(OWN, part["documents"])
        size += len(text)
        if taken and size > PAGE_BYTES:
            break
        services.setdefault(part["service"], {}).setdefault(part["collection"], []).extend(json.loads(text))
        taken += 1
    more = taken < len(parts) or len(parts) == MOST_PARTS
    return UserExportView(
        user_id=process.user_id,
        requested_at=process.requested_at,
        finished_at=finished_at,
        services=services,
        next_cursor=query.cursor + taken if more else None,
    )


def _order_parts(process: UserProcess, work: Work, auth: Auth) -> None:
    """Order what is missing, and a look at it in an hour."""
    known = auth.sealer.unseal(OWN, process.identifiers).decode() if process.identifiers is not None else "[]"
    about = {"key": process.user_id, "process_id": process.id, "user_id": process.user_id}
    for service in process.waits_for:
        identifiers = Sealed.of(known)
        if process.kind == "export":
            work.publish(EXPORT_PARTS[service](**about, identifiers=identifiers, run=process.run))
        else:
            order = ERASE_PARTS[service](
                **about, identifiers=identifiers, delete_stripe_customer=process.delete_stripe_customer
            )
            work.publish(order)
    work.publish(ContinueUserProcess(key=process.id, process_id=process.id), at=work.now + ASK_AGAIN)


def _person(user_id: str, identifiers: Sequence[Identifier]) -> DataSubject:
    known = [(identifier.identifier_type, identifier.identifier_value) for identifier in identifiers]
    return DataSubject(
        user_id,
        emails=tuple(value for kind, value in known if kind == "email"),
        phones=tuple(value for kind, value in known if kind == "phone"),
    )


def _sealed(identifiers: Sequence[Identifier], auth: Auth) -> str:
    known = [[identifier.identifier_type, identifier.identifier_value] for identifier in identifiers]
    return auth.sealer.seal(OWN, json.dumps(known).encode())


async def export_user_part(command: ExportUserFromAuth, work: Work, auth: Auth) -> None:
    """Hand over what is held on a user, a part at a time."""
    await export_part(command, work, auth.people.handed_over, sealer=auth.sealer)


async def erase_user_part(command: EraseUserFromAuth, work: Work, auth: Auth) -> None:
    """End and remove all sessions, then the rest, then dead letters, some at a time."""
    if await remove_sessions(command.user_id, work, auth):
        work.publish(command.model_copy(update={"key": work.key}))
        return
    person = DataSubject.of(command, auth.sealer)
    await auth.limits.forget((person.user_id, *person.emails, *person.phones), work)
    tried = auth.people.tried(await auth.people.logins(person))
    if not await erase_part(command, work, (tried, *auth.people.removed), sealer=auth.sealer):
        return
    if await remove_letters(command, work, auth):
        # The second look begins at the first letter again.
        finish_erasure(command.model_copy(update={"letters_from": None}), work)
