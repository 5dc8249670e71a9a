from __future__ import annotations

import pytest

from services.gateway.methods import PATHS
from tests.gateway.conftest import ISSUER, GatewayStack


async def test_discovery_documents_name_issuer_and_public_keys(stack: GatewayStack) -> None:
    configuration = await stack.http.get("/.well-known/openid-configuration")
    assert configuration.json()["issuer"] == ISSUER
    assert configuration.json()["jwks_uri"] == f"{ISSUER}/.well-known/jwks.json"
    assert configuration.json()["id_token_signing_alg_values_supported"] == ["ES256", "ES512", "EdDSA", "RS256"]
    jwks = await stack.http.get("/.well-known/jwks.json")
    assert jwks.headers["content-type"] == "application/jwk-set+json"
    assert stack.signer.jwk in jwks.json()["keys"]
    assert not any("d" in key for key in jwks.json()["keys"])
    assert jwks.headers["cache-control"] == configuration.headers["cache-control"] == "public, max-age=300"


REQUIRED = {
    # RFC 8414 section 2.
    "oauth-authorization-server": {
        "issuer", "authorization_endpoint", "token_endpoint", "response_types_supported",
    },
    # OpenID Connect Discovery 1.0 section 3.
    "openid-configuration": {
        "issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "response_types_supported",
        "subject_types_supported", "id_token_signing_alg_values_supported",
    },
}  # fmt: skip
"""Members that the standards require."""


@pytest.mark.parametrize("name", REQUIRED)
async def test_metadata_has_the_required_members_and_names_what_exists(stack: GatewayStack, name: str) -> None:
    metadata = (await stack.http.get(f"/.well-known/{name}")).json()
    assert metadata.keys() >= REQUIRED[name]
    for endpoint in ("authorization_endpoint", "token_endpoint"):
        assert metadata[endpoint].removeprefix(ISSUER) in PATHS
    for document in ("jwks_uri", "service_documentation"):
        assert (await stack.http.get(metadata[document].removeprefix(ISSUER))).status_code == 200
    offered = {key for key in metadata if key.endswith("_endpoint")}
    assert offered == {"authorization_endpoint", "token_endpoint"}


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ],
)
async def test_known_entity_tag_gets_304(stack: GatewayStack, path: str) -> None:
    first = await stack.http.get(path)
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await stack.http.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, "public, max-age=300")
    assert (await stack.http.get(path, headers={"if-none-match": '"other"'})).content == first.content


@pytest.mark.parametrize("path", ["/.well-known/jwks.json", "/openapi.json", "/reference", "/accounts"])
async def test_head_has_the_headers_of_get_and_no_body(stack: GatewayStack, path: str) -> None:
    get, head = await stack.http.get(path), await stack.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "etag"):
        assert head.headers[name] == get.headers[name]
