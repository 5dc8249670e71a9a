"""Calls of RPC methods in this process: the console's pages use the newest version, as an internal caller.

A call passes the same table, validation, limits and topics as one over HTTP, so a page can do nothing that the `nest`
command cannot. Only the `authorization` header is replaced, by the caller that the console has identified.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from services.gateway.endpoint import Dispatcher
from services.gateway.http_calls import call_of
from services.gateway.methods import METHODS
from services.gateway.portal import PortalLinks
from services.gateway.requests import Fields, HttpRequest, validated
from services.gateway.responses import refusal_response, reply_response
from services.gateway.versions import VERSIONS
from shared.bus.inbox import DONE
from shared.errors import Refusal
from shared.messages import Caller

VERSION: Final = VERSIONS[-1].date
"""Version of the methods that the console calls."""


class CallRefused(Exception):
    """A method refused a call.

    Attributes:
        status: HTTP status of the refusal.
        code: its stable code.
        fields: one sentence for each wrong field, by the field's path; empty unless the code is `validation_failed`.
    """

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body["code"])
        self.status = status
        self.code: str = body["code"]
        self.meta: dict[str, Any] = body.get("meta", {})
        self.fields = {error["path"]: str(error["message"]) for error in self.meta.get("errors", ())}
        self._message: str = body["message"]

    @property
    def sentence(self) -> str:
        """What is wrong, in one sentence for the page."""
        if self.fields:
            path, message = next(iter(self.fields.items()))
            return f"{path or 'The form'}: {message}."
        return self._message


class Calls:
    """Calls methods by name.

    Args:
        dispatcher: sends their messages.
        links: completes links in replies.
    """

    def __init__(self, dispatcher: Dispatcher, links: PortalLinks) -> None:
        self._dispatcher = dispatcher
        self._links = links

    async def call(
        self, request: HttpRequest, caller: Caller, name: str, fields: Fields, *, idempotency_key: str = ""
    ) -> Any:
        """Call a method and return its view; None if it has none.

        Args:
            request: the page's request, for its ID and trace.
            caller: who calls.
            name: of the method, such as `get_user`.
            fields: the body of the call; None values are left out.
            idempotency_key: repeats of a command with it have one effect and one answer.

        Raises:
            CallRefused: the method, or the gateway, refused the call.
            KeyError: there is no such method.
        """
        method = METHODS[VERSION][name]
        if method.message is None:
            raise KeyError(name)
        outer = call_of(request.scope)
        try:
            topic = method.message.topic
            if topic and (refusal := self._dispatcher.rpc_client.overload(topic)) is not None:
                raise refusal
            given = {key: value for key, value in fields.items() if value is not None}
            message = validated(method.message, given)
            headers = {b"idempotency-key": idempotency_key.encode("ascii")} if idempotency_key else {}
            reply = await self._dispatcher.dispatch(
                message,
                given,
                HttpRequest(request.scope, request.receive, headers),
                caller,
                operation=(VERSION, name),
                ordering_key=method.ordering_key,
            )
        except Refusal as refused:
            response = refusal_response(refused, request.id, VERSION)
            outer.outcome = refused.code
            raise CallRefused(response.status, json.loads(response.body)) from None
        response = reply_response(reply, request, VERSION)
        if reply.kind != DONE:
            body = json.loads(response.body)
            outer.outcome = body["code"]
            raise CallRefused(response.status, body)
        if method.links:
            response = self._links.complete(message, caller, response)
        return json.loads(response.body) if response.status != HTTPStatus.NO_CONTENT else None
