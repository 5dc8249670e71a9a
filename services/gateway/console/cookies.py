"""Sealed cookies: what the console remembers of a browser, readable by gateways alone, with the time of each value."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from services.gateway.requests import HttpRequest
from shared.sealing import CannotUnseal, Sealer

MAX_COOKIE_CHARACTERS: Final = 4_096
"""Browsers store no more (RFC 6265 section 6.1)."""


class SealedCookie:
    """A cookie with a JSON object that is sealed for this cookie alone, so no other ciphertext passes as one.

    Args:
        sealer: seals and unseals.
        name: of the cookie. With `__Host-` browsers keep it for this host, over https, for every path (RFC 6265bis
            section 4.1.3.2).
        seconds: how long a value is valid after it was made.
        same_site: `Strict` or `Lax` (RFC 6265bis section 5.2).
        secure: whether browsers send it over https only.
        clock: Unix seconds.
    """

    def __init__(
        self,
        sealer: Sealer,
        name: str,
        *,
        seconds: int,
        same_site: str,
        secure: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sealer = sealer
        self._name = name
        self._seconds = seconds
        self._attributes = f"; Path=/; HttpOnly; SameSite={same_site}{'; Secure' if secure else ''}"
        self._clock = clock

    def header(self, content: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the response header that sets the cookie."""
        value = self._sealer.seal(
            f"cookie {self._name}", json.dumps([int(self._clock()), content], separators=(",", ":")).encode()
        )
        return b"set-cookie", f"{self._name}={value}; Max-Age={self._seconds}{self._attributes}".encode("ascii")

    @property
    def removal(self) -> tuple[bytes, bytes]:
        """The response header that removes the cookie."""
        return b"set-cookie", f"{self._name}=; Max-Age=0{self._attributes}".encode("ascii")

    def read(self, request: HttpRequest) -> dict[str, Any] | None:
        """Return the content of the request's cookie; None if it has none, or one that is invalid or has expired."""
        value = self._value(request)
        if not value or len(value) > MAX_COOKIE_CHARACTERS:
            return None
        try:
            made_at, content = json.loads(self._sealer.unseal(f"cookie {self._name}", value))
        except (CannotUnseal, ValueError):
            return None
        valid = made_at <= self._clock() + 60 and self._clock() < made_at + self._seconds
        return content if valid and isinstance(content, dict) else None

    def _value(self, request: HttpRequest) -> str | None:
        headers: list[tuple[bytes, bytes]] = request.scope["headers"]
        for header in (value for name, value in headers if name == b"cookie"):
            for pair in header.decode("latin-1").split(";"):
                key, _, value = pair.strip().partition("=")
                if key == self._name:
                    return value
        return None
