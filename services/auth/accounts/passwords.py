"""How is a password kept, and recognised? As an Argon2id hash (RFC 9106), made in a few threads of its own.

A hash takes a tenth of a second of all cores and 64 MiB, on purpose. So the event loop never makes one, there are never
more than a few at once, and whoever would wait too long for theirs is told to come back.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any, Final, TypeVar

from argon2 import Parameters, PasswordHasher
from argon2.exceptions import VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY
from prometheus_client import Counter, Gauge

from shared.errors import Unavailable
from shared.messages.auth.errors import FieldRefused

USUAL_SECONDS: Final = 0.1
"""What a hash takes, until some have been made here."""
NICENESS: Final = 5
"""How much nicer than its process a hashing thread is."""
WAITING: Final = Gauge("nest_auth_password_hashes_waiting", "Passwords that are being hashed or wait for it.")
TURNED_AWAY: Final = Counter("nest_auth_password_hashes_turned_away", "Calls refused since too many passwords waited.")
Result = TypeVar("Result")


class Passwords:
    """Hashes passwords and recognises them.

    Args:
        threads: how many are hashed at once.
        longest_wait: in seconds; whoever would have to wait longer is told to come back.
        old_clients: whether passwords of 6 and 7 characters are taken.
        parameters: of Argon2id; by default RFC 9106's second recommended option.
    """

    def __init__(
        self,
        *,
        threads: int,
        longest_wait: float,
        old_clients: bool,
        parameters: Parameters = RFC_9106_LOW_MEMORY,
    ) -> None:
        self._hasher = PasswordHasher.from_parameters(parameters)
        self._pool = ThreadPoolExecutor(threads, "argon2", initializer=_let_others_go_first)
        self._threads = threads
        self._longest_wait = longest_wait
        self._seconds = USUAL_SECONDS
        self._under_way = 0
        self._rule = PasswordRule(known_passwords(), old_clients)
        self._nobodys = nobodys_hash(parameters)

    async def hash_new(self, password: str) -> str:
        """What is kept of a password that somebody has chosen.

        Raises:
            FieldRefused: too short, too long, or known to guessers.
            Unavailable: too many wait.
        """
        chosen = normal(password)
        self._rule.judge(chosen)
        return await self._aside(lambda: self._hasher.hash(chosen))

    async def hash_again(self, password: str) -> str:
        """What is kept from now on of a password that was chosen long ago, by whatever rule.

        Raises:
            FieldRefused: too long.
            Unavailable: too many wait.
        """
        chosen = normal(password)
        return await self._aside(lambda: self._hasher.hash(chosen))

    async def recognise(self, password: str, kept: str | None) -> bool:
        """Whether a password is the one that this was kept of.

        Args:
            password: as it came.
            kept: None where there is nobody; that takes the same time as a wrong password, and is wrong.

        Raises:
            FieldRefused: too long.
            Unavailable: too many wait.
        """
        shown = normal(password)
        right = await self._aside(lambda: self._matches(kept or self._nobodys, shown))
        return right and kept is not None

    def outdated(self, kept: str) -> bool:
        """Whether this was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(kept)

    async def aclose(self) -> None:
        """End the threads; what is under way is finished first, and nothing more is begun."""
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _matches(self, kept: str, shown: str) -> bool:
        try:
            return self._hasher.verify(kept, shown)
        except VerifyMismatchError:
            # Anything else, such as a hash that is none, is a fault and no wrong password.
            return False

    async def _aside(self, work: Callable[[], Result]) -> Result:
        wait = self._wait()
        if wait > self._longest_wait:
            TURNED_AWAY.inc()
            raise Unavailable(retry_after=ceil(wait))
        self._under_way += 1
        WAITING.set(self._under_way)
        future = self._pool.submit(_timed, work)
        loop = asyncio.get_running_loop()
        # Counted until the thread is done with it: whoever waited for it may have been cancelled long before.
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._done, done))
        return (await asyncio.wrap_future(future))[0]

    def _wait(self) -> float:
        """How long one more would wait for a thread, in seconds, as far as can be told."""
        ahead = max(0, self._under_way - self._threads + 1)
        return ahead * self._seconds / self._threads

    def _done(self, future: Future[tuple[Any, float]]) -> None:
        self._under_way -= 1
        WAITING.set(self._under_way)
        if not future.cancelled() and future.exception() is None:
            self._seconds += (future.result()[1] - self._seconds) / 8


def nobodys_hash(parameters: Parameters) -> str:
    """A hash that no password has, and that takes as long to compare with as any made with these parameters."""
    salt, digest = (_base64(secrets.token_bytes(size)) for size in (parameters.salt_len, parameters.hash_len))
    costs = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    return f"$argon2id$v={parameters.version}${costs}${salt}${digest}"


@cache
def known_passwords() -> frozenset[str]:
    """The passwords that guessers try first; where they are from, the file says."""
    text = (files("services.auth") / "known_passwords.txt").read_text("utf-8")
    return frozenset(text.partition("\n\n")[2].split("\n")) - {""}


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _let_others_go_first() -> None:
    """On Linux a thread has a niceness of its own, and argon2's own threads inherit it: the event loop stays quick."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).rstrip(b"=").decode()


SHORTEST: Final = 8
"""NIST SP 800-63B section 3.1.1.2."""


SHORTEST_OF_OLD_CLIENTS: Final = 6


LONGEST: Final = 255


def normal(password: str) -> str:
    """The one form that is counted and hashed: what two keyboards write differently is the same (NFKC).

    Raises:
        FieldRefused: more than 255 characters.
    """
    # Looked at before as well: a form of 18 times the length is not made of a text of any length.
    found = unicodedata.normalize("NFKC", password) if len(password) <= LONGEST else password
    if len(found) > LONGEST:
        raise FieldRefused("password", f"at most {LONGEST} characters")
    return found


@dataclass(frozen=True, slots=True)
class PasswordRule:
    """What a new password must be.

    Attributes:
        known: the passwords that guessers try first, in lower case.
        old_clients: whether 6 and 7 characters are taken too; those are not looked up among the known ones, of which
            many are so short.
    """

    known: frozenset[str]
    old_clients: bool

    def judge(self, password: str) -> None:
        """Let a new password pass.

        Args:
            password: in its normal form.

        Raises:
            FieldRefused: it is too short, or one of the known ones.
        """
        shortest = SHORTEST_OF_OLD_CLIENTS if self.old_clients else SHORTEST
        if len(password) < shortest:
            raise FieldRefused("password", f"at least {shortest} characters")
        if len(password) >= SHORTEST and password.lower() in self.known:
            raise FieldRefused("password", "one of the passwords that are guessed first; choose another")
