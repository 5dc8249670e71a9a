"""Checks of passwords within the rate limits, and new passwords."""

from __future__ import annotations

from typing import TypeVar

from services.auth.accounts.hash_queue import HashCaller
from services.auth.accounts.models import Application, Owner
from services.auth.accounts.passwords import normal_password
from services.auth.application_users.models import ApplicationUser
from services.auth.context import Auth
from services.auth.rate_limits.known_devices import network_ids
from shared.bus.work import Work
from shared.messages.auth.accounts import UpdateApplicationUser, UpdateOwner
from shared.messages.auth.errors import WrongCredentials
from shared.networks import prefix

Account = TypeVar("Account", Owner, ApplicationUser)


async def check_password(account: Account | None, password: str, subject: str, work: Work, auth: Auth) -> Account:
    """Check the password of an account, and return the account.

    An unknown address is handled like a wrong password, and counted too. A network from which the person has logged in
    before has a quota of its own, which strangers can't use up. The subject of the rate limit is the address, with its
    kind of account.

    Raises:
        Throttled: too many wrong passwords, or too many calls from this network; this one was not checked.
        WrongCredentials: unknown address or wrong password.
        FieldRefused: the password is too long.
        Unavailable: too many password hashes are waiting.
    """
    device_ids = network_ids(work.caller.client_ip)
    quota = await auth.rate_limits.quota({"passwords-per-user": subject}, work, device_ids=device_ids)
    quota.require()
    caller = await hash_caller(subject, work, auth)
    correct = await auth.passwords.verify(password, None if account is None else account.password_hash, caller)
    if account is None or not correct:
        quota.take()
        raise WrongCredentials
    quota.hold()
    (await auth.rate_limits.recognize(subject, device_ids)).remember(work)
    return account


async def hash_caller(subject: str, work: Work, auth: Auth) -> HashCaller:
    """The caller of a message that hashes a password, after a check of the network's budget.

    A network from which the person has logged in before is known, and needs no budget. ``subject`` is that of
    ``check_password``. A message is counted once, whatever the number of its hashes.

    Raises:
        Throttled: too many calls from this network.
    """
    client_ip = work.caller.client_ip
    recognition = await auth.rate_limits.recognize(subject, network_ids(client_ip))
    if not recognition.is_known:
        (await auth.rate_limits.quota({"passwords-per-prefix": client_ip}, work)).take()
    return HashCaller(
        network=prefix(client_ip) if client_ip else "",
        known=recognition.is_known,
        deadline=work.cause.deadline / 1000,
    )


async def new_password_hash(
    account: Account, change: UpdateOwner | UpdateApplicationUser, subject: str, work: Work, auth: Auth
) -> str | None:
    """Hash of the new password; None if the command contains no password or the current one.

    A new password needs the current one too, unless old clients are served.

    Raises:
        WrongCredentials, Throttled, FieldRefused, Unavailable: as for ``check_password`` and ``hash_new``.
    """
    current = None if change.current_password is None else auth.unseal(change.current_password)
    password = current if change.password is None else auth.unseal(change.password)
    if password is None:
        return None
    if current is None and auth.old_clients:
        same = await auth.passwords.verify(password, account.password_hash, await hash_caller(subject, work, auth))
    else:
        if current is None:
            auth.passwords.check_new(password)
        # Counted like any other guess, since the answer tells whether it is the current one.
        await check_password(account, password if current is None else current, subject, work, auth)
        same = current is None or normal_password(password) == normal_password(current)
    return None if same else await auth.passwords.hash_new(password, await hash_caller(subject, work, auth))


def owner_subject(email: str) -> str:
    """Subject of the rate limit on an owner's passwords."""
    return f"owner {email}"


def user_subject(application: Application, email: str) -> str:
    """Subject of the rate limit on the passwords of an application's user."""
    return f"user of {application.id} {email}"
