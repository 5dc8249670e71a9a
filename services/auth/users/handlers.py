"""Handlers that find, create and describe users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from services.auth.users.models import Identifier, IdentifierType, User
from shared.bus.work import Work
from shared.email_addresses import normal_email
from shared.messages import Sealed
from shared.messages.auth.errors import IdentifierNotFound, InvalidEmail, InvalidPhoneNumber, PartialSearchDisabled
from shared.messages.auth.users import (
    MIN_SEARCH_CHARACTERS,
    EnsureUser,
    FindConsentAddress,
    GetUser,
    GetUserConsent,
    IdentifierVerified,
    IdentifierView,
    ListUsers,
    SetMarketingConsent,
    UserCreated,
    UserEnsured,
    UsersView,
    UserView,
)
from shared.messages.mailer.consents import CarryMarketingConsent, GetMarketingConsent, RecordMarketingConsent
from shared.messages.personal_data import FindUser
from shared.paging import cursor_of
from shared.phone_numbers import PhoneNumber


async def get_user(query: GetUser, work: Work, auth: Auth) -> UserView:
    """Return a user with all identifiers, including removed ones, oldest first.

    Raises:
        UserNotFound: no user has this ID.
    """
    user, identifiers = await auth.users.with_identifiers(query.user_id)
    work.annotate(user_id=user.id)
    return UserView(id=user.id, created_at=user.created_at, identifiers=tuple(map(_view, identifiers)))


async def find_user(query: FindUser, work: Work, auth: Auth) -> UserView:
    """Return the user who has this address or phone number now.

    Raises:
        IdentifierNotFound: no user has it.
        InvalidEmail, InvalidPhoneNumber: the text is not an address or number.
    """
    text = auth.unseal(query.identifier_value)
    if query.identifier_type == "email":
        value = normal_email(text, test_domains=auth.test_domains)
    else:
        value = PhoneNumber.parse(text).e164
    identifier = await auth.identifiers.find_by_value(query.identifier_type, value)
    if identifier is None:
        raise IdentifierNotFound
    return await get_user(GetUser(user_id=identifier.user_id), work, auth)


async def list_users(query: ListUsers, work: Work, auth: Auth) -> UsersView:
    """List users, the newest first, or those whose identifiers match a search.

    Raises:
        InvalidCursor: no page ended with the query's cursor.
        PartialSearchDisabled: the search is for a part, and the settings do not allow it.
    """
    if query.search is None:
        users = await auth.users.page(query)
        page = users[: query.limit]
        next_cursor = cursor_of(page[-1].created_at, page[-1].id) if len(users) > len(page) else None
        return await _users_view(page, next_cursor, auth)
    matches = await _matching(auth.unseal(query.search).strip().lower(), query, auth)
    found = matches[: query.limit]
    user_ids = list(dict.fromkeys(identifier.user_id for identifier in found))
    if len(user_ids) == 1:
        work.annotate(user_id=user_ids[0])
    users_by_id = await auth.users.of_ids(user_ids)
    page = [users_by_id[user_id] for user_id in user_ids if user_id in users_by_id]
    return await _users_view(page, found[-1].id if len(matches) > len(found) else None, auth)


async def _matching(text: str, query: ListUsers, auth: Auth) -> list[Identifier]:
    """The identifiers that match a search, and one more if another page follows.

    A whole address or number finds its user alone; everything else is a part.
    """
    whole = _normal_value(text, auth)
    if whole is not None:
        identifier = await auth.identifiers.find_by_value(*whole)
        return [] if identifier is None else [identifier]
    if not auth.partial_search:
        raise PartialSearchDisabled
    if len(text) < MIN_SEARCH_CHARACTERS:
        return []
    return await auth.identifiers.containing(text, limit=query.limit, cursor=query.cursor)


async def _users_view(users: Sequence[User], next_cursor: str | None, auth: Auth) -> UsersView:
    identifiers = await auth.identifiers.of_users([user.id for user in users])
    views = [
        UserView(id=user.id, created_at=user.created_at, identifiers=tuple(map(_view, identifiers[user.id])))
        for user in users
    ]
    return UsersView(users=tuple(views), next_cursor=next_cursor)


def _normal_value(text: str, auth: Auth) -> tuple[IdentifierType, str] | None:
    """Kind and normal form of a whole address or number; None for another text."""
    try:
        if "@" in text:
            return "email", normal_email(text, test_domains=auth.test_domains)
        return "phone", PhoneNumber.parse(text).e164
    except (InvalidEmail, InvalidPhoneNumber):
        return None


@audited("ensure_user")
async def ensure_user(command: EnsureUser, work: Work, auth: Auth) -> None:
    """Find or create the user of an address, and publish the user's ID.

    Raises:
        InvalidEmail: the address can't receive mail.
    """
    address = normal_email(command.email, test_domains=auth.test_domains)
    user_id = await find_or_create_user(address, work, auth)
    await keep_user(user_id, work, auth)
    work.publish(UserEnsured(key=command.reference, reference=command.reference, user_id=user_id))


async def get_user_consent(query: GetUserConsent, work: Work, auth: Auth) -> None:
    """Forward a query for the marketing consent of an existing user to mailer, which replies to the caller.

    Raises:
        UserNotFound: no user has this ID.
    """
    user = await auth.users.get(query.user_id)
    work.forward(GetMarketingConsent(key=user.id, user_id=user.id))


async def set_marketing_consent(command: SetMarketingConsent, work: Work, auth: Auth) -> None:
    """Forward the marketing consent of an existing user to mailer, which replies to the caller.

    Raises:
        UserNotFound: no user has this ID.
    """
    user = await auth.users.get(command.user_id)
    await keep_user(user.id, work, auth)
    work.annotate(user_id=user.id)
    work.forward(RecordMarketingConsent(key=user.id, user_id=user.id, level=command.level, source=work.caller.kind))


async def find_consent_address(command: FindConsentAddress, work: Work, auth: Auth) -> None:
    """Send mailer the newest verified address of a user, or None, so that it forwards the user's consent."""
    identifiers = await auth.identifiers.of_user(command.user_id)
    address = newest_address(identifiers)
    work.publish(
        CarryMarketingConsent(
            key=command.user_id,
            user_id=command.user_id,
            consent_version=command.consent_version,
            address=None if address is None else Sealed.of(address),
            ordered_at=work.now,
        )
    )


async def find_or_create_user(address: str, work: Work, auth: Auth) -> str:
    """Return the ID of the user of an address in normal form, creating the user if there is none.

    A new address is not verified: the caller has not proven control of it.
    """
    identifier = await auth.identifiers.find_by_value("email", address)
    if identifier is None:
        identifier = create_user(address, work, auth, verified=False)
    else:
        auth.identifiers.require_unchanged(identifier, work)
    work.annotate(user_id=identifier.user_id)
    return identifier.user_id


async def find_or_order_user(address: str, client_id: str, work: Work, auth: Auth) -> str:
    """As ``find_or_create_user``, for the order of a trial: a new user is removed unless the person logs in."""
    identifier = await auth.identifiers.find_by_value("email", address)
    if identifier is None:
        identifier = create_user(address, work, auth, verified=False, ordered_by=client_id)
    else:
        auth.identifiers.require_unchanged(identifier, work)
        user = await auth.users.find(identifier.user_id)
        if user is not None and user.ordered_at is not None:
            # A removal that was ordered before this one finds another version, and does not take place.
            auth.users.save(replace(user, ordered_at=work.now), work)
    work.annotate(user_id=identifier.user_id)
    return identifier.user_id


def newest_address(identifiers: Iterable[Identifier]) -> str | None:
    """The newest address that a user has verified and still has; None if there is none."""
    verified = [identifier for identifier in identifiers if identifier.is_verified_email]
    newest = max(verified, key=lambda identifier: identifier.created_at, default=None)
    return None if newest is None else newest.identifier_value


async def keep_user(user_id: str, work: Work, auth: Auth) -> None:
    """Note that something besides the order of a trial names a user, who is then never removed as unused."""
    user = await auth.users.find(user_id)
    if user is not None and user.ordered_at is not None:
        auth.users.save(replace(user, ordered_at=None), work)


def create_user(
    identifier_value: str,
    work: Work,
    auth: Auth,
    *,
    verified: bool,
    identifier_type: IdentifierType = "email",
    first_name: str = "",
    last_name: str = "",
    ordered_by: str | None = None,
) -> Identifier:
    """Create a user with one identifier.

    If two messages create a user for the same identifier at the same time, one of them commits; the handler of the
    other runs again and finds the user. ``identifier_value`` is in normal form; it is ``verified`` if the user has just
    proven control of it. ``ordered_by`` is the client that ordered a trial, if the user exists only for that order.
    """
    user = User(
        id=work.new_id("user"),
        created_at=work.now,
        first_name=first_name,
        last_name=last_name,
        ordered_at=None if ordered_by is None else work.now,
    )
    identifier = Identifier(
        id=work.new_id("userident"),
        user_id=user.id,
        identifier_type=identifier_type,
        identifier_value=identifier_value,
        created_at=work.now,
        updated_at=work.now,
        verified_at=work.now if verified else None,
    )
    auth.users.add(user, work)
    auth.identifiers.add(identifier, work)
    work.annotate(user_id=user.id, identifier_id=identifier.id)
    work.publish(UserCreated(key=user.id, user_id=user.id, client_id=ordered_by, at=work.now))
    if verified:
        _publish_verified(identifier, work)
    return identifier


def verify_identifier(identifier: Identifier, work: Work, auth: Auth) -> None:
    """Mark an identifier as verified, unless it already is."""
    if identifier.verified_at is None:
        verified = identifier.verify(at=work.now)
        auth.identifiers.save(verified, work)
        work.annotate(identifier_id=identifier.id)
        _publish_verified(verified, work)
    else:
        # If the user is erased at the same time, this work must not commit a session.
        auth.identifiers.require_unchanged(identifier, work)


def _publish_verified(identifier: Identifier, work: Work) -> None:
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
