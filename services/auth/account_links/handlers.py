"""Handlers of mailed links to accounts: order, mail and redeem them."""

from __future__ import annotations

from typing import Final

from services.auth.account_links.models import LIFETIMES, AccountKind, AccountLink
from services.auth.accounts.account_mails import mail_changes, shown_name
from services.auth.accounts.models import Application, Owner, account_email
from services.auth.accounts.password_checks import hash_caller, owner_subject, user_subject
from services.auth.application_users.models import ApplicationUser
from services.auth.audit.recorder import audited, pseudonym
from services.auth.context import Auth
from services.auth.tokens.credentials import Code, new_key, require_key
from shared.bus.work import Work
from shared.mail import CONFIRM_PATH, RESET_PATH
from shared.messages import Sealed
from shared.messages.auth.account_links import (
    AccountLinkOrderedView,
    AccountLinkRedeemedView,
    ForgotOwnerPassword,
    ForgotPassword,
    LinkKind,
    LinkOfUser,
    MailAccountLink,
    ResetPassword,
    SendVerification,
    VerifyAddress,
)
from shared.messages.auth.errors import LinkNotValid, MalformedCode, Throttled, TokenNotFound
from shared.messages.mailer.mails import AccountLinkVariables, SendMail

MAIL_WITHIN: Final = 1 / 2
"""A link that waits longer than this fraction of its lifetime is not mailed: the person would have too little time."""
OWNERS: Final = "owners"
"""Subject of the limit per client for owners, who belong to no application."""


@audited("forgot_password")
async def forgot_password(command: ForgotPassword, work: Work, auth: Auth) -> AccountLinkOrderedView:
    """Mail a user of an application a link to choose a new password.

    The address is not looked up, so neither the reply nor its timing shows whether it has a user.

    Raises:
        MalformedApiKey, ApplicationNotFound, ApplicationEnded: there is no current application with this key.
        FieldRefused: the address can't receive mail.
        Throttled: too many links for this address, from this network or for this application.
        Unavailable: the mail would arrive too late.
    """
    return await _order_for_user("reset", command, work, auth)


@audited("send_verification")
async def send_verification(command: SendVerification, work: Work, auth: Auth) -> AccountLinkOrderedView:
    """Mail a user of an application a link that proves the address; raise as ``forgot_password``."""
    return await _order_for_user("verify", command, work, auth)


@audited("forgot_owner_password")
async def forgot_owner_password(command: ForgotOwnerPassword, work: Work, auth: Auth) -> AccountLinkOrderedView:
    """Mail an owner a link to choose a new password; raise as ``forgot_password``."""
    email = account_email(command.email, test_domains=auth.test_domains)
    await _order("reset", email, work, auth, locale=command.locale)
    return AccountLinkOrderedView()


async def mail_account_link(command: MailAccountLink, work: Work, auth: Auth) -> None:
    """Mail a link, if the address has an account that can use it."""
    email = auth.unseal(command.email)
    if command.application_id is None:
        owner = await auth.owners.find_by_email(email)
        if owner is not None:
            mail_link(command.kind, owner, work, auth, locale=command.locale)
        return
    application = await auth.applications.find(command.application_id)
    user = await auth.application_users.find_by_email(command.application_id, email)
    if application is not None and user is not None and not (command.kind == "verify" and user.verified):
        locale = command.locale or user.locale
        mail_link(command.kind, user, work, auth, application=application, locale=locale)


@audited("reset_password")
async def reset_password(command: ResetPassword, work: Work, auth: Auth) -> AccountLinkRedeemedView:
    """Set the password of the account behind a link. All tokens and all other links of the account end.

    Raises:
        LinkNotValid: the link is unknown, used or expired, or the account has another address now.
        Throttled: too many unknown links from this network.
        FieldRefused: the password is not allowed; the link stays valid.
        Unavailable: too many password hashes are waiting.
    """
    link, account = await _opened("reset", command.token, work, auth)
    application = None
    if isinstance(account, ApplicationUser):
        application = await auth.applications.find(account.application_id)
    if isinstance(account, Owner):
        subject = owner_subject(account.email)
    elif application is not None:
        subject = user_subject(application, account.email)
    else:
        raise LinkNotValid
    caller = await hash_caller(subject, work, auth)
    password_hash = await auth.passwords.hash_new(auth.unseal(command.password), caller)
    changed = account.reset_password(password_hash, at=work.now)
    if isinstance(changed, Owner):
        auth.owners.save(changed, work)
    else:
        auth.application_users.save(changed, work)
    mail_changes(account, changed, work, application=application)
    for other in await auth.account_links.of_account(link.account_id):
        auth.account_links.remove(other, work)
    return AccountLinkRedeemedView()


@audited("verify_address")
async def verify_address(command: VerifyAddress, work: Work, auth: Auth) -> AccountLinkRedeemedView:
    """Note that the person behind a user of an application reads the mailbox.

    Raises:
        LinkNotValid, Throttled: as for ``reset_password``.
    """
    link, account = await _opened("verify", command.token, work, auth)
    if isinstance(account, Owner):
        raise LinkNotValid
    auth.application_users.save(account.verify_address(at=work.now), work)
    auth.account_links.remove(link, work)
    return AccountLinkRedeemedView()


async def mail_proof(user: ApplicationUser, application: Application, work: Work, auth: Auth) -> None:
    """Mail a user a link that proves the address, unless a limit is reached: the user can order another one later.

    One limit counts the mails to an address by all applications, since anybody can create one and register others.
    """
    try:
        await _take_quota("verify", user.email, application.id, work, auth)
    except Throttled:
        return
    mail_link("verify", user, work, auth, application=application, locale=user.locale)


def mail_link(
    kind: LinkKind,
    account: Owner | ApplicationUser,
    work: Work,
    auth: Auth,
    *,
    application: Application | None = None,
    locale: str | None,
) -> None:
    """Store a link, and order its mail. Only mailer can unseal the code in it."""
    code = Code(work.new_id("accountlink"), new_key())
    account_kind: AccountKind = "owner" if isinstance(account, Owner) else "user"
    link = AccountLink.issue(kind, account_kind, account.id, account.email, code, at=work.now)
    auth.account_links.add(link, work)
    path = RESET_PATH if kind == "reset" else CONFIRM_PATH
    variables = AccountLinkVariables(
        link=f"{auth.issuer}{path}/{code}",
        minutes=int(LIFETIMES[kind].total_seconds()) // 60,
        application=None if application is None else shown_name(application.name),
    )
    work.publish(
        SendMail(
            template="password-reset" if kind == "reset" else "verify-address",
            to=Sealed.of(account.email),
            variables=Sealed.of_json(variables),
            locale=locale,
            expires_at=work.now + LIFETIMES[kind] * MAIL_WITHIN,
        )
    )


async def _order_for_user(kind: LinkKind, command: LinkOfUser, work: Work, auth: Auth) -> AccountLinkOrderedView:
    application = await auth.applications.get_by_key(auth.unseal(command.apikey))
    work.annotate(client_id=pseudonym("application", application.id))
    application.must_be_current(at=work.now)
    email = account_email(command.email, test_domains=auth.test_domains)
    await _order(kind, email, work, auth, application_id=application.id, locale=command.locale)
    return AccountLinkOrderedView()


async def _order(
    kind: LinkKind, email: str, work: Work, auth: Auth, *, application_id: str | None = None, locale: str | None
) -> None:
    auth.mail_backlog.must_be_short(LIFETIMES[kind])
    await _take_quota(kind, email, application_id, work, auth)
    work.publish(MailAccountLink(kind=kind, application_id=application_id, email=Sealed.of(email), locale=locale))


async def _take_quota(kind: LinkKind, email: str, application_id: str | None, work: Work, auth: Auth) -> None:
    """Count a mail under the limits of magic links, apart from magic links to the same address.

    Links to a new password are counted by address and application: otherwise the owner of another application could
    keep a user from ordering one.

    Raises:
        Throttled: one of the limits is reached.
    """
    subject = f"verify {email}" if kind == "verify" else f"reset {application_id or OWNERS} {email}"
    quota = await auth.rate_limits.quota(
        {
            "magic-links-per-address": subject,
            "magic-links-per-prefix": work.caller.client_ip,
            "magic-links-per-client": application_id or OWNERS,
        },
        work,
    )
    quota.take()


async def _opened(kind: LinkKind, token: Sealed, work: Work, auth: Auth) -> tuple[AccountLink, Owner | ApplicationUser]:
    """Return the link of a token, and its account.

    Raises:
        LinkNotValid: the link can't be redeemed.
        Throttled: too many unknown links from this network.
    """
    try:
        code = Code.parse(auth.unseal(token))
        link = require_key(await auth.account_links.find(code.id), code.key)
        link.must_open(kind, at=work.now)
    except (MalformedCode, TokenNotFound, LinkNotValid):
        (await auth.rate_limits.quota({"wrong-keys-per-prefix": work.caller.client_ip}, work)).take()
        raise LinkNotValid from None
    account: Owner | ApplicationUser | None
    if link.account_kind == "owner":
        account = await auth.owners.find(link.account_id)
        work.annotate(user_id=pseudonym("owner", link.account_id))
    else:
        account = await auth.application_users.find(link.account_id)
        work.annotate(user_id=pseudonym("application user", link.account_id))
    if account is None or account.email != link.email:
        raise LinkNotValid
    return link, account
