"""Base classes of all messages: commands, queries, events and replies, registered by wire name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    SerializationInfo,
)
from pydantic_core import CoreSchema, core_schema

from shared.errors import Refusal

MESSAGES: dict[str, type[Message]] = {}
"""All message classes by wire name."""


def iso_milliseconds(moment: datetime) -> str:
    """Format a time as ISO 8601 in UTC with milliseconds and ``Z``: ``2026-11-21T06:05:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[AwareDatetime, PlainSerializer(iso_milliseconds, return_type=str, when_used="json")]
"""A time. JSON input needs an offset; JSON output is in UTC with milliseconds and ``Z``."""
Locale = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")]
"""A language tag (RFC 5646), case-insensitive: ``de``, ``de-AT``, ``zh-Hant-TW``."""
NonEmpty = Annotated[str, Field(min_length=1)]
"""A string of at least one character. IDs in requests are opaque, so they have no stricter format."""


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

    @property
    def plain(self) -> str:
        """The plain text, available only in the process that created it.

        Raises:
            ValueError: this process holds only the ciphertext.
        """
        if self._plain is None:
            raise ValueError("sealed: only the receiving service can decrypt this")
        return self._plain

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

        text = core_schema.with_info_after_validator_function(parse, core_schema.str_schema(strict=True))
        return core_schema.json_or_python_schema(
            json_schema=text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), text]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                dump, info_arg=True, return_schema=core_schema.str_schema()
            ),
        )


class Message(BaseModel):
    """Base of commands, queries and events. Frozen; readers ignore unknown fields.

    A subclass declares its contract as class arguments::

        class GetUser(Query, wire="auth.get-user", reply=UserView, refuses=(UserNotFound,)):

    The first part of the wire name is the service that handles or publishes the message. Optional fields may be added
    freely; any other change is a new class with a new wire name.
    """

    # Validation errors are logged, and an invalid body may contain a secret: hide_input_in_errors leaves it out.
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    wire: ClassVar[str] = ""
    """Wire name; empty for an abstract base."""
    service: ClassVar[str] = ""
    """First part of the wire name."""
    topic: ClassVar[str] = ""
    """Kafka topic, without the deployment's prefix."""
    reply: ClassVar[type[BaseModel] | None] = None
    """Model of the reply; None if the reply has no body."""
    refuses: ClassVar[tuple[type[Refusal], ...]] = ()
    """Refusals that the handler may raise. ``unavailable`` is not listed: any message can get it."""
    reply_sealed: ClassVar[bool] = False
    """Whether the reply contains secrets and is therefore encrypted for the gateway."""
    tombstone: ClassVar[bool] = False
    """Whether the record has no value, which removes its key from a compacted topic."""
    personal: ClassVar[bool] = False
    """Whether the message or its reply contains readable personal data besides IDs: rows then store it encrypted."""
    audited: ClassVar[bool] = False
    """Whether calls with the internal key get an audit entry."""

    key: str = Field(default="", exclude=True, repr=False)
    """Ordering key: the subject's ID. Messages with the same key are handled one at a time, in order. It is the
    record's key, not part of the body. Empty: the message has no order relative to others."""

    def __init_subclass__(
        cls,
        *,
        wire: str = "",
        topic: str = "",
        reply: type[BaseModel] | None = None,
        refuses: tuple[type[Refusal], ...] = (),
        reply_sealed: bool = False,
        tombstone: bool = False,
        personal: bool = False,
        audited: bool = False,
        **options: Any,
    ) -> None:
        """Register the class under its wire name; an abstract base has none.

        The arguments set the class attributes of the same names; ``options`` are passed on to pydantic. ``topic``
        defaults to ``<service>.commands`` or ``<service>.events``.

        Raises:
            TypeError: another class has this wire name.
        """
        super().__init_subclass__(**options)
        if not wire:
            return
        if wire in MESSAGES and MESSAGES[wire].__qualname__ != cls.__qualname__:
            raise TypeError(f"wire name {wire} is taken by {MESSAGES[wire].__qualname__}")
        cls.wire = wire
        cls.reply = reply
        cls.refuses = refuses
        cls.reply_sealed = reply_sealed
        cls.tombstone = tombstone
        cls.personal = personal
        cls.audited = audited
        cls.service = wire.partition(".")[0]
        cls.topic = topic or f"{cls.service}.{cls.channel()}"
        MESSAGES[wire] = cls

    @classmethod
    def channel(cls) -> str:
        """Second part of the default topic: ``commands`` or ``events``."""
        return "commands"


class Command(Message):
    """An order with exactly one handler; takes effect once."""


class Query(Message):
    """A read: no effects, no inbox row; dropped after its deadline."""


class Event(Message):
    """A fact, published to all consumer groups that subscribe."""

    @classmethod
    def channel(cls) -> str:
        """Events of a service share the topic ``<service>.events``."""
        return "events"


class Part(BaseModel):
    """Base of objects nested in messages and replies."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True)


class Reply(Part):
    """Base of replies to commands and queries: views, whose JSON is the body of the HTTP response."""


class Caller(Part):
    """The authenticated sender of a request, as verified by the gateway."""

    kind: Literal["anonymous", "user", "internal", "service"] = "anonymous"
    user_id: str | None = None
    """The access token's user; only for ``user``."""
    token_id: str | None = None
    """The access token's ``jti``, which identifies the session to auth; only for ``user``."""
    client_ip: str | None = None


ANONYMOUS = Caller()
SERVICE = Caller(kind="service")
