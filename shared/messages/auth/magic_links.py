"""TODO."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.auth.errors import ClientDisabled, ClientNotFound, InvalidEmail, InvalidRedirectUri, Throttled
from shared.messages.billing.errors import AlreadySubscribed, TrialAlreadyUsed
from shared.messages.message import Command, Locale, NonEmpty, Part

CodeChallenge = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9_-]{43}|[0-9a-f]{64})$")]
"""SHA-256 of the verifier in web-safe base64 without padding (RFC 7636 section 4.2), or in hex for old clients."""


Platform = Literal["mac", "windows", "linux"]
"""What a device runs."""


class Device(Part):
    """The device a login or a trial is asked from."""

    platform: Platform | None = None
    beak_id: str | None = None
    """The app's own installation id."""
    fingerprint: str | None = None
    """A stable hash of the hardware, made by the app."""


class LinkRequest(Command):
    """What every order of a magic link says (RFC 7636 for the code challenge)."""

    client_id: NonEmpty
    """The app's."""
    redirect_uri: str
    """One of the app's, character by character: where the link leads."""
    state: str
    """Comes back in the link, URL-encoded."""
    code_challenge_method: Literal["S256"]
    code_challenge: CodeChallenge
    identifier_type: Literal["email"]
    identifier_value: str
    """The address."""
    device: Device | None = None
    locale: Locale | None = None
    """The language that the mail is to be written in; one that there is not, or none: the app's."""


# Not ``personal``: rows keep nothing of it but a hash, and its challenge makes that one hard to guess.
class SendMagicLink(
    LinkRequest,
    wire="auth.send-magic-link",
    refuses=(
        ClientNotFound,
        ClientDisabled,
        InvalidRedirectUri,
        InvalidEmail,
        Throttled,
    ),
):
    """Mail a link that logs this address in.

    Whether the address is known changes nothing, in the answer or in its time.
    """


class CreateTrialAndMagicLink(
    LinkRequest,
    wire="auth.create-trial-and-magic-link",
    personal=True,
    refuses=(
        *SendMagicLink.refuses,
        AlreadySubscribed,
        TrialAlreadyUsed,
    ),
):
    """Start a trial for this address and device, then mail its magic link. The user is made if need be."""

    device: Device


class SendTrialMagicLink(
    LinkRequest,
    wire="auth.send-trial-magic-link",
    personal=True,
    refuses=(ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail),
):
    """Mail the magic link of a trial that has been started."""
