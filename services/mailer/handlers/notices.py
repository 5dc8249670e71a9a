"""What follows when a provider tells of a mail that it took earlier?"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.mailer.context import Mailer
from services.mailer.handlers.deliveries import keep
from services.mailer.handlers.suppressions import lift_if_back, suppress
from services.mailer.models.suppressions import shows_dead_address
from shared.bus.work import Work
from shared.messages.mailer.mail_reports import MailBounced, RecordMailNotice
from shared.telemetry import log

PAUSES: Final = (timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
"""How long a notice waits for its delivery, again and again: a server may be faster than our own mark, and a mailer
that died before its mark makes it when it is back."""


async def record_mail_notice(command: RecordMailNotice, work: Work, mailer: Mailer) -> None:
    """Bring the delivery up to date; a bounce or a complaint ends mails that nobody has asked for at the address."""
    known = await mailer.deliveries.find(command.order_id)
    if known is None or known.channel != "mail":
        _wait_for_delivery(command, work)
        return
    if not known.recipient:
        # Whoever it went to was erased: nothing more is kept of them, not even that their address is dead.
        return
    told = known.told(command.notice, _reason(command), at=work.now)
    if told is not known:
        keep(told, known, work, mailer)
    match command.notice:
        case "bounced":
            if told is not known:
                work.publish(
                    MailBounced(
                        key=told.id, delivery_id=told.id, template=told.template, status=command.status, at=work.now
                    )
                )
            if shows_dead_address(command.status):
                await suppress("bounce", told, work, mailer)
        case "complained":
            await suppress("complaint", told, work, mailer)
        case "delivered":
            await lift_if_back(told, work, mailer)


def _reason(command: RecordMailNotice) -> str:
    return " ".join(filter(None, (command.status, command.reason)))


def _wait_for_delivery(command: RecordMailNotice, work: Work) -> None:
    if command.attempt > len(PAUSES):
        log.warning("mail notice about no delivery", notice=command.notice, order=command.order_id)
        return
    again = command.model_copy(update={"key": work.key, "attempt": command.attempt + 1})
    work.publish(again, at=work.now + PAUSES[command.attempt - 1])
