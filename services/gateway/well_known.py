"""Discovery documents for verifiers of access tokens (RFC 7517, OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import json

from starlette.routing import Route

from services.gateway.auth_topics import ALGORITHMS, SigningKeys
from services.gateway.cached_content import CachedContent


def routes(keys: SigningKeys, issuer: str) -> list[Route]:
    """``GET /.well-known/jwks.json`` and ``GET /.well-known/openid-configuration``.

    Args:
        keys: public keys of access tokens.
        issuer: claim ``iss`` of access tokens, the URL under which clients reach this gateway.
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
    return [
        CachedContent("jwks", lambda: keys.jwks, b"application/jwk-set+json").route("/.well-known/jwks.json"),
        CachedContent("openid_configuration", lambda: configuration).route("/.well-known/openid-configuration"),
    ]
