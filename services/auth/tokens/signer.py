"""What is signed? Every JWT of Nest: who may act for whom, towards which app, until when; read as RFC 8725 asks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import jwt
from jwt.exceptions import PyJWTError

from services.auth.signing_keys.keyring import Keyring
from services.auth.signing_keys.models import MAX_TOKEN_LIFETIME
from services.auth.tokens.models import AccessToken
from shared.messages.auth.errors import InvalidToken

VERSION: Final = "1"
"""The claim ``v`` of access tokens: readers refuse a version they don't know."""
ACCESS_TYPE: Final = "JWT"
"""The ``typ`` of access tokens (RFC 7519 section 5.1). Every other kind of token has another one, so that none passes
for the other (RFC 8725 section 3.11)."""
LONGEST_TOKEN: Final = 4096
"""Characters; ours have some 500."""
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_REQUIRED: Final = ("iss", "sub", "aud", "jti", "iat", "exp")


class TokenSigner:
    """Signs tokens, and reads those that it has signed.

    Args:
        keyring: which key signs, and which ones verify.
        issuer: the claim ``iss``: the URL under which this deployment is reached.
    """

    def __init__(self, keyring: Keyring, issuer: str) -> None:
        self._keyring = keyring
        self._issuer = issuer

    def sign(self, claims: Mapping[str, Any], *, typ: str = ACCESS_TYPE) -> str:
        """The JWT (RFC 7519) that says this; ``iss`` is added.

        Args:
            claims: with ``sub``, ``aud``, ``jti``, ``iat`` and ``exp``; the last two in Unix seconds.
            typ: what kind of token it is, as its header will say.

        Raises:
            ValueError: a claim is missing, or it would live longer than ``MAX_TOKEN_LIFETIME``.
        """
        whole = {"iss": self._issuer, **claims}
        _check(whole)
        if whole["exp"] - whole["iat"] > MAX_TOKEN_LIFETIME.total_seconds():
            raise ValueError(f"a token lives {MAX_TOKEN_LIFETIME} at most")
        signing = self._keyring.signing
        return jwt.encode(whole, signing.private_key, signing.algorithm, {"kid": signing.kid, "typ": typ})

    def verify(self, token: str, *, typ: str, audience: str | None, at: datetime) -> dict[str, Any]:
        """The claims of a token that we have signed and that is current.

        Whether it was revoked, only whoever issued it can tell.

        Args:
            token: any text at all.
            typ: the one kind that is wanted.
            audience: what ``aud`` must be; None when the caller judges the claim itself.
            at: now.

        Raises:
            InvalidToken: anything else; what exactly is nobody's business.
        """
        if len(token) > LONGEST_TOKEN:
            raise InvalidToken
        try:
            claims = self._claims(token, typ)
        # Nothing in an attacker's text may be more than a wrong token: not a number too large, nor a depth too deep.
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise InvalidToken from None
        now = at.timestamp()
        if claims["exp"] <= now or claims.get("nbf", 0) > now or audience not in (None, claims["aud"]):
            raise InvalidToken
        return claims

    def _claims(self, token: str, typ: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        # Whatever else a header may hold (jwk, jku, x5u, crit, b64) asks a verifier to trust the token itself.
        if not header.keys() <= _HEADER or header.get("typ") != typ or not isinstance(header.get("kid"), str):
            raise jwt.InvalidTokenError
        key = self._keyring.find(header["kid"])
        if key is None:
            raise jwt.InvalidKeyError
        claims = jwt.decode(
            token,
            key,
            # The key brings its own algorithm (RFC 8725 section 3.1).
            algorithms=[key.algorithm_name],
            options={"require": list(_REQUIRED), "verify_aud": False, "verify_exp": False, "verify_iat": False},
        )
        _check(claims)
        if claims["iss"] != self._issuer:
            raise jwt.InvalidIssuerError
        return claims


def access_claims(token: AccessToken) -> dict[str, Any]:
    """What an access token says: ``v``, ``jti``, ``sub``, ``aud``, ``iat`` and ``exp``."""
    return {
        "v": VERSION,
        "jti": token.id,
        "sub": token.user_id,
        "aud": token.client_id,
        "iat": int(token.created_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
    }


def _check(claims: Mapping[str, Any]) -> None:
    """Let claims of the right kinds pass.

    Raises:
        ValueError: a required claim is missing, empty or of another kind.
    """
    texts = [claims.get(name) for name in ("iss", "sub", "aud", "jti")]
    times = [claims.get(name) for name in ("iat", "exp")] + [claims.get("nbf", 0)]
    if not all(isinstance(text, str) and text for text in texts) or not all(type(time) is int for time in times):
        raise ValueError("a token needs iss, sub, aud and jti as texts, iat and exp as whole seconds")
