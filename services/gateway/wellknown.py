"""How does anybody verify our tokens? The public keys and who issues them (RFC 7517, OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.gateway.announced import ALGORITHMS, SigningKeys
from shared.messages.auth.signing_keys import JWKS_SECONDS

CACHED: Final = f"public, max-age={JWKS_SECONDS}"
"""A key is announced for longer than this before it signs; verifiers that meet an unknown ``kid`` ask again."""
NOT_MODIFIED: Final = 304


def routes(keys: SigningKeys, issuer: str) -> list[Route]:
    """``GET /.well-known/jwks.json`` and ``GET /.well-known/openid-configuration``.

    Args:
        keys: what signs access tokens.
        issuer: the tokens' ``iss``, the URL under which clients reach this gateway.
    """
    configuration = json.dumps(
        {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "id_token_signing_alg_values_supported": sorted(ALGORITHMS.values()),
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "code_challenge_methods_supported": ["S256"],
        }
    ).encode()

    async def jwks(request: Request) -> Response:
        return cached(request, keys.jwks, "application/jwk-set+json")

    async def openid_configuration(request: Request) -> Response:
        return cached(request, configuration, "application/json")

    return [
        Route("/.well-known/jwks.json", jwks),
        Route("/.well-known/openid-configuration", openid_configuration),
    ]


def cached(request: Request, body: bytes, media_type: str) -> Response:
    """The body with its entity tag, or 304 for whoever has the same one already (RFC 9110 sections 8.8.3, 13.1.2)."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"cache-control": CACHED, "etag": tag}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=NOT_MODIFIED, headers=headers)
    return Response(body, media_type=media_type, headers=headers)
