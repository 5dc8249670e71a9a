"""Assembly of the service auth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from services.auth.account_links.store import AccountLinks
from services.auth.accounts import api_key_upgrade
from services.auth.accounts.models import DELETION_TYPE
from services.auth.accounts.passwords import PasswordHasher
from services.auth.accounts.store import Applications, Owners
from services.auth.application_users.store import ApplicationUsers
from services.auth.audit.recorder import AuditRecorder
from services.auth.audit.store import AuditEntries
from services.auth.clients.models import may_be_registered
from services.auth.clients.store import Clients
from services.auth.context import Auth
from services.auth.dead_letters.store import RemovedLetters, Replays
from services.auth.entitlements.store import EntitlementRows
from services.auth.handlers import HANDLERS
from services.auth.magic_links.mail_backlog import MailBacklog
from services.auth.magic_links.store import Authorizations
from services.auth.personal_data.store import PersonalData, UserExportParts, UserProcesses
from services.auth.phone.models import TextPolicy
from services.auth.phone.store import PhoneCodes
from services.auth.rate_limits.limiter import RateLimiter
from services.auth.rate_limits.refusal_budget import RefusalBudget
from services.auth.rate_limits.shared_counters import SharedCounters
from services.auth.rate_limits.store import CounterSlots, KnownDevicesStore, UseLogs
from services.auth.sealing_keys.store import SealingKeys
from services.auth.sessions.geoip import GeoIp
from services.auth.settings import AuthSettings
from services.auth.signing_keys.keyring import Keyring
from services.auth.signing_keys.store import SigningKeys
from services.auth.tokens import store as token_store
from services.auth.tokens.signer import LastingTokens, TokenSigner
from services.auth.tokens.store import AccessTokens, RefreshTokens
from services.auth.users.store import Identifiers, Users
from shared.dead_letters.queue import DeadLetterQueue
from shared.messages import SERVICE_COMMANDS
from shared.messages.auth.clients import AnnounceClient
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.republishing import REPUBLISHING
from shared.migrations import Migrations
from shared.mongo import former_indexes_of, indexes_of
from shared.service import Resources, Service
from shared.settings import load
from shared.telemetry import log

TOPICS: Final = ("auth.commands", SERVICE_COMMANDS, "billing.events", REPUBLISHING)
INDEXES: Final = indexes_of(
    AccessTokens,
    AccountLinks,
    ApplicationUsers,
    Applications,
    AuditEntries,
    Authorizations,
    Clients,
    CounterSlots,
    EntitlementRows,
    Identifiers,
    KnownDevicesStore,
    Owners,
    PhoneCodes,
    RefreshTokens,
    RemovedLetters,
    Replays,
    SealingKeys,
    SigningKeys,
    UseLogs,
    UserExportParts,
    UserProcesses,
    Users,
)
"""Indexes by collection, created before the first message is handled."""
MIGRATIONS: Final = Migrations((*token_store.MIGRATIONS, api_key_upgrade.MIGRATION, token_store.REPLIES_MIGRATION))


def create(settings: AuthSettings | None = None) -> Service:
    """Return the service, which runs while its context is entered.

    Raises:
        SettingsError: an environment variable is missing or invalid.
    """
    chosen = settings or load(AuthSettings)
    return Service(
        chosen,
        name="auth",
        handlers=HANDLERS,
        topics=TOPICS,
        indexes={
            **INDEXES,
            AuditEntries.COLLECTION: (*AuditEntries.INDEXES, AuditEntries.expiry(chosen.audit_retention)),
        },
        former_indexes=former_indexes_of(AuditEntries),
        open_context=partial(opened, settings=chosen),
        migrations=MIGRATIONS,
    )


@asynccontextmanager
async def opened(resources: Resources, settings: AuthSettings) -> AsyncIterator[Auth]:
    """Build the context of the handlers.

    All public keys are published before the first message is handled, so that every issued token can be verified.

    Raises:
        SettingsError: the signing keys can't be unsealed with the sealing keys.
    """
    database, sealer = resources.database, resources.sealer
    access_tokens, refresh_tokens = AccessTokens(database), RefreshTokens(database)
    applications = Applications(database, sealer)
    await applications.report_lost_keys()
    signing_keys, clients, audit_entries = SigningKeys(database), Clients(database), AuditEntries(database)
    sealing_keys = SealingKeys(database)
    await sealing_keys.export_metrics()
    keyring = Keyring(signing_keys, sealer)
    await resources.follow(SigningKeyPublished.topic, keyring.apply)
    shared_counters = SharedCounters(CounterSlots(database))
    rate_limits = RateLimiter(
        UseLogs(database),
        KnownDevicesStore(database),
        shared_counters,
        sealer,
        settings.limits,
        lift_loopback=settings.limit_lift_loopback,
    )
    passwords = PasswordHasher(
        threads=settings.password_threads,
        max_wait=settings.password_wait_seconds,
        old_clients=settings.old_clients,
        parameters=settings.password_parameters,
    )
    refusal_budget = RefusalBudget(rate_limits, resources.publish, resources.clock)
    mail_backlog = MailBacklog(settings.kafka, prefix=settings.topic_prefix)
    settings.warn_of_old_clients()
    async with (
        keyring.running(settings.signing_algorithm, resources.publish, at=resources.clock()),
        shared_counters.running(),
        refusal_budget.running(),
        aclosing(passwords),
        mail_backlog.running(),
    ):
        for client in await clients.all():
            if not all(map(may_be_registered, client.redirect_uris)):
                log.warning("client has a redirect URI that could not be registered today", client_id=client.id)
        for client_id in await clients.ids():
            await resources.publish(AnnounceClient(key=client_id, client_id=client_id))
        yield Auth(
            clients=clients,
            users=Users(database),
            identifiers=Identifiers(database),
            authorizations=Authorizations(database),
            entitlements=EntitlementRows(database),
            access_tokens=access_tokens,
            refresh_tokens=refresh_tokens,
            phone_codes=PhoneCodes(database),
            owners=Owners(database),
            applications=applications,
            application_users=ApplicationUsers(database),
            account_links=AccountLinks(database),
            personal_data=PersonalData(database),
            user_processes=UserProcesses(database),
            user_export_parts=UserExportParts(database),
            user_export_retention=timedelta(days=settings.user_export_days),
            sealing_keys=sealing_keys,
            signing_keys=signing_keys,
            keyring=keyring,
            rotation=settings.rotation,
            signer=TokenSigner(keyring, settings.issuer, access_type=settings.access_token_type),
            deletion_tokens=LastingTokens(sealer, DELETION_TYPE),
            audit=AuditRecorder(audit_entries),
            audit_entries=audit_entries,
            rate_limits=rate_limits,
            refusal_budget=refusal_budget,
            passwords=passwords,
            geoip=GeoIp.open(settings.places_database),
            dead_letters=DeadLetterQueue(
                settings.kafka, prefix=settings.topic_prefix, sealer=sealer, macs=resources.macs
            ),
            paused_partitions=resources.paused_partitions,
            removed_letters=RemovedLetters(database),
            replays=Replays(database),
            inbox_retention=settings.inbox_retention,
            guesses_per_code=settings.guesses_per_code,
            sealer=sealer,
            authorization_lifetime=timedelta(minutes=settings.authorization_minutes),
            typed_code_lifetime=timedelta(minutes=settings.typed_code_minutes),
            mail_backlog=mail_backlog,
            test_domains=not settings.production,
            partial_search=settings.user_search == "part",
            text_policy=TextPolicy(settings.allowed_text_countries),
            phone_code_lifetime=timedelta(minutes=settings.phone_code_minutes),
            test_login=settings.test_login,
            old_clients=settings.old_clients,
            issuer=settings.issuer,
        )
