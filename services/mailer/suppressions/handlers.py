"""Handlers of the suppression list: bounce and complaint reports, listing and lifting."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from prometheus_client import Counter

from services.mailer.context import SERVICE, Mailer
from services.mailer.deliveries.handlers import count_delivery
from services.mailer.deliveries.models import Delivery
from services.mailer.suppressions.models import NEVER_SUPPRESSED, Suppression, precise_status, shows_dead_address
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.mailer.errors import SuppressionNotFound
from shared.messages.mailer.mails import Template
from shared.messages.mailer.suppressions import (
    AddressSuppressed,
    Cause,
    LiftSuppression,
    ListSuppressions,
    MailBounced,
    MailNoticeCommand,
    RecordMailNotice,
    RecordProviderNotice,
    SuppressionLifted,
    SuppressionsView,
    SuppressionView,
)
from shared.paging import cursor_of
from shared.telemetry import log

REPORT_PAUSES: Final = (timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
"""How long a report waits for its delivery before each retry: the provider may report before our commit, and a mailer
that crashed before its commit stores the delivery after its restart."""


UNMATCHED: Final = Counter(
    "nest_mail_reports_unmatched",
    "Mail reports without a delivery: those that wait for it, and those that were given up; by state.",
    ["state"],
)


async def record_mail_notice(command: RecordMailNotice, work: Work, mailer: Mailer) -> None:
    """Update a delivery from a provider's report, and suppress its address after a permanent bounce or a complaint."""
    await _record(command, await mailer.deliveries.find(command.order_id), work, mailer)


async def record_provider_notice(command: RecordProviderNotice, work: Work, mailer: Mailer) -> None:
    """Like ``record_mail_notice``, for a mail that its mail server sent under an ID of its own."""
    await _record(command, await mailer.deliveries.find_by_provider_id(command.provider_id), work, mailer)


async def _record(command: MailNoticeCommand, stored: Delivery | None, work: Work, mailer: Mailer) -> None:
    if stored is None or stored.medium != "mail":
        _retry_report(command, work)
        return
    if not stored.recipient:
        # The recipient was erased: nothing more is stored about them, not even that their address is dead.
        return
    status = precise_status(command.status, command.reason)
    reason = " ".join(filter(None, (status, command.reason)))
    delivery = stored.reported(command.notice, reason, at=work.now)
    if delivery is not stored:
        mailer.deliveries.save(delivery, work)
    count_delivery(delivery, command.notice, work)
    match command.notice:
        case "bounced":
            if delivery is not stored:
                work.publish(
                    MailBounced(
                        key=delivery.id,
                        delivery_id=delivery.id,
                        template=delivery.template,
                        status=status,
                        at=work.now,
                    )
                )
            # A bounce without any code is an adapter's, whose provider calls it permanent.
            if shows_dead_address(command.reason, status, without_code=True):
                await suppress("bounce", delivery, work, mailer)
        case "complained":
            await suppress("complaint", delivery, work, mailer)
        case "delivered":
            suppression = await _find_by_recipient(delivery, mailer)
            if suppression is not None and suppression.ended_by_delivery(delivery.created_at):
                _lift(suppression, work, mailer)


async def list_suppressions(query: ListSuppressions, _work: Work, mailer: Mailer) -> SuppressionsView:
    """Return a page of the suppression list, each entry with the delivery that caused it."""
    hashes = None if query.recipient is None else _hashes(query.recipient, mailer)
    found = await mailer.suppressions.list_page(query, hashes)
    page = found[: query.limit]
    deliveries = await mailer.deliveries.find_by_ids([each.delivery_id for each in page])
    return SuppressionsView(
        suppressions=tuple(_view(each, deliveries.get(each.delivery_id)) for each in page),
        next_cursor=cursor_of(page[-1].since, page[-1].delivery_id) if len(found) > len(page) else None,
    )


async def lift_suppression(command: LiftSuppression, work: Work, mailer: Mailer) -> SuppressionView:
    """Remove an address from the suppression list, until it bounces or complains again.

    Raises:
        SuppressionNotFound: the address is not suppressed.
        RecipientComplained: the recipient complained, and the command does not confirm that they want mail again.
    """
    suppression = await _get(command, mailer)
    work.annotate(resource_id=suppression.delivery_id)
    suppression.check_liftable(although_complained=command.although_complained)
    _lift(suppression, work, mailer)
    deliveries = await mailer.deliveries.find_by_ids([suppression.delivery_id])
    return _view(suppression, deliveries.get(suppression.delivery_id))


async def find_suppression(address: str, template: Template, mailer: Mailer) -> Suppression | None:
    """Return the suppression that forbids sending this template to an address, or None."""
    if template in NEVER_SUPPRESSED:
        return None
    return await mailer.suppressions.find(mailer.recipient_hashes(address))


async def suppress(cause: Cause, delivery: Delivery, work: Work, mailer: Mailer) -> None:
    """Add the recipient of a delivery to the suppression list."""
    stored = await _find_by_recipient(delivery, mailer)
    suppression = Suppression(
        id=delivery.recipient_hash if stored is None else stored.id,
        cause=cause,
        delivery_id=delivery.id,
        since=work.now,
        version=1 if stored is None else stored.version,
    )
    if not suppression.outweighs(stored):
        return
    mailer.suppressions.add_or_save(suppression, work, stored=stored)
    work.publish(AddressSuppressed(key=delivery.id, delivery_id=delivery.id, cause=cause, at=work.now))
    log.warning("address suppressed", delivery=delivery.id, cause=cause)


def _lift(suppression: Suppression, work: Work, mailer: Mailer) -> None:
    mailer.suppressions.remove(suppression, work)
    work.publish(
        SuppressionLifted(
            key=suppression.delivery_id, delivery_id=suppression.delivery_id, cause=suppression.cause, at=work.now
        )
    )
    log.info("suppression lifted", delivery=suppression.delivery_id, cause=suppression.cause)


async def _get(command: LiftSuppression, mailer: Mailer) -> Suppression:
    if command.delivery_id is not None:
        return await mailer.suppressions.get_by_delivery(command.delivery_id)
    suppression = None
    if command.recipient is not None:
        suppression = await mailer.suppressions.find(_hashes(command.recipient, mailer))
    if suppression is None:
        raise SuppressionNotFound
    return suppression


async def _find_by_recipient(delivery: Delivery, mailer: Mailer) -> Suppression | None:
    """Return the suppression of a delivery's recipient, who must not be erased."""
    recipient = mailer.sealer.unseal(SERVICE, delivery.recipient).decode()
    return await mailer.suppressions.find(mailer.recipient_hashes(recipient))


def _hashes(recipient: Sealed, mailer: Mailer) -> list[str]:
    return mailer.recipient_hashes(mailer.unseal(recipient))


def _retry_report(command: MailNoticeCommand, work: Work) -> None:
    if command.attempt > len(REPORT_PAUSES):
        UNMATCHED.labels("given_up").inc()
        log.warning("mail report without delivery", notice=command.notice, mail=work.key)
        return
    if command.attempt == 1:
        UNMATCHED.labels("waiting").inc()
        log.info("mail report waits for its delivery", notice=command.notice, mail=work.key)
    retry = command.model_copy(update={"key": work.key, "attempt": command.attempt + 1})
    work.publish(retry, at=work.now + REPORT_PAUSES[command.attempt - 1])


def _view(suppression: Suppression, delivery: Delivery | None) -> SuppressionView:
    return SuppressionView(
        delivery_id=suppression.delivery_id,
        cause=suppression.cause,
        since=suppression.since,
        template=None if delivery is None else delivery.template,
        reason=None if delivery is None else delivery.reason,
    )
