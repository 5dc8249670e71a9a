"""Is this their password? Asked in the same way of owners and of users of applications."""

from __future__ import annotations

from typing import Protocol, TypeVar

from services.auth.context import Auth
from services.auth.limits import trait
from shared.bus.work import Work
from shared.messages.auth.errors import WrongCredentials
from shared.networks import prefix


class WithPassword(Protocol):
    """Whoever has a password."""

    @property
    def password_hash(self) -> str:
        """What is kept of it."""


Known = TypeVar("Known", bound=WithPassword)


async def proven(known: Known | None, password: str, subject: str, work: Work, auth: Auth) -> Known:
    """Whoever was looked for, once they have shown their password.

    An unknown address takes the same way as a wrong password, the counting included. Who comes from a network that the
    person has logged in from before has a budget of their own, so that strangers can't use it up.

    Args:
        known: whom the address belongs to; None: nobody.
        password: as it came.
        subject: names the address, and where it was looked for.
        work: what is filled.
        auth: where.

    Raises:
        Throttled: too many wrong ones lately; this one was not looked at.
        WrongCredentials: nobody, or another password.
        FieldRefused: the password is too long to be one.
        Unavailable: too many passwords wait to be looked at.
    """
    network = trait("network", None if work.caller.client_ip is None else prefix(work.caller.client_ip))
    room = await auth.limits.room({"passwords-per-user": subject}, work, traits=network)
    room.judge()
    right = await auth.passwords.recognise(password, None if known is None else known.password_hash)
    if known is None or not right:
        room.take()
        raise WrongCredentials
    (await auth.limits.acquaintance(subject, network)).remember(work)
    return known
