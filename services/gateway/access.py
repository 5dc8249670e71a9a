"""Who is calling? The ``authorization`` header, checked without asking anybody, becomes a Caller.

Access tokens are JWTs, verified as RFC 8725 asks: the key comes from those that auth has announced and brings its own
algorithm; nothing in a token's header is followed anywhere.
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

from services.gateway.announced import Clients, Revocations, SigningKeys
from shared.errors import Kind, Refusal, Unavailable
from shared.messages import Caller

MAX_TOKEN_CHARACTERS: Final = 4096
"""Ours have some 500."""
CLOCK_SECONDS: Final = 60
"""How far auth's clock may be ahead when it says ``iat``. An expiry has no such grace."""
TOKEN_VERSION: Final = "1"  # noqa: S105 -- the claim ``v``, no secret
TOKEN_TYPE: Final = "JWT"  # noqa: S105 -- the header ``typ``
REMEMBERED_TOKENS: Final = 20_000
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_REQUIRED: Final = ["exp", "iat", "iss", "sub", "aud", "jti"]


class Unauthorized(Refusal):
    """The bearer token is no good; ``reasons[0].code`` says why."""

    kind = Kind.UNAUTHENTICATED


class AccessDenied(Refusal):
    """Whoever calls may not do this."""

    kind = Kind.FORBIDDEN


class MalformedToken(Refusal):
    """Not a JWT in compact form (RFC 7519 section 3)."""


class UnknownTokenType(Refusal):
    """Another scheme than ``bearer`` and ``internal``."""


class InvalidToken(Refusal):
    """A JWT that auth has not signed, or not for this, or not any more."""


class TokenExpired(Refusal):
    """Its time is over; a refresh token gets another one."""


class TokenRevoked(Refusal):
    """Ended before its time: a log-out, or a theft."""


class InvalidTokenVersion(Refusal):
    """Its claims are laid out in a way that this gateway does not know."""


@dataclass(slots=True)
class Token:
    """An access token whose signature and claims have been verified.

    Attributes:
        id: its ``jti``.
        kid: the key that signed it.
        client_id: its ``aud``: the client that it was given to.
        expires_at: Unix seconds.
        caller: the user, at the address last seen.
    """

    id: str
    kid: str
    client_id: str
    expires_at: int
    caller: Caller


class Access:
    """Tells callers apart.

    Args:
        keys: what verifies access tokens.
        clients: whose tokens are taken.
        revocations: which of them are revoked.
        internal_keys: what our own back ends and operators show; several while one is being replaced.
        issuer: the only ``iss`` that is ours.
        clock: Unix seconds.
    """

    def __init__(
        self,
        keys: SigningKeys,
        clients: Clients,
        revocations: Revocations,
        *,
        internal_keys: Sequence[str],
        issuer: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._clients = clients
        self._revocations = revocations
        self._internal = [_digest(key.encode()) for key in internal_keys]
        self._issuer = issuer
        self._clock = clock
        self._tokens: OrderedDict[bytes, Token] = OrderedDict()

    def caller(self, authorization: bytes | None, client_ip: str | None) -> Caller:
        """Who shows this header.

        Args:
            authorization: the header's value; None when there is none.
            client_ip: where the request came from.

        Raises:
            Unauthorized: a bearer token that is no good, or an unknown scheme.
            AccessDenied: a wrong internal key.
            Unavailable: auth has announced nothing yet by which a token could be judged.
        """
        if authorization is None:
            return Caller(client_ip=client_ip)
        token = self._tokens.get(authorization)
        if token is None:
            scheme, _, credentials = authorization.partition(b" ")
            match scheme.lower():
                case b"internal":
                    return self._internal_caller(credentials.strip(), client_ip)
                case b"bearer":
                    token = self._verify(credentials.strip(), client_ip)
                    self._remember(authorization, token)
                case _:
                    raise Unauthorized(reasons=(UnknownTokenType(),))
        else:
            self._tokens.move_to_end(authorization)
        self._still_good(token)
        if token.caller.client_ip != client_ip:
            token.caller = token.caller.model_copy(update={"client_ip": client_ip})
        return token.caller

    def _internal_caller(self, key: bytes, client_ip: str | None) -> Caller:
        given = _digest(key)
        # All of them are compared, whichever fits: the time tells nothing.
        if not sum(hmac.compare_digest(given, known) for known in self._internal):
            raise AccessDenied
        return Caller(kind="internal", client_ip=client_ip)

    def _verify(self, credentials: bytes, client_ip: str | None) -> Token:
        if len(credentials) > MAX_TOKEN_CHARACTERS or credentials.count(b".") != 2:  # noqa: PLR2004 -- three parts
            raise Unauthorized(reasons=(MalformedToken(),))
        try:
            kid, claims = self._claims(credentials.decode("ascii"))
        except (DecodeError, UnicodeDecodeError) as malformed:
            # PyJWT has a wrong signature among the malformed ones.
            wrong = isinstance(malformed, jwt.InvalidSignatureError)
            raise Unauthorized(reasons=(InvalidToken() if wrong else MalformedToken(),)) from None
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthorized(reasons=(InvalidToken(),)) from None
        if claims.get("v") != TOKEN_VERSION:
            raise Unauthorized(reasons=(InvalidTokenVersion(),))
        return Token(
            id=claims["jti"],
            kid=kid,
            client_id=claims["aud"],
            expires_at=claims["exp"],
            caller=Caller(kind="user", user_id=claims["sub"], token_id=claims["jti"], client_ip=client_ip),
        )

    def _claims(self, token: str) -> tuple[str, dict[str, Any]]:
        """The key's id and the claims of a token that auth has signed; its expiry is judged at each use."""
        header = jwt.get_unverified_header(token)
        # Whatever else a header may hold (jwk, jku, x5u, crit, b64) asks a verifier to trust the token itself.
        if not header.keys() <= _HEADER or header.get("typ") != TOKEN_TYPE or not isinstance(header.get("kid"), str):
            raise jwt.InvalidTokenError
        _no_name_twice(token)
        key = self._keys.find(header["kid"])
        if key is None:
            raise jwt.InvalidKeyError
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            issuer=self._issuer,
            leeway=CLOCK_SECONDS,
            options={"require": _REQUIRED, "verify_aud": False, "verify_exp": False},
        )
        texts = [claims[name] for name in ("iss", "sub", "aud", "jti")]
        times = [claims[name] for name in ("iat", "exp")]
        if not all(isinstance(text, str) and text for text in texts) or not all(type(time) is int for time in times):
            raise jwt.InvalidTokenError
        return header["kid"], claims

    def _still_good(self, token: Token) -> None:
        if token.expires_at <= self._clock():
            raise Unauthorized(reasons=(TokenExpired(),))
        if token.id in self._revocations:
            raise Unauthorized(reasons=(TokenRevoked(),))
        if not self._clients:
            # A deployment without clients has logged nobody in: it is us who don't know them yet.
            raise Unavailable
        # Phone logins are for any client that an app names; only those of a registered one open this API.
        if self._keys.find(token.kid) is None or not self._clients.enabled(token.client_id):
            raise Unauthorized(reasons=(InvalidToken(),))

    def _remember(self, authorization: bytes, token: Token) -> None:
        self._tokens[authorization] = token
        if len(self._tokens) > REMEMBERED_TOKENS:
            self._tokens.popitem(last=False)


def _no_name_twice(token: str) -> None:
    """Let a token pass whose header and claims every reader reads alike (RFC 7519 section 4).

    Raises:
        InvalidTokenError: one of the two says something twice.
        ValueError, RecursionError: one is no JSON.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise jwt.InvalidTokenError
        return found

    for part in token.split(".")[:2]:
        json.loads(base64url_decode(part), object_pairs_hook=once)


def _digest(key: bytes) -> bytes:
    # Of one length, so that comparing them doesn't tell the key's.
    return hashlib.sha256(key).digest()
