"""HTTP responses: replies and refusals as JSON, entity tags, and sending over ASGI."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import Send

from services.gateway.errors import STATUS, HttpRefusal, MethodNotSupported
from services.gateway.requests import HttpRequest
from services.gateway.rpc_client import RpcReply
from services.gateway.versions import error_body
from shared.bus.inbox import DONE
from shared.errors import Kind, Refusal

HeaderList = tuple[tuple[bytes, bytes], ...]
RETRY_SECONDS: Final = 1
"""Value of ``retry-after`` if the refusal has no ``retry_after``."""
_WITH_RETRY_AFTER: Final = frozenset({429, 503})
_WITHOUT_LENGTH: Final = frozenset({204, 304})
"""Statuses whose responses have no content-length (RFC 9110 sections 8.6 and 15.4.5)."""
_REPLAYED: Final = (b"idempotent-replayed", b"true")


@dataclass(slots=True)
class HttpResponse:
    """An HTTP response.

    Attributes:
        status: HTTP status code.
        body: empty if the response has no content.
        headers: besides ``content-type``, ``content-length`` and those that the middleware adds.
        media_type: content type of the body.
    """

    status: int
    body: bytes = b""
    headers: HeaderList = ()
    media_type: bytes = b"application/json"


def reply_response(reply: RpcReply, request: HttpRequest, version: str = "") -> HttpResponse:
    """Response for a service's reply: 200 with its view, 204 if it has none, or the service's refusal.

    Args:
        reply: of the service.
        request: that it answers.
        version: date in the path of the request, which determines the format of errors; empty if there is none.

    Raises:
        ValueError: the reply is a refusal of an unknown kind.
    """
    if reply.kind != DONE:
        response = _error(STATUS[Kind(reply.kind)], error_body(json.loads(reply.body), version), request.id)
    elif reply.body:
        response = HttpResponse(200, reply.body)
    else:
        response = HttpResponse(204)
    if reply.replayed and b"idempotency-key" in request.headers:
        response.headers = (*response.headers, _REPLAYED)
    return response


def refusal_response(refusal: Refusal, request_id: str, version: str = "") -> HttpResponse:
    """Response for a refusal that the gateway raised; ``version`` as in ``reply_response``."""
    body = error_body(refusal.body(), version)
    if not isinstance(refusal, HttpRefusal):
        return _error(STATUS[refusal.kind], body, request_id)
    response = _error(refusal.status, body, request_id)
    # Nobody knows where a malformed request ends, so its connection cannot carry another one.
    response.headers = (*response.headers, (b"connection", b"close"))
    return response


def _error(status: int, body: dict[str, Any], request_id: str) -> HttpResponse:
    meta = body.get("meta", {})
    headers: HeaderList = ()
    if status in _WITH_RETRY_AFTER:
        headers = ((b"retry-after", b"%d" % max(1, int(meta.get("retry_after", RETRY_SECONDS)))),)
    elif status == STATUS[Kind.UNAUTHENTICATED]:
        headers = ((b"www-authenticate", b"bearer"),)
    elif status == MethodNotSupported.status:
        headers = ((b"allow", ", ".join(meta["supported"]).encode()),)
    body["meta"] = {**meta, "request_id": request_id}
    return HttpResponse(status, json.dumps(body).encode(), headers)


def entity_tag(content: bytes) -> bytes:
    """Strong entity tag of a body (RFC 9110 section 8.8.3)."""
    return b'"%s"' % base64.urlsafe_b64encode(hashlib.sha256(content).digest()[:16]).rstrip(b"=")


def if_none_match(request: HttpRequest) -> set[bytes]:
    """Entity tags that the client already has, without the mark of weak ones (RFC 9110 section 13.1.2)."""
    return {each.strip().removeprefix(b"W/") for each in request.headers.get(b"if-none-match", b"").split(b",")}


async def send_response(send: Send, response: HttpResponse) -> None:
    """Send a whole response over ASGI."""
    headers = list(response.headers)
    if response.body:
        headers.append((b"content-type", response.media_type))
    if response.status not in _WITHOUT_LENGTH:
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
