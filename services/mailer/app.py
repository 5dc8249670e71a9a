"""Composition of the mailer: builds its context from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parseaddr
from functools import partial
from typing import Final

from pydantic import SecretStr

from services.mailer.branding.models import Branding
from services.mailer.branding.store import BrandingCache, ClientBrandings
from services.mailer.consents.mailchimp import Mailchimp
from services.mailer.consents.store import AudienceMembers, ConsentChanges, Consents
from services.mailer.consents.unsubscribe_links import UnsubscribeLinks
from services.mailer.context import SERVICE, Mailer, Sender
from services.mailer.deliveries.store import Deliveries
from services.mailer.handlers import HANDLERS
from services.mailer.mails.addresses import usable_address
from services.mailer.mails.app_links import AppLinks
from services.mailer.personal_data.store import PersonalData
from services.mailer.rendering.renderer import MailRenderer, TextRenderer
from services.mailer.rendering.template_loader import Templates, UnusableTemplate
from services.mailer.settings import MailerSettings
from services.mailer.smtp.servers import MailServers
from services.mailer.smtp.smtp_client import MailServer, SmtpClient, Tls
from services.mailer.suppressions.store import Suppressions
from services.mailer.texts.providers import ConsoleProvider, InboxProvider, NoProvider, TextProvider
from services.mailer.texts.twilio import Twilio
from services.mailer.webhooks.destinations import Destinations
from services.mailer.webhooks.http_client import WebhookClient
from services.mailer.webhooks.store import Endpoints, WebhookDeliveries
from services.mailer.webhooks.wanted_events import WantedEvents
from shared.messages.republishing import REPUBLISHING
from shared.migrations import Migrations
from shared.mongo import former_indexes_of, indexes_of
from shared.personal_data.erasure import ErasedIds
from shared.service import Resources, Service
from shared.settings import SettingsError, load

TOPICS: Final = ("mailer.commands", "auth.events", "billing.events", REPUBLISHING)
INDEXES: Final = indexes_of(
    AudienceMembers,
    ClientBrandings,
    ConsentChanges,
    Consents,
    Deliveries,
    Endpoints,
    ErasedIds,
    Suppressions,
    WebhookDeliveries,
)
"""Indexes by collection, created before the first message is handled."""
MIGRATIONS: Final = Migrations()


def create(settings: MailerSettings | None = None) -> Service:
    """Create the mailer; it runs while it is entered.

    Raises:
        SettingsError: a variable is missing or invalid.
    """
    loaded = settings or load(MailerSettings)
    return Service(
        loaded,
        name=SERVICE,
        handlers=HANDLERS,
        topics=TOPICS,
        indexes={
            **INDEXES,
            Deliveries.COLLECTION: (*Deliveries.INDEXES, Deliveries.expiry(loaded.delivery_retention)),
            WebhookDeliveries.COLLECTION: (
                *WebhookDeliveries.INDEXES,
                WebhookDeliveries.expiry(loaded.webhook_retention),
            ),
        },
        former_indexes=former_indexes_of(Deliveries, WebhookDeliveries),
        open_context=partial(open_context, settings=loaded),
        migrations=MIGRATIONS,
    )


@asynccontextmanager
async def open_context(resources: Resources, settings: MailerSettings) -> AsyncIterator[Mailer]:
    """Build the context of the handlers; close its connections at the end."""
    sender = Sender(address=usable_address(parseaddr(settings.mail_from)[1]), tagged=settings.mail_return_path_tags)
    mail_renderer, text_renderer = renderers(settings)
    client_brandings = ClientBrandings(resources.database)
    servers = mail_servers(settings, sender)
    provider = text_provider(settings, servers, sender)
    audience = mailchimp(settings)
    endpoints = Endpoints(resources.database)
    wanted_events = WantedEvents(endpoints)
    client = WebhookClient(Destinations(private=settings.webhook_private_addresses), timeout=settings.webhook_timeout)
    wanted_events.start()
    try:
        yield Mailer(
            deliveries=Deliveries(resources.database),
            suppressions=Suppressions(resources.database),
            consents=Consents(resources.database),
            consent_changes=ConsentChanges(resources.database),
            erased=ErasedIds(resources.database),
            mailchimp=audience,
            audience_members=AudienceMembers(resources.database),
            client_brandings=client_brandings,
            branding_cache=BrandingCache(default_branding(settings), client_brandings),
            personal_data=PersonalData(resources.database, resources.sealer),
            mail_renderer=mail_renderer,
            text_renderer=text_renderer,
            mail_servers=servers,
            text_provider=provider,
            sender=sender,
            unsubscribe_links=UnsubscribeLinks(resources.sealer, settings.issuer),
            app_links=AppLinks(resources.sealer, settings.issuer),
            webhook_endpoints=endpoints,
            webhook_deliveries=WebhookDeliveries(resources.database),
            webhook_client=client,
            wanted_events=wanted_events,
            operators_address=settings.operators_address,
            sealer=resources.sealer,
        )
    finally:
        await wanted_events.stop()
        await client.close()
        if audience is not None:
            await audience.close()
        await provider.close()
        await servers.close()


def mail_servers(settings: MailerSettings, sender: Sender) -> MailServers:
    """Build the clients of the one or two mail servers in the settings."""

    def client(
        name: str, host: str, port: int, tls: Tls, login: tuple[SecretStr | None, SecretStr | None]
    ) -> SmtpClient:
        username, password = login
        server = MailServer(
            host=host,
            port=port,
            tls=tls,
            username=username,
            password=password,
            ca_file=settings.smtp_ca_file,
            ehlo_name=sender.domain,
        )
        return SmtpClient(server, connections=settings.smtp_connections, timeout=settings.smtp_timeout, name=name)

    login = settings.smtp_username, settings.smtp_password
    clients = [client("smtp", settings.smtp_host, settings.smtp_port, settings.smtp_tls, login)]
    if (host := settings.smtp_second_host) is not None:
        login = settings.smtp_second_username, settings.smtp_second_password
        clients.append(client("smtp-second", host, settings.smtp_second_port, settings.smtp_second_tls, login))
    return MailServers(clients)


def text_provider(settings: MailerSettings, servers: MailServers, sender: Sender) -> TextProvider:
    """Build the provider of texts that the settings name."""
    match settings.text_provider:
        case "twilio":
            return _twilio(settings)
        case "inbox":
            return InboxProvider(servers, sender.address)
        case "console":
            return ConsoleProvider()
        case "none":
            return NoProvider()


def _twilio(settings: MailerSettings) -> TextProvider:
    sid, token, service = settings.twilio_account_sid, settings.twilio_auth_token, settings.twilio_messaging_service_sid
    if not sid or not token or not service:
        raise SettingsError("NEST_TEXT_PROVIDER is twilio, which requires an account")
    return Twilio(sid, token, service, timeout=settings.text_timeout, api_base=settings.twilio_api_base)


def mailchimp(settings: MailerSettings) -> Mailchimp | None:
    """Build the client of the Mailchimp audience in the settings; None if they name none."""
    key, list_id = settings.mailchimp_api_key, settings.mailchimp_list_id
    if key is None or list_id is None:
        return None
    return Mailchimp(key, list_id, timeout=settings.mailchimp_timeout, api_base=settings.mailchimp_api_base)


def renderers(settings: MailerSettings) -> tuple[MailRenderer, TextRenderer]:
    """Build the renderers of mails and texts.

    Raises:
        SettingsError: one of the operator's templates is unusable.
    """
    try:
        templates = Templates.read(settings.mail_templates)
        mails, texts = MailRenderer(templates), TextRenderer(templates, settings.text_domain)
        if settings.mail_templates is not None:
            # Nest's own templates are checked before a release; rendering all of them takes 1.5 seconds.
            templates.check()
            mails.check()
            texts.check()
    except UnusableTemplate as unusable:
        raise SettingsError(f"NEST_MAIL_TEMPLATES: {unusable}") from None
    return mails, texts


def default_branding(settings: MailerSettings) -> Branding:
    """Build the branding of mails and texts whose client has none of its own."""
    name, address = parseaddr(settings.mail_from)
    return Branding(
        product_name=settings.mail_product_name,
        sender_name=name or None,
        sender_address=usable_address(address),
        support_address=settings.mail_support_address,
        accent_colour=settings.mail_accent_colour,
        background_colour=settings.mail_background_colour,
        logo_url=settings.mail_logo_url,
        locale=settings.mail_locale,
    )
