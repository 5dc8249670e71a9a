"""Mails about accounts with passwords: of owners, and of the users of their applications."""

from __future__ import annotations

import re
from typing import Final, Literal

from services.auth.accounts.models import Application, Owner
from services.auth.application_users.models import ApplicationUser
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.mailer.mails import AccountVariables, SendMail

MAX_NAME_CHARACTERS: Final = 60
_NOT_IN_NAMES: Final = re.compile(r"[^\w\s&'()+-]|_")
Account = Owner | ApplicationUser


def mail_changes(before: Account, after: Account, work: Work, *, application: Application | None = None) -> None:
    """Report another password and another address of an account to the old address.

    Args:
        before: the account as it was.
        after: the account as it is saved.
        work: publishes the mails.
        application: that of a user; None for an owner.
    """
    variables = AccountVariables(application=None if application is None else shown_name(application.name))
    changes: list[tuple[Literal["password-changed", "address-changed"], bool]] = [
        ("password-changed", before.password_hash != after.password_hash),
        ("address-changed", before.email != after.email),
    ]
    for template, changed in changes:
        if changed:
            work.publish(SendMail(template=template, to=Sealed.of(before.email), variables=Sealed.of_json(variables)))


def shown_name(application_name: str) -> str | None:
    """The name of an application as mails show it; None if nothing of it can be shown.

    Anybody can create an application with any name, and Nest mails its users: so the name must not contain a link, nor
    pass for our own text.
    """
    words = _NOT_IN_NAMES.sub(" ", application_name).split()
    return " ".join(words)[:MAX_NAME_CHARACTERS].strip() or None
