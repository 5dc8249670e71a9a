"""Handlers of owners and their applications, and the password check of the accounts API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from uuid import uuid4

from services.auth.accounts.account_mails import mail_changes
from services.auth.accounts.api_keys import api_key
from services.auth.accounts.models import (
    OWNER_TOKEN_TYPE,
    OWNERS_AUDIENCE,
    Application,
    Owner,
    a_year_after,
    account_email,
    uuid_text,
)
from services.auth.accounts.password_checks import check_password, hash_caller, new_password_hash, owner_subject
from services.auth.audit.recorder import audited, pseudonym
from services.auth.context import Auth
from services.auth.login_steps import login_step
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.auth.accounts import (
    DeleteOwner,
    GetOwner,
    LoggedInOwnerView,
    LogInOwner,
    OwnerDeletedView,
    OwnerUpdatedView,
    OwnerView,
    OwnerWithTokenView,
    RegisterOwner,
    UpdateOwner,
)
from shared.messages.auth.applications import (
    ApplicationDeletedView,
    ApplicationUpdatedView,
    ApplicationView,
    CreateApplication,
    DeleteApplication,
    RemoveApplicationUsers,
    RemoveOwnerApplications,
    UpdateApplication,
)
from shared.messages.auth.errors import EmailTaken, FieldRefused, InvalidToken, NotLoggedIn

MAX_REMOVED: Final = 200
"""Documents that one message deletes: some milliseconds of a transaction that others may wait for."""


@audited("register_owner")
async def register_owner(command: RegisterOwner, work: Work, auth: Auth) -> OwnerWithTokenView:
    """Register an owner.

    Raises:
        FieldRefused: the address or the password is not allowed.
        EmailTaken: another owner has the address, as the unique index finds at the commit.
        Throttled: as for ``hash_caller``.
        Unavailable: too many password hashes are waiting.
    """
    email = account_email(command.email, test_domains=auth.test_domains)
    owner = Owner(
        id=str(uuid4()),
        first_name=command.firstname,
        last_name=command.lastname,
        email=email,
        password_hash=await auth.passwords.hash_new(
            auth.unseal(command.password), await hash_caller(owner_subject(email), work, auth)
        ),
        created_at=work.now,
        updated_at=work.now,
    )
    auth.owners.add(owner, work)
    work.annotate(user_id=pseudonym("owner", owner.id))
    return _view_with_token(owner, auth)


async def get_owner(query: GetOwner, _work: Work, auth: Auth) -> OwnerView:
    """Return an owner; for old clients with a deletion token.

    Raises:
        FieldRefused: the ID is not a UUID.
        OwnerNotFound: there is no such owner.
    """
    owner = await auth.owners.get(uuid_text(auth.unseal(query.uuid), "uuid"))
    if auth.old_clients:
        return _view_with_token(owner, auth)
    return OwnerView(firstname=owner.first_name, lastname=owner.last_name, email=owner.email, uuid=owner.id)


@login_step("password", "redeemed")
@audited("log_in_owner")
async def log_in_owner(command: LogInOwner, work: Work, auth: Auth) -> LoggedInOwnerView:
    """Check an owner's password, and return the owner with a token and the deletion token.

    Raises:
        FieldRefused: the address is not valid.
        Refusal: as for ``check_password``.
    """
    email = account_email(command.email, test_domains=auth.test_domains)
    password = auth.unseal(command.password)
    found = await auth.owners.find_by_email(email)
    if found is not None:
        work.annotate(user_id=pseudonym("owner", found.id))
    owner = await check_password(found, password, owner_subject(email), work, auth)
    if auth.passwords.needs_rehash(owner.password_hash):
        caller = await hash_caller(owner_subject(email), work, auth)
        auth.owners.save(replace(owner, password_hash=await auth.passwords.rehash(password, caller)), work)
    claims = owner.token_claims(id=work.new_id("ownertok"), at=work.now)
    token = auth.signer.sign(claims, typ=OWNER_TOKEN_TYPE)
    return LoggedInOwnerView(**_view_with_token(owner, auth).model_dump(), token=token)


@audited("update_owner")
async def update_owner(command: UpdateOwner, work: Work, auth: Auth) -> OwnerUpdatedView:
    """Change names, address and password of an owner; a new password invalidates earlier tokens and deletion tokens.

    The caller needs the owner's token or the current password, unless old clients are served. A mail to the old address
    reports a new password and another address.

    Raises:
        FieldRefused: the ID, the address or the password is not allowed, or there is neither token nor password.
        OwnerNotFound: there is no such owner.
        NotLoggedIn: the token is not valid.
        WrongCredentials, Throttled: as for ``new_password_hash``.
        EmailTaken: another owner has the address.
        Unavailable: too many password hashes are waiting.
    """
    owner = await auth.owners.get(uuid_text(auth.unseal(command.uuid), "uuid"))
    work.annotate(user_id=pseudonym("owner", owner.id))
    email = account_email(command.email, test_domains=auth.test_domains)
    if command.password is None and command.current_password is None:
        if command.owner_token is None or auth.old_clients:
            raise FieldRefused("password", "Field required")
        _check_owner_token(owner, command.owner_token, work, auth)
    new_hash = await new_password_hash(owner, command, owner_subject(owner.email), work, auth)
    # The unique index does not refuse a replacement with EmailTaken: the handler runs again, and finds the other owner
    # here.
    if email != owner.email and await auth.owners.find_by_email(email) is not None:
        raise EmailTaken
    changed = owner.update(first_name=command.firstname, last_name=command.lastname, email=email, at=work.now)
    if new_hash is not None:
        changed = changed.change_password(new_hash, at=work.now)
    auth.owners.save(changed, work)
    mail_changes(owner, changed, work)
    return OwnerUpdatedView()


@audited("delete_owner")
async def delete_owner(command: DeleteOwner, work: Work, auth: Auth) -> OwnerDeletedView:
    """Delete an owner with all applications and their users, if the deletion token is valid.

    An invalid token and an unknown owner get the same reply.

    Raises:
        FieldRefused: the ID is not a UUID.
    """
    owner = await auth.owners.find(uuid_text(auth.unseal(command.uuid), "uuid"))
    if owner is not None:
        work.annotate(user_id=pseudonym("owner", owner.id))
    token = auth.unseal(command.deletion_token)
    if owner is None or not auth.deletion_tokens.matches(token, owner.deletion_claims):
        return OwnerDeletedView(affectedRows=0)
    auth.owners.remove(owner, work)
    # Nearly always these are all applications, so that none outlives its owner.
    _remove_applications(await auth.applications.some_of_owner(owner.id, limit=MAX_REMOVED), work, auth)
    # Runs after the commit, and finds applications that were being created at the same time.
    work.publish(RemoveOwnerApplications(key=owner.id, owner_id=owner.id))
    return OwnerDeletedView(affectedRows=1)


async def remove_owner_applications(command: RemoveOwnerApplications, work: Work, auth: Auth) -> None:
    """Delete the applications of a deleted owner, a bounded number per message."""
    applications = await auth.applications.some_of_owner(command.owner_id, limit=MAX_REMOVED)
    _remove_applications(applications, work, auth)
    if len(applications) == MAX_REMOVED:
        work.publish(RemoveOwnerApplications(key=command.owner_id, owner_id=command.owner_id))


@audited("create_application")
async def create_application(command: CreateApplication, work: Work, auth: Auth) -> ApplicationView:
    """Create an application, for a year.

    Raises:
        FieldRefused: the owner's ID is not a UUID.
        OwnerNotFound: there is no such owner.
        AppnameTaken: the owner has another application of this name, as the unique index finds at the commit.
    """
    owner = await auth.owners.get(uuid_text(auth.unseal(command.owneruuid), "owneruuid"))
    work.annotate(user_id=pseudonym("owner", owner.id))
    key_id = uuid4()
    application = Application(
        id=str(uuid4()),
        key_hash=auth.applications.key_hash(key_id),
        owner_id=owner.id,
        name=command.appname,
        passwordless=command.passwordless,
        verified_only=command.verified_only,
        created_at=work.now,
        ends_at=a_year_after(work.now),
    )
    auth.owners.require_unchanged(owner, work)
    auth.applications.add(application, work)
    work.annotate(client_id=pseudonym("application", application.id))
    return ApplicationView(
        appname=application.name,
        creationdate=application.created_at.date(),
        enddate=application.ends_at,
        uuid=str(key_id),
        apiKey=api_key(key_id),
    )


@audited("update_application")
async def update_application(command: UpdateApplication, work: Work, auth: Auth) -> ApplicationUpdatedView:
    """Change settings of an application; the caller needs the token or the password of its owner.

    Raises:
        MalformedApiKey, ApplicationNotFound: there is no application with this key.
        NotLoggedIn, FieldRefused, WrongCredentials, Throttled, Unavailable: as for ``delete_application``.
    """
    application = await auth.applications.get_by_key(auth.unseal(command.apikey))
    work.annotate(user_id=pseudonym("owner", application.owner_id), client_id=pseudonym("application", application.id))
    await _check_owner(application, command, command.password, work, auth)
    changed = application.update(passwordless=command.passwordless, verified_only=command.verified_only)
    auth.applications.save(changed, work)
    return ApplicationUpdatedView(
        appname=changed.name, passwordless=changed.passwordless, verified_only=changed.verified_only
    )


@audited("delete_application")
async def delete_application(command: DeleteApplication, work: Work, auth: Auth) -> ApplicationDeletedView:
    """Delete an application and all its users.

    The caller needs the token or the password of the application's owner, unless old clients are served. From this
    commit on users can't log in or sign up; their documents are deleted by following messages.

    Raises:
        MalformedApiKey: no application can have this key.
        NotLoggedIn: there is neither a valid token of the owner nor a password.
        FieldRefused, WrongCredentials, Throttled, Unavailable: as for ``check_password``.
    """
    application = await auth.applications.find_by_key(auth.unseal(command.apikey))
    if application is None:
        return ApplicationDeletedView(affectedRows=0, message="nothing to delete")
    work.annotate(user_id=pseudonym("owner", application.owner_id), client_id=pseudonym("application", application.id))
    if not auth.old_clients:
        await _check_owner(application, command, command.password or command.current_password, work, auth)
    _remove_applications([application], work, auth)
    return ApplicationDeletedView(affectedRows=1, message="All auth users of this application are deleted too")


async def remove_application_users(command: RemoveApplicationUsers, work: Work, auth: Auth) -> None:
    """Delete the users of a deleted application, a bounded number per message.

    No user can be added meanwhile: the deletion is committed, and each sign-up requires the application at its commit.
    """
    users = await auth.application_users.some_of_application(command.application_id, limit=MAX_REMOVED)
    for user in users:
        auth.application_users.remove(user, work)
    if len(users) == MAX_REMOVED:
        work.publish(RemoveApplicationUsers(key=command.application_id, application_id=command.application_id))


async def _check_owner(
    application: Application,
    command: DeleteApplication | UpdateApplication,
    password: Sealed | None,
    work: Work,
    auth: Auth,
) -> None:
    """Check that a command has the password or the token of the application's owner.

    Raises:
        NotLoggedIn: there is neither a valid token of the owner nor a password.
        Refusal: as for ``check_password``.
    """
    owner = await auth.owners.find(application.owner_id)
    if owner is None or password is None:
        _check_owner_token(owner, command.owner_token, work, auth)
    else:
        await check_password(owner, auth.unseal(password), owner_subject(owner.email), work, auth)


def _check_owner_token(owner: Owner | None, token: Sealed | None, work: Work, auth: Auth) -> None:
    """Check that a token is one of this owner.

    Raises:
        NotLoggedIn: it is not, or there is none.
    """
    if owner is None or token is None:
        raise NotLoggedIn
    try:
        claims = auth.signer.verify(auth.unseal(token), typ=OWNER_TOKEN_TYPE, audience=OWNERS_AUDIENCE, at=work.now)
    except InvalidToken:
        raise NotLoggedIn from None
    owner.must_be_logged_in(claims)


def _remove_applications(applications: Iterable[Application], work: Work, auth: Auth) -> None:
    """Delete applications, and order the deletion of their users."""
    for application in applications:
        auth.applications.remove(application, work)
        work.publish(RemoveApplicationUsers(key=application.id, application_id=application.id))


def _view_with_token(owner: Owner, auth: Auth) -> OwnerWithTokenView:
    return OwnerWithTokenView(
        firstname=owner.first_name,
        lastname=owner.last_name,
        email=owner.email,
        uuid=owner.id,
        deletion_token=auth.deletion_tokens.sign(owner.deletion_claims),
    )
