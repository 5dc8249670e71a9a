"""How does somebody get no more news from us without logging in? By the link beside a mail (RFC 8058).

To open the link changes nothing: virus scanners and previews open every link. The page has a button; mail programs
that offer to unsubscribe post to the link themselves.
"""

from __future__ import annotations

import base64
import hashlib
import time
import tomllib
from importlib.resources import files
from typing import Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.gateway.accept_language import accepted, language_tag
from services.gateway.asking import Asking
from services.gateway.body import read_body
from services.gateway.errors import answer
from services.gateway.guard import request_id
from services.gateway.rpc import CALL_SECONDS
from shared.bus.inbox import DONE
from shared.errors import Refusal, Unavailable
from shared.mail import LANGUAGE_PARAMETER, UNSUBSCRIBE_PATH, best_locale, user_of_token
from shared.messages.mailer.consents import RecordMarketingConsent
from shared.sealing import Sealer

FAMILY: Final = "unsubscribe"
SOURCE: Final = "unsubscribe-link"
State = Literal["ask", "done", "unknown", "failed"]
"""What the page has to say."""
MAX_BODY_BYTES: Final = 4096
"""A form with one field; nothing in it is looked at."""


def _by_user(command: RecordMarketingConsent, _sealer: Sealer) -> str:
    return command.user_id


def routes(asking: Asking, sealer: Sealer) -> list[Route]:
    """``GET`` and ``POST /unsubscribe/<token>``.

    Args:
        asking: asks the mailer.
        sealer: opens tokens.
    """
    page = Unsubscribing(asking, sealer)
    return [
        Route(f"{UNSUBSCRIBE_PATH}/{{token}}", page.show, methods=["GET"]),
        Route(f"{UNSUBSCRIBE_PATH}/{{token}}", page.unsubscribe, methods=["POST"]),
    ]


class Unsubscribing:
    """The page behind the link.

    Args:
        asking: asks the mailer.
        sealer: opens tokens.
    """

    def __init__(self, asking: Asking, sealer: Sealer) -> None:
        self._asking = asking
        self._sealer = sealer
        templates = Environment(loader=PackageLoader("services.gateway"), autoescape=True, undefined=StrictUndefined)
        self._template = templates.get_template("unsubscribe.html")
        folder = files("services.gateway") / "templates"
        self._words = tomllib.loads((folder / "unsubscribe.toml").read_text("utf-8"))
        self._style = (folder / "unsubscribe.css").read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        self._headers = {
            "content-security-policy": (
                f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'self';"
                " frame-ancestors 'none'"
            ),
            # The path is the right to unsubscribe: it goes nowhere else.
            "referrer-policy": "no-referrer",
            "x-robots-tag": "noindex",
        }

    async def show(self, request: Request) -> Response:
        """The page with the button."""
        known = user_of_token(self._sealer, request.path_params["token"]) is not None
        return self._page(request, "ask", 200) if known else self._page(request, "unknown", 404)

    async def unsubscribe(self, request: Request) -> Response:
        """Set the consent of whom the token names to ``none``, and say so."""
        began = time.perf_counter()
        response = await self._unsubscribed(request)
        seconds = time.perf_counter() - began
        CALL_SECONDS.labels(FAMILY, FAMILY, str(response.status_code)).observe(seconds)
        return response

    async def _unsubscribed(self, request: Request) -> Response:
        await read_body(request.receive, MAX_BODY_BYTES)
        user_id = user_of_token(self._sealer, request.path_params["token"])
        if user_id is None:
            return self._page(request, "unknown", 404)
        command = RecordMarketingConsent(key=user_id, user_id=user_id, level="none", source=SOURCE)
        try:
            reply = await self._asking.ask(
                command,
                caller=self._asking.stranger(request.scope),
                headers={},
                called=(FAMILY, FAMILY),
                sent={},
                ordering=_by_user,
            )
            if reply.kind != DONE:
                raise Unavailable
        except Refusal as refusal:
            refused = answer(refusal, request_id(request.scope))
            response = self._page(request, "failed", refused.status)
            response.raw_headers.extend(refused.headers)
            return response
        return self._page(request, "done", 200)

    def _page(self, request: Request, state: State, status: int) -> Response:
        locale = self._language(request)
        words = self._words[locale]
        content = self._template.render(
            locale=locale, title=words["title"], said=words[state], state=state, style=self._style
        )
        headers = {**self._headers, "content-language": locale}
        return Response(content, status, headers=headers, media_type="text/html; charset=utf-8")

    def _language(self, request: Request) -> str:
        """That of the mail, as its link says; else what the browser asks for."""
        of_mail = language_tag(request.query_params.get(LANGUAGE_PARAMETER, ""))
        return best_locale((of_mail, *accepted(request.headers.get("accept-language", ""))), self._words)
