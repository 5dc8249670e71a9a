"""Magic links: commands that mail one."""

from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from shared.messages.auth.errors import (
    ClientDisabled,
    ClientNotFound,
    InvalidEmail,
    InvalidRedirectUri,
    NoOpenMagicLink,
    Throttled,
    UserNotFound,
)
from shared.messages.billing.errors import AlreadySubscribed, TrialAlreadyUsed, TrialRefusedByStripe
from shared.messages.message import SERVICE_COMMANDS, Command, Part
from shared.messages.types import NonEmpty, PreferredLocale, State, TypedAddress, Uri, UserId

CodeChallenge = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9_-]{43}|[0-9a-f]{64})$", max_length=64)]
_REFUSALS: Final = (ClientNotFound, ClientDisabled, InvalidRedirectUri, InvalidEmail)
Platform = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,31}$", max_length=32)]
"""``mac``, ``windows``, ``linux``, ``ios``, ``android``, ``web``, or another lower-case word."""
DeviceValue = Annotated[str, Field(min_length=1, max_length=512, pattern=r"\S")]
"""A text that is not only white space: an empty one would make all devices without a value the same device."""
_INSTALLATION_NAMES: Final = AliasChoices("beak_id", "device_id")


def _with_device_id(schema: dict[str, Any]) -> None:
    """Add the other name of ``beak_id`` to a JSON Schema."""
    properties, required = schema["properties"], schema.get("required", [])
    about = "Another name of `beak_id`, which counts if both are given."
    properties["device_id"] = {**properties["beak_id"], "description": about}
    if "beak_id" in required:
        required.remove("beak_id")
        schema["anyOf"] = [{"required": ["beak_id"]}, {"required": ["device_id"]}]


class Device(Part):
    """The device that a login is requested from."""

    model_config = ConfigDict(json_schema_extra=_with_device_id)

    platform: Platform | None = None
    """Operating system of the device: ``mac``, ``windows``, ``linux``, ``ios``, ``android``, ``web``, or another
    lower-case word of at most 32 characters."""
    beak_id: DeviceValue | None = Field(default=None, validation_alias=_INSTALLATION_NAMES)
    """ID of the app's installation, created by the app."""
    fingerprint: DeviceValue | None = None
    """Stable hash of the device's hardware, computed by the app."""

    @model_validator(mode="before")
    @classmethod
    def _one_installation_id(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.keys() >= {"beak_id", "device_id"}:
            dropped = "beak_id" if fields["beak_id"] is None else "device_id"
            return {name: value for name, value in fields.items() if name != dropped}
        return fields


class TrialDevice(Device):
    """The device that a trial is requested from."""

    platform: Platform
    """Operating system, as for ``send_magic_link``."""
    beak_id: DeviceValue = Field(validation_alias=_INSTALLATION_NAMES)
    """ID of the app's installation, created by the app."""
    fingerprint: DeviceValue
    """Stable hash of the device's hardware, computed by the app."""


class LinkRequest(Command):
    """Fields shared by the commands that mail a magic link."""

    client_id: NonEmpty
    """ID of the client that the person logs in to."""
    redirect_uri: Uri
    """Target of the link. Must be one of the client's redirect URIs, character by character."""
    state: State
    """Opaque value of the app, not empty. The link returns it URL-encoded as the query parameter ``state``."""
    code_challenge_method: Literal["S256"]
    """PKCE method (RFC 7636)."""
    code_challenge: CodeChallenge
    """SHA-256 of the code verifier in web-safe base64 without padding (RFC 7636 section 4.2). Old clients may send it
    in lower-case hex."""
    identifier_type: Literal["email"]
    """Kind of ``identifier_value``."""
    identifier_value: TypedAddress
    """Email address that gets the link."""
    device: Device | None = None
    """The requesting device. Devices that have logged in to the address before have rate limits of their own."""
    locale: PreferredLocale = None
    """Language of the mail (RFC 5646), for example ``de-AT``; ``de_AT`` and extensions are accepted. The client's
    language is used if this is omitted, unreadable or not available."""


# Not ``personal``: rows store only a hash of the message, which the challenge in it makes hard to guess.
class SendMagicLink(LinkRequest, wire="auth.send-magic-link", refuses=(*_REFUSALS, Throttled)):
    """Mail a magic link.

    The link is ``<redirect_uri>?state=<state>&code=<code>``. The response and its duration are the same for known and
    unknown addresses.
    """


class SendMagicLinkAndCode(LinkRequest, wire="auth.send-magic-link-and-code", refuses=SendMagicLink.refuses):
    """Mail a magic link and a code of six digits.

    The link is ``<redirect_uri>?state=<state>&code=<code>``. The digits are for people who read the mail on another
    device: they type them on the device that requested the mail, whose app sends them to ``authenticate_user`` together
    with the code verifier. The response and its duration are the same for known and unknown addresses.
    """


class ResendMagicLink(Command, wire="auth.resend-magic-link", refuses=(UserNotFound, NoOpenMagicLink, *_REFUSALS)):
    """Mail a user's last magic link again, for a person whose mail got lost.

    It is the newest link to an address of the user that can still be redeemed. The mail has a new link, and a new code
    if the old one had one, for the same request of the app: only the device that requested it can redeem them. The
    old link works until one of them is redeemed. No rate limit of the address applies.
    """

    user_id: UserId


class CreateTrialAndMagicLink(
    LinkRequest,
    wire="auth.create-trial-and-magic-link",
    personal=True,
    refuses=(*SendMagicLink.refuses, AlreadySubscribed, TrialAlreadyUsed, TrialRefusedByStripe),
):
    """Start a trial and mail a magic link.

    Creates the user if the address is unknown. The link has ``flow=trial`` in its query. Repeat the call after
    ``unavailable``: it continues the same trial.

    The trial is provisional until its link is redeemed. Another call for the address, from any device, mails another
    link to the same trial, and the device of the redeemed link is the one that has had its trial. A trial whose link
    nobody redeems is undone after a day.
    """

    device: TrialDevice
    """The requesting device. It can have one trial."""


class OrderTrialMagicLink(
    LinkRequest, wire="auth.order-trial-magic-link", personal=True, refuses=SendMagicLink.refuses
):
    """Mail a magic link and a code that start a trial when one is redeemed.

    The code is as for ``send_magic_link``. The response does not depend on the address and the device. If one of them
    has had a trial or a subscription, the mail has a link that only logs in. A link that starts a trial has
    ``flow=trial`` in its query. The trial begins within seconds after ``authenticate_user`` has redeemed the link.
    """

    device: TrialDevice
    """The requesting device. It can have one trial."""


class SendTrialMagicLink(
    LinkRequest, wire="auth.send-trial-magic-link", topic=SERVICE_COMMANDS, personal=True, refuses=_REFUSALS
):
    """Mail the magic link of a trial that was started, or that the link will start. Sent by billing."""

    eligible: bool = True
    """Whether the link is one of a trial. The link of a person or device that has had one only logs in."""

    with_digits: bool = False
    """Whether the mail has a typed code beside the link."""

    # An earlier version may have accepted longer ones.
    client_id: str
    redirect_uri: str
    state: str
    identifier_value: str
