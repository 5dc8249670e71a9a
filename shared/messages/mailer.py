"""What mailer is ordered and asked, and what it announces: mail, texts and marketing consent."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.locales import Locale
from shared.messages.message import Command, Event, Moment, Part, Query, Reply, Sealed
from shared.messages.people import ErasePart, ExportPart

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
TextTemplate = Literal["login-code"]
Link = Annotated[str, Field(pattern=r"^[^\s\p{C}]+$")]
"""A whole URL, without spaces and control characters: what follows a line break in a mail's text would read as ours."""
ConsentLevel = Literal["general", "none"]


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
    """Render a template and hand the mail over. No reply body."""

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


class LoginCodeVariables(Part):
    """What ``login-code`` shows."""

    code: Annotated[str, Field(pattern=r"^[0-9]{4,10}$")]
    """What to type in."""
    minutes: int
    """How long it works, counted from the order."""


TEXT_VARIABLES: Final[dict[TextTemplate, type[Part]]] = {"login-code": LoginCodeVariables}
"""What each template of a text is given."""


class SendText(Command, wire="mailer.send-text"):
    """Render a template and hand the text over to the provider. No reply body."""

    template: TextTemplate
    to: Sealed
    """The number, E.164."""
    variables: Sealed
    """The JSON of the template's class in ``TEXT_VARIABLES``."""
    ordered_at: Moment
    """When it was first ordered; a text that is late may have gone out already."""
    expires_at: Moment
    """From when on it is of no use to anybody, and not sent any more."""
    client_id: str | None = None
    """As in SendMail."""
    locale: Locale | None = None
    """As in SendMail."""
    other_locales: tuple[Locale, ...] = ()
    """The languages that its reader understands besides, the dearest first."""
    order_id: str | None = None
    """The id of the first order, on a repeated attempt."""
    attempt: int = 1
    """Counts from 1, the first order's."""


class RecordMarketingConsent(Command, wire="mailer.record-marketing-consent"):
    """Store what an existing user consents to. No reply body."""

    user_id: str
    level: ConsentLevel
    source: str
    """Where the choice was made: ``user``, ``internal``."""


class GetMarketingConsent(Query, wire="mailer.get-marketing-consent"):
    """Which mails a user wants beside those they need. Reply: MarketingConsentView. Refused: ``awaiting_consent``."""

    user_id: str


class MarketingConsentView(Reply):
    """What a user consents to."""

    level: ConsentLevel


class MarketingConsentChanged(Event, wire="mailer.marketing-consent-changed"):
    """A user consented to something else than before."""

    user_id: str
    level: ConsentLevel
    source: str
    at: Moment


class MailHandedOver(Event, wire="mailer.mail-handed-over"):
    """The mail server has taken a mail."""

    delivery_id: str
    template: Template
    at: Moment


class TextHandedOver(Event, wire="mailer.text-handed-over"):
    """The provider of texts has taken one."""

    delivery_id: str
    template: TextTemplate
    at: Moment


class ExportUserFromMailer(ExportPart, wire="mailer.export-user-from-mailer"):
    """Hand over what the mailer holds on a user."""


class EraseUserFromMailer(ErasePart, wire="mailer.erase-user-from-mailer"):
    """Remove what the mailer holds on a user."""
