"""How does anybody verify our tokens? The public keys and who issues them (RFC 7517, OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.gateway.announced import ALGORITHMS, SigningKeys

CACHED: Final = {"cache-control": "public, max-age=300"}
"""A key is announced before it signs; verifiers that meet an unknown ``kid`` ask again by themselves."""


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

    async def jwks(_request: Request) -> Response:
        return Response(keys.jwks, media_type="application/jwk-set+json", headers=CACHED)

    async def openid_configuration(_request: Request) -> Response:
        return Response(configuration, media_type="application/json", headers=CACHED)

    return [
        Route("/.well-known/jwks.json", jwks),
        Route("/.well-known/openid-configuration", openid_configuration),
    ]
