"""Handler that sends mails: render, hand over to the mail server, store the outcome, retry if deferred."""

from __future__ import annotations

from typing import Final

from services.mailer.context import Mailer
from services.mailer.deliveries.handlers import count_delivery, find_delivery, order_retry
from services.mailer.deliveries.models import Accepted, Delivery, Outcome, Rejected
from services.mailer.mails.addresses import UnusableAddress, usable_address
from services.mailer.mails.mime import compose
from services.mailer.smtp.smtp_client import Mail
from services.mailer.suppressions.handlers import find_suppression, suppress
from shared.bus.handling import without_search
from shared.bus.work import Work
from shared.fault_points import fault_point
from shared.messages import Sealed
from shared.messages.auth.sessions import FindLastLogin
from shared.messages.mailer.mails import MailHandedOver, NoteLinkRedeemed, SendMail, Template
from shared.metrics import LOGINS, labelled
from shared.telemetry import log

LINKS: Final[frozenset[Template]] = frozenset({"magic-link", "trial-magic-link", "password-reset", "verify-address"})
"""Templates that anybody may order for any address."""
OWN_BRANDING: Final[frozenset[Template]] = LINKS | {
    "dispute",
    "password-changed",
    "address-changed",
    "webhook-disabled",
}
"""Templates whose client and language are final in the order: the reader requested them through an app, or they go to
operators."""
LOGIN_LINKS: Final[frozenset[Template]] = frozenset({"magic-link", "trial-magic-link"})
"""Templates whose mails are a step of a login."""


async def send_mail(command: SendMail, work: Work, mailer: Mailer) -> None:
    """Send a mail and store the outcome; order it again for later if the server defers it.

    The order is the committed intent, and the Message-ID is derived from its ID: if the outcome of an attempt is lost,
    the next one sends a copy of the same mail.

    An order without client or language comes back from auth with the recipient's last login.
    """
    stored = await find_delivery(command, mailer)
    if stored is not None and stored.finished:
        return
    address = mailer.unseal(command.to)
    if stored is None and _needs_last_login(command):
        order = command.model_copy(update={"order_id": command.order_id or work.id})
        work.publish(FindLastLogin(key=work.key, address=Sealed.of(address), mail=order))
        return
    delivery = stored or await _new_delivery(command, address, work, mailer)
    suppression = await find_suppression(address, command.template, mailer)
    if suppression is not None:
        delivery = delivery.suppressed(suppression.cause, at=work.now)
        mailer.deliveries.add_or_save(delivery, work, stored=stored)
        count_delivery(delivery, delivery.state, work)
        return
    outcome = await _send(command, address, delivery, work, mailer)
    work.commit_at_once()
    if isinstance(outcome, Accepted):
        fault_point("M1")
    delivery = delivery.after(outcome, at=work.now, until=command.expires_at)
    mailer.deliveries.add_or_save(delivery, work, stored=stored)
    count_delivery(delivery, delivery.state, work)
    match delivery.state:
        case "handed_over":
            if command.template in LOGIN_LINKS:
                work.count(labelled(LOGINS, "mail", "mailed"))
            work.publish(
                MailHandedOver(key=delivery.id, delivery_id=delivery.id, template=command.template, at=work.now)
            )
        case "queued":
            order_retry(command, delivery, work)
        case "failed":
            log.error("mail failed", delivery=delivery.id, template=delivery.template, reason=delivery.reason)
            if isinstance(outcome, Rejected) and outcome.dead_address:
                await suppress("bounce", delivery, work, mailer)


@without_search
async def note_link_redeemed(command: NoteLinkRedeemed, work: Work, mailer: Mailer) -> None:
    """Note that the link in a mail was redeemed, for an earlier release of auth; expired deliveries are ignored."""
    delivery = await mailer.deliveries.find(command.order_id)
    if delivery is not None and delivery.redeemed_at is None:
        mailer.deliveries.save(delivery.redeem(at=command.at), work)


def _needs_last_login(command: SendMail) -> bool:
    incomplete = command.client_id is None or command.locale is None
    return incomplete and command.last_login is None and command.template not in OWN_BRANDING


async def _new_delivery(command: SendMail, address: str, work: Work, mailer: Mailer) -> Delivery:
    order_id = command.order_id or work.id
    recipient_hash = mailer.recipient_hash(address)
    client_id, locale = await _client_and_locale(command, recipient_hash, mailer)
    return Delivery(
        id=work.new_id("delivery"),
        order_id=order_id,
        template=command.template,
        client_id=client_id,
        locale=locale,
        recipient=mailer.sealed(command.to),
        recipient_hash=recipient_hash,
        message_id=f"<{order_id}@{mailer.sender.domain}>",
        branded=command.template not in LINKS,
        created_at=work.now,
        updated_at=work.now,
    )


async def _client_and_locale(command: SendMail, recipient_hash: str, mailer: Mailer) -> tuple[str | None, str | None]:
    """Return the client whose branding a mail shows, and the language that its reader requested.

    Most orders name neither, since a subscription belongs to no app. The mail then takes those of the app that the
    person last logged in to by a link to this address.
    """
    if command.template in OWN_BRANDING:
        return command.client_id, command.locale
    last = await mailer.deliveries.find_last_branded(recipient_hash, command.last_login)
    if last is None:
        return command.client_id, command.locale
    return command.client_id or last.client_id, command.locale or last.locale


async def _send(command: SendMail, address: str, delivery: Delivery, work: Work, mailer: Mailer) -> Outcome:
    """Render the mail and try once to send it, unless it has expired."""
    if command.expires_at is not None and work.now >= command.expires_at:
        return Rejected("expired before it could be sent")
    branding = await mailer.branding_cache.get(delivery.client_id)
    locale = mailer.mail_renderer.choose_locale(command.template, branding=branding, requested=(delivery.locale,))
    unsubscribe = mailer.unsubscribe_links.create(command.template, command.user_id, locale)
    variables = mailer.app_links.shown_in(
        command.template, mailer.unseal(command.variables), branding=branding, locale=locale
    )
    rendered = mailer.mail_renderer.render(
        command.template,
        variables,
        branding=branding,
        requested=(locale,),
        unsubscribe=unsubscribe,
    )
    try:
        recipient = usable_address(address)
    except UnusableAddress as unusable:
        return Rejected(f"unusable address: {unusable}")
    content = compose(
        rendered,
        sender_name=branding.sender_name,
        sender_address=branding.sender_address,
        recipient=recipient,
        message_id=delivery.message_id,
        at=delivery.created_at,
        unsubscribe=unsubscribe,
    )
    mail = Mail(
        message_id=delivery.message_id,
        attempt=delivery.attempts + 1,
        sender=mailer.sender.return_path(delivery.order_id),
        recipient=recipient,
        content=content,
    )
    return await mailer.mail_servers.send(mail)
