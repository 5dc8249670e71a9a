"""Clients: apps that may log users in, and their redirect URIs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self
from urllib.parse import urlsplit

from shared.messages.auth.errors import ClientChanged, ClientDisabled, InvalidRedirectUri

_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")
_WEB_SCHEMES: Final = frozenset({"http", "https"})
_SCRIPT_SCHEMES: Final = frozenset({"javascript", "data", "vbscript", "blob", "file", "about"})
"""Schemes with which a browser runs or shows the rest of the URI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An app that may log users in.

    Attributes:
        redirect_uris: targets of its magic links, compared character by character (RFC 9700 section 4.1.3).
        disabled_at: when the app was disabled; None while it may log users in.
    """

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def register(cls, name: str, redirect_uris: Sequence[str], *, id: str, at: datetime) -> Self:  # noqa: A002
        """A new client.

        Raises:
            InvalidRedirectUri: a URI is not absolute, has a fragment, or would run in the browser.
        """
        for uri in redirect_uris:
            _check_redirect_uri(uri)
        return cls(id=id, name=name, redirect_uris=tuple(redirect_uris), disabled_at=None, created_at=at, updated_at=at)

    def change(
        self, *, name: str | None, redirect_uris: Sequence[str] | None, disabled: bool | None, at: datetime
    ) -> Self:
        """Change the given properties; None leaves a property unchanged.

        Raises:
            InvalidRedirectUri: as for ``register``.
        """
        for uri in redirect_uris or ():
            _check_redirect_uri(uri)
        disabled_at = self.disabled_at or at if disabled else None
        return replace(
            self,
            name=self.name if name is None else name,
            redirect_uris=self.redirect_uris if redirect_uris is None else tuple(redirect_uris),
            disabled_at=self.disabled_at if disabled is None else disabled_at,
            updated_at=at,
        )

    def must_have_version(self, version: int | None) -> None:
        """Check the version that the caller has read; None skips the check.

        Raises:
            ClientChanged: the client has been changed since.
        """
        if version not in {None, self.version}:
            raise ClientChanged

    def must_be_enabled(self) -> None:
        """Check that the app may log users in.

        Raises:
            ClientDisabled: it is disabled.
        """
        if self.disabled_at is not None:
            raise ClientDisabled

    def must_redirect_to(self, uri: str) -> None:
        """Check that a magic link may point to this URI.

        Raises:
            InvalidRedirectUri: it is not one of the client's.
        """
        if uri not in self.redirect_uris:
            raise InvalidRedirectUri


def _check_redirect_uri(uri: str) -> None:
    if not _ABSOLUTE_URI.fullmatch(uri) or "#" in uri:
        # RFC 6749 section 3.1.2: absolute, without a fragment.
        raise InvalidRedirectUri(redirect_uri=uri)
    try:
        parts = urlsplit(uri)
    except ValueError as malformed:
        raise InvalidRedirectUri(redirect_uri=uri) from malformed
    if parts.scheme in _SCRIPT_SCHEMES or (parts.scheme in _WEB_SCHEMES and not parts.hostname):
        raise InvalidRedirectUri(redirect_uri=uri)
