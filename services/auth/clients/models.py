"""Clients: apps that may log users in, and their redirect URIs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self
from urllib.parse import urlsplit

from shared.messages.auth.errors import ClientChanged, ClientDisabled, InvalidRedirectUri
from shared.networks import LOOPBACK_HOSTS

_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/[\x21\x22\x24-\x5b\x5d-\x7e]*")
"""A URI with a path or a host, without a fragment (RFC 6749 section 3.1.2) and without a backslash, which browsers read
as a slash."""
_REVERSE_DOMAIN: Final = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)+")
_HOST: Final = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An app that may log users in.

    Attributes:
        redirect_uris: targets of its magic links, compared character by character (RFC 9700 section 4.1.3).
        press_to_redeem: whether its magic links open a page with a button first.
        entitlements_claim: whether its access tokens have the features of their user.
        disabled_at: when the app was disabled; None while it may log users in.
    """

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    press_to_redeem: bool = False
    entitlements_claim: bool = False
    version: int = 1

    @classmethod
    def register(
        cls,
        name: str,
        redirect_uris: Sequence[str],
        *,
        id: str,  # noqa: A002 -- the field's name
        at: datetime,
        press_to_redeem: bool = False,
        entitlements_claim: bool = False,
    ) -> Self:
        """A new client.

        Raises:
            InvalidRedirectUri: a URI may not be registered, see ``may_be_registered``.
        """
        _check_redirect_uris(redirect_uris)
        return cls(
            id=id,
            name=name,
            redirect_uris=tuple(redirect_uris),
            disabled_at=None,
            created_at=at,
            updated_at=at,
            press_to_redeem=press_to_redeem,
            entitlements_claim=entitlements_claim,
        )

    def change(
        self,
        *,
        name: str | None,
        redirect_uris: Sequence[str] | None,
        disabled: bool | None,
        at: datetime,
        press_to_redeem: bool | None = None,
        entitlements_claim: bool | None = None,
    ) -> Self:
        """Change the given properties; None leaves a property unchanged.

        Redirect URIs that the client has already may stay, even if an earlier release registered them under other
        rules.

        Raises:
            InvalidRedirectUri: as for ``register``.
        """
        _check_redirect_uris(uri for uri in redirect_uris or () if uri not in self.redirect_uris)
        disabled_at = self.disabled_at or at if disabled else None
        return replace(
            self,
            name=self.name if name is None else name,
            redirect_uris=self.redirect_uris if redirect_uris is None else tuple(redirect_uris),
            disabled_at=self.disabled_at if disabled is None else disabled_at,
            press_to_redeem=self.press_to_redeem if press_to_redeem is None else press_to_redeem,
            entitlements_claim=self.entitlements_claim if entitlements_claim is None else entitlements_claim,
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

    def must_return_to(self, uri: str) -> None:
        """Check that a checkout may lead to this URI, to which ``{CHECKOUT_SESSION_ID}`` may be added.

        Raises:
            InvalidRedirectUri: without that parameter it is not one of the client's.
        """
        self.must_redirect_to(uri if uri in self.redirect_uris else without_session_parameter(uri))


_SESSION_PARAMETER: Final = re.compile(r"[?&][A-Za-z0-9_.~-]{1,64}=\{CHECKOUT_SESSION_ID\}(?=&|$)")
"""Query parameter that Stripe fills with the ID of a Checkout Session
(https://docs.stripe.com/payments/checkout/custom-success-page)."""


def without_session_parameter(uri: str) -> str:
    """The URI without its first query parameter of the value ``{CHECKOUT_SESSION_ID}``, if it has one."""
    found = _SESSION_PARAMETER.search(uri)
    if found is None:
        return uri
    before, after = uri[: found.start()], uri[found.end() :]
    # The parameter after the first one begins with ``&``.
    return before + ("?" + after[1:] if found[0][0] == "?" and after else after)


def may_be_registered(uri: str) -> bool:
    """Whether a URI may be registered as a redirect URI, which receives codes that log people in.

    It is an https URL, an http URL of loopback (RFC 8252 section 7.3), or has a scheme that is a domain in reverse,
    ``com.example.app:/callback`` (RFC 8252 section 7.1). Others can be read on the network, run in the browser, or
    belong to any app. A user name, a password or a fragment is refused.
    """
    if not _ABSOLUTE_URI.fullmatch(uri):
        return False
    try:
        parts = urlsplit(uri)
        # The port is parsed when it is read.
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if "@" in parts.netloc:
        return False
    if parts.scheme in ("https", "http"):
        written = parts.netloc.lower().rpartition(":")[0] if parts.port is not None else parts.netloc.lower()
        return bool(_HOST.fullmatch(written)) and (parts.scheme == "https" or host in LOOPBACK_HOSTS)
    return _REVERSE_DOMAIN.fullmatch(parts.scheme) is not None


def _check_redirect_uris(uris: Iterable[str]) -> None:
    for uri in uris:
        if not may_be_registered(uri):
            raise InvalidRedirectUri
