"""Signing and verification of all JWTs of Nest, following RFC 8725."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import jwt
from jwt.exceptions import PyJWTError

from services.auth.signing_keys.keyring import Keyring
from services.auth.signing_keys.models import MAX_TOKEN_LIFETIME
from services.auth.tokens.models import AccessToken, AccessTokenType
from shared.messages.auth.errors import InvalidToken
from shared.sealing import Sealer

VERSION: Final = "1"
"""Claim ``v`` of access tokens; readers refuse versions that they don't know."""
MAX_TOKEN_LENGTH: Final = 4096
"""Characters. Tokens of Nest have about 500."""
PHONE_TYPE: Final = "phone+jwt"
"""Header ``typ`` of tokens of a phone login to an app that is no client. No API of Nest takes them."""
_HEADERS: Final = frozenset({"alg", "kid", "typ"})
_REQUIRED_CLAIMS: Final = ("iss", "sub", "aud", "jti", "iat", "exp")


class TokenSigner:
    """Signs tokens, and verifies tokens that it has signed; their claim ``iss`` is the URL of this deployment."""

    def __init__(self, keyring: Keyring, issuer: str, *, access_type: AccessTokenType = "JWT") -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._access_type = access_type

    def sign_access(self, claims: Mapping[str, Any]) -> str:
        """Return a signed access token with these claims and ``iss``, as ``sign``.

        A token of the type ``at+jwt`` also has the claim ``client_id`` (RFC 9068 section 2.2).
        """
        if self._access_type == "at+jwt":
            claims = {**claims, "client_id": claims["aud"]}
        return self.sign(claims, typ=self._access_type)

    def sign(self, claims: Mapping[str, Any], *, typ: str) -> str:
        """Return a signed JWT (RFC 7519) with these claims and ``iss``, and the header ``typ``.

        The claims need ``sub``, ``aud``, ``jti``, ``iat`` and ``exp``; times are in Unix seconds.

        Raises:
            ValueError: a claim is missing, or the lifetime exceeds ``MAX_TOKEN_LIFETIME``.
        """
        all_claims = {"iss": self._issuer, **claims}
        _check(all_claims)
        if all_claims["exp"] - all_claims["iat"] > MAX_TOKEN_LIFETIME.total_seconds():
            raise ValueError(f"a token may live {MAX_TOKEN_LIFETIME} at most")
        key = self._keyring.active
        return jwt.encode(all_claims, key.private_key, key.algorithm, {"kid": key.kid, "typ": typ})

    def verify(self, token: str, *, typ: str, audience: str | None, at: datetime) -> dict[str, Any]:
        """Return the claims of a current token of this deployment.

        Revocation is not checked; that is up to the issuer of this kind of token. If ``audience`` is None, the caller
        checks the claim ``aud``.

        Raises:
            InvalidToken: the token is not valid; the reason is not given.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidToken
        try:
            claims = self._verified_claims(token, typ)
        # An attacker's text must not cause an error, such as by a huge number or by deep nesting.
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise InvalidToken from None
        now = at.timestamp()
        if claims["exp"] <= now or claims.get("nbf", 0) > now or audience not in (None, claims["aud"]):
            raise InvalidToken
        return claims

    def _verified_claims(self, token: str, typ: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        # Other header parameters (jwk, jku, x5u, crit, b64) would let the token choose how it is verified.
        if not header.keys() <= _HEADERS or header.get("typ") != typ or not isinstance(header.get("kid"), str):
            raise jwt.InvalidTokenError
        key = self._keyring.find(header["kid"])
        if key is None:
            raise jwt.InvalidKeyError
        claims = jwt.decode(
            token,
            key,
            # The key determines the algorithm (RFC 8725 section 3.1).
            algorithms=[key.algorithm_name],
            options={"require": list(_REQUIRED_CLAIMS), "verify_aud": False, "verify_exp": False, "verify_iat": False},
        )
        _check(claims)
        if claims["iss"] != self._issuer:
            raise jwt.InvalidIssuerError
        return claims


class LastingTokens:
    """Tokens of one type that do not expire; equal claims give equal tokens.

    JWTs signed with HMAC-SHA-256 (RFC 7518 section 3.2), which only auth can verify. Signing keys are deleted soon
    after a rotation, so these tokens have keys of their own, derived from the sealing keys: a token works as long as
    the sealing key is held that was the first one when it was issued.
    """

    def __init__(self, sealer: Sealer, typ: str) -> None:
        self._keys = sealer.hash_keys(typ)
        self._typ = typ

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return the token with these claims."""
        return self._sign(claims, next(iter(self._keys)))

    def matches(self, token: str, claims: Mapping[str, Any]) -> bool:
        """Whether a token was issued with these claims; compared in constant time."""
        sent = token.encode()
        return any(hmac.compare_digest(self._sign(claims, key_id).encode(), sent) for key_id in self._keys)

    def _sign(self, claims: Mapping[str, Any], key_id: str) -> str:
        return jwt.encode(dict(claims), self._keys[key_id], "HS256", {"kid": key_id, "typ": self._typ})


def access_claims(token: AccessToken) -> dict[str, Any]:
    """Claims of an access token: ``v``, ``jti``, ``sub``, ``aud``, ``iat`` and ``exp``."""
    return {
        "v": VERSION,
        "jti": token.id,
        "sub": token.user_id,
        "aud": token.client_id,
        "iat": int(token.created_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
    }


def _check(claims: Mapping[str, Any]) -> None:
    """Raise ValueError if a required claim is missing or empty, or has another type.

    ``aud`` may be empty: a login by phone may name no app, and no resource server accepts that audience.
    """
    texts = [claims.get(name) for name in ("iss", "sub", "aud", "jti")]
    times = [claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)]
    if set(map(type, texts)) != {str} or set(map(type, times)) != {int}:
        raise ValueError("a token needs iss, sub, aud and jti as texts, iat and exp as whole seconds")
    if "" in (claims["iss"], claims["sub"], claims["jti"]):
        raise ValueError("iss, sub and jti of a token must not be empty")
