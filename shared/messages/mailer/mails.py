"""What mailer is ordered and asked, and what it announces: mail, texts and marketing consent."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.message import Command, Event, Locale, Moment, Part, Sealed

Template = Literal[
    "magic-link",
    "trial-magic-link",
    "welcome",
    "welcome-trial",
    "trial-ending",
    "payment-failed",
    "duplicate-subscription",
    "session-theft",
    "dispute",
]


Link = Annotated[str, Field(pattern=r"^[^\s\p{C}]+$")]
"""A whole URL, without spaces and control characters: what follows a line break in a mail's text would read as ours."""


class LinkVariables(Part):
    """What ``magic-link`` and ``trial-magic-link`` show."""

    link: Link
    """What to follow to be signed in."""
    minutes: int | None = None
    """How long the link works, counted from the order."""


class PersonVariables(Part):
    """What ``welcome``, ``duplicate-subscription`` and ``session-theft`` show."""

    name: str | None = None
    """How the person is greeted, if that is known."""


class TrialVariables(PersonVariables):
    """What ``welcome-trial`` and ``trial-ending`` show."""

    ends_at: Moment | None = None
    """When the trial ends; shown as a day, in UTC."""


class PaymentVariables(PersonVariables):
    """What ``payment-failed`` shows."""

    link: Link | None = None
    """Where the person can pay or change the card."""


class DisputeVariables(Part):
    """What ``dispute``, a mail to the operators, shows."""

    dispute_id: str
    amount: str
    """With its currency, for people: ``12.00 EUR``."""
    reason: str
    """Stripe's word."""
    outcome: str | None = None
    """Stripe's word for how it ended; None when it was opened just now."""
    link: Link | None = None
    """The dispute in Stripe's dashboard."""


VARIABLES: Final[dict[Template, type[Part]]] = {
    "magic-link": LinkVariables,
    "trial-magic-link": LinkVariables,
    "welcome": PersonVariables,
    "welcome-trial": TrialVariables,
    "trial-ending": TrialVariables,
    "payment-failed": PaymentVariables,
    "duplicate-subscription": PersonVariables,
    "session-theft": PersonVariables,
    "dispute": DisputeVariables,
}
"""What each template is given."""


class SendMail(Command, wire="mailer.send-mail"):
    """Render a template and hand the mail over."""

    template: Template
    to: Sealed
    """The address."""
    variables: Sealed
    """The JSON of the template's class in ``VARIABLES``."""
    user_id: str | None = None
    """Who is written to, if it is a user: whoever has had enough of such mails is known by it."""
    client_id: str | None = None
    """Whose product name and looks the mail wears; left out, those of the app that its reader used last."""
    locale: Locale | None = None
    """The language that its reader has asked for."""
    order_id: str | None = None
    """The id of the first order, on a repeated attempt; the Message-ID is made from it."""
    attempt: int = 1
    """Counts from 1, the first order's."""


class MailHandedOver(Event, wire="mailer.mail-handed-over"):
    """The mail server has taken a mail."""

    delivery_id: str
    template: Template
    at: Moment
