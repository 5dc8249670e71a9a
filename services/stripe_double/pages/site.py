"""The pages as one application: routes, static files, and the checks of host and origin."""

from collections.abc import Callable
from http import HTTPStatus

from services.stripe_double.account import Account
from services.stripe_double.api import Receive, Scope, Send, read_body, send_response
from services.stripe_double.idempotency import Response
from services.stripe_double.pages.checkout import checkout_page
from services.stripe_double.pages.invoice import credit_note_pdf, invoice_page, invoice_pdf, payment_page, receipt_page
from services.stripe_double.pages.pages import PAGES, STATIC, PageRequest, message, not_found, parse_form
from services.stripe_double.pages.portal import login_page, portal_page
from services.stripe_double.rendering import (
    CHECKOUT_PAGE,
    CREDIT_NOTE_PAGE,
    INVOICE_PAGE,
    LOGIN_PAGE,
    PAYMENT_PAGE,
    PDF,
    PORTAL_PAGE,
    RECEIPT_PAGE,
)
from shared.pages.request_checks import is_rebinding_safe, is_same_origin

_ROUTES: dict[str, Callable[[Account, PageRequest, str], Response]] = {
    CHECKOUT_PAGE: checkout_page,
    PORTAL_PAGE: portal_page,
    LOGIN_PAGE: login_page,
    INVOICE_PAGE: invoice_page,
    RECEIPT_PAGE: receipt_page,
    PAYMENT_PAGE: payment_page,
}
"""Functions by the beginning of the path; they get what follows it."""
_PDFS = {INVOICE_PAGE: invoice_pdf, CREDIT_NOTE_PAGE: credit_note_pdf}


class Site:
    """ASGI application: the pages of an account. An address is the permission: whoever knows it may use the page.

    Args:
        account: The account.
    """

    def __init__(self, account: Account) -> None:
        self._account = account

    @staticmethod
    def has(path: str) -> bool:
        """Return whether a path is one of these pages."""
        return path.startswith((*_ROUTES, *_PDFS, f"{STATIC}/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request: 200, 402 for a refused payment, 403, 404, 405, 413 or 421."""
        body = await read_body(receive)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            query, form = parse_form(scope["query_string"]), parse_form(body)
        except ValueError:
            response = message("This form is too long", "Shorten it.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            response = self._respond(PageRequest(scope["method"], scope["path"], query, form, headers))
        if scope["method"] == "HEAD":
            response = Response(response.status, b"", response.headers)
        await send_response(send, response, {})

    def _respond(self, request: PageRequest) -> Response:
        if not is_rebinding_safe(request.headers.get("host", "")):
            text = f"Open this page at {self._account.pages_url}."
            return message("Wrong host", text, HTTPStatus.MISDIRECTED_REQUEST)
        if request.method not in {"GET", "HEAD", "POST"}:
            return message("Wrong method", "Pages are read and submitted.", HTTPStatus.METHOD_NOT_ALLOWED)
        if request.path.startswith(f"{STATIC}/"):
            file = PAGES.static(request.path.removeprefix(f"{STATIC}/"))
            if file is None:
                return not_found()
            return Response(HTTPStatus.OK, file.content, {**file.headers, "Content-Type": file.media_type})
        if request.posts and not is_same_origin(request.headers):
            return message("Foreign form", "Only this page may submit its form.", HTTPStatus.FORBIDDEN)
        prefix = next(each for each in (*_ROUTES, *_PDFS) if request.path.startswith(each))
        rest = request.path.removeprefix(prefix)
        respond = _PDFS.get(prefix) if rest.endswith(PDF) else _ROUTES.get(prefix)
        return not_found() if respond is None else respond(self._account, request, rest.removesuffix(PDF))
