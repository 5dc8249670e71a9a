"""What does somebody see who opens the gateway in a browser? How an application of their own uses its accounts API."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PATHS: Final = ("/", "/accounts")
"""The second one is for where the first shows something else."""


def routes(issuer: str, *, old_clients: bool) -> list[Route]:
    """The page, made once.

    Args:
        issuer: the URL under which clients reach this gateway.
        old_clients: whether what they alone may do is shown.
    """
    templates = Environment(loader=PackageLoader("services.gateway"), autoescape=True, undefined=StrictUndefined)
    style = (files("services.gateway") / "templates" / "accounts.css").read_text("utf-8")
    page = templates.get_template("accounts.html").render(base=issuer, old_clients=old_clients, style=style)
    # The page runs nothing and loads nothing; its one style is known by its hash.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    headers = {
        "content-security-policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        ),
        "cache-control": "public, max-age=300",
        "referrer-policy": "no-referrer",
    }

    async def show(_request: Request) -> Response:
        return Response(page, headers=headers, media_type="text/html; charset=utf-8")

    return [Route(path, show) for path in PATHS]
