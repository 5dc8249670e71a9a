"""Login by magic link with PKCE (RFC 7636), as values."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from nest_client.errors import StateMismatch


@dataclass(frozen=True)
class PendingLogin:
    """A login whose mail was ordered. Keep it where only the ordering device can read it, until the login is finished.

    Attributes:
        client_id: ID of the client.
        redirect_uri: Target of the link in the mail.
        state: Value that the redirect returns.
        verifier: PKCE verifier, a secret.
    """

    client_id: str
    redirect_uri: str
    state: str
    verifier: str = field(repr=False)

    @classmethod
    def new(cls, client_id: str, redirect_uri: str) -> PendingLogin:
        """Return a login with a random state and a random verifier."""
        return cls(client_id, redirect_uri, secrets.token_urlsafe(32), secrets.token_urlsafe(48))

    @classmethod
    def from_dict(cls, kept: Mapping[str, str]) -> PendingLogin:
        """Return the login that ``to_dict`` has returned, for example from the session of a web application."""
        return cls(**kept)

    def to_dict(self) -> dict[str, str]:
        """Return the login as JSON."""
        return asdict(self)

    @property
    def challenge(self) -> str:
        """The PKCE challenge: SHA-256 of the verifier in web-safe base64 without padding."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def order(self, email: str) -> dict[str, Any]:
        """Return the fields of ``send_magic_link`` for an address."""
        return {
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge_method": "S256",
            "code_challenge": self.challenge,
            "identifier_type": "email",
            "identifier_value": email,
        }

    def code_in(self, url: str) -> str:
        """Return the code in the URL of the redirect.

        Raises:
            StateMismatch: the URL is not of this login, so somebody else may have made it (RFC 6749 section 10.12).
        """
        query = parse_qs(urlsplit(url).query)
        states, codes = query.get("state", []), query.get("code", [])
        # The redirect URI's own query comes first and may have parameters of the same names.
        if not states or not hmac.compare_digest(states[-1].encode(), self.state.encode()):
            raise StateMismatch("The redirect is not of this login: order a new magic link.")
        if not codes:
            raise StateMismatch("The redirect has no code: order a new magic link.")
        return codes[-1]

    def redemption(self, *, url: str | None = None, code: str | None = None) -> dict[str, Any]:
        """Return the fields of ``authenticate_user`` for the URL of the redirect, or for the typed code.

        Raises:
            ValueError: not exactly one of both is given.
            StateMismatch: the URL is not of this login.
        """
        if (url is None) == (code is None):
            raise ValueError("Give either the URL of the redirect or the typed code.")
        return {
            "client_id": self.client_id,
            "grant_type": "authorization_code",
            "redirect_uri": self.redirect_uri,
            "code": self.code_in(url) if url is not None else code,
            "code_verifier": self.verifier,
        }

    def key_of(self, code: str) -> str:
        """Return the idempotency key of a redemption: a repeat after a lost response gets the same tokens."""
        return hmac.new(self.verifier.encode(), code.encode(), hashlib.sha256).hexdigest()
