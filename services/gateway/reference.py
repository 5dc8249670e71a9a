"""What can be called here? ``GET /openapi.json`` for programs, and ``GET /reference``, the same for people.

``make reference`` writes the document; what is served is that file, and a page that is made of it once.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cached_property
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.gateway.reference_page import Layout, marked
from services.gateway.wellknown import cached


def routes(issuer: str) -> list[Route]:
    """``GET /openapi.json`` and ``GET /reference``.

    Args:
        issuer: the URL under which clients reach this gateway.
    """
    reference = Reference(issuer)

    async def document(request: Request) -> Response:
        return cached(request, reference.document, "application/json")

    async def page(request: Request) -> Response:
        response = cached(request, reference.page, "text/html; charset=utf-8")
        response.headers["content-security-policy"] = reference.policy
        response.headers["referrer-policy"] = "no-referrer"
        return response

    return [Route("/openapi.json", document), Route("/reference", page)]


class Reference:
    """The document and its page, each made when somebody asks for it first.

    Args:
        issuer: the URL that the page's examples call.
    """

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    @cached_property
    def document(self) -> bytes:
        """OpenAPI, as JSON."""
        return (files("services.gateway") / "openapi.json").read_bytes()

    @cached_property
    def page(self) -> bytes:
        """HTML."""
        templates = Environment(loader=PackageLoader("services.gateway"), autoescape=True, undefined=StrictUndefined)
        templates.filters["marked"] = marked
        layout = Layout(json.loads(self.document), self._issuer)
        return templates.get_template("reference.html").render(layout=layout, style=self._style).encode()

    @cached_property
    def policy(self) -> str:
        """The page runs nothing and loads nothing; its one style is known by its hash."""
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        return (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        )

    @cached_property
    def _style(self) -> str:
        folder = files("services.gateway") / "templates"
        return "".join((folder / name).read_text("utf-8") for name in ("accounts.css", "reference.css"))
