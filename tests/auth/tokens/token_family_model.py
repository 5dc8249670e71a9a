"""Reference model of token families as the API documentation describes them, without a database."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

GRACE_PERIOD = timedelta(seconds=30)
REFRESH_TOKEN_LIFETIME = timedelta(days=60)
FAMILY_LIFETIME = timedelta(days=365)
ACCESS_TOKEN_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True)
class StoredFamily:
    """What is stored of a login: of its refresh tokens only the newest one, at this position."""

    client: str
    began: datetime
    position: int
    issued: datetime
    renewed: datetime | None
    revoked: bool


@dataclass(frozen=True)
class Stored:
    """What is stored of a user's logins, and the number of published events."""

    families: tuple[StoredFamily, ...]
    thefts: int
    revoked_sessions: int


@dataclass
class Family:
    """A login: when each of its refresh tokens was issued, when it was used, and the time of the last access token."""

    client: str
    issued: list[datetime]
    used: list[datetime | None] = field(default_factory=lambda: [None])
    revoked: bool = False
    renewed: datetime | None = None

    def stored(self) -> StoredFamily:
        return StoredFamily(
            self.client, self.issued[0], len(self.issued) - 1, self.issued[-1], self.renewed, self.revoked
        )

    def expiry(self, position: int) -> datetime:
        return min(self.issued[position] + REFRESH_TOKEN_LIFETIME, self.issued[0] + FAMILY_LIFETIME)

    def live(self, now: datetime) -> bool:
        return not self.revoked and now < max(self.expiry(-1), self.access_expiry())

    def access_expiry(self) -> datetime:
        return (self.renewed or self.issued[-1]) + ACCESS_TOKEN_LIFETIME


@dataclass
class Model:
    """The token families of a user, the disabled apps, and the number of published events."""

    families: list[Family] = field(default_factory=list)
    disabled: set[str] = field(default_factory=set)
    thefts: int = 0
    revoked_sessions: int = 0

    def stored(self) -> Stored:
        return Stored(tuple(family.stored() for family in self.families), self.thefts, self.revoked_sessions)

    def refresh(self, number: int, position: int, client: str, now: datetime) -> int | str:
        """Position of the successor, or the code of the refusal."""
        family = self.families[number]
        used = family.used[position]
        if used is None:
            if family.revoked:
                return "authorization_not_found"
            if now >= family.expiry(position):
                return "token_expired"
            if client != family.client:
                return "incorrect_client"
        elif family.revoked or client != family.client or position + 2 != len(family.used):
            self.thefts += not family.revoked
            family.revoked = True
            return "token_used"
        elif now >= family.expiry(position + 1):
            return "token_expired"
        if client in self.disabled:
            return "client_disabled"
        if used is None:
            family.used[position:] = [now, None]
            family.issued.append(now)
            family.renewed = None
        elif now - used > GRACE_PERIOD and now >= family.access_expiry():
            family.renewed = now
        return position + 1

    def revoke(self, number: int, which: str, now: datetime) -> int | str:
        """Number of live sessions that were revoked, or the code of the refusal."""
        current = self.families[number]
        if which == "one" and not current.live(now):
            return "not_found"
        if which in {"others", "current"} and current.revoked:
            return "no_current_session"
        is_current = {"one": {True}, "current": {True}, "others": {False}, "all": {True, False}}[which]
        ending = [family for family in self.families if (family is current) in is_current]
        live = sum(family.live(now) for family in ending)
        for family in ending:
            family.revoked = True
        self.revoked_sessions += live
        return live
