"""Texts (SMS): templates with their variables, and the command to send one."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.mailer.mails import SendOrder
from shared.messages.message import Event, Part
from shared.messages.types import Locale, Many, Moment

TextTemplate = Literal["login-code"]


class LoginCodeVariables(Part):
    """Variables of ``login-code``."""

    code: Annotated[str, Field(pattern=r"^[0-9]{4,10}$")]
    minutes: int
    """How long the code works, in minutes from the order."""


TEXT_VARIABLES: Final[dict[TextTemplate, type[Part]]] = {"login-code": LoginCodeVariables}
"""Model of each template's variables."""


class SendText(SendOrder, wire="mailer.send-text"):
    """Render a text and hand it over to the provider."""

    template: TextTemplate
    ordered_at: Moment
    """Time of the first order. A late command may be a repeat of a text that was sent before."""
    expires_at: Moment
    """When the text becomes useless and is not sent any more."""
    other_locales: Many[Locale] = ()
    """Further languages of the recipient, by preference."""


class TextHandedOver(Event, wire="mailer.text-handed-over"):
    """The provider accepted a text."""

    delivery_id: str
    template: TextTemplate
    at: Moment
