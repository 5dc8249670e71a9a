"""How is the mailer put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parseaddr
from functools import partial

from services.mailer.context import SERVICE, Mailer, Sender
from services.mailer.handlers import HANDLERS
from services.mailer.models.addresses import usable_address
from services.mailer.rendering import Brand, Letters, Texts
from services.mailer.settings import MailerSettings
from services.mailer.sms import Console, Inbox, NoProvider, TextProvider
from services.mailer.smtp import MailServer, Smtp
from services.mailer.store import INDEXES
from services.mailer.store.consents import Consents
from services.mailer.store.deliveries import Deliveries
from services.mailer.store.looks import LooksOfClients
from services.mailer.store.people import People
from services.mailer.store.suppressions import Suppressions
from services.mailer.unsubscribing import UnsubscribeLinks
from services.mailer.wardrobe import Wardrobe
from shared.service import Parts, Service
from shared.settings import SettingsError, load

TOPICS = ("mailer.commands",)


def create(settings: MailerSettings | None = None) -> Service:
    """The service, running while it is entered.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    chosen = settings or load(MailerSettings)
    return Service(
        chosen,
        name=SERVICE,
        handlers=HANDLERS,
        topics=TOPICS,
        indexes=INDEXES,
        open=partial(opened, settings=chosen),
    )


@asynccontextmanager
async def opened(parts: Parts, settings: MailerSettings) -> AsyncIterator[Mailer]:
    """What the handlers work with; its connections are closed at the end."""
    sender = Sender(address=usable_address(parseaddr(settings.mail_from)[1]), header=settings.mail_from)
    smtp = Smtp(server(settings, sender), connections=settings.smtp_connections, timeout=settings.smtp_timeout)
    provider = text_provider(settings, smtp, sender)
    try:
        yield Mailer(
            deliveries=Deliveries(parts.database),
            consents=Consents(parts.database),
            consent_changes=ConsentChanges(parts.database),
            audience=audience,
            audience_members=AudienceMembers(parts.database),
            client_looks=client_looks,
            people=People(parts.database, parts.sealer),
            wardrobe=Wardrobe(own_looks(settings), client_looks),
            letters=letters,
            texts=texts,
            smtp=smtp,
            text_provider=provider,
            sender=sender,
            sealer=parts.sealer,
        )
    finally:
        await provider.close()
        await smtp.close()


def server(settings: MailerSettings, sender: Sender) -> MailServer:
    """The mail server that the settings name."""
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.smtp_tls,
        username=settings.smtp_username,
        password=None if settings.smtp_password is None else settings.smtp_password.get_secret_value(),
        ca_file=None if settings.smtp_ca_file is None else str(settings.smtp_ca_file),
        own_name=sender.domain,
    )


def text_provider(settings: MailerSettings, smtp: Smtp, sender: Sender) -> TextProvider:
    """Who carries texts, as the settings say."""
    match settings.text_provider:
        case "twilio":
            return _twilio(settings)
        case "inbox":
            return Inbox(smtp, sender.address)
        case "console":
            return Console()
        case "none":
            return NoProvider()


def _twilio(settings: MailerSettings) -> TextProvider:
    # Only where it is wanted: the library takes as long to import as all else here together.
    from services.mailer.twilio import Twilio, TwilioAccount  # noqa: PLC0415

    sid, token, service = (
        settings.twilio_account_sid,
        settings.twilio_auth_token,
        settings.twilio_messaging_service_sid,
    )
    if not sid or not token or not service:
        raise SettingsError("NEST_TEXT_PROVIDER is twilio, which needs an account")
    account = TwilioAccount(
        sid=sid, token=token.get_secret_value(), messaging_service_sid=service, api_base=settings.twilio_api_base
    )
    return Twilio(account, timeout=settings.text_timeout)


def brand(settings: MailerSettings) -> Brand:
    """How mails look."""
    return Brand(
        product_name=settings.mail_product_name,
        support_address=settings.mail_support_address,
        accent_colour=settings.mail_accent_colour,
        logo_url=settings.mail_logo_url,
    )
