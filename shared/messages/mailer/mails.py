"""Mails: templates with their variables, and the command to send one."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.message import Command, Event, Part
from shared.messages.types import Moment, PreferredLocale, Sealed

Template = Literal[
    "magic-link",
    "trial-magic-link",
    "welcome",
    "welcome-trial",
    "trial-ending",
    "payment-failed",
    "duplicate-subscription",
    "trial-replaced",
    "trial-ended",
    "subscription-ended",
    "subscription-cancelled",
    "plan-changed",
    "renewal-upcoming",
    "card-expiring",
    "receipt",
    "subscription-unpaid",
    "session-theft",
    "dispute",
    "password-changed",
    "address-changed",
    "password-reset",
    "verify-address",
    "webhook-disabled",
]
Link = Annotated[
    str,
    # Without white space and control characters: text after a line break would look like ours in a mail.
    Field(pattern=r"^[^\s\p{C}]+$", json_schema_extra={"pattern": r"^[^\s\x00-\x1f\x7f-\x9f]+$"}),
]
"""A URL."""
TypedCode = Annotated[str, Field(pattern=r"^[0-9]{6}$", max_length=6)]


class LinkVariables(Part):
    """Variables of ``magic-link`` and ``trial-magic-link``."""

    link: Link
    """URL that logs in."""
    minutes: int | None = None
    """How long the link works, in minutes from the order."""
    code: TypedCode | None = None
    """Six digits that log in when they are typed on the device that requested the mail; None for a link only."""
    code_minutes: int | None = None
    """How long the code works, in minutes from the order."""
    press: bool = False
    """Whether the link leads to a page with a button, which leads on to the link."""


class PersonVariables(Part):
    """Variables of ``welcome`` and ``session-theft``."""

    name: str | None = None
    """Name in the salutation, if known."""


class TrialVariables(PersonVariables):
    """Variables of ``welcome-trial`` and ``trial-ending``."""

    ends_at: Moment | None = None
    """End of the trial; shown as a date in UTC."""
    price: str | None = None
    """Formatted price of a period after the trial, as in ``PlanVariables``."""
    interval: Literal["day", "week", "month", "year"] | None = None
    """Unit of that period."""


class PaymentVariables(PersonVariables):
    """Variables of ``payment-failed`` and ``subscription-unpaid``."""

    link: Link | None = None
    """URL to pay, or to change the card."""
    first: bool = False
    """Whether it is the first payment, so that the subscription begins when it succeeds."""
    without_method: bool = False
    """Whether it failed because no payment method is stored."""
    retried: bool = True
    """Whether it will be tried again automatically."""
    keeps_access: bool = True
    """Whether the user has access until then."""


class DuplicateVariables(PersonVariables):
    """Variables of ``duplicate-subscription``."""

    money: Literal["refunded", "refund_pending", "credited", "nothing_paid", "unresolved"] | None = None
    """What happened to the payment for the cancelled subscription; None in an order of an earlier release.

    - ``refunded``: it was returned to the payment method.
    - ``refund_pending``: it is in progress at the bank, and will be returned.
    - ``credited``: it had been paid from the customer's balance, and is there again.
    - ``nothing_paid``: nothing had been paid for it.
    - ``unresolved``: it could not be returned automatically.
    """
    refunded: str | None = None
    """Formatted amount that was refunded, with currency: ``12.00 EUR``."""
    credited: str | None = None
    """Formatted amount that is in the customer's balance again."""


class TrialReplacedVariables(PersonVariables):
    """Variables of ``trial-replaced``, about a trial that ended because its user subscribed."""

    days: int | None = None
    """Days of the trial that were added to the subscription; None if none were."""


class EndVariables(PersonVariables):
    """Variables of ``trial-ended`` and ``subscription-ended``."""

    link: Link | None = None
    """URL of the page where the person can subscribe or add a payment method."""
    paused: bool = False
    """Whether the trial continues as a subscription once a payment method is added."""
    payment_failed: bool = False
    """Whether it ended because of unpaid invoices."""


class CancellationVariables(PersonVariables):
    """Variables of ``subscription-cancelled``."""

    ends_at: Moment
    """Last day with access; shown as a date in UTC."""
    link: Link | None = None
    """URL of the page where the person can withdraw the cancellation."""


class PlanVariables(PersonVariables):
    """Variables of ``plan-changed``."""

    price: str | None = None
    """Formatted price of a period, before taxes: ``12.00 EUR``; None if it has several parts or discounts."""
    interval: Literal["day", "week", "month", "year"] | None = None
    """Unit of the period; None for a period of several units."""
    link: Link | None = None
    """URL of the page where the person manages the subscription."""


class RenewalVariables(PlanVariables):
    """Variables of ``renewal-upcoming``."""

    renews_at: Moment
    """When the subscription renews; shown as a date in UTC."""


class CardVariables(PersonVariables):
    """Variables of ``card-expiring``."""

    card: str
    """Last four digits."""
    expires: str
    """Month and year on the card: ``01/2027``."""
    renews_at: Moment
    """When the card is charged next; shown as a date in UTC."""
    link: Link | None = None
    """URL of the page where the person can change the card."""


class ReceiptVariables(PersonVariables):
    """Variables of ``receipt``."""

    amount: str
    """Formatted amount that was paid: ``12.00 EUR``."""
    paid_at: Moment
    """When it was paid; shown as a date in UTC."""
    plan: str | None = None
    """Name of the product, if known."""
    link: Link | None = None
    """URL of the invoice."""


class DisputeVariables(Part):
    """Variables of ``dispute``, a mail to the operators."""

    dispute_id: str
    amount: str
    """Formatted amount with currency: ``12.00 EUR``."""
    reason: str
    """Stripe's reason."""
    outcome: str | None = None
    """Stripe's status at the end; None for a new dispute."""
    link: Link | None = None
    """URL of the dispute in Stripe's dashboard."""


class AccountVariables(Part):
    """Variables of ``password-changed`` and ``address-changed``."""

    application: str | None = None
    """Name of the application whose user the recipient is; None for an owner of applications."""


class AccountLinkVariables(AccountVariables):
    """Variables of ``password-reset`` and ``verify-address``."""

    link: Link
    """URL of the page that sets a new password, or proves the address."""
    minutes: int | None = None
    """How long the link works, in minutes from the order."""


class WebhookVariables(Part):
    """Variables of ``webhook-disabled``, a mail to the operators."""

    endpoint_id: str
    host: str
    """Host of the endpoint's URL."""
    gone: bool = False
    """Whether the endpoint answered that it is gone, instead of failing for three days."""


VARIABLES: Final[dict[Template, type[Part]]] = {
    "magic-link": LinkVariables,
    "trial-magic-link": LinkVariables,
    "welcome": PersonVariables,
    "welcome-trial": TrialVariables,
    "trial-ending": TrialVariables,
    "payment-failed": PaymentVariables,
    "duplicate-subscription": DuplicateVariables,
    "trial-replaced": TrialReplacedVariables,
    "trial-ended": EndVariables,
    "subscription-ended": EndVariables,
    "subscription-cancelled": CancellationVariables,
    "plan-changed": PlanVariables,
    "renewal-upcoming": RenewalVariables,
    "card-expiring": CardVariables,
    "receipt": ReceiptVariables,
    "subscription-unpaid": PaymentVariables,
    "session-theft": PersonVariables,
    "dispute": DisputeVariables,
    "password-changed": AccountVariables,
    "address-changed": AccountVariables,
    "password-reset": AccountLinkVariables,
    "verify-address": AccountLinkVariables,
    "webhook-disabled": WebhookVariables,
}
"""Model of each template's variables."""


class SendOrder(Command):
    """Fields shared by the commands that send a mail or a text."""

    to: Sealed
    """Email address, or phone number in E.164."""
    variables: Sealed
    """JSON of the template's model in ``VARIABLES`` or ``TEXT_VARIABLES``."""
    client_id: str | None = None
    """Client whose branding is used. Omitted: the client that the recipient of a mail last logged in to."""
    locale: PreferredLocale = None
    """Language that the recipient chose."""
    order_id: str | None = None
    """ID of the first command, on a retry. The Message-ID of a mail is derived from it."""
    attempt: int = 1
    """Number of the attempt, from 1."""


class LastLogin(Part):
    """A person's last login by a mailed link or code. Both fields are null if there was none."""

    order_id: str | None = None
    """Message ID of the order of that mail."""
    at: Moment | None = None
    """When the link or code was redeemed."""


class SendMail(SendOrder, wire="mailer.send-mail"):
    """Render a mail and hand it over to the mail server."""

    template: Template
    user_id: str | None = None
    """Recipient, if it is a user. Needed for the unsubscribe link of the mails that have one."""
    expires_at: Moment | None = None
    """When the mail is no longer useful, and is not sent. Omitted: never."""
    last_login: LastLogin | None = None
    """The recipient's last login, which provides the client and the language that the order does not name. None until
    auth was asked."""


class NoteLinkRedeemed(Command, wire="mailer.note-link-redeemed"):
    """Note that a mailed link was redeemed. Only releases of before 2026-11-30 send it."""

    order_id: str
    """Message ID of the order of the mail."""
    at: Moment
    """When the link was redeemed."""


class MailHandedOver(Event, wire="mailer.mail-handed-over"):
    """The mail server accepted a mail."""

    delivery_id: str
    template: Template
    at: Moment
