"""How do people come into being, and what is told of them?"""

from __future__ import annotations

import asyncio

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.phone.models import PhoneNumber
from services.auth.users.models import Identifier, IdentifierType, User, normal_email
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.auth.errors import IdentifierNotFound
from shared.messages.auth.users import (
    EnsureUser,
    FindConsentAddress,
    GetUser,
    IdentifierVerified,
    IdentifierView,
    SetMarketingConsent,
    UserCreated,
    UserEnsured,
    UserView,
)
from shared.messages.mailer.consents import CarryMarketingConsent, RecordMarketingConsent
from shared.messages.personal_data import FindUser


async def get_user(query: GetUser, work: Work, auth: Auth) -> UserView:
    """A user with all identifiers, removed ones included, oldest first.

    Raises:
        UserNotFound: no user has this ID.
    """
    user, identifiers = await asyncio.gather(auth.users.get(query.user_id), auth.identifiers.of_user(query.user_id))
    work.annotate(user_id=user.id)
    return UserView(id=user.id, created_at=user.created_at, identifiers=tuple(map(_view, identifiers)))


async def find_user(query: FindUser, work: Work, auth: Auth) -> UserView:
    """The user whose address or number this is now.

    Raises:
        IdentifierNotFound: no user has it.
        InvalidEmail, InvalidPhoneNumber: it can be nobody's.
    """
    written = auth.unseal(query.identifier_value)
    if query.identifier_type == "email":
        value = normal_email(written, test_domains=auth.test_domains)
    else:
        value = PhoneNumber.parse(written).e164
    identifier = await auth.identifiers.find(query.identifier_type, value)
    if identifier is None:
        raise IdentifierNotFound
    return await get_user(GetUser(user_id=identifier.user_id), work, auth)


@audited("ensure_user")
async def ensure_user(command: EnsureUser, work: Work, auth: Auth) -> None:
    """Find or make the user of an address, and say who it is.

    Raises:
        InvalidEmail: an address that can't receive mail.
    """
    address = normal_email(command.email, test_domains=auth.test_domains)
    identifier = await auth.identifiers.find("email", address)
    if identifier is None:
        identifier = register(address, work, auth, verified=False)
    else:
        auth.identifiers.require_unchanged(identifier, work)
    work.annotate(user_id=identifier.user_id)
    work.publish(UserEnsured(key=command.reference, reference=command.reference, user_id=identifier.user_id))


async def set_marketing_consent(command: SetMarketingConsent, work: Work, auth: Auth) -> None:
    """Have mailer record what an existing user consents to; mailer answers the caller.

    Raises:
        UserNotFound: no user has this ID.
    """
    user = await auth.users.get(command.user_id)
    work.annotate(user_id=user.id)
    work.forward(RecordMarketingConsent(key=user.id, user_id=user.id, level=command.level, source=work.caller.kind))


def register(
    identifier_value: str,
    work: Work,
    auth: Auth,
    *,
    verified: bool,
    identifier_type: IdentifierType = "email",
    first_name: str = "",
    last_name: str = "",
) -> Identifier:
    """Make a user who is known by this address or number.

    When another message makes one for the same at the same time, one of them wins; the other's handler runs again and
    finds the winner's.

    Args:
        identifier_value: in normal form.
        work: what is filled.
        auth: where.
        verified: whether the person has just shown that it is theirs.
        identifier_type: what sort it is.
        first_name: empty where it is not known; the same for ``last_name``.
        last_name: as above.
    """
    user = User(id=work.new_id("user"), created_at=work.now, first_name=first_name, last_name=last_name)
    identifier = Identifier.of_new(
        user, identifier_type, identifier_value, id=work.new_id("userident"), verified=verified, at=work.now
    )
    auth.users.add(user, work)
    auth.identifiers.add(identifier, work)
    work.annotate(user_id=user.id, identifier_id=identifier.id)
    work.publish(UserCreated(key=user.id, user_id=user.id, at=work.now))
    if verified:
        _announce_verified(identifier, work)
    return identifier


def verify(identifier: Identifier, work: Work, auth: Auth) -> None:
    """Note that an address or a number has just been shown to be its user's, the first time that it was."""
    if identifier.verified_at is None:
        verified = identifier.verify(at=work.now)
        auth.identifiers.save(verified, work)
        work.annotate(identifier_id=identifier.id)
        _announce_verified(verified, work)
    else:
        # Who is erased at this moment must not be left with a session.
        auth.identifiers.require_unchanged(identifier, work)


def _announce_verified(identifier: Identifier, work: Work) -> None:
    work.publish(
        IdentifierVerified(
            key=identifier.user_id,
            user_id=identifier.user_id,
            identifier_id=identifier.id,
            identifier_type=identifier.identifier_type,
            identifier_value=identifier.identifier_value,
            at=work.now,
        )
    )


def _view(identifier: Identifier) -> IdentifierView:
    return IdentifierView(
        id=identifier.id,
        identifier_type=identifier.identifier_type,
        identifier_value=identifier.identifier_value,
        created_at=identifier.created_at,
        updated_at=identifier.updated_at,
        verified_at=identifier.verified_at,
        removed_at=identifier.removed_at,
    )


async def find_consent_address(command: FindConsentAddress, work: Work, auth: Auth) -> None:
    """Order a consent to be carried to the newest address that its user has shown to be theirs, if there is one."""
    identifiers = await auth.identifiers.of_user(command.user_id)
    proven = [identifier for identifier in identifiers if identifier.is_proven_email]
    newest = max(proven, key=lambda identifier: identifier.created_at, default=None)
    work.publish(
        CarryMarketingConsent(
            key=command.user_id,
            user_id=command.user_id,
            consent_version=command.consent_version,
            address=None if newest is None else Sealed.of(newest.identifier_value),
            ordered_at=work.now,
        )
    )
