"""Rate limits: their rules, and how far a person, network or client has used them."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from shared.messages.auth.errors import InvalidEmail, InvalidPhoneNumber
from shared.messages.message import OperatorList, Part, Reply
from shared.messages.types import Many, MaxPlain, Moment, Sealed

SubjectKind = Literal["address", "number", "network", "client", "country"]
RateLimitPer = Literal["address", "number", "identifier", "user", "prefix", "client", "country", "deployment"]
Subject = Annotated[Sealed, MaxPlain(512)]


class RateLimitRule(Part):
    """A rule of a limit: at most ``count`` uses within any period of ``seconds``."""

    count: int
    """Number of uses that the rule allows."""
    seconds: int
    """Length of the period, in seconds."""
    used: int | None
    """Uses of the subject that count now; null if the limit was not read for a subject. Those of a network, client,
    country or the deployment are rounded to twelfths of the period, so some may count a little longer."""


class RateLimitView(Part):
    """A rate limit."""

    name: str
    """Name of the limit, for example ``magic-links-per-address``."""
    setting: str
    """Environment variable that sets it."""
    per: RateLimitPer
    """What is counted apart: ``identifier`` is an address or number, ``prefix`` an IP prefix (/24 of IPv4, /64 of
    IPv6)."""
    rules: Many[RateLimitRule]
    """The rules, all of which apply; empty if there is no limit."""
    free_at: Moment | None
    """When the limit allows the subject's next use; null if it allows one now, or was not read for a subject."""


class RateLimitsView(Reply):
    """The rate limits of auth."""

    limits: Many[RateLimitView]
    """The limits, those of persons first. With a subject only those that were read."""
    lift_loopback: bool
    """Whether limits per IP prefix ignore callers on this machine."""


class ListRateLimits(
    OperatorList,
    wire="auth.list-rate-limits",
    audited=True,
    reply=RateLimitsView,
    refuses=(InvalidEmail, InvalidPhoneNumber),
):
    """List the rate limits, and how far one subject has used them.

    A known device of a person has counts of its own, which are not included; they expire with the limit's period.
    """

    kind: SubjectKind | None = None
    """Kind of ``subject``."""
    subject: Subject | None = None
    """Email address, phone number, IP address, ID of a client or ISO 3166-1 code of a country whose uses are read, as
    ``kind`` says. Without it only the uses of the whole deployment are read."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.kind is None) != (self.subject is None):
            raise ValueError("give kind and subject together")
        return self
