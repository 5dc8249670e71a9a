"""Handlers of exports and erasures of personal data: processes that wait for every service, however long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from prometheus_client import Counter

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.dead_letters.erasure import erase_letters
from services.auth.personal_data.models import REORDER_AFTER, UserProcess
from services.auth.sessions.handlers import remove_sessions
from services.auth.users.models import Identifier, IdentifierType, User, is_unused, spellings
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.auth.errors import UserNotFound
from shared.messages.auth.users import RemoveUnusedUser
from shared.messages.auth.webhooks import UserErased
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
    ProcessKind,
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
    "Parts of exports and erasures not finished within an hour of their order; counted again every hour.",
    ["kind", "service"],
)
SEALING_PURPOSE: Final = "auth.people"
"""Sealing purpose of exported documents and of the identifiers in a process."""
MAX_PAGE_BYTES: Final = 256 * 1024
"""Bytes of JSON in one page; a single larger part is a page of its own."""
MAX_PARTS: Final = 50
"""Parts in one page."""
EXPORT_COMMANDS: Final[Mapping[ServiceName, type[ExportUserData]]] = {
    "auth": ExportUserFromAuth,
    "billing": ExportUserFromBilling,
    "mailer": ExportUserFromMailer,
    "news": ExportUserFromNews,
}
ERASE_COMMANDS: Final[Mapping[ServiceName, type[EraseUserData]]] = {
    "auth": EraseUserFromAuth,
    "billing": EraseUserFromBilling,
    "mailer": EraseUserFromMailer,
    "news": EraseUserFromNews,
}


@audited("export_user")
async def export_user(command: ExportUser, work: Work, auth: Auth) -> UserProcessView:
    """Begin an export, and order the part of every service.

    Raises:
        UserNotFound: there is no such user.
    """
    user, identifiers = await auth.users.with_identifiers(command.user_id)
    work.annotate(user_id=user.id)
    return _begin("export", user, identifiers, work, auth)


@audited("erase_user")
async def erase_user(command: EraseUser, work: Work, auth: Auth) -> UserProcessView:
    """Begin an erasure: delete user, identifiers and pending logins now, and order the part of every service.

    If a login and an erasure race, one of them is retried, since the login holds the identifier and redeems the code.
    So either the session exists for the parts to find, or the code is unknown, and no old code creates a new user.

    Raises:
        UserNotFound: there is no such user, and none was erased.
    """
    try:
        user, identifiers = await auth.users.with_identifiers(command.user_id)
    except UserNotFound:
        earlier = await auth.user_processes.find_erasure(command.user_id)
        if earlier is None:
            raise
        work.annotate(user_id=earlier.user_id, resource_id=earlier.id)
        return earlier.view()
    work.annotate(user_id=user.id)
    return await _erase(user, identifiers, work, auth, delete_stripe_customer=command.delete_stripe_customer)


async def _erase(
    user: User, identifiers: Sequence[Identifier], work: Work, auth: Auth, *, delete_stripe_customer: bool
) -> UserProcessView:
    auth.users.remove(user, work)
    for identifier in identifiers:
        auth.identifiers.remove(identifier, work)
    subject = _subject(user.id, identifiers)
    # Audit entries of the pending logins first: they can't be found once the logins are deleted.
    before_login = auth.personal_data.audit_before_login(await auth.personal_data.login_ids(subject))
    await erase_batch(subject, work, (before_login, *auth.personal_data.pending_logins))
    client_ids = await auth.access_tokens.clients_of(user.id) | await auth.refresh_tokens.clients_of(user.id)
    # Sessions and their tokens are removed later, and with them the clients.
    work.publish(UserErased(key=user.id, user_id=user.id, client_ids=tuple(sorted(client_ids)), at=work.now))
    return _begin("erasure", user, identifiers, work, auth, delete_stripe_customer=delete_stripe_customer)


async def remove_unused_user(command: RemoveUnusedUser, work: Work, auth: Auth) -> None:
    """Erase a user whom the order of a trial created, as ``erase_user`` does, unless anything else belongs to them.

    If a login or another order races with it, one of them is retried: a login writes the identifier, an order the user.
    The user's open links are waited for, since an erasure removes them.
    """
    user, identifiers = await asyncio.gather(
        auth.users.find(command.user_id), auth.identifiers.of_user(command.user_id)
    )
    if user is None or user.ordered_at != command.ordered_at or not is_unused(user, identifiers):
        return
    work.annotate(user_id=user.id)
    open_until = await auth.authorizations.open_until(identifiers[0].identifier_value, at=work.now)
    if open_until is not None:
        work.publish(command.model_copy(update={"key": work.key}), at=open_until)
        return
    await _erase(user, identifiers, work, auth, delete_stripe_customer=True)
    auth.audit.record(work, "erase_user")


async def export_user_from_auth(command: ExportUserFromAuth, work: Work, auth: Auth) -> None:
    """Hand over auth's own part of an export, a bounded number of documents per message."""
    await export_part(command, work, auth.personal_data.exported, sealer=auth.sealer)


async def erase_user_from_auth(command: EraseUserFromAuth, work: Work, auth: Auth) -> None:
    """Erase auth's own part, a bounded number of documents per message: sessions, then the rest, then dead letters."""
    if await remove_sessions(command.user_id, work, auth):
        work.publish(command.model_copy(update={"key": work.key}))
        return
    subject = DataSubject.of(command, auth.sealer)
    await auth.rate_limits.erase((subject.user_id, *subject.emails, *subject.phones), work)
    before_login = auth.personal_data.audit_before_login(await auth.personal_data.login_ids(subject))
    if not await erase_part(command, work, (before_login, *auth.personal_data.erased), sealer=auth.sealer):
        return
    if await erase_letters(command, work, auth):
        # The second erasure begins at the first letter again.
        finish_erasure(command.model_copy(update={"letters_from": None}), work)


async def continue_user_process(command: ContinueUserProcess, work: Work, auth: Auth) -> None:
    """Order the pending parts of a process again, if it exists and has not finished."""
    process = await auth.user_processes.find(command.process_id)
    if process is None or process.finished_at is not None:
        return
    for service in process.pending_services:
        _LATE.labels(process.kind, service).inc()
    log.warning(
        "user process continues", process=process.id, kind=process.kind, waits_for=list(process.pending_services)
    )
    process = process.next_run()
    auth.user_processes.save(process, work)
    _order_parts(process, work, auth)


async def add_exported_part(command: AddExportedPart, work: Work, auth: Auth) -> None:
    """Store exported documents, sealed; the last ones finish the service's part. Late documents are dropped."""
    process = await _waiting_process(command, auth)
    if process is None:
        return
    documents = auth.unseal(command.documents)
    auth.user_export_parts.add(command, process, auth.sealer.seal(SEALING_PURPOSE, documents.encode()), work)
    if command.last:
        _finish_part(process, command.holder, command.run, work, auth)


async def confirm_erasure(command: ConfirmErasure, work: Work, auth: Auth) -> None:
    """Mark a service's part of an erasure as finished."""
    process = await _waiting_process(command, auth)
    if process is not None:
        _finish_part(process, command.holder, process.run, work, auth)


async def note_erasure_wait(command: NoteErasureWait, work: Work, auth: Auth) -> None:
    """Store why a service can't finish its part yet."""
    process = await _waiting_process(command, auth)
    if process is not None:
        waiting = process.note_wait(command.holder, command.waits_for, reason=command.reason, at=work.now)
        auth.user_processes.save(waiting, work)


async def get_user_process(query: GetUserProcess, _work: Work, auth: Auth) -> UserProcessView:
    """Return the progress of an export or erasure.

    Raises:
        UserProcessNotFound: there is no such process, or it has expired.
    """
    return (await auth.user_processes.get(query.process_id)).view()


async def get_user_export(query: GetUserExport, work: Work, auth: Auth) -> UserExportView:
    """Return a page of the document of an export.

    Raises:
        UserProcessNotFound, UserExportNotFinished: as for ``UserProcess.must_have_document``.
    """
    process = await auth.user_processes.get(query.process_id)
    work.annotate(user_id=process.user_id, resource_id=process.id)
    finished_at = process.must_have_document(at=work.now)
    parts = await auth.user_export_parts.of_process(process, skip=query.cursor, limit=MAX_PARTS)
    services: dict[str, dict[str, list[dict[str, Any]]]] = {}
    size = shown = 0
    for part in parts:
        text = auth.sealer.unseal(SEALING_PURPOSE, part["documents"])
        size += len(text)
        if shown and size > MAX_PAGE_BYTES:
            break
        services.setdefault(part["service"], {}).setdefault(part["collection"], []).extend(json.loads(text))
        shown += 1
    more = shown < len(parts) or len(parts) == MAX_PARTS
    return UserExportView(
        user_id=process.user_id,
        requested_at=process.requested_at,
        finished_at=finished_at,
        services=services,
        next_cursor=query.cursor + shown if more else None,
    )


def _begin(
    kind: ProcessKind,
    user: User,
    identifiers: Sequence[Identifier],
    work: Work,
    auth: Auth,
    *,
    delete_stripe_customer: bool = False,
) -> UserProcessView:
    pairs = _known_values(identifiers)
    process = UserProcess(
        id=work.new_id("userproc"),
        kind=kind,
        user_id=user.id,
        identifiers=auth.sealer.seal(SEALING_PURPOSE, json.dumps(pairs).encode()),
        delete_stripe_customer=delete_stripe_customer,
        requested_by=work.caller.kind,
        requested_at=work.now,
    )
    work.annotate(resource_id=process.id)
    auth.user_processes.add(process, work)
    _order_parts(process, work, auth)
    return process.view()


async def _waiting_process(
    command: AddExportedPart | ConfirmErasure | NoteErasureWait, auth: Auth
) -> UserProcess | None:
    """The process of a reply, unless the service has already finished its part."""
    process = await auth.user_processes.find(command.process_id)
    return None if process is None or command.holder in process.done else process


def _finish_part(process: UserProcess, service: ServiceName, run: int, work: Work, auth: Auth) -> None:
    finished = process.finish_part(service, run=run, export_retention=auth.user_export_retention, at=work.now)
    auth.user_processes.save(finished, work)


def _order_parts(process: UserProcess, work: Work, auth: Auth) -> None:
    """Order the pending parts, and schedule ``ContinueUserProcess`` in an hour."""
    identifiers = "[]"
    if process.identifiers is not None:
        identifiers = auth.sealer.unseal(SEALING_PURPOSE, process.identifiers).decode()
    about = {"key": process.user_id, "process_id": process.id, "user_id": process.user_id}
    for service in process.pending_services:
        sealed = Sealed.of(identifiers)
        if process.kind == "export":
            work.publish(EXPORT_COMMANDS[service](**about, identifiers=sealed, run=process.run))
        else:
            erase = ERASE_COMMANDS[service](
                **about, identifiers=sealed, delete_stripe_customer=process.delete_stripe_customer
            )
            work.publish(erase)
    work.publish(ContinueUserProcess(key=process.id, process_id=process.id), at=work.now + REORDER_AFTER)


def _known_values(identifiers: Sequence[Identifier]) -> list[tuple[IdentifierType, str]]:
    """Types and values of identifiers; numbers in all their spellings, since other documents may have another one."""
    return [
        (identifier.identifier_type, value)
        for identifier in identifiers
        for value in spellings(identifier.identifier_type, identifier.identifier_value)
    ]


def _subject(user_id: str, identifiers: Sequence[Identifier]) -> DataSubject:
    known = _known_values(identifiers)
    return DataSubject(
        user_id,
        emails=tuple(value for kind, value in known if kind == "email"),
        phones=tuple(value for kind, value in known if kind == "phone"),
    )
