"""Stripe's HTTP API: the routes, authentication, and the way from request to response."""

import asyncio
import binascii
import json
import socket
import struct
from base64 import b64decode
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from services.stripe_double import (
    billing,
    catalog,
    checkout_sessions,
    credit_notes,
    customers,
    disputes,
    entitlements,
    events,
    invoice_previews,
    invoices,
    meters,
    payment_methods,
    payments,
    portal_configurations,
    portal_sessions,
    prices,
    products,
    subscription_items,
    subscription_schedules,
    subscription_updates,
    subscriptions,
    tax_rates,
    webhooks,
)
from services.stripe_double.account import API_VERSION, Account, ApiRequest, Json, new_id
from services.stripe_double.errors import StripeApiError, not_supported
from services.stripe_double.faults import Fault, FaultKind, Faults, error_of
from services.stripe_double.idempotency import Idempotency, Response, request_fingerprint
from services.stripe_double.params import Params, decode
from services.stripe_double.rendering import expand, render

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Handler = Callable[..., Json]
"""Function that takes the account, the parameters and the IDs in the path, and returns an object or a list."""

REQUESTS_KEPT = 10_000
_ID_POSITIONS = ((3,), (4,), (3, 5))
"""Positions of the IDs in a path: /v1/customers/{id}/…, /v1/entitlements/features/{id}, /v1/products/{id}/…/{id}."""


def _retrieve(kind: str) -> Handler:
    def retrieve(account: Account, params: Params, identifier: str) -> Json:
        params.reject_unknown()
        return account.get(kind, identifier)

    return retrieve


def _retrieve_account(account: Account, params: Params) -> Json:
    params.reject_unknown()
    return account.all("account")[0]


ROUTES: dict[str, Handler] = {
    "GET /v1/account": _retrieve_account,
    "GET /v1/charges": payments.list_charges,
    "GET /v1/charges/{}": _retrieve("charge"),
    "POST /v1/charges/{}": payments.update_charge,
    "GET /v1/charges/{}/refunds": payments.list_charge_refunds,
    "GET /v1/coupons": catalog.list_coupons,
    "POST /v1/coupons": catalog.create_coupon,
    "GET /v1/coupons/{}": _retrieve("coupon"),
    "GET /v1/credit_notes": credit_notes.list_credit_notes,
    "POST /v1/credit_notes": credit_notes.create_credit_note,
    "GET /v1/credit_notes/{}": _retrieve("credit_note"),
    "POST /v1/credit_notes/{}/void": credit_notes.void_credit_note,
    "GET /v1/customers": customers.list_customers,
    "POST /v1/customers": customers.create_customer,
    "GET /v1/customers/{}": _retrieve("customer"),
    "POST /v1/customers/{}": customers.update_customer,
    "DELETE /v1/customers/{}": customers.delete_customer,
    "GET /v1/customers/{}/balance_transactions": customers.list_balance_transactions,
    "POST /v1/customers/{}/balance_transactions": customers.create_balance_transaction,
    "GET /v1/customers/{}/payment_methods": payment_methods.list_customer_payment_methods,
    "GET /v1/disputes": disputes.list_disputes,
    "GET /v1/disputes/{}": _retrieve("dispute"),
    "POST /v1/disputes/{}": disputes.update_dispute,
    "POST /v1/disputes/{}/close": disputes.close_dispute,
    "GET /v1/events": events.list_events,
    "GET /v1/events/{}": events.retrieve_event,
    "GET /v1/invoice_payments": invoices.list_invoice_payments,
    "GET /v1/invoice_payments/{}": _retrieve("invoice_payment"),
    "GET /v1/invoices": invoices.list_invoices,
    "POST /v1/invoices/create_preview": invoice_previews.create_preview,
    "GET /v1/invoices/{}": _retrieve("invoice"),
    "POST /v1/invoices/{}": invoices.update_invoice,
    "POST /v1/invoices/{}/attach_payment": billing.attach_invoice_payment,
    "POST /v1/invoices/{}/finalize": billing.finalize_invoice,
    "GET /v1/invoices/{}/lines": invoices.list_invoice_lines,
    "POST /v1/invoices/{}/mark_uncollectible": invoices.mark_invoice_uncollectible,
    "POST /v1/invoices/{}/pay": billing.pay_invoice,
    "POST /v1/invoices/{}/void": invoices.void_invoice,
    "GET /v1/payment_intents": payments.list_payment_intents,
    "POST /v1/payment_intents": billing.create_payment_intent,
    "GET /v1/payment_intents/{}": _retrieve("payment_intent"),
    "POST /v1/payment_intents/{}": payments.update_payment_intent,
    "POST /v1/payment_intents/{}/cancel": payments.cancel_payment_intent,
    "POST /v1/payment_intents/{}/confirm": billing.confirm_payment_intent,
    "GET /v1/payment_methods": payment_methods.list_payment_methods,
    "POST /v1/payment_methods": payment_methods.create_payment_method,
    "GET /v1/payment_methods/{}": _retrieve("payment_method"),
    "POST /v1/payment_methods/{}/attach": payment_methods.attach_payment_method,
    "POST /v1/payment_methods/{}/detach": payment_methods.detach_payment_method,
    "GET /v1/prices/{}": _retrieve("price"),
    "GET /v1/products/{}": _retrieve("product"),
    "GET /v1/promotion_codes": catalog.list_promotion_codes,
    "POST /v1/promotion_codes": catalog.create_promotion_code,
    "GET /v1/promotion_codes/{}": _retrieve("promotion_code"),
    "POST /v1/promotion_codes/{}": catalog.update_promotion_code,
    "GET /v1/refunds": payments.list_refunds,
    "POST /v1/refunds": payments.create_refund,
    "GET /v1/refunds/{}": _retrieve("refund"),
    "POST /v1/refunds/{}": payments.update_refund,
    "GET /v1/subscription_items": subscription_items.list_subscription_items,
    "GET /v1/subscription_items/{}": subscription_items.retrieve_subscription_item,
    "GET /v1/subscriptions": subscriptions.list_subscriptions,
    "POST /v1/subscriptions": subscriptions.create_subscription,
    "GET /v1/subscriptions/{}": _retrieve("subscription"),
    "POST /v1/subscriptions/{}": subscription_updates.update_subscription,
    "DELETE /v1/subscriptions/{}": subscription_updates.cancel_subscription,
    "POST /v1/subscriptions/{}/pause": subscription_updates.pause_subscription,
    "POST /v1/subscriptions/{}/resume": subscription_updates.resume_subscription,
    "GET /v1/webhook_endpoints": webhooks.list_webhook_endpoints,
    "POST /v1/webhook_endpoints": webhooks.create_webhook_endpoint,
    "GET /v1/webhook_endpoints/{}": _retrieve("webhook_endpoint"),
    "POST /v1/webhook_endpoints/{}": webhooks.update_webhook_endpoint,
    "DELETE /v1/webhook_endpoints/{}": webhooks.delete_webhook_endpoint,
    **checkout_sessions.ROUTES,
    **entitlements.ROUTES,
    **meters.ROUTES,
    **portal_configurations.ROUTES,
    **portal_sessions.ROUTES,
    **prices.ROUTES,
    **products.ROUTES,
    **subscription_schedules.ROUTES,
    **tax_rates.ROUTES,
}
"""All requests that the double supports; `{}` stands for an ID."""


def find_handler(method: str, path: str) -> tuple[Handler, list[str]]:
    """Return the handler of a request and the IDs in its path.

    Raises:
        StripeApiError: 404 if the double has no such route.
    """
    handler = ROUTES.get(f"{method} {path}")
    if handler is not None:
        return handler, []
    parts = path.split("/")
    for positions in _ID_POSITIONS:
        if len(parts) > positions[-1] and all(parts[position] for position in positions):
            pattern = ["{}" if position in positions else part for position, part in enumerate(parts)]
            handler = ROUTES.get(f"{method} {'/'.join(pattern)}")
            if handler is not None:
                return handler, [parts[position] for position in positions]
    raise StripeApiError(
        f"Unrecognized request URL ({method}: {path}). The Stripe double does not support it.", status=404
    )


@dataclass(kw_only=True)
class LoggedRequest:
    """One request to the API in the request log."""

    method: str
    path: str
    idempotency_key: str | None
    params: dict[str, Any] = field(default_factory=dict)
    """Decoded parameters of query and body."""
    status: int | None = None
    """Status of the response; None if the connection was reset or the response never came."""
    replayed: bool = False
    """Whether the response is the stored one of an earlier request with the same idempotency key."""
    executed: bool = False
    """Whether the changes of the request were made, whatever the client received."""
    fault: FaultKind | None = None
    request_id: str = field(default_factory=lambda: new_id("request"))
    at: int = 0
    """The double's time in Unix seconds."""


@dataclass(frozen=True)
class _Incoming:
    """An HTTP request as received."""

    headers: dict[str, str]
    """Headers by lower-case name."""
    parameters: bytes
    """Form-encoded parameters of query and body."""
    scope: Scope
    receive: Receive


class Api:
    """ASGI application: Stripe's API for one account.

    Args:
        account: The account.
        idempotency: The idempotency keys.
        faults: The request faults.
        api_keys: The valid secret keys.
    """

    def __init__(self, account: Account, idempotency: Idempotency, faults: Faults, api_keys: Sequence[str]) -> None:
        self.log: deque[LoggedRequest] = deque(maxlen=REQUESTS_KEPT)
        self._account = account
        self._idempotency = idempotency
        self._faults = faults
        self._api_keys = tuple(api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request, or apply the fault that matches it."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = await read_body(receive)
        request = LoggedRequest(
            method=scope["method"],
            path=scope["path"],
            idempotency_key=headers.get("idempotency-key") if scope["method"] == "POST" else None,
            at=self._account.now,
        )
        self.log.append(request)
        parameters = b"&".join(part for part in (scope["query_string"], body) if part)
        incoming = _Incoming(headers, parameters, scope, receive)
        fault = self._faults.match(request.method, request.path)
        if fault is None:
            response: Response | None = self._respond(request, incoming)
        else:
            response = await self._apply_fault(fault, request, incoming)
        if response is not None:
            request.status = response.status
            await send_response(send, response, {"Request-Id": request.request_id, "Stripe-Version": API_VERSION})

    def _respond(
        self, request: LoggedRequest, incoming: _Incoming, *, stored_fault: StripeApiError | None = None
    ) -> Response:
        """Execute a request and return its response, or return the stored response of its idempotency key.

        Args:
            request: The log entry, which is completed.
            incoming: The HTTP request.
            stored_fault: Error to return and to store under the idempotency key instead of executing.
        """
        try:
            self._authenticate(incoming.headers)
            request.params = decode(incoming.parameters)
            handler, identifiers = find_handler(request.method, request.path)
            key = request.idempotency_key
            fingerprint = ""
            if key is not None:
                fingerprint = request_fingerprint(request.method, request.path, request.params)
                stored = self._idempotency.find_response(key, fingerprint)
                if stored is not None:
                    request.replayed = True
                    return stored
            return self._execute(request, handler, identifiers, fingerprint, stored_fault)
        except StripeApiError as error:
            return error_response(error)

    def _execute(
        self,
        request: LoggedRequest,
        handler: Handler,
        identifiers: list[str],
        fingerprint: str,
        stored_fault: StripeApiError | None,
    ) -> Response:
        values = dict(request.params)
        expand_paths = Params({"expand": values.pop("expand", [])}).strings("expand")
        params = Params(values)
        if request.method == "GET":
            return self._rendered(handler(self._account, params, *identifiers), expand_paths)
        key = request.idempotency_key
        try:
            with self._account.change(ApiRequest(id=request.request_id, idempotency_key=key)):
                if stored_fault is not None:
                    raise stored_fault
                response = self._call(handler, params, identifiers, expand_paths)
                if key is not None:
                    self._idempotency.store(key, fingerprint, response, request.request_id)
        except StripeApiError as error:
            response = error_response(error)
            if error.executed and key is not None:
                with self._account.change():
                    self._idempotency.store(key, fingerprint, response, request.request_id)
            return response
        request.executed = True
        return response

    def _call(self, handler: Handler, params: Params, identifiers: list[str], expand_paths: list[str]) -> Response:
        try:
            return self._rendered(handler(self._account, params, *identifiers), expand_paths)
        except StripeApiError as error:
            if not error.keeps_changes:
                raise
            return error_response(error)

    def _rendered(self, result: Json, expand_paths: list[str]) -> Response:
        rendered = render(self._account, result)
        if expand_paths:
            rendered = expand(self._account, rendered, expand_paths)
        return Response(200, to_json(rendered))

    def _authenticate(self, headers: dict[str, str]) -> None:
        key = api_key_from(headers.get("authorization", ""))
        if not key:
            raise StripeApiError(
                "You did not provide an API key. You need to provide your API key in the Authorization header,"
                " using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
                status=401,
            )
        if key not in self._api_keys:
            raise StripeApiError(f"Invalid API Key provided: {key[:8]}{'*' * 8}", status=401)
        version = headers.get("stripe-version", API_VERSION)
        if version != API_VERSION:
            raise not_supported(f"API version {version}, only {API_VERSION}")

    async def _apply_fault(self, fault: Fault, request: LoggedRequest, incoming: _Incoming) -> Response | None:
        request.fault = fault.kind
        if fault.kind is FaultKind.SLOW:
            return await self._respond_late(fault, request, incoming)
        if fault.after_work:
            self._respond(request, incoming)
        if fault.kind is FaultKind.RESET:
            reset_connection(incoming.scope)
            return None
        if fault.kind is FaultKind.HANG:
            await wait_for_disconnect(incoming.receive)
            return None
        error = error_of(fault)
        if fault.stored and not fault.after_work:
            return self._respond(request, incoming, stored_fault=error)
        return error_response(error)

    async def _respond_late(self, fault: Fault, request: LoggedRequest, incoming: _Incoming) -> Response:
        if fault.after_work:
            response = self._respond(request, incoming)
            await asyncio.sleep(fault.seconds)
            return response
        with self._idempotency.in_progress(request.idempotency_key) as first:
            if first:
                await asyncio.sleep(fault.seconds)
        return self._respond(request, incoming)


def api_key_from(authorization: str) -> str | None:
    """Return the secret key of an `Authorization` header: the Bearer token, or the user of Basic."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credentials
    if scheme.lower() == "basic":
        try:
            return b64decode(credentials, validate=True).decode("latin-1").partition(":")[0]
        except binascii.Error:
            return None
    return None


def error_response(error: StripeApiError) -> Response:
    """Return the response of an error."""
    return Response(error.status, json.dumps(error.body(), indent=2).encode())


async def read_body(receive: Receive) -> bytes:
    """Read the whole request body."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        continue


def reset_connection(scope: Scope) -> None:
    """Reset the connection of a request, so that the client gets ECONNRESET.

    The server must put the transport under `scope["state"]["transport"]`.
    """
    transport: asyncio.Transport = scope["state"]["transport"]
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def send_response(send: Send, response: Response, headers: dict[str, str]) -> None:
    """Send a response with additional headers."""
    content_type = response.headers.get("Content-Type", "application/json")
    lines = {**headers, **response.headers, "Content-Type": content_type, "Content-Length": str(len(response.body))}
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in lines.items()],
        }
    )
    await send({"type": "http.response.body", "body": response.body})
