"""Verification of access tokens by servers, with the public keys of a Nest and without a call for each token."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx
import jwt

RELOAD_SECONDS: Final = 300.0
"""Age of the keys at which they are read again. Nest publishes a new key for longer than that before it signs."""
UNKNOWN_KEY_SECONDS: Final = 5.0
"""Shortest time between two reads because of an unknown key, so that forged tokens cause few."""
STALE_SECONDS: Final = 3600.0
"""Age up to which keys are used while they cannot be read again."""
ALGORITHMS: Final = ("ES256", "ES512", "EdDSA")
TYPES: Final = ("JWT", "at+jwt")
"""``typ`` of access tokens. Tokens of other types are signed with the same keys (RFC 8725 section 3.11)."""
LONGEST_TOKEN: Final = 16_384


class InvalidToken(Exception):
    """The token is not a valid access token for this audience. ``expired`` says whether that is the only reason."""

    def __init__(self, message: str, *, expired: bool = False) -> None:
        self.expired = expired
        super().__init__(message)


class KeysUnavailable(Exception):
    """The public keys could not be read from Nest."""


@dataclass(frozen=True)
class Claims:
    """Claims of a valid access token.

    Attributes:
        user_id: ``sub``.
        client_id: ``aud``.
        token_id: ``jti``, or an empty string.
        expires_at: ``exp`` in Unix seconds.
        features: ``ent``: keys of the user's features; None if the token has none, which does not mean no feature.
        features_version: ``ent_v``; the higher of two is newer. None if the token has none.
        raw: All claims.
    """

    user_id: str
    client_id: str
    token_id: str
    expires_at: float
    features: frozenset[str] | None
    features_version: int | None
    raw: Mapping[str, Any] = field(repr=False)


class _Keys:
    """Public keys by ID, and when to read them again."""

    def __init__(self) -> None:
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = self._tried_at = -STALE_SECONDS

    def find(self, kid: str, now: float) -> jwt.PyJWK | None:
        """Return the key if it may be used without another read."""
        return self._keys.get(kid) if now - self._read_at < RELOAD_SECONDS else None

    def may_read(self, now: float) -> bool:
        return now - self._tried_at >= UNKNOWN_KEY_SECONDS

    def tried(self, now: float) -> None:
        self._tried_at = now

    def replace(self, document: Any, now: float) -> None:
        keys: dict[str, jwt.PyJWK] = {}
        for each in document["keys"]:
            if each.get("alg") in ALGORITHMS and each.get("use", "sig") == "sig" and each.get("kid"):
                keys[each["kid"]] = jwt.PyJWK(each)
        self._keys, self._read_at = keys, now

    def after_read(self, kid: str, now: float) -> jwt.PyJWK:
        """Return the key once they were read again, or could not be."""
        if now - self._read_at >= STALE_SECONDS:
            raise KeysUnavailable("The public keys could not be read from Nest.")
        key = self._keys.get(kid)
        if key is None:
            raise InvalidToken("Nest has no key of this ID.")
        return key


class _Verification:
    """What both verifiers share: everything except for reading the keys."""

    def __init__(
        self,
        issuer: str,
        audience: str | Collection[str],
        *,
        url: str | None = None,
        leeway: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self.audiences = {audience} if isinstance(audience, str) else set(audience)
        if not self.audiences or not all(self.audiences):
            raise ValueError("`audience` is the ID of at least one client.")
        self.jwks_url = f"{(url or issuer).rstrip('/')}/.well-known/jwks.json"
        self.leeway = leeway
        self._clock = clock
        self._keys = _Keys()

    def _kid_of(self, token: str) -> str:
        """Return the key ID of a token whose header is acceptable."""
        if len(token) > LONGEST_TOKEN:
            raise InvalidToken("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise InvalidToken("The token is not a JWT.") from None
        types = {f"{prefix}{name}".lower() for name in TYPES for prefix in ("", "application/")}
        if str(header.get("typ")).lower() not in types:
            raise InvalidToken("The token is not an access token.")
        if header.get("alg") not in ALGORITHMS or "crit" in header:
            raise InvalidToken("The token is not signed as Nest signs.")
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise InvalidToken("The token names no key.")
        return kid

    def _claims_of(self, token: str, key: jwt.PyJWK) -> Claims:
        """Return the claims of a token that this key has signed."""
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # the key's, not the token's (RFC 8725 section 3.1)
                issuer=self.issuer,
                audience=self.audiences,
                leeway=self.leeway,
                # A clock that is behind Nest's must not refuse new tokens; `iat` limits nothing (RFC 7519).
                options={"require": ["exp", "iss", "aud", "sub"], "verify_iat": False, "strict_aud": False},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("The token has expired.", expired=True) from None
        except jwt.PyJWTError as error:
            raise InvalidToken(f"The token is invalid: {type(error).__name__}.") from None
        audience = claims["aud"]
        features = claims.get("ent")
        return Claims(
            user_id=claims["sub"],
            client_id=audience if isinstance(audience, str) else next(a for a in audience if a in self.audiences),
            token_id=str(claims.get("jti", "")),
            expires_at=float(claims["exp"]),
            features=frozenset(features) if isinstance(features, list) else None,
            features_version=claims.get("ent_v"),
            raw=claims,
        )

    def _store(self, response: httpx.Response) -> None:
        response.raise_for_status()
        self._keys.replace(response.json(), self._clock())


FAILURES: Final = (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError)
"""Failures of a read: no response, or one that is no key set. The keys of the last read stay."""


class TokenVerifier(_Verification):
    """Blocking verifier of access tokens, for any number of threads.

    It checks ``typ``, ``alg``, the signature, ``iss``, ``aud`` and ``exp``. Tokens that were revoked stay valid here
    until they expire, within an hour.

    Args:
        issuer: ``NEST_ISSUER`` of the Nest, character by character.
        audience: ID of your client, or of several.
        url: Address to read the keys from, if it is not the issuer.
        leeway: Seconds for which an expired token is accepted.
        http: HTTP client with settings of your own. The caller closes it.
        clock: Seconds that only grow, for tests.
    """

    def __init__(
        self,
        issuer: str,
        audience: str | Collection[str],
        *,
        url: str | None = None,
        leeway: float = 0.0,
        http: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(issuer, audience, url=url, leeway=leeway, clock=clock)
        self._http = http or httpx.Client(timeout=5)
        self._owns_http = http is None
        self._reading = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verify(self, token: str) -> Claims:
        """Return the claims of an access token.

        Raises:
            InvalidToken: the token is not valid here.
            KeysUnavailable: the keys could not be read from Nest.
        """
        kid = self._kid_of(token)
        key = self._keys.find(kid, self._clock())
        if key is None:
            with self._reading:  # one read for all who wait
                key = self._keys.find(kid, self._clock())
                if key is None:
                    self._read()
                    key = self._keys.after_read(kid, self._clock())
        return self._claims_of(token, key)

    def _read(self) -> None:
        if self._keys.may_read(self._clock()):
            self._keys.tried(self._clock())
            try:
                self._store(self._http.get(self.jwks_url))
            except FAILURES:
                return  # `after_read` says whether the keys of the last read can be used


class AsyncTokenVerifier(_Verification):
    """Asynchronous verifier of access tokens, for any number of tasks of one event loop. As ``TokenVerifier``."""

    def __init__(
        self,
        issuer: str,
        audience: str | Collection[str],
        *,
        url: str | None = None,
        leeway: float = 0.0,
        http: httpx.AsyncClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(issuer, audience, url=url, leeway=leeway, clock=clock)
        self._http = http or httpx.AsyncClient(timeout=5)
        self._owns_http = http is None
        self._reading = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def verify(self, token: str) -> Claims:
        """Return the claims of an access token, as ``TokenVerifier.verify``."""
        kid = self._kid_of(token)
        key = self._keys.find(kid, self._clock())
        if key is None:
            async with self._reading:  # one read for all who wait
                key = self._keys.find(kid, self._clock())
                if key is None:
                    await self._read()
                    key = self._keys.after_read(kid, self._clock())
        return self._claims_of(token, key)

    async def _read(self) -> None:
        if self._keys.may_read(self._clock()):
            self._keys.tried(self._clock())
            try:
                self._store(await self._http.get(self.jwks_url))
            except FAILURES:
                return  # `after_read` says whether the keys of the last read can be used
