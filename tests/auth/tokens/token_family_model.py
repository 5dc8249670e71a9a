"""What the API page says of a user's sessions, in some fifty lines and without a database."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

GRACE_PERIOD = timedelta(seconds=30)
UNUSED = timedelta(days=60)
LONGEST = timedelta(days=365)
ACCESS = timedelta(hours=1)


@dataclass
class TokenFamily:
    """A login: when each of its refresh tokens was made, and when it was used."""

    client: str
    born: list[datetime]
    used: list[datetime | None] = field(default_factory=lambda: [None])
    ended: bool = False

    def expiry(self, place: int) -> datetime:
        return min(self.born[place] + UNUSED, self.born[0] + LONGEST)

    def live(self, now: datetime) -> bool:
        return not self.ended and now < max(self.expiry(-1), self.born[-1] + ACCESS)


@dataclass
class Model:
    """A user's chains, the apps that are disabled, and what was announced."""

    chains: list[TokenFamily] = field(default_factory=list)
    disabled: set[str] = field(default_factory=set)
    thefts: int = 0
    ends: int = 0

    def refresh(self, number: int, place: int, client: str, now: datetime) -> int | str:
        """The place of the token that is given in exchange, or the code of the refusal."""
        chain = self.chains[number]
        used = chain.used[place]
        if used is None:
            if chain.ended:
                return "authorization_not_found"
            if now >= chain.expiry(place):
                return "token_expired"
            if client != chain.client:
                return "incorrect_client"
        elif chain.ended or client != chain.client or place + 2 != len(chain.used) or now - used > GRACE_PERIOD:
            self.thefts += not chain.ended
            chain.ended = True
            return "token_used"
        if client in self.disabled:
            return "client_disabled"
        if used is None:
            chain.used[place:] = [now, None]
            chain.born.append(now)
        return place + 1

    def revoke(self, number: int, which: str, now: datetime) -> int | str:
        """How many live sessions were ended, or the code of the refusal."""
        asking = self.chains[number]
        if which == "one" and not asking.live(now):
            return "not_found"
        if which in {"others", "current"} and asking.ended:
            return "no_current_session"
        itself = {"one": {True}, "current": {True}, "others": {False}, "all": {True, False}}[which]
        ending = [chain for chain in self.chains if (chain is asking) in itself]
        ended = sum(chain.live(now) for chain in ending)
        for chain in ending:
            chain.ended = True
        self.ends += ended
        return ended
