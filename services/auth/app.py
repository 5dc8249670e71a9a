"""How is auth put together?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from services.auth.audit import Audit
from services.auth.context import Auth
from services.auth.handlers import HANDLERS
from services.auth.keys import open_keyring
from services.auth.limits import Limits
from services.auth.meters import Meters
from services.auth.models.phone_numbers import Texted
from services.auth.places import Places
from services.auth.settings import AuthSettings
from services.auth.store import INDEXES
from services.auth.store.audit import AuditEntries
from services.auth.store.authorizations import Authorizations
from services.auth.store.chains import AccessTokens, RefreshTokens
from services.auth.store.clients import Clients
from services.auth.store.limits import Familiars, LimitUses, Tallies
from services.auth.store.phone_codes import PhoneCodes
from services.auth.store.signing_keys import SigningKeys
from services.auth.store.users import Identifiers, Users
from services.auth.tokens import TokenSigner
from shared.service import Parts, Service
from shared.settings import load

TOPICS: Final = ("auth.commands",)


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
            AuditEntries.COLLECTION: (*AuditEntries.INDEXES, AuditEntries.expiry(chosen.audit_kept)),
        },
        open=partial(opened, settings=chosen),
    )


@asynccontextmanager
async def opened(parts: Parts, settings: AuthSettings) -> AsyncIterator[Auth]:
    """What the handlers work with.

    Every public key is announced before the first message is taken, so that no token goes out that can't be verified.
    """
    keyring = await open_keyring(
        SigningKeys(parts.database), parts.sealer, settings.signing_algorithm, at=parts.clock()
    )
    for public_key in keyring.public_keys:
        await parts.announce(public_key)
    meters = Meters(Tallies(parts.database))
    limits = Limits(
        LimitUses(parts.database),
        Familiars(parts.database),
        meters,
        parts.sealer,
        settings.limits,
        lift_loopback=settings.limit_lift_loopback,
    )
    async with meters.running():
        yield Auth(
            clients=Clients(parts.database),
            users=Users(parts.database),
            identifiers=Identifiers(parts.database),
            authorizations=Authorizations(parts.database),
            access_tokens=AccessTokens(parts.database),
            refresh_tokens=RefreshTokens(parts.database),
            phone_codes=PhoneCodes(parts.database),
            signer=TokenSigner(keyring, settings.issuer),
            audit=Audit(AuditEntries(parts.database)),
            limits=limits,
            places=Places.open(settings.places_database),
            sealer=parts.sealer,
            authorization_life=settings.authorization_life,
            test_domains=not settings.production,
            texted=Texted(settings.texted_countries),
            phone_code_life=settings.phone_code_life,
            test_login=settings.test_login,
        )
