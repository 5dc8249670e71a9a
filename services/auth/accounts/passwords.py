"""Password rules, and Argon2id hashing (RFC 9106) in a few dedicated threads.

A hash takes 0.1 s of CPU time and 64 MiB, on purpose. So it is never computed on the event loop, the number of
concurrent hashes is bounded, and a call that would wait too long is refused.
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

import argon2
from argon2.exceptions import VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY
from prometheus_client import Counter, Gauge

from shared.errors import Unavailable
from shared.messages.auth.errors import FieldRefused

MIN_LENGTH: Final = 8
"""NIST SP 800-63B section 3.1.1.2."""
MIN_LENGTH_OF_OLD_CLIENTS: Final = 6
MAX_LENGTH: Final = 255
INITIAL_HASH_SECONDS: Final = 0.1
"""Estimated duration of a hash, until durations have been measured."""
NICENESS: Final = 5
"""Niceness of the hashing threads, relative to the process."""
WAITING: Final = Gauge("nest_auth_password_hashes_waiting", "Password hashes being computed or waiting for a thread.")
TURNED_AWAY: Final = Counter(
    "nest_auth_password_hashes_turned_away", "Calls refused because too many password hashes were waiting."
)
Result = TypeVar("Result")


def normal_password(password: str) -> str:
    """Return the normal form (NFKC) of a password, so that different keyboards yield the same characters.

    Raises:
        FieldRefused: the password has more than 255 characters.
    """
    # The length is checked before as well, since NFKC can make a text 18 times as long.
    normal = unicodedata.normalize("NFKC", password) if len(password) <= MAX_LENGTH else password
    if len(normal) > MAX_LENGTH:
        raise FieldRefused("password", f"at most {MAX_LENGTH} characters")
    return normal


@dataclass(frozen=True, slots=True)
class PasswordRule:
    """Rule for new passwords.

    Passwords of 6 and 7 characters, allowed for old clients, are not looked up in ``known``: it contains many of them.
    """

    known: frozenset[str]
    """Passwords that attackers try first, in lower case."""
    old_clients: bool

    def check(self, password: str) -> None:
        """Check a new password, given in normal form.

        Raises:
            FieldRefused: it is too short, or known to attackers.
        """
        min_length = MIN_LENGTH_OF_OLD_CLIENTS if self.old_clients else MIN_LENGTH
        if len(password) < min_length:
            raise FieldRefused("password", f"at least {min_length} characters")
        if len(password) >= MIN_LENGTH and password.lower() in self.known:
            raise FieldRefused("password", "one of the passwords that are guessed first; choose another")


class PasswordHasher:
    """Hashes and verifies passwords.

    Args:
        threads: number of concurrent hashes.
        max_wait: seconds; a call that would wait longer for a thread is refused.
        old_clients: whether passwords of 6 and 7 characters are allowed.
        parameters: parameters of Argon2id; by default the second recommended option of RFC 9106.
    """

    def __init__(
        self,
        *,
        threads: int,
        max_wait: float,
        old_clients: bool,
        parameters: argon2.Parameters = RFC_9106_LOW_MEMORY,
    ) -> None:
        self._hasher = argon2.PasswordHasher.from_parameters(parameters)
        self._pool = ThreadPoolExecutor(threads, "argon2", initializer=_lower_priority)
        self._threads = threads
        self._max_wait = max_wait
        self._hash_seconds = INITIAL_HASH_SECONDS
        self._in_progress = 0
        self._rule = PasswordRule(known_passwords(), old_clients)
        self._unknown_hash = unmatchable_hash(parameters)

    async def hash_new(self, password: str) -> str:
        """Return the hash of a new password.

        Raises:
            FieldRefused: the password is too short, too long, or known to attackers.
            Unavailable: too many hashes are waiting.
        """
        self.check_new(password)
        normal = normal_password(password)
        return await self._in_thread(lambda: self._hasher.hash(normal))

    def check_new(self, password: str) -> None:
        """Check that a new password is allowed, without hashing it; raise FieldRefused as ``hash_new``."""
        self._rule.check(normal_password(password))

    async def rehash(self, password: str) -> str:
        """Return a hash of an existing password with the current parameters; the rule does not apply.

        Raises:
            FieldRefused, Unavailable: as for ``verify``.
        """
        normal = normal_password(password)
        return await self._in_thread(lambda: self._hasher.hash(normal))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether a password has this hash; for the hash None, of no account, False after the same time.

        Raises:
            FieldRefused: the password is too long.
            Unavailable: too many hashes are waiting.
        """
        normal = normal_password(password)
        matches = await self._in_thread(lambda: self._matches(password_hash or self._unknown_hash, normal))
        return matches and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether a hash has other than the current parameters."""
        return self._hasher.check_needs_rehash(password_hash)

    async def aclose(self) -> None:
        """Stop the threads after their current hash; waiting hashes are cancelled."""
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            # Other exceptions, such as for a malformed hash, are errors and not wrong passwords.
            return False

    async def _in_thread(self, compute: Callable[[], Result]) -> Result:
        wait = self._estimated_wait()
        if wait > self._max_wait:
            TURNED_AWAY.inc()
            raise Unavailable(retry_after=ceil(wait))
        self._in_progress += 1
        WAITING.set(self._in_progress)
        future = self._pool.submit(_timed, compute)
        loop = asyncio.get_running_loop()
        # Counted until the thread has finished: the waiting task may have been cancelled long before.
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finished, done))
        return (await asyncio.wrap_future(future))[0]

    def _estimated_wait(self) -> float:
        """Estimated seconds until one more hash would get a thread."""
        ahead = max(0, self._in_progress - self._threads + 1)
        return ahead * self._hash_seconds / self._threads

    def _finished(self, future: Future[tuple[Any, float]]) -> None:
        self._in_progress -= 1
        WAITING.set(self._in_progress)
        if not future.cancelled() and future.exception() is None:
            self._hash_seconds += (future.result()[1] - self._hash_seconds) / 8


def unmatchable_hash(parameters: argon2.Parameters) -> str:
    """A hash that no password has, and whose verification takes as long as any with these parameters."""
    salt, digest = (_base64(secrets.token_bytes(size)) for size in (parameters.salt_len, parameters.hash_len))
    costs = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    return f"$argon2id$v={parameters.version}${costs}${salt}${digest}"


@cache
def known_passwords() -> frozenset[str]:
    """Passwords that attackers try first; the header of the file names its source."""
    text = (files("services.auth") / "known_passwords.txt").read_text("utf-8")
    return frozenset(text.partition("\n\n")[2].split("\n")) - {""}


def _timed(compute: Callable[[], Result]) -> tuple[Result, float]:
    began = time.perf_counter()
    return compute(), time.perf_counter() - began


def _lower_priority() -> None:
    """Give the thread a lower priority than the event loop.

    On Linux niceness belongs to the thread, and argon2's own threads inherit it.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).rstrip(b"=").decode()
