"""How is the mailer put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parseaddr
from functools import partial

from pydantic import SecretStr

from services.mailer.audience import Mailchimp
from services.mailer.context import SERVICE, Mailer, Sender
from services.mailer.errors import UnusableTemplate
from services.mailer.handlers import HANDLERS
from services.mailer.models.addresses import usable_address
from services.mailer.models.looks import Looks
from services.mailer.rendering import Letters, Texts
from services.mailer.servers import MailServers
from services.mailer.settings import MailerSettings
from services.mailer.sms import Console, Inbox, NoProvider, TextProvider
from services.mailer.smtp import MailServer, Smtp
from services.mailer.sources import Sources
from services.mailer.store import INDEXES
from services.mailer.store.audience import AudienceMembers
from services.mailer.store.consent_changes import ConsentChanges
from services.mailer.store.consents import Consents
from services.mailer.store.deliveries import Deliveries
from services.mailer.store.looks import LooksOfClients
from services.mailer.store.people import People
from services.mailer.store.suppressions import Suppressions
from services.mailer.unsubscribing import UnsubscribeLinks
from services.mailer.wardrobe import Wardrobe
from shared.personal_data.erasure import ErasedIds
from shared.service import Resources, Service
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
async def opened(resources: Resources, settings: MailerSettings) -> AsyncIterator[Mailer]:
    """What the handlers work with; its connections are closed at the end."""
    sender = Sender(
        address=usable_address(parseaddr(settings.mail_from)[1]), names_mails=settings.mail_return_path_tags
    )
    letters, texts = writers(settings)
    client_looks = LooksOfClients(resources.database)
    smtp = mail_servers(settings, sender)
    provider = text_provider(settings, smtp, sender)
    audience = mailchimp(settings)
    try:
        yield Mailer(
            deliveries=Deliveries(resources.database),
            suppressions=Suppressions(resources.database),
            consents=Consents(resources.database),
            erased=ErasedIds(resources.database),
            consent_changes=ConsentChanges(resources.database),
            audience=audience,
            audience_members=AudienceMembers(resources.database),
            client_looks=client_looks,
            people=People(resources.database, resources.sealer),
            wardrobe=Wardrobe(own_looks(settings), client_looks),
            letters=letters,
            texts=texts,
            smtp=smtp,
            text_provider=provider,
            sender=sender,
            unsubscribe_links=UnsubscribeLinks(resources.sealer, settings.issuer),
            sealer=resources.sealer,
        )
    finally:
        if audience is not None:
            await audience.close()
        await provider.close()
        await smtp.close()


def mail_servers(settings: MailerSettings, sender: Sender) -> MailServers:
    """The way to the mail servers that the settings name."""
    ca_file = None if settings.smtp_ca_file is None else str(settings.smtp_ca_file)
    named = [
        MailServer(
            host=settings.smtp_host,
            port=settings.smtp_port,
            tls=settings.smtp_tls,
            username=settings.smtp_username,
            password=_plain(settings.smtp_password),
            ca_file=ca_file,
            own_name=sender.domain,
        )
    ]
    if settings.smtp_second_host is not None:
        second = MailServer(
            host=settings.smtp_second_host,
            port=settings.smtp_second_port,
            tls=settings.smtp_second_tls,
            username=settings.smtp_second_username,
            password=_plain(settings.smtp_second_password),
            ca_file=ca_file,
            own_name=sender.domain,
        )
        named.append(second)
    connections, timeout = settings.smtp_connections, settings.smtp_timeout
    names = ("smtp", "smtp-second")
    return MailServers(
        [
            Smtp(server, connections=connections, timeout=timeout, name=name)
            for server, name in zip(named, names, strict=False)
        ]
    )


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def text_provider(settings: MailerSettings, smtp: MailServers, sender: Sender) -> TextProvider:
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


def mailchimp(settings: MailerSettings) -> Mailchimp | None:
    """The list that the settings name, if they do."""
    key, list_id = settings.mailchimp_api_key, settings.mailchimp_list_id
    if key is None or list_id is None:
        return None
    return Mailchimp(
        key.get_secret_value(), list_id, timeout=settings.mailchimp_timeout, api_base=settings.mailchimp_api_base
    )


def writers(settings: MailerSettings) -> tuple[Letters, Texts]:
    """What writes mails and texts.

    Raises:
        SettingsError: a template of the operator's own can't be used.
    """
    try:
        sources = Sources.read(settings.mail_templates)
        letters, texts = Letters(sources), Texts(sources, settings.text_domain)
        if settings.mail_templates is not None:
            # Nest's own are checked before they are released; to write all of them takes a second and a half.
            sources.check()
            letters.check()
            texts.check()
    except UnusableTemplate as unusable:
        raise SettingsError(f"NEST_MAIL_TEMPLATES: {unusable}") from None
    return letters, texts


def own_looks(settings: MailerSettings) -> Looks:
    """What mails and texts wear where nothing was said of their client."""
    name, address = parseaddr(settings.mail_from)
    return Looks(
        product_name=settings.mail_product_name,
        sender_name=name or None,
        sender_address=usable_address(address),
        support_address=settings.mail_support_address,
        accent_colour=settings.mail_accent_colour,
        background_colour=settings.mail_background_colour,
        logo_url=settings.mail_logo_url,
        locale=settings.mail_locale,
    )
