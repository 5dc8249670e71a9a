"""Base classes of all messages: commands, queries, events and replies, registered by wire name."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import Refusal
from shared.messages.types import MAX_TEXT

SERVICE_COMMANDS: Final = "auth.service-commands"
"""Topic of the commands that other services send to auth. They may not write to ``auth.commands``."""
GATEWAY: Final = "gateway"
"""First part of the wire names of queries that the gateway answers itself; no process sends them."""
MESSAGES: dict[str, type[Message]] = {}
"""All message classes by wire name."""


class Part(BaseModel):
    """Base of messages, replies and the objects in them. Frozen; readers ignore unknown fields."""

    # Validation errors are logged, and an invalid body may contain a secret: hide_input_in_errors leaves it out.
    # A process uses few of the messages: defer_build builds the validators of those alone, so that it starts sooner.
    # The maximum length applies to texts without a limit of their own.
    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=True, str_max_length=MAX_TEXT
    )


class Reply(Part):
    """Base of replies to commands and queries: views, whose JSON is the body of the HTTP response."""


class Message(Part):
    """Base of commands, queries and events.

    A subclass declares its contract as class arguments::

        class GetUser(Query, wire="auth.get-user", reply=UserView, refuses=(UserNotFound,)):

    The first part of the wire name is the service that handles or publishes the message. Optional fields may be added
    freely; any other change, also of a default, is a new class with a new wire name.
    """

    wire: ClassVar[str] = ""
    """Wire name; empty for an abstract base."""
    service: ClassVar[str] = ""
    """First part of the wire name."""
    topic: ClassVar[str] = ""
    """Kafka topic, without the deployment's prefix; empty for a query that the gateway answers itself."""
    former_topic: ClassVar[str] = ""
    """Topic of its service on which it was before it had one of its own, and where its records may still be."""
    channel: ClassVar[str] = "commands"
    """Second part of the default topic."""
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
    audited_for_users: ClassVar[bool] = False
    """Whether calls with an access token get one too, as orders that cost money do."""
    audited_as: ClassVar[str] = ""
    """Action in the audit; empty for the one that the wire name names."""

    shared: ClassVar[bool] = False
    """Whether anonymous callers of equal queries get the same reply. The gateway then sends one query for several."""

    key: str = Field(default="", exclude=True, repr=False, max_length=1_024)
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
        audited_for_users: bool = False,
        audited_as: str = "",
        shared: bool = False,
        **options: Any,
    ) -> None:
        """Set the class attributes, and register the class if it has a wire name.

        ``topic`` defaults to ``<service>.commands`` or ``<service>.events``, that of a query to the gateway is empty;
        the others default to the value of the parent;
        ``options`` are pydantic's.

        Raises:
            TypeError: another class has this wire name.
        """
        super().__init_subclass__(**options)
        cls.reply = reply or cls.reply
        cls.refuses = refuses or cls.refuses
        cls.reply_sealed = reply_sealed or cls.reply_sealed
        cls.tombstone = tombstone or cls.tombstone
        cls.personal = personal or cls.personal
        cls.audited = audited or cls.audited
        cls.audited_as = audited_as or cls.audited_as
        cls.audited_for_users = audited_for_users or cls.audited_for_users
        cls.shared = shared or cls.shared
        if not wire:
            return
        if wire in MESSAGES and MESSAGES[wire].__qualname__ != cls.__qualname__:
            raise TypeError(f"wire name {wire} is taken by {MESSAGES[wire].__qualname__}")
        cls.wire = wire
        cls.service = wire.partition(".")[0]
        cls.former_topic = "" if cls.service == GATEWAY else f"{cls.service}.{cls.channel}"
        cls.topic = topic or cls.former_topic
        MESSAGES[wire] = cls


class Command(Message):
    """An order with exactly one handler; takes effect once."""


class Query(Message):
    """A read: no effects, no inbox row; dropped after its deadline."""

    read_seconds: ClassVar[float | None] = None
    """Time limit of all reads of its handler together; by default each of them has the usual time limit."""


def is_query(wire: str) -> bool:
    """Return True if this is the wire name of a query; False for unknown names."""
    return issubclass(MESSAGES.get(wire, Message), Query)


class OperatorList(Query):
    """A list for operators, which may read much. Its time limit is below that of a call to the gateway."""

    read_seconds = 8.0


class Event(Message):
    """A fact, published to all consumer groups that subscribe."""

    channel = "events"


class Caller(Part):
    """The authenticated sender of a request, as verified by the gateway."""

    kind: Literal["anonymous", "user", "internal", "service"] = "anonymous"
    user_id: str | None = None
    """The access token's user; only for ``user``."""
    token_id: str | None = None
    """The access token's ``jti``, which identifies the session to auth; only for ``user``."""
    client_id: str | None = None
    """The access token's client; only for ``user``."""
    client_ip: str | None = None
    key_name: str | None = None
    """Name of the internal key, never the key; only for ``internal``."""


ANONYMOUS = Caller()
SERVICE = Caller(kind="service")
