"""Authentication: from the ``authorization`` header to a ``Caller``, without a call to another service.

Access tokens are JWTs, verified according to RFC 8725: only with keys that auth has published, and each key has one
algorithm. A token whose header refers to another key is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.exceptions import DecodeError, PyJWTError
from jwt.utils import base64url_decode
from pydantic import SecretStr

from services.gateway.auth_topics import Clients, Revocations, SigningKeys
from services.gateway.errors import (
    AccessDenied,
    AccessTokenExpired,
    InvalidAccessToken,
    InvalidTokenVersion,
    MalformedToken,
    TokenRevoked,
    Unauthorized,
    UnknownTokenType,
)
from services.gateway.failed_authentications import FailedAuthentications
from services.gateway.requests import unique_keys
from shared.errors import Unavailable
from shared.messages import Caller

MAX_TOKEN_CHARACTERS: Final = 4096
"""Nest's access tokens have about 500 characters."""
CLOCK_SKEW_SECONDS: Final = 60
"""How far auth's clock may be ahead for ``iat``. The expiry has no tolerance."""
TOKEN_VERSION: Final = "1"  # noqa: S105 -- the claim ``v``, not a secret
TOKEN_TYPES: Final = frozenset({"JWT", "at+jwt"})
"""Header ``typ`` of access tokens: RFC 7519, or RFC 9068 if auth is set so. Both are accepted, so that a change of the
setting refuses no token."""
CACHE_BYTES: Final = 24_000_000
"""Memory for verified tokens, about 20,000 of Nest's."""
CACHED_TOKEN_BYTES: Final = 1_200
"""Memory that a cached token takes besides its texts, roughly."""
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_REQUIRED: Final = ["exp", "iat", "iss", "sub", "aud", "jti"]


@dataclass(slots=True)
class Token:
    """An access token with a valid signature and valid claims.

    Attributes:
        id: claim ``jti``.
        kid: ID of the key that signed it.
        client_id: claim ``aud``, the client that the token was issued to.
        expires_at: claim ``exp``, Unix seconds.
        caller: its user, with the IP address of the latest request.
    """

    id: str
    kid: str
    client_id: str
    expires_at: int
    caller: Caller


class Authenticator:
    """Identifies callers. Verified tokens are cached.

    Args:
        keys: public keys of access tokens.
        clients: those whose tokens are accepted.
        revocations: revoked access tokens.
        failed: counts wrong keys and tokens, and chooses their answers.
        internal_keys: secrets of back ends and operators, with their names; two of one name during a rotation.
        issuer: the only accepted ``iss``.
        clock: Unix seconds.
    """

    def __init__(
        self,
        keys: SigningKeys,
        clients: Clients,
        revocations: Revocations,
        failed: FailedAuthentications,
        *,
        internal_keys: Sequence[tuple[str, SecretStr]],
        issuer: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._clients = clients
        self._revocations = revocations
        self._failed = failed
        self._internal_digests = [(name, _digest(key.get_secret_value().encode())) for name, key in internal_keys]
        self._issuer = issuer
        self._clock = clock
        self._tokens: OrderedDict[bytes, Token] = OrderedDict()
        """Verified tokens by the digest of their text, the least recently used first. The text of a header could be
        long, and clients can write one token in many ways."""
        self._cached_bytes = 0

    def caller(self, authorization: bytes | None, client_ip: str | None) -> Caller:
        """Identify the caller of a request.

        Args:
            authorization: value of the header; None if it is missing.
            client_ip: IP address of the client.

        Raises:
            Unauthorized: the bearer token is not valid, or the scheme is unknown.
            AccessDenied: the internal key is wrong.
            TooManyRequests: either of them, beyond the limit of the client's network.
            Unavailable: this gateway has not received any client from auth yet.
        """
        if authorization is None:
            return Caller(client_ip=client_ip)
        scheme, _, credentials = authorization.partition(b" ")
        match scheme.lower():
            case b"internal":
                return self._internal_caller(credentials.strip(), client_ip)
            case b"bearer":
                try:
                    token = self._token(credentials.strip(), client_ip)
                except Unauthorized as refusal:
                    raise self._failed.answer("access token", refusal, client_ip) from None
            case _:
                refused = Unauthorized(reasons=(UnknownTokenType(),))
                raise self._failed.answer("unknown scheme", refused, client_ip)
        # A token that has expired or was revoked is not counted: apps send those before they refresh.
        self._check_state(token)
        if token.caller.client_ip != client_ip:
            token.caller = token.caller.model_copy(update={"client_ip": client_ip})
        return token.caller

    def internal_or_anonymous(self, authorization: bytes | None, client_ip: str | None) -> Caller:
        """Identify the caller of a method whose credential is in the body, such as a refresh token.

        Everything but an internal key is ignored: apps attach whatever they have stored, such as the expired access
        token that they are about to refresh (RFC 6749 section 6), or ``Bearer null``. A valid access token is ignored
        too, because it is revoked by the refresh: a repeat with the same idempotency key would have another caller.

        Args:
            authorization: value of the header; None if it is missing.
            client_ip: IP address of the client.

        Raises:
            AccessDenied: the internal key is wrong.
            TooManyRequests: it is, beyond the limit of the client's network.
        """
        scheme, _, credentials = (authorization or b"").partition(b" ")
        if scheme.lower() == b"internal":
            return self._internal_caller(credentials.strip(), client_ip)
        return Caller(client_ip=client_ip)

    def _internal_caller(self, key: bytes, client_ip: str | None) -> Caller:
        digest = _digest(key)
        # Always compare with every key, so that the time does not reveal which one matched.
        names = [name for name, known in self._internal_digests if hmac.compare_digest(digest, known)]
        if not names:
            raise self._failed.answer("internal key", AccessDenied(), client_ip)
        return Caller(kind="internal", client_ip=client_ip, key_name=names[0])

    def _token(self, credentials: bytes, client_ip: str | None) -> Token:
        """The verified token, from the cache or for the cache."""
        if len(credentials) > MAX_TOKEN_CHARACTERS or credentials.count(b".") != 2:  # noqa: PLR2004 -- three parts
            raise Unauthorized(reasons=(MalformedToken(),))
        digest = _digest(credentials)
        token = self._tokens.get(digest)
        if token is None:
            token = self._verify(credentials, client_ip)
            self._cache(digest, token)
        else:
            self._tokens.move_to_end(digest)
        return token

    def _verify(self, credentials: bytes, client_ip: str | None) -> Token:
        try:
            kid, claims = self._verified_claims(credentials.decode("ascii"))
        except (DecodeError, UnicodeDecodeError) as malformed:
            # In PyJWT a wrong signature is a kind of DecodeError.
            wrong_signature = isinstance(malformed, jwt.InvalidSignatureError)
            raise Unauthorized(reasons=(InvalidAccessToken() if wrong_signature else MalformedToken(),)) from None
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthorized(reasons=(InvalidAccessToken(),)) from None
        if claims.get("v") != TOKEN_VERSION:
            raise Unauthorized(reasons=(InvalidTokenVersion(),))
        return Token(
            id=claims["jti"],
            kid=kid,
            client_id=claims["aud"],
            expires_at=claims["exp"],
            caller=Caller(
                kind="user",
                user_id=claims["sub"],
                token_id=claims["jti"],
                client_id=claims["aud"],
                client_ip=client_ip,
            ),
        )

    def _verified_claims(self, token: str) -> tuple[str, dict[str, Any]]:
        """Key ID and claims of a token that auth has signed. The expiry is checked at every use instead."""
        header = jwt.get_unverified_header(token)
        # All other header fields (jwk, jku, x5u, crit, b64) make a verifier trust the token's own content.
        if (
            not header.keys() <= _HEADER
            or header.get("typ") not in TOKEN_TYPES
            or not isinstance(header.get("kid"), str)
        ):
            raise jwt.InvalidTokenError
        for part in token.split(".")[:2]:
            # Two parsers could read a token with a duplicate name differently (RFC 7519 section 4).
            json.loads(base64url_decode(part), object_pairs_hook=unique_keys)
        key = self._keys.find(header["kid"])
        if key is None:
            raise jwt.InvalidKeyError
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self._issuer,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": _REQUIRED, "verify_aud": False, "verify_exp": False},
        )
        texts = [claims[name] for name in ("iss", "sub", "aud", "jti")]
        times = [claims[name] for name in ("iat", "exp")]
        if not all(isinstance(text, str) and text for text in texts) or not all(type(time) is int for time in times):
            raise jwt.InvalidTokenError
        return header["kid"], claims

    def _check_state(self, token: Token) -> None:
        """Refuse a verified token that has expired, was revoked, or whose key or client is no longer accepted."""
        if token.expires_at <= self._clock():
            raise Unauthorized(reasons=(AccessTokenExpired(),))
        if token.id in self._revocations:
            raise Unauthorized(reasons=(TokenRevoked(),))
        if not self._clients:
            # A valid token implies a client, so this gateway just has not received the clients yet.
            raise Unavailable
        # A phone login accepts any client ID; this API accepts only tokens of registered clients.
        if self._keys.find(token.kid) is None or not self._clients.enabled(token.client_id):
            raise Unauthorized(reasons=(InvalidAccessToken(),))

    def _cache(self, digest: bytes, token: Token) -> None:
        self._tokens[digest] = token
        self._cached_bytes += _size(token)
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._tokens.popitem(last=False)
            self._cached_bytes -= _size(dropped)


def _size(token: Token) -> int:
    return CACHED_TOKEN_BYTES + sum(map(len, (token.id, token.kid, token.client_id, token.caller.user_id or "")))


def _digest(key: bytes) -> bytes:
    # Digests have one length, so comparing them does not reveal the length of the key.
    return hashlib.sha256(key).digest()
