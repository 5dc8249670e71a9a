"""How is the mailer put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parseaddr
from functools import partial

from services.mailer.handlers import HANDLERS, SERVICE, Mailer, Sender
from services.mailer.models import usable_address
from services.mailer.rendering import Brand, Letters
from services.mailer.settings import MailerSettings
from services.mailer.smtp import MailServer, Smtp
from services.mailer.store import INDEXES, Consents, Deliveries
from shared.service import Parts, Service
from shared.settings import load

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
    try:
        yield Mailer(
            deliveries=Deliveries(parts.database),
            consents=Consents(parts.database),
            letters=Letters(brand(settings)),
            smtp=smtp,
            sender=sender,
            sealer=parts.sealer,
        )
    finally:
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


def brand(settings: MailerSettings) -> Brand:
    """How mails look."""
    return Brand(
        product_name=settings.mail_product_name,
        support_address=settings.mail_support_address,
        accent_colour=settings.mail_accent_colour,
        logo_url=settings.mail_logo_url,
    )
