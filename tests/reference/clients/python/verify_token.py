"""Verify an access token with Authlib, as a resource server does, and print its user.

Usage: verify_token.py ISSUER CLIENT_ID TOKEN
"""

import json
import os
import sys
from typing import Any
from urllib.request import urlopen

# Nest is tested without TLS.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "true"

from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc import jwt
from joserfc.jwk import KeySet


class Validator(JWTBearerTokenValidator):
    """RFC 9068 section 4."""

    def __init__(self, keys: KeySet, **options: str) -> None:
        super().__init__(**options)
        self._keys = keys

    def get_jwks(self) -> KeySet:
        return self._keys


def get(url: str) -> Any:
    with urlopen(url) as response:  # noqa: S310 -- the URL of a test
        return json.load(response)


def main(issuer: str, client_id: str, token: str) -> None:
    metadata = OpenIDProviderMetadata(get(f"{issuer}/.well-known/openid-configuration"))
    metadata.validate()
    server = AuthorizationServerMetadata(get(f"{issuer}/.well-known/oauth-authorization-server"))
    server.validate()
    assert metadata["issuer"] == server["issuer"] == issuer
    keys = KeySet.import_key_set(get(metadata["jwks_uri"]))
    algorithms = metadata["id_token_signing_alg_values_supported"]
    decoded = jwt.decode(token, keys, algorithms=algorithms)
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer}, aud={"essential": True, "value": client_id}, exp={"essential": True}
    )
    registry.validate(decoded.claims)
    if decoded.header["typ"] == "at+jwt":
        validator = Validator(keys, issuer=issuer, resource_server=client_id)
        validator.validate_token(validator.authenticate_token(token), scopes=None, request=None)
    sys.stdout.write(f"{decoded.claims['sub']}\n")


main(*sys.argv[1:])
