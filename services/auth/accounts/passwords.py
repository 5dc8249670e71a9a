"""Password rules, and Argon2id hashing (RFC 9106).

A hash takes 0.1 s of CPU time and 64 MiB, on purpose. So it is never computed on the event loop, and calls wait for one
in a fair queue (``HashQueue``).
"""

from __future__ import annotations

import base64
import secrets
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import argon2
from argon2.exceptions import VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY

from services.auth.accounts.hash_queue import HashCaller, HashQueue
from shared.messages.auth.accounts import MIN_PASSWORD, min_password_length
from shared.messages.auth.errors import FieldRefused

MAX_LENGTH: Final = 255


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
        min_length = min_password_length(old_clients=self.old_clients)
        if len(password) < min_length:
            raise FieldRefused("password", f"at least {min_length} characters")
        if len(password) >= MIN_PASSWORD and password.lower() in self.known:
            raise FieldRefused("password", "one of the passwords that are guessed first; choose another")


class PasswordHasher:
    """Hashes and verifies passwords.

    Args:
        threads, max_wait: as for ``HashQueue``.
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
        self.queue = HashQueue(threads=threads, max_wait=max_wait)
        self._rule = PasswordRule(known_passwords(), old_clients)
        self._unknown_hash = unmatchable_hash(parameters)

    async def hash_new(self, password: str, caller: HashCaller) -> str:
        """Return the hash of a new password.

        Raises:
            FieldRefused: the password is too short, too long, or known to attackers.
            Unavailable: too many hashes are waiting.
        """
        self.check_new(password)
        normal = normal_password(password)
        return await self.queue.run(lambda: self._hasher.hash(normal), caller)

    def check_new(self, password: str) -> None:
        """Check that a new password is allowed, without hashing it; raise FieldRefused as ``hash_new``."""
        self._rule.check(normal_password(password))

    async def rehash(self, password: str, caller: HashCaller) -> str:
        """Return a hash of an existing password with the current parameters; the rule does not apply.

        Raises:
            FieldRefused, Unavailable: as for ``verify``.
        """
        normal = normal_password(password)
        return await self.queue.run(lambda: self._hasher.hash(normal), caller)

    async def verify(self, password: str, password_hash: str | None, caller: HashCaller) -> bool:
        """Whether a password has this hash; for the hash None, of no account, False after the same time.

        Raises:
            FieldRefused: the password is too long.
            Unavailable: too many hashes are waiting.
        """
        normal = normal_password(password)
        matches = await self.queue.run(lambda: self._matches(password_hash or self._unknown_hash, normal), caller)
        return matches and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether a hash has other than the current parameters."""
        return self._hasher.check_needs_rehash(password_hash)

    async def aclose(self) -> None:
        """Stop the threads after their current hash; waiting hashes are cancelled."""
        await self.queue.aclose()

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            # Other exceptions, such as for a malformed hash, are errors and not wrong passwords.
            return False


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


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).rstrip(b"=").decode()
