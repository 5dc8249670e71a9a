"""Content that clients may cache, with entity tags: HTML pages, JSON documents, and the public signing keys."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.routing import Route

from services.gateway.auth_topics import ALGORITHMS, SigningKeys
from services.gateway.endpoint import Endpoint
from services.gateway.requests import HttpRequest
from services.gateway.responses import HeaderList, HttpResponse, entity_tag, if_none_match
from services.gateway.versions import BASE_VERSION
from shared.messages.auth.signing_keys import JWKS_SECONDS

HTML: Final = b"text/html; charset=utf-8"
JSON: Final = b"application/json"
GROUP: Final = "content"
"""Label of these routes in metrics."""
_CACHE_CONTROL: Final = (b"cache-control", b"public, max-age=%d" % JWKS_SECONDS)
"""A signing key is published for longer than this before it is used, and verifiers fetch the keys again at an unknown
key ID, so a cached key set does no harm."""
MIN_COMPRESSED_BYTES: Final = 16 * 1024
_WEIGHT: Final = re.compile(rb"[01](\.[0-9]{0,3})?")
_NO_REFERRER: Final = (b"referrer-policy", b"no-referrer")


DISCOVERED_VERSION: Final = "2021-10-06"
"""Version of the methods that the metadata documents name."""
_OPENID_METADATA: Final[dict[str, Any]] = {
    "subject_types_supported": ["public"],
    # OpenID Connect Discovery 1.0 section 3 requires RS256. Nest issues no ID tokens; verifiers take the list for that
    # of access tokens, and there it has no effect, since no key is an RSA key.
    "id_token_signing_alg_values_supported": [*sorted(ALGORITHMS.values()), "RS256"],
    "claims_supported": ["iss", "sub", "aud", "iat", "exp", "jti", "v", "ent", "ent_v"],
    # True if it is omitted.
    "request_uri_parameter_supported": False,
}


class CachedContent(Endpoint):
    """Endpoint with content that changes rarely.

    Args:
        name: label in metrics.
        content: returns the current content.
        media_type: its content type.
        headers: in addition to those for caching.
        slow: whether to call ``content`` in another thread, because the event loop must not wait for it.

    Content of more than ``MIN_COMPRESSED_BYTES`` is compressed for clients that accept it.
    """

    def __init__(
        self,
        name: str,
        content: Callable[[], bytes],
        media_type: bytes = JSON,
        headers: HeaderList = (),
        *,
        slow: bool = False,
    ) -> None:
        super().__init__((GROUP, name))
        self._content = content
        self._slow = slow
        self._media_type = media_type
        self._headers = headers

    async def respond(self, request: HttpRequest) -> HttpResponse:
        """The content, or 304 if the client already has it (RFC 9110 sections 8.8.3, 13.1.2)."""
        content = await asyncio.to_thread(self._content) if self._slow else self._content()
        headers = (*self._headers, _CACHE_CONTROL)
        if len(content) > MIN_COMPRESSED_BYTES:
            headers = (*headers, (b"vary", b"accept-encoding"))
            if _accepts_gzip(request):
                content = await asyncio.to_thread(_compressed, content)
                headers = (*headers, (b"content-encoding", b"gzip"))
        # Each encoding has a tag of its own (RFC 9110 section 8.8.3).
        tag = entity_tag(content)
        headers = (*headers, (b"etag", tag))
        if if_none_match(request) & {tag, b"*"}:
            return HttpResponse(304, headers=headers)
        return HttpResponse(200, content, headers, self._media_type)

    def route(self, path: str) -> Route:
        """``GET`` and ``HEAD`` of this content."""
        return Route(path, self, methods=["GET"])


def _accepts_gzip(request: HttpRequest) -> bool:
    """Whether ``accept-encoding`` names gzip (RFC 9110 section 12.5.3), and not with a weight of 0."""
    encodings = request.headers.get(b"accept-encoding", b"").lower().replace(b" ", b"").split(b",")
    return any(each == b"gzip" or (each.startswith(b"gzip;q=") and _is_positive(each[7:])) for each in encodings)


def _is_positive(text: bytes) -> bool:
    return bool(_WEIGHT.fullmatch(text)) and float(text) > 0


@lru_cache(maxsize=16)
def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def discovery_routes(keys: SigningKeys, issuer: str) -> list[Route]:
    """The public keys and two metadata documents, for verifiers of access tokens, below ``/.well-known``.

    ``jwks.json`` is a JWK set (RFC 7517 section 5), ``oauth-authorization-server`` follows RFC 8414, and
    ``openid-configuration`` adds what OpenID Connect Discovery 1.0 requires, because many libraries read no other path.

    Args:
        keys: public keys of access tokens.
        issuer: claim ``iss`` of access tokens, the URL under which clients reach this gateway.
    """
    server = _server_metadata(issuer)
    documents = {
        "jwks": ("jwks.json", lambda: keys.jwks, b"application/jwk-set+json"),
        "authorization_server": ("oauth-authorization-server", _constant(server), JSON),
        "openid_configuration": ("openid-configuration", _constant({**server, **_OPENID_METADATA}), JSON),
    }
    return [
        CachedContent(name, content, media_type).route(f"/.well-known/{path}")
        for name, (path, content, media_type) in documents.items()
    ]


def _server_metadata(issuer: str) -> dict[str, Any]:
    """Metadata of an authorization server (RFC 8414 section 2).

    Both endpoints are RPC methods: they take JSON instead of the forms of RFC 6749, and a mail replaces the redirect to
    a login page. So a generic OAuth client can verify tokens, but cannot log in. Revocation, introspection and
    registration are not offered in the form of their RFCs, and therefore not listed.
    """
    methods = f"{issuer}/{BASE_VERSION}/{DISCOVERED_VERSION}"
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{methods}/send_magic_link",
        "token_endpoint": f"{methods}/authenticate_user",
        "token_endpoint_auth_methods_supported": ["none"],
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "service_documentation": f"{issuer}/reference",
    }


def _constant(document: dict[str, Any]) -> Callable[[], bytes]:
    content = json.dumps(document).encode()
    return lambda: content


def page_templates() -> Environment:
    """Jinja environment with the gateway's page templates."""
    return Environment(loader=PackageLoader("services.gateway"), autoescape=True, undefined=StrictUndefined)


def template_text(*names: str) -> str:
    """The named files of the template folder, concatenated."""
    folder = files("services.gateway") / "templates"
    return "".join((folder / name).read_text("utf-8") for name in names)


def page_headers(style: str, *, form_action: str = "'none'", image_source: str = "'none'") -> HeaderList:
    """Headers of a page that runs no script and loads nothing but images of one origin, if any.

    Args:
        style: content of its only style element, which the policy allows by its hash.
        form_action: where its forms may post to.
        image_source: the origin of its images.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action {form_action};"
        " frame-ancestors 'none'"
    )
    if image_source != "'none'":
        policy += f"; img-src {image_source}"
    return ((b"content-security-policy", policy.encode()), _NO_REFERRER)
