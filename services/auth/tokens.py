"""What is signed? An access token: who may act for whom, towards which app, until when."""

from __future__ import annotations

from typing import Final

import jwt

from services.auth.keys import Keyring
from services.auth.models.chains import AccessToken

VERSION: Final = "1"
"""The claim ``v``: readers refuse a version they don't know."""
TYPE: Final = "JWT"
"""The header's ``typ`` (RFC 7519 section 5.1)."""


class AccessTokenSigner:
    """Signs access tokens.

    Args:
        keyring: which key signs.
        issuer: the claim ``iss``: the URL under which this deployment is reached.
    """

    def __init__(self, keyring: Keyring, issuer: str) -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._headers = {"kid": keyring.kid, "typ": TYPE}

    def sign(self, token: AccessToken) -> str:
        """The JWT (RFC 7519) of a token: claims ``v``, ``jti``, ``iss``, ``sub``, ``aud``, ``iat`` and ``exp``."""
        claims = {
            "v": VERSION,
            "jti": token.id,
            "iss": self._issuer,
            "sub": token.user_id,
            "aud": token.client_id,
            "iat": int(token.created_at.timestamp()),
            "exp": int(token.expires_at.timestamp()),
        }
        return jwt.encode(claims, self._keyring.private_key, self._keyring.algorithm, self._headers)
