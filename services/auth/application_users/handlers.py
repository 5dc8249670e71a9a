"""How do people sign up to an application, log in there, and change what is known of them?"""

from __future__ import annotations

import asyncio
from uuid import uuid4

from services.auth.accounts.handlers import proven
from services.auth.accounts.models import Application, account_email, uuid_text
from services.auth.application_users.models import TOKEN_TYPE, ApplicationUser
from services.auth.audit.models import pseudonym
from services.auth.audit.recorder import audited
from services.auth.context import Auth
from shared.bus.work import Work
from shared.messages.auth.accounts import (
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
from shared.messages.auth.errors import EmailTaken, InvalidToken, NotLoggedIn


@audited("sign_up")
async def sign_up(command: SignUp, work: Work, auth: Auth) -> ApplicationUserView:
    """Make a user of an application, for a year.

    Raises:
        MalformedApiKey, ApplicationNotFound, ApplicationEnded: there is no application to sign up to.
        FieldRefused: the address or the password.
        EmailTaken: at the commit, when another user of the application has the address.
        Unavailable: too many passwords wait.
    """
    application = await auth.applications.get(auth.unseal(command.apikey))
    work.annotate(client_id=pseudonym("application", application.id))
    application.must_be_current(at=work.now)
    email = account_email(command.email, test_domains=auth.test_domains)
    user = ApplicationUser.sign_up(
        application,
        id=str(uuid4()),
        username=command.username,
        email=email,
        password_hash=await auth.passwords.hash_new(auth.unseal(command.password)),
        at=work.now,
    )
    auth.applications.require_unchanged(application, work)
    auth.application_users.add(user, work)
    work.annotate(user_id=pseudonym("application user", user.id))
    return _view(user, application)


@audited("sign_in")
async def sign_in(command: SignIn, work: Work, auth: Auth) -> SignedInView:
    """Log somebody in who knows a user's id and the API key, where that is enough.

    Raises:
        FieldRefused: the id is no UUID.
        MalformedApiKey, ApplicationNotFound, ApplicationEnded: there is no application to log in to.
        PasswordRequired: it is not enough there.
        ApplicationUserNotFound, ApplicationUserNotActive, ApplicationUserEnded: there is nobody to log in.
    """
    user_id = uuid_text(auth.unseal(command.uuid), "uuid")
    application = await auth.applications.get(auth.unseal(command.apikey))
    work.annotate(client_id=pseudonym("application", application.id))
    application.must_be_current(at=work.now)
    if not auth.old_clients:
        application.must_be_passwordless()
    user = await auth.application_users.get(user_id, application)
    work.annotate(user_id=pseudonym("application user", user.id))
    user.must_be_allowed_in(at=work.now)
    return SignedInView(token=_token(user, work, auth))


@audited("sign_in_with_email")
async def sign_in_with_email(command: SignInWithEmail, work: Work, auth: Auth) -> SignedInWithEmailView:
    """Log somebody in who shows a password.

    Raises:
        MalformedApiKey, ApplicationNotFound, ApplicationEnded: there is no application to log in to.
        FieldRefused: the address can't be one.
        Refusal: as ``proven`` says.
        ApplicationUserNotActive, ApplicationUserEnded: the password is right, and they may not log in.
    """
    application = await auth.applications.get(auth.unseal(command.apikey))
    work.annotate(client_id=pseudonym("application", application.id))
    application.must_be_current(at=work.now)
    email = account_email(command.email, test_domains=auth.test_domains)
    password = auth.unseal(command.password)
    found = await auth.application_users.find_by_email(application.id, email)
    if found is not None:
        work.annotate(user_id=pseudonym("application user", found.id))
    user = await proven(found, password, f"user of {application.id} {email}", work, auth)
    user.must_be_allowed_in(at=work.now)
    if auth.passwords.outdated(user.password_hash):
        auth.application_users.save(user.hash_again(await auth.passwords.hash_again(password)), work)
    return SignedInWithEmailView(token=_token(user, work, auth), uuid=user.id)


async def check_sign_in(query: CheckSignIn, work: Work, auth: Auth) -> SignedInView:
    """Whether a token is good.

    Raises:
        NotLoggedIn: it is not.
    """
    token = auth.unseal(query.token)
    await _logged_in(token, work, auth)
    return SignedInView(token=token)


async def get_application_user(query: GetApplicationUser, work: Work, auth: Auth) -> ApplicationUserView:
    """The user whose token this is.

    Raises:
        NotLoggedIn: nobody's.
    """
    return _view(*await _logged_in(auth.unseal(query.token), work, auth))


@audited("update_application_user")
async def update_application_user(command: UpdateApplicationUser, work: Work, auth: Auth) -> ApplicationUserUpdatedView:
    """Change what is given; another password, and a deactivation, end all tokens, this one too.

    Raises:
        NotLoggedIn: the token is nobody's.
        FieldRefused: the address or the password.
        EmailTaken: another user of the application has the address.
        Unavailable: too many passwords wait.
    """
    user, application = await _logged_in(auth.unseal(command.token), work, auth)
    work.annotate(user_id=pseudonym("application user", user.id), client_id=pseudonym("application", application.id))
    email = None
    if command.email is not None:
        email = account_email(command.email, test_domains=auth.test_domains)
        # Not left to the index alone: as in ``update_owner``.
        if email != user.email and await auth.application_users.find_by_email(application.id, email) is not None:
            raise EmailTaken
    changed = user.update(username=command.username, email=email, active=command.active, at=work.now)
    if command.password is not None:
        password = auth.unseal(command.password)
        if not await auth.passwords.recognise(password, user.password_hash):
            changed = changed.change_password(await auth.passwords.hash_new(password), at=work.now)
    auth.application_users.save(changed, work)
    return ApplicationUserUpdatedView(username=changed.username, email=changed.email)


async def _logged_in(token: str, work: Work, auth: Auth) -> tuple[ApplicationUser, Application]:
    """The user whose token this is, and the application.

    Raises:
        NotLoggedIn: nobody's.
    """
    try:
        claims = auth.signer.verify(token, typ=TOKEN_TYPE, audience=None, at=work.now)
    except InvalidToken:
        raise NotLoggedIn from None
    user, application = await asyncio.gather(
        auth.application_users.find(claims["sub"]), auth.applications.find(claims["aud"])
    )
    if user is None or application is None:
        raise NotLoggedIn
    user.must_be_logged_in(application, claims, at=work.now)
    return user, application


def _token(user: ApplicationUser, work: Work, auth: Auth) -> str:
    return auth.signer.sign(user.token_claims(id=work.new_id("apptok"), at=work.now), typ=TOKEN_TYPE)


def _view(user: ApplicationUser, application: Application) -> ApplicationUserView:
    return ApplicationUserView(
        apikey=application.api_key,
        uuid=user.id,
        username=user.username,
        email=user.email,
        creationdate=user.created_at.date(),
        enddate=user.ends_at.date(),
        active=user.active,
    )
