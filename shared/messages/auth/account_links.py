"""Links that are mailed to accounts with passwords: to set a new password, and to prove an address."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.auth.accounts import INVALID_APPLICATION, MAX_TOKEN, AlwaysTrue, ApiKey, NewPassword
from shared.messages.auth.errors import FieldRefused, LinkNotValid, Throttled
from shared.messages.message import Command, Reply
from shared.messages.types import MaxPlain, PreferredLocale, Sealed, TypedAddress

LinkKind = Literal["reset", "verify"]
"""``reset`` sets a new password, ``verify`` proves an address."""
LinkToken = Annotated[
    Sealed, MaxPlain(MAX_TOKEN), Field(description="Token from the link in the mail: its last segment.")
]
_REFUSALS: Final = (*INVALID_APPLICATION, Throttled)


class AccountLinkOrderedView(Reply):
    """Confirmation of an order, the same for existing and unknown addresses."""

    done: AlwaysTrue = True


class AccountLinkRedeemedView(Reply):
    """Confirmation that a link took effect."""

    done: AlwaysTrue = True


class LinkOfUser(Command):
    """Fields shared by the commands that mail a link to a user of an application."""

    apikey: ApiKey
    email: TypedAddress
    """Email address of the user."""
    locale: PreferredLocale = None
    """Language of the mail, if Nest has it (RFC 5646): ``de-AT``."""


class ForgotPassword(
    LinkOfUser, wire="auth.forgot-password", personal=True, reply=AccountLinkOrderedView, refuses=_REFUSALS
):
    """Mail a link with which a user of an application chooses a new password.

    The link works once, for 30 minutes, and leads to a page of Nest. Nothing reveals whether the address has a user.
    """


class SendVerification(
    LinkOfUser, wire="auth.send-verification", personal=True, reply=AccountLinkOrderedView, refuses=_REFUSALS
):
    """Mail a link that proves the address of a user.

    Nothing is mailed if it is proven already.

    A registration and another address mail such a link too. It works once, for a day. Nothing reveals whether the
    address has a user.
    """


class ForgotOwnerPassword(
    Command,
    wire="auth.forgot-owner-password",
    personal=True,
    reply=AccountLinkOrderedView,
    refuses=(FieldRefused, Throttled),
):
    """Mail a link with which an owner chooses a new password.

    Otherwise as ``/users/forgot``.
    """

    email: TypedAddress
    """Email address of the owner."""
    locale: PreferredLocale = None
    """Language of the mail, if Nest has it (RFC 5646): ``de-AT``."""


class MailAccountLink(Command, wire="auth.mail-account-link"):
    """Mail a link to an address, if it has an account. Sent by auth to itself.

    So the answer to the order neither contains nor waits for anything that depends on the account.
    """

    kind: LinkKind
    application_id: str | None = None
    """Application of the user; None for an owner."""
    email: Sealed
    """Address in normal form."""
    locale: PreferredLocale = None


class ResetPassword(
    Command,
    wire="auth.reset-password",
    reply=AccountLinkRedeemedView,
    refuses=(LinkNotValid, FieldRefused, Throttled),
):
    """Set a new password with the token of a mailed link.

    Ends all tokens of the account. Proves the address: a user who had registered without proof belongs to the person
    who reads the mailbox from then on. A password that is refused does not use up the link.
    """

    token: LinkToken
    password: NewPassword


class VerifyAddress(
    Command, wire="auth.verify-address", reply=AccountLinkRedeemedView, refuses=(LinkNotValid, Throttled)
):
    """Prove the address of a user of an application with the token of a mailed link."""

    token: LinkToken
