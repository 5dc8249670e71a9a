"""Handlers of the clients' branding."""

from __future__ import annotations

from dataclasses import replace

from services.mailer.branding.models import ClientBranding, branding_view
from services.mailer.consents.unsubscribe_links import UNSUBSCRIBABLE
from services.mailer.context import Mailer
from services.mailer.rendering import samples
from shared.bus.work import Work
from shared.messages.mailer.branding import (
    ClientLooksView,
    GetClientLooks,
    MailPreviewView,
    PreviewMail,
    RecordClientLooks,
)


async def record_client_looks(command: RecordClientLooks, work: Work, mailer: Mailer) -> ClientLooksView:
    """Set the branding of a client; its mails and texts show it within a second."""
    stored = await mailer.client_brandings.find(command.client_id)
    if stored is None:
        branding = ClientBranding(id=command.client_id, chosen=command.looks, created_at=work.now, updated_at=work.now)
    else:
        branding = replace(stored, chosen=command.looks, updated_at=work.now)
    mailer.client_brandings.add_or_save(branding, work, stored=stored)
    return branding_view(command.client_id, branding, mailer.branding_cache.default)


async def get_client_looks(query: GetClientLooks, _work: Work, mailer: Mailer) -> ClientLooksView:
    """Return the branding of a client."""
    stored = await mailer.client_brandings.find(query.client_id)
    return branding_view(query.client_id, stored, mailer.branding_cache.default)


async def preview_mail(query: PreviewMail, _work: Work, mailer: Mailer) -> MailPreviewView:
    """Render a mail or text with the sample values of the template."""
    default, chosen = mailer.branding_cache.default, query.looks
    if chosen is None and query.client_id is not None:
        stored = await mailer.client_brandings.find(query.client_id)
        chosen = None if stored is None else stored.chosen
    branding = default if chosen is None else default.overridden_by(chosen)
    variables = samples.all_variables(query.template)
    if query.template == "login-code":
        renderer, requested = mailer.text_renderer, [query.locale]
        text = renderer.render(query.template, variables, branding=branding, requested=requested)
        locale = renderer.choose_locale(query.template, branding=branding, requested=requested)
        return MailPreviewView(sender="", subject="", text=text, html="", locale=locale)
    mail = mailer.mail_renderer.render(
        query.template,
        variables,
        branding=branding,
        requested=[query.locale],
        unsubscribe=samples.UNSUBSCRIBE if query.template in UNSUBSCRIBABLE else None,
    )
    return MailPreviewView(
        sender=branding.sender, subject=mail.subject, text=mail.text, html=mail.html, locale=mail.locale
    )
