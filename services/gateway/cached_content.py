"""Content that clients may cache, with entity tags: HTML pages, JSON documents, and the public signing keys."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.routing import Route

from services.gateway.auth_topics import ALGORITHMS, SigningKeys
from services.gateway.endpoint import Endpoint
from services.gateway.requests import HttpRequest
from services.gateway.responses import HeaderList, HttpResponse, entity_tag, if_none_match
from shared.messages.auth.signing_keys import JWKS_SECONDS

HTML: Final = b"text/html; charset=utf-8"
JSON: Final = b"application/json"
GROUP: Final = "content"
"""Label of these routes in metrics."""
_CACHE_CONTROL: Final = (b"cache-control", b"public, max-age=%d" % JWKS_SECONDS)
"""A signing key is published for longer than this before it is used, and verifiers fetch the keys again at an unknown
key ID, so a cached key set does no harm."""
_NO_REFERRER: Final = (b"referrer-policy", b"no-referrer")


class CachedContent(Endpoint):
    """Endpoint with content that changes rarely.

    Args:
        name: label in metrics.
        content: returns the current content.
        media_type: its content type.
        headers: in addition to those for caching.
    """

    def __init__(
        self, name: str, content: Callable[[], bytes], media_type: bytes = JSON, headers: HeaderList = ()
    ) -> None:
        super().__init__((GROUP, name))
        self._content = content
        self._media_type = media_type
        self._headers = headers

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The content, or 304 if the client already has it (RFC 9110 sections 8.8.3, 13.1.2)."""
        content = self._content()
        tag = entity_tag(content)
        headers = (*self._headers, _CACHE_CONTROL, (b"etag", tag))
        if if_none_match(request) & {tag, b"*"}:
            return HttpResponse(304, headers=headers)
        return HttpResponse(200, content, headers, self._media_type)

    def route(self, path: str) -> Route:
        """``GET`` and ``HEAD`` of this content."""
        return Route(path, self, methods=["GET"])


def discovery_routes(keys: SigningKeys, issuer: str) -> list[Route]:
    """``GET /.well-known/jwks.json`` and ``GET /.well-known/openid-configuration``, for verifiers of access tokens.

    The standards are RFC 7517 and OpenID Connect Discovery 1.0.

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


def page_templates() -> Environment:
    """Jinja environment with the gateway's page templates."""
    return Environment(loader=PackageLoader("services.gateway"), autoescape=True, undefined=StrictUndefined)


def template_text(*names: str) -> str:
    """The named files of the template folder, concatenated."""
    folder = files("services.gateway") / "templates"
    return "".join((folder / name).read_text("utf-8") for name in names)


def page_headers(style: str, *, form_action: str = "'none'") -> HeaderList:
    """Headers of a page that runs no script and loads nothing.

    Args:
        style: content of its only style element, which the policy allows by its hash.
        form_action: where its forms may post to.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action {form_action};"
        " frame-ancestors 'none'"
    )
    return ((b"content-security-policy", policy.encode()), _NO_REFERRER)
