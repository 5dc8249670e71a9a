"""Tokens of a session, and the stores that keep them."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import filelock

from nest_client.models import TokenView


@dataclass(frozen=True)
class Tokens:
    """Tokens of one session.

    Attributes:
        access_token: JWT for the header ``authorization``.
        refresh_token: Token for the next refresh.
        expires_at: Expiry of the access token in Unix seconds, by the clock of this machine.
        user_id: ID of the user.
        client_id: ID of the client.
        refresh_key: Idempotency key of a refresh that was begun and whose response has not been stored, or None.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: float
    user_id: str
    client_id: str
    refresh_key: str | None = None

    @classmethod
    def of(cls, view: TokenView) -> Tokens:
        """Return the tokens of a response that has just arrived."""
        return cls(
            access_token=view["access_token"],
            refresh_token=view["refresh_token"],
            expires_at=time.time() + view["expires_in"],
            user_id=view["user_id"],
            client_id=view["client_id"],
        )

    def expire_within(self, seconds: float) -> bool:
        """Return whether the access token expires within as many seconds."""
        return time.time() + seconds >= self.expires_at


class TokenLock(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Release the lock."""


class TokenStore(Protocol):
    """Storage for the tokens of one session. Its methods may be called by several threads."""

    def load(self) -> Tokens | None:
        """Return the tokens, or None if there are none."""

    def save(self, tokens: Tokens | None) -> None:
        """Replace the tokens durably; None removes them."""

    def try_lock(self) -> TokenLock | None:
        """Take the lock that all users of the store share, without waiting; None if somebody else holds it."""


class MemoryStore:
    """Token store in memory, for one process."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens
        self._lock = threading.Lock()

    def load(self) -> Tokens | None:
        """Return the tokens, or None if there are none."""
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        """Replace the tokens; None removes them."""
        self._tokens = tokens

    def try_lock(self) -> TokenLock | None:
        """Take the lock of this object, or return None."""
        return self._lock if self._lock.acquire(blocking=False) else None


class FileStore:
    """Token store in a file that only its owner can read (mode 0600). Processes of one machine can share it.

    Writes replace the file, so a reader never sees a part of one. The lock is the file ``<path>.lock``; it ends with
    the process that holds it.

    Args:
        path: Path of the file, in an existing folder on a local file system.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def load(self) -> Tokens | None:
        """Return the tokens, or None if there is no file.

        Raises:
            ValueError: the file has other content.
        """
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return None
        try:
            return Tokens(**json.loads(text))
        except (ValueError, TypeError):
            # Without the cause, whose message might quote the content.
            raise ValueError(f"{self.path} has no tokens of this client. Delete it and log in again.") from None

    def save(self, tokens: Tokens | None) -> None:
        """Replace the file and wait until it is on disk; None removes it."""
        if tokens is None:
            self.path.unlink(missing_ok=True)
            return
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")  # with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(tokens), file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise

    def try_lock(self) -> TokenLock | None:
        """Take the lock of the file, or return None."""
        # An object for each attempt: locks of one object would count as one within a process.
        lock = filelock.FileLock(f"{self.path}.lock", mode=0o600, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return None
        return lock
