"""The billing playground, `/dev/billing`: a page that controls the Stripe double, live by htmx.

Each button is a form, so that the page works without scripts too: then it is loaded again. Forms of other origins are
refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, get_args

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from services.embedded.nest_billing import NestBilling
from services.embedded.playground import EVENTS_PER_CUSTOMER, SHOWN_CUSTOMERS, Playground, Step
from services.stripe_double import StripeApiError
from services.stripe_double.pages.pages import parse_form
from shared.pages.pages import HTML, Pages, page_headers
from shared.pages.request_checks import is_same_origin

if TYPE_CHECKING:
    from services.embedded.machine import Machine
    from services.embedded.stripe import StripeUse

PATH: Final = "/dev/billing"
MAX_SHOWN: Final = 100
_HEADERS: Final = page_headers(referrer="same-origin")
_DIGITS: Final = 3


class BillingPages:
    """The routes of the billing playground.

    Args:
        pages: the templates.
        stripe: which Stripe Nest uses.
        playground: content of the page; None if Nest uses a real Stripe account.
    """

    def __init__(self, pages: Pages, stripe: StripeUse, playground: Playground | None) -> None:
        self._pages = pages
        self._stripe = stripe
        self._headers = _HEADERS
        self._said = ("", "")
        """What the last form did, and why it failed; shown once, after the redirect."""
        if playground is None:
            self.routes = [Route(PATH, self._real_stripe)]
            return
        self._playground = playground
        # The form that opens a Checkout leads to the double's port.
        self._headers = page_headers(referrer="same-origin", form_action=f"'self' {playground.pages_url}")
        self.routes = [
            Route(PATH, self._page),
            Route(f"{PATH}/live", self._live),
            Route(f"{PATH}/checkout", self._checkout, methods=["POST"]),
            Route(f"{PATH}/customers/{{customer}}/portal", self._portal),
            Route(f"{PATH}/clock", self._doing(self._move), methods=["POST"]),
            Route(f"{PATH}/customers/{{customer}}/{{action}}", self._doing(self._act), methods=["POST"]),
            Route(f"{PATH}/webhooks/{{switch}}", self._doing(self._switch), methods=["POST"]),
            Route(f"{PATH}/events/{{event}}/resend", self._doing(self._resend), methods=["POST"]),
        ]

    async def _real_stripe(self, _: Request) -> Response:
        return self._response(self._pages.render("billing_real.html", stripe=self._stripe))

    async def _page(self, request: Request) -> Response:
        (text, failed), self._said = self._said, ("", "")
        shown = _shown(request)
        subscribe = self._pages.render("billing_subscribe.html", prices=self._playground.prices())
        page = self._pages.render(
            "billing.html",
            said=self._pages.render("billing_said.html", text=text, failed=failed, swapped=False),
            subscribe=subscribe,
            live=self._poll(await self._content(shown), shown),
        )
        return self._response(page)

    async def _live(self, request: Request) -> Response:
        """Render what changes; 204 if the page shows it already, so that nothing is replaced under the pointer."""
        content = await self._content(_shown(request))
        if request.query_params.get("seen") == _digest(content):
            return Response(status_code=204, headers=_HEADERS)
        return self._response(self._poll(content, _shown(request)))

    async def _checkout(self, request: Request) -> Response:
        if not is_same_origin(request.headers):
            return PlainTextResponse("only the page itself may do this", 403, _HEADERS)
        form = await _form(request)
        here = f"{request.url.scheme}://{request.url.netloc}{PATH}"
        values = {name: form.get(name, "") for name in ("email", "price", "trial")}
        try:
            url = self._playground.checkout(**values, return_url=here)
        except StripeApiError as error:
            self._said = "", error.message
            url = PATH
        return RedirectResponse(url, 303, self._headers)

    async def _portal(self, request: Request) -> Response:
        try:
            return_url = f"{request.url.scheme}://{request.url.netloc}{PATH}"
            url = self._playground.portal(request.path_params["customer"], return_url)
        except StripeApiError as error:
            return PlainTextResponse(error.message, 404, _HEADERS)
        return RedirectResponse(url, 303, _HEADERS)

    def _doing(self, act: Callable[[Request], Awaitable[str]]) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that does something, and shows the page with a sentence about it."""

        async def endpoint(request: Request) -> Response:
            if not is_same_origin(request.headers):
                return PlainTextResponse("only the page itself may do this", 403, _HEADERS)
            said, failed = "", ""
            try:
                said = await act(request)
            except StripeApiError as error:
                failed = error.message
            if "hx-request" not in request.headers:
                self._said = said, failed
                return RedirectResponse(PATH, 303, _HEADERS)
            shown = _shown(request)
            told = self._pages.render("billing_said.html", text=said, failed=failed, swapped=True)
            return self._response(self._poll(await self._content(shown), shown) + told)

        return endpoint

    async def _move(self, request: Request) -> str:
        step = (await _form(request)).get("step")
        for known in get_args(Step):
            if step == known:
                return await self._playground.move(known)
        raise StripeApiError(f"There is no step {step}.")

    async def _act(self, request: Request) -> str:
        return self._playground.act(request.path_params["customer"], request.path_params["action"])

    async def _switch(self, request: Request) -> str:
        on = (await _form(request)).get("on") == "true"
        return self._playground.switch(request.path_params["switch"], on=on)

    async def _resend(self, request: Request) -> str:
        return self._playground.resend(request.path_params["event"])

    async def _content(self, shown: int) -> str:
        """The part of the page that changes."""
        customers, events = self._playground.counts()
        hidden = max(customers, events // EVENTS_PER_CUSTOMER) > shown
        return self._pages.render(
            "billing_live.html",
            clock=self._playground.clock(),
            switches=self._playground.switches(),
            customers=await self._playground.customers(shown),
            total=customers,
            shown=shown,
            more=min(shown + SHOWN_CUSTOMERS, MAX_SHOWN) if hidden and shown < MAX_SHOWN else None,
            events=self._playground.log.newest(EVENTS_PER_CUSTOMER * shown),
        )

    def _poll(self, content: str, shown: int) -> str:
        """The element that polls for other content than this."""
        return self._pages.render("billing_poll.html", content=content, digest=_digest(content), shown=shown)

    def _response(self, text: str) -> Response:
        return Response(text, 200, self._headers, HTML)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(request: Request) -> int:
    text = request.query_params.get("shown", "")
    return (
        min(int(text), MAX_SHOWN) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else SHOWN_CUSTOMERS
    )


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form; none of a form that is longer than any of this page."""
    try:
        return parse_form(await request.body())
    except ValueError:
        return {}


@asynccontextmanager
async def billing_routes(machine: Machine) -> AsyncIterator[Callable[[Pages], list[Route]]]:
    """Return, while the context is entered, a function that makes the routes from the templates."""
    nest = NestBilling(machine.base_url, machine.internal_key)
    playground = Playground(machine.stripe.double, nest) if machine.stripe.double else None
    try:
        yield lambda pages: BillingPages(pages, machine.stripe, playground).routes
    finally:
        await nest.close()
