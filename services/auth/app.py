"""How is auth put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final

from services.auth.accounts.passwords import Passwords
from services.auth.accounts.store import Applications, Owners
from services.auth.application_users.store import ApplicationUsers
from services.auth.audit.recorder import Audit
from services.auth.audit.store import AuditEntries
from services.auth.clients.store import Clients
from services.auth.context import Auth
from services.auth.dead_letters.store import RemovedLetters, Replays
from services.auth.handlers import HANDLERS
from services.auth.magic_links.store import Authorizations
from services.auth.personal_data.store import People, UserExportParts, UserProcesses
from services.auth.phone.models import TextPolicy
from services.auth.phone.store import PhoneCodes
from services.auth.rate_limits.limiter import RateLimiter
from services.auth.rate_limits.shared_counters import SharedCounters
from services.auth.rate_limits.store import CounterSlots, KnownDevicesStore, UsageLogs
from services.auth.sessions.geoip import GeoIp
from services.auth.settings import AuthSettings
from services.auth.signing_keys.keyring import Keyring
from services.auth.signing_keys.store import SigningKeys
from services.auth.tokens.signer import TokenSigner
from services.auth.tokens.store import AccessTokens, RefreshTokens
from services.auth.users.store import Identifiers, Users
from shared.dead_letters.queue import DeadLetterQueue
from shared.messages.auth.clients import AnnounceClient
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.service import Resources, Service
from shared.settings import load

TOPICS: Final = ("auth.commands",)
INDEXES: Final = {
    ApplicationUsers.COLLECTION: ApplicationUsers.INDEXES,
    Applications.COLLECTION: Applications.INDEXES,
    AuditEntries.COLLECTION: AuditEntries.INDEXES,
    Clients.COLLECTION: (),
    Users.COLLECTION: (),
    Identifiers.COLLECTION: Identifiers.INDEXES,
    Authorizations.COLLECTION: Authorizations.INDEXES,
    AccessTokens.COLLECTION: AccessTokens.INDEXES,
    RefreshTokens.COLLECTION: RefreshTokens.INDEXES,
    Owners.COLLECTION: Owners.INDEXES,
    PhoneCodes.COLLECTION: PhoneCodes.INDEXES,
    RemovedLetters.COLLECTION: RemovedLetters.INDEXES,
    Replays.COLLECTION: Replays.INDEXES,
    SigningKeys.COLLECTION: (),
    UsageLogs.COLLECTION: UsageLogs.INDEXES,
    KnownDevicesStore.COLLECTION: KnownDevicesStore.INDEXES,
    CounterSlots.COLLECTION: CounterSlots.INDEXES,
    UserProcesses.COLLECTION: UserProcesses.INDEXES,
    UserExportParts.COLLECTION: UserExportParts.INDEXES,
}
"""Indexes by collection, created before the first message is handled."""


def create(settings: AuthSettings | None = None) -> Service:
    """The service, running while it is entered.

    Raises:
        SettingsError: a variable is missing or wrong.
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
        open=partial(opened, settings=chosen),
    )


@asynccontextmanager
async def opened(resources: Resources, settings: AuthSettings) -> AsyncIterator[Auth]:
    """What the handlers work with.

    Every public key is announced before the first message is taken, so that no token goes out that can't be verified.

    Raises:
        SettingsError: the signing keys can't be opened with the sealing keys.
    """
    signing_keys, clients = SigningKeys(resources.database), Clients(resources.database)
    keyring = Keyring(signing_keys, resources.sealer)
    await resources.follow(SigningKeyPublished.topic, keyring.take)
    meters = SharedCounters(CounterSlots(resources.database))
    limits = RateLimiter(
        UsageLogs(resources.database),
        KnownDevicesStore(resources.database),
        meters,
        resources.sealer,
        settings.limits,
        lift_loopback=settings.limit_lift_loopback,
    )
    passwords = Passwords(
        threads=settings.password_threads,
        longest_wait=settings.password_wait_seconds,
        old_clients=settings.old_clients,
        parameters=settings.password_parameters,
    )
    settings.warn_of_old_clients()
    async with (
        keyring.kept(settings.signing_algorithm, resources.publish, at=resources.clock()),
        meters.running(),
        aclosing(passwords),
    ):
        for client_id in await clients.ids():
            await resources.publish(AnnounceClient(key=client_id, client_id=client_id))
        yield Auth(
            clients=clients,
            users=Users(resources.database),
            identifiers=Identifiers(resources.database),
            authorizations=Authorizations(resources.database),
            access_tokens=AccessTokens(resources.database),
            refresh_tokens=RefreshTokens(resources.database),
            phone_codes=PhoneCodes(resources.database),
            owners=Owners(resources.database),
            applications=Applications(resources.database),
            application_users=ApplicationUsers(resources.database),
            people=People(resources.database),
            user_processes=UserProcesses(resources.database),
            user_export_parts=UserExportParts(resources.database),
            user_export_retention=settings.user_export_retention,
            signing_keys=signing_keys,
            keyring=keyring,
            rotation=settings.rotation,
            signer=TokenSigner(keyring, settings.issuer),
            audit=Audit(AuditEntries(resources.database)),
            limits=limits,
            passwords=passwords,
            places=GeoIp.open(settings.places_database),
            dead_letters=DeadLetterQueue(
                settings.kafka_bootstrap, prefix=settings.topic_prefix, sealer=resources.sealer
            ),
            removed_letters=RemovedLetters(resources.database),
            replays=Replays(resources.database),
            remembered=settings.inbox_retention,
            guesses_per_code=settings.guesses_per_code,
            sealer=resources.sealer,
            authorization_lifetime=settings.authorization_lifetime,
            test_domains=not settings.production,
            texted=TextPolicy(settings.allowed_text_countries),
            phone_code_lifetime=settings.phone_code_lifetime,
            test_login=settings.test_login,
            old_clients=settings.old_clients,
        )
