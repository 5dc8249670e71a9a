"""Types of message fields, with the maximum length of every text and list.

What clients send has narrow limits. Views, events and commands between services have wide ones, because messages and
stored values from earlier versions must remain readable: ``MAX_TEXT`` characters, and ``MAX_LISTED`` elements.

A type with a description describes every field of that type in the API reference; such fields have no docstring.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self, TypeVar
from unicodedata import category

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    SerializationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shared.messages.languages import TAG_PATTERN, language_tag

T = TypeVar("T")
MAX_TEXT: Final = 65_536
"""Maximum length of a text without a narrower limit, in characters."""
MAX_LISTED: Final = 10_000
"""Maximum number of elements of a list without a narrower limit."""
MAX_CIPHERTEXT: Final = 512 * 1024
"""Maximum length of an encrypted secret, in characters: that of a message."""
MAX_ID: Final = 128
_LOOKALIKES: Final = str.maketrans("ILO", "110")
_BLANKS: Final = "\ufeff" + "".join(
    character for character in map(chr, range(0x3001)) if character.isspace() or category(character) == "Cf"
)
"""All white space of Unicode, and its invisible format characters, which are mostly in this range too."""


def iso_milliseconds(moment: datetime) -> str:
    """Format a time as ISO 8601 in UTC with milliseconds and ``Z``: ``2026-11-21T06:05:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is out of range in UTC") from None


Moment = Annotated[
    AwareDatetime, AfterValidator(_in_utc), PlainSerializer(iso_milliseconds, return_type=str, when_used="json")
]
"""A time, in UTC. JSON input needs an offset; JSON output has milliseconds and ``Z``."""


def trimmed_address(text: str) -> str:
    """Return a typed email address without line breaks and without white space around it.

    The value sanitization algorithm of HTML's ``<input type=email>`` (section 4.10.5.1.5), for all white space and
    invisible format characters of Unicode. Apps, keyboards and other systems add a space after a completed word, and an
    address that was copied from a page may have a byte order mark or bidirectional marks around it.
    """
    return text.replace("\n", "").replace("\r", "").strip(_BLANKS)


def normal_api_key(text: str) -> str:
    """Return the normal form of an application's API key; every spelling that is read as one key has the same.

    Lower case is read as upper case, I and L as 1, O as 0, as in Crockford's base 32
    (https://www.crockford.com/base32.html). A text with characters outside ASCII is no key and is returned unchanged:
    some letters of other alphabets are ASCII in upper case.
    """
    return text.upper().translate(_LOOKALIKES) if text.isascii() else text


def _normal_locale(value: Any) -> Any:
    return (language_tag(value) or value) if isinstance(value, str) else value


def _readable_locale(value: Any) -> Any:
    return language_tag(value) if isinstance(value, str) else value


MAX_TAG: Final = 64
"""Longer than any language tag in normal form."""
Locale = Annotated[str, Field(pattern=TAG_PATTERN, max_length=MAX_TAG), BeforeValidator(_normal_locale)]
"""A language tag (RFC 5646), case-insensitive: ``de``, ``de-AT``, ``zh-Hant-TW``. Other forms of a tag become this one
(``language_tag``). For what operators set: a text that names no language is refused."""
PreferredLocale = Annotated[Annotated[str, Field(max_length=MAX_TAG)] | None, BeforeValidator(_readable_locale)]
"""The language that a person or an app prefers, as ``Locale``; a text that names no language counts as null."""
NonEmpty = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
"""A string of 1 to 128 characters. IDs in requests are opaque, so they have no stricter format."""
AnyId = Annotated[str, Field(max_length=MAX_ID)]
"""An ID, or an empty string."""
StripeId = Annotated[str, Field(min_length=1, max_length=255)]
"""An ID of Stripe, which has 255 characters at most (https://docs.stripe.com/upgrades)."""
Name = Annotated[str, Field(min_length=1, max_length=256)]
"""A name that operators set."""
Uri = Annotated[str, Field(max_length=2_048)]
"""A URI of at most 2,048 characters."""
State = Annotated[str, Field(min_length=1, max_length=1_024)]
"""An app's own value of at most 1,024 characters."""
TypedAddress = Annotated[str, Field(max_length=512)]
"""An email address as a person types it. In normal form it has 254 characters at most."""
TypedNumber = Annotated[str, Field(max_length=128)]
"""A phone number as a person types it."""
CursorText = Annotated[str, Field(min_length=1, max_length=4_096)]
"""``next_cursor`` of an earlier page, which has its format."""
Many = Annotated[tuple[T, ...], Field(max_length=MAX_LISTED)]
"""A list in a view, an event or a command between services."""
UserId = Annotated[NonEmpty, Field(description="ID of the user.")]
ClientId = Annotated[NonEmpty, Field(description="ID of the client.")]
CreatedAt = Annotated[Moment, Field(description="Time of creation.")]
UpdatedAt = Annotated[Moment, Field(description="Time of the last change.")]
Version = Annotated[int, Field(description="Number of the current version, from 1. Every change increments it.")]
BaseVersion = Annotated[
    int | None,
    Field(description="Expected version: the call is refused if another version is current. Null for any version."),
]
Since = Annotated[Moment | None, Field(description="Only entries of this time or later.")]
Until = Annotated[Moment | None, Field(description="Only entries before this time.")]
Limit = Annotated[int, Field(ge=1, le=500, description="Maximum number of entries in the page.")]
Cursor = Annotated[T | None, Field(description="``next_cursor`` of the previous page.")]
NextCursor = Annotated[str | None, Field(description="``cursor`` of the next page; null on the last one.")]


@dataclass(frozen=True, slots=True)
class MaxPlain:
    """Maximum length of a secret's plain text, in characters: ``Annotated[Sealed, MaxPlain(255)]``.

    It is checked where the secret arrives in plain text. Of a ciphertext only the length as such is limited.
    """

    characters: int

    def check(self, secret: Sealed) -> Sealed:
        """Return the secret; raise an error if it is too long."""
        if secret.plain_length > self.characters:
            raise PydanticCustomError(
                "string_too_long", "String should have at most {max_length} characters", {"max_length": self.characters}
            )
        return secret

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check after the type of the field."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the limit to the JSON Schema."""
        return {**handler(schema), "maxLength": self.characters}


class Sealed:
    """A secret, encrypted for one receiving service.

    The process that creates it holds the plain text (``Sealed.of``). Records, rows and log lines carry only the
    ciphertext, which the receiving service decrypts with its own key.
    """

    __slots__ = ("_plain", "ciphertext")

    def __init__(self, ciphertext: str | None, plain: str | None = None) -> None:
        self.ciphertext = ciphertext
        self._plain = plain

    @classmethod
    def of(cls, plain: str) -> Self:
        """Wrap a plain text, which is encrypted when its message is encoded."""
        return cls(None, plain)

    @classmethod
    def of_json(cls, part: BaseModel) -> Self:
        """Wrap the JSON of an object, without fields that have their defaults."""
        return cls.of(part.model_dump_json(exclude_defaults=True))

    @property
    def plain(self) -> str:
        """The plain text, available only in the process that created it.

        Raises:
            ValueError: this process holds only the ciphertext.
        """
        if self._plain is None:
            raise ValueError("sealed: only the receiving service can decrypt this")
        return self._plain

    @property
    def plain_length(self) -> int:
        """Length of the plain text in characters; 0 if this process holds only the ciphertext."""
        return 0 if self._plain is None else len(self._plain)

    def __repr__(self) -> str:
        return "Sealed(…)"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse ciphertext, or plain text if the validation context has ``plain``; serialize ciphertext only."""

        def parse(value: str, info: core_schema.ValidationInfo) -> Sealed:
            return cls.of(value) if info.context and info.context.get("plain") else cls(value)

        def dump(value: Sealed, info: SerializationInfo) -> str:
            # The ciphertext is not stored on the object: the next message with this secret may have another receiver.
            return info.context["seal"](value.plain) if value.ciphertext is None else value.ciphertext  # type: ignore[index]

        text = core_schema.with_info_after_validator_function(
            parse, core_schema.str_schema(strict=True, max_length=MAX_CIPHERTEXT)
        )
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                dump, info_arg=True, return_schema=core_schema.str_schema()
            ),
        )
