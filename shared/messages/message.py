"""What is a message: commands order, queries ask, events report, replies answer."""

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
"""Every message class by its wire name."""


def iso_milliseconds(moment: datetime) -> str:
    """The moment in UTC as ISO 8601 with milliseconds and ``Z``: ``2026-11-21T06:05:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[AwareDatetime, PlainSerializer(iso_milliseconds, return_type=str, when_used="json")]
"""A point in time, with its offset; written to JSON always in UTC, milliseconds and ``Z``."""


class Sealed:
    """A secret on its way to one service.

    The process that makes it holds the plain text (``Sealed.of``); everything that leaves that process, be it
    a record, a row or a log line, carries the ciphertext only. The receiver opens it with its own key.
    """

    __slots__ = ("_plain", "ciphertext")

    def __init__(self, ciphertext: str | None, plain: str | None = None) -> None:
        self.ciphertext = ciphertext
        self._plain = plain

    @classmethod
    def of(cls, plain: str) -> Self:
        """A secret to be sealed when its message is encoded."""
        return cls(None, plain)

    @property
    def plain(self) -> str:
        """The plain text, in the process that made it.

        Raises:
            ValueError: this process only holds the ciphertext.
        """
        if self._plain is None:
            raise ValueError("sealed: only the receiving service can open this")
        return self._plain

    def __repr__(self) -> str:
        return "Sealed(…)"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """From JSON: ciphertext, or plain text where the context says ``plain``. To JSON: ciphertext only."""

        def parse(value: str, info: core_schema.ValidationInfo) -> Sealed:
            return cls.of(value) if info.context and info.context.get("plain") else cls(value)

        def dump(value: Sealed, info: SerializationInfo) -> str:
            # Not kept: the next message that carries this secret may be for another receiver.
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
    """What travels on the bus. Frozen; readers ignore fields they don't know.

    A class is declared with its wire name, ``class GetUser(Query, wire="auth.get-user")``, whose first part is
    the service it belongs to. Optional fields may be added freely; any other change is a new class.
    """

    # What a wrong body holds may be a secret, and an error's text ends up in logs.
    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, hide_input_in_errors=True)

    wire: ClassVar[str] = ""
    service: ClassVar[str] = ""
    topic: ClassVar[str] = ""
    reply_sealed: ClassVar[bool] = False
    """Whether the answer carries secrets and so travels sealed for the gateway."""
    tombstone: ClassVar[bool] = False
    """Whether its record has no value: on a compacted topic it removes what stands under its key."""
    personal: ClassVar[bool] = False
    """Whether it, or its reply, says readably more of a person than ids: rows keep it sealed."""
    audited: ClassVar[bool] = False
    """Whether the audit is told what came of it when it was asked with the internal key."""

    reply: ClassVar[type[BaseModel] | None] = None
    """Model of the reply; None if the reply has no body."""
    refuses: ClassVar[tuple[type[Refusal], ...]] = ()
    """Refusals that a client of the HTTP API can receive instead of the reply."""

    key: str = Field(default="", exclude=True, repr=False)
    """The subject's id: messages with one key are handled one at a time, in order. Travels as the record's key,
    not in its body. Empty: ordered by its own id alone."""

    def __init_subclass__(
        cls,
        *,
        wire: str = "",
        topic: str = "",
        reply_sealed: bool = False,
        tombstone: bool = False,
        personal: bool = False,
        audited: bool = False,
        reply: type[BaseModel] | None = None,
        refuses: tuple[type[Refusal], ...] = (),
        **options: Any,
    ) -> None:
        """Register the class under its wire name.

        Raises:
            TypeError: the wire name is taken.
        """
        super().__init_subclass__(**options)
        if not wire:
            return
        if wire in MESSAGES and MESSAGES[wire].__qualname__ != cls.__qualname__:
            raise TypeError(f"wire name {wire} is taken by {MESSAGES[wire].__qualname__}")
        cls.wire = wire
        cls.reply_sealed = reply_sealed
        cls.tombstone = tombstone
        cls.personal = personal
        cls.audited = audited
        cls.reply = reply
        cls.refuses = refuses
        cls.service = wire.partition(".")[0]
        cls.topic = topic or f"{cls.service}.{cls.channel()}"
        MESSAGES[wire] = cls

    @classmethod
    def channel(cls) -> str:
        """The second half of the topic's name: ``commands`` or ``events``."""
        return "commands"


class Command(Message):
    """An order with one handler; takes effect once."""


class Query(Message):
    """A question: no effects, no inbox row, dropped once its deadline is over."""


class Event(Message):
    """A fact, announced to whoever subscribes."""

    @classmethod
    def channel(cls) -> str:
        """Events of a service share one topic."""
        return "events"


class Part(BaseModel):
    """A piece of a message that has fields of its own."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Reply(BaseModel):
    """The answer to a command or a query: a view, whose JSON is what the client reads."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Caller(BaseModel):
    """Who asked, as the gateway has verified it."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    kind: Literal["anonymous", "user", "internal", "service"] = "anonymous"
    user_id: str | None = None
    """The user of the bearer token; only for ``user``."""
    token_id: str | None = None
    """The bearer token's ``jti``, by which auth knows the session; only for ``user``."""
    client_ip: str | None = None


ANONYMOUS = Caller()
SERVICE = Caller(kind="service")


Locale = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")]
"""A language tag (RFC 5646), in any case: ``de``, ``de-AT``, ``zh-Hant-TW``."""


NonEmpty = Annotated[str, Field(min_length=1)]
"""Ids that clients send are opaque: any non-empty one is looked up."""
