"""TODO."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.message import Command, Event, Locale, Moment, Part, Sealed

TextTemplate = Literal["login-code"]


class LoginCodeVariables(Part):
    """What ``login-code`` shows."""

    code: Annotated[str, Field(pattern=r"^[0-9]{4,10}$")]
    """What to type in."""
    minutes: int
    """How long it works, counted from the order."""


TEXT_VARIABLES: Final[dict[TextTemplate, type[Part]]] = {"login-code": LoginCodeVariables}
"""What each template of a text is given."""


class SendText(Command, wire="mailer.send-text"):
    """Render a template and hand the text over to the provider."""

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


class TextHandedOver(Event, wire="mailer.text-handed-over"):
    """The provider of texts has taken one."""

    delivery_id: str
    template: TextTemplate
    at: Moment
