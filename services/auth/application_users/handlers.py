"""Handlers of the users of applications: sign-up, login and changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

from services.auth.account_links.handlers import mail_proof
from services.auth.accounts.account_mails import mail_changes
from services.auth.accounts.api_keys import api_key
from services.auth.accounts.models import Application, a_year_after, account_email, uuid_text
from services.auth.accounts.password_checks import check_password, hash_caller, new_password_hash, user_subject
from services.auth.application_users.models import TOKEN_TYPE, ApplicationUser
from services.auth.audit.recorder import audited, pseudonym
from services.auth.context import Auth
from services.auth.login_steps import login_step
from shared.bus.work import Work
from shared.messages.auth.accounts import (
    ApplicationUserDataView,
    ApplicationUserUpdatedView,
    ApplicationUserView,
    CheckSignIn,
    GetApplicationUser,
    SignedInView,
    SignedInWithEmailView,
    SignIn,
    SignInWithEmail,
    SignUp,
    UpdateApplicationUser,
)
from shared.messages.auth.errors import EmailTaken, FieldRefused, InvalidToken, NotLoggedIn


@audited("sign_up")
async def sign_up(command: SignUp, work: Work, auth: Auth) -> ApplicationUserView:
    """Create a user of an application, for a year, and mail a link that proves the address.

    Raises:
        MalformedApiKey, ApplicationNotFound, ApplicationEnded: there is no current application with this key.
        FieldRefused: the address or the password is not allowed.
        EmailTaken: another user of the application has the address, as the unique index finds at the commit.
        Throttled: as for ``hash_caller``.
        Unavailable: too many password hashes are waiting.
    """
    key = auth.unseal(command.apikey)
    application = await auth.applications.get_by_key(key)
    work.annotate(client_id=pseudonym("application", application.id))
    application.must_be_current(at=work.now)
    email = account_email(command.email, test_domains=auth.test_domains)
    user = ApplicationUser(
        id=str(uuid4()),
        application_id=application.id,
        username=command.username,
        email=email,
        password_hash=await auth.passwords.hash_new(
            auth.unseal(command.password), await hash_caller(user_subject(application, email), work, auth)
        ),
        locale=command.locale,
        created_at=work.now,
        updated_at=work.now,
        ends_at=a_year_after(work.now),
    )
    if not auth.applications.renew_key_hash(application, key, work):
        auth.applications.require_unchanged(application, work)
    auth.application_users.add(user, work)
    await mail_proof(user, application, work, auth)
    work.annotate(user_id=pseudonym("application user", user.id))
    return _view(user, key)


@audited("sign_in")
async def sign_in(command: SignIn, work: Work, auth: Auth) -> SignedInView:
    """Log a user in with ID and API key, if the application allows it.

    Raises:
        FieldRefused: the ID is not a UUID.
        MalformedApiKey, ApplicationNotFound, ApplicationEnded: there is no current application with this key.
        PasswordRequired: the application requires passwords, or the user has changed the password.
        ApplicationUserNotFound, ApplicationUserNotActive, ApplicationUserEnded: the user can't log in.
    """
    user_id = uuid_text(auth.unseal(command.uuid), "uuid")
    key = auth.unseal(command.apikey)
    application = await auth.applications.get_by_key(key)
    work.annotate(client_id=pseudonym("application", application.id))
    application.must_be_current(at=work.now)
    if not auth.old_clients:
        application.must_be_passwordless()
    user = await auth.application_users.get_of_application(user_id, application)
    work.annotate(user_id=pseudonym("application user", user.id))
    user.must_be_allowed_in(at=work.now)
    user.must_have_first_password()
    user.must_be_verified(application)
    auth.applications.renew_key_hash(application, key, work)
    return SignedInView(token=_token(user, work, auth))


@login_step("password", "redeemed")
@audited("sign_in_with_email")
async def sign_in_with_email(command: SignInWithEmail, work: Work, auth: Auth) -> SignedInWithEmailView:
    """Log a user in with address and password.

    Raises:
        MalformedApiKey, ApplicationNotFound, ApplicationEnded: there is no current application with this key.
        FieldRefused: the address is not valid.
        Refusal: as for ``check_password``.
        ApplicationUserNotActive, ApplicationUserEnded: the password is right, but the user can't log in.
    """
    key = auth.unseal(command.apikey)
    application = await auth.applications.get_by_key(key)
    work.annotate(client_id=pseudonym("application", application.id))
    application.must_be_current(at=work.now)
    email = account_email(command.email, test_domains=auth.test_domains)
    password = auth.unseal(command.password)
    found = await auth.application_users.find_by_email(application.id, email)
    if found is not None:
        work.annotate(user_id=pseudonym("application user", found.id))
    user = await check_password(found, password, user_subject(application, email), work, auth)
    user.must_be_allowed_in(at=work.now)
    user.must_be_verified(application)
    auth.applications.renew_key_hash(application, key, work)
    if auth.passwords.needs_rehash(user.password_hash):
        caller = await hash_caller(user_subject(application, email), work, auth)
        auth.application_users.save(replace(user, password_hash=await auth.passwords.rehash(password, caller)), work)
    return SignedInWithEmailView(token=_token(user, work, auth), uuid=user.id)


async def check_sign_in(query: CheckSignIn, work: Work, auth: Auth) -> SignedInView:
    """Check a token, and return it.

    Raises:
        NotLoggedIn: it is not valid.
    """
    token = auth.unseal(query.token)
    await _logged_in(token, work, auth)
    return SignedInView(token=token)


async def get_application_user(query: GetApplicationUser, work: Work, auth: Auth) -> ApplicationUserDataView:
    """Return the user of a token.

    Raises:
        NotLoggedIn: the token is not valid.
    """
    user, _ = await _logged_in(auth.unseal(query.token), work, auth)
    # Clients read the field ``apikey``. Whoever has a token must not learn the application's.
    view = _view(user, api_key(UUID(user.id)))
    return ApplicationUserDataView(**view.model_dump(), verified=user.verified)


@audited("update_application_user")
async def update_application_user(command: UpdateApplicationUser, work: Work, auth: Auth) -> ApplicationUserUpdatedView:
    """Change the given properties of a user; a new password or a deactivation ends all tokens, including this one.

    Another address needs the current password, unless old clients are served: otherwise a stolen token would let a
    thief reset the password by a mail to the thief's address. With a password, an active user gets a new token. A mail
    to the old address reports a new password and another address.

    Raises:
        NotLoggedIn: the token is not valid.
        WrongCredentials, Throttled: as for ``new_password_hash``.
        FieldRefused: the address or the password is not allowed, or another address has no password with it.
        EmailTaken: another user of the application has the address.
        Unavailable: too many password hashes are waiting.
    """
    user, application = await _logged_in(auth.unseal(command.token), work, auth)
    work.annotate(user_id=pseudonym("application user", user.id), client_id=pseudonym("application", application.id))
    email = None
    if command.email is not None:
        email = account_email(command.email, test_domains=auth.test_domains)
        no_password = command.password is None and command.current_password is None
        if email != user.email and no_password and not auth.old_clients:
            raise FieldRefused("current_password", "Field required")
        # The unique index is not enough, as in ``update_owner``.
        if email != user.email and await auth.application_users.find_by_email(application.id, email) is not None:
            raise EmailTaken
    changed = user.update(username=command.username, email=email, active=command.active, at=work.now)
    new_hash = await new_password_hash(user, command, user_subject(application, user.email), work, auth)
    if new_hash is not None:
        changed = changed.change_password(new_hash, at=work.now)
    auth.application_users.save(changed, work)
    mail_changes(user, changed, work, application=application)
    if changed.email != user.email:
        await mail_proof(changed, application, work, auth)
    renews = command.password is not None and changed.active
    return ApplicationUserUpdatedView(
        username=changed.username, email=changed.email, token=_token(changed, work, auth) if renews else None
    )


async def _logged_in(token: str, work: Work, auth: Auth) -> tuple[ApplicationUser, Application]:
    """Return the user of a token, and the application.

    Raises:
        NotLoggedIn: the token is not valid.
    """
    try:
        claims = auth.signer.verify(token, typ=TOKEN_TYPE, audience=None, at=work.now)
    except InvalidToken:
        raise NotLoggedIn from None
    user, application = await asyncio.gather(
        auth.application_users.find(claims["sub"]), auth.applications.find_by_audience(claims["aud"])
    )
    if user is None or application is None:
        raise NotLoggedIn
    user.must_be_logged_in(application, claims, at=work.now)
    return user, application


def _token(user: ApplicationUser, work: Work, auth: Auth) -> str:
    return auth.signer.sign(user.token_claims(id=work.new_id("apptok"), at=work.now), typ=TOKEN_TYPE)


def _view(user: ApplicationUser, shown_key: str) -> ApplicationUserView:
    return ApplicationUserView(
        apikey=shown_key,
        uuid=user.id,
        username=user.username,
        email=user.email,
        creationdate=user.created_at.date(),
        enddate=user.ends_at.date(),
        active=user.active,
    )
