"""Client of the Stripe double of an embedded Nest: its pages, cards, clock and webhooks."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import httpx

SUCCEEDS: Final = "4242 4242 4242 4242"
DECLINED: Final = "4000 0000 0000 0002"
NEEDS_AUTHENTICATION: Final = "4000 0027 6000 3184"
DECLINED_LATER: Final = "4000 0000 0000 0341"
"""Accepted at first, declined at every payment."""
_ALERT: Final = re.compile(r'role="?alert"?[^>]*>(.*?)</', re.DOTALL)


class CardRefused(Exception):
    """A page did not accept the card; the text is what it says."""


class StripeDouble:
    """A stand-in for a Stripe account; a context manager.

    It has its own clock, which only goes forward, and which moves nothing but Stripe: renewals, trials and expiries
    happen as they fall due, and their webhooks follow. Nest's own clock stays.

    Args:
        url: URL of the double.
        api_key: its secret key.
    """

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url,
            timeout=60.0,
            verify=False,  # noqa: S501 -- plain HTTP on this machine
            headers={"authorization": f"Bearer {api_key}"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def now(self) -> datetime:
        """The time of Stripe's clock."""
        return datetime.fromtimestamp(self._control("GET", "clock")["now"], UTC)

    def advance(self, by: timedelta) -> datetime:
        """Move the clock forward, wait until the webhooks are delivered, and return the new time."""
        self._control("POST", "clock", {"advance": by.total_seconds()})
        self.settle()
        return self.now

    def advance_to(self, at: datetime) -> datetime:
        """Move the clock forward to a time, as ``advance``."""
        return self.advance(max(at - self.now, timedelta(0)))

    def end_trial(self, user_id: str) -> None:
        """Move the clock to just after the end of a person's trial.

        Raises:
            LookupError: the person has no trial.
        """
        ends = self.subscription(user_id).get("trial_end")
        if not ends:
            raise LookupError(f"{user_id} has no trial")
        self.advance_to(datetime.fromtimestamp(ends, UTC) + timedelta(hours=2))

    def renew(self, user_id: str) -> None:
        """Move the clock to just after the end of the current period of a person's subscription."""
        items = self.subscription(user_id)["items"]["data"]
        self.advance_to(datetime.fromtimestamp(items[0]["current_period_end"], UTC) + timedelta(hours=2))

    def pay(self, url: str, *, card: str = SUCCEEDS, authenticate: bool = True, email: str = "") -> str:
        """Fill in and send the form of a checkout page, as a person does; return where it leads.

        Args:
            url: URL of the page, from ``create_checkout``.
            card: number of a test card.
            authenticate: whether the person passes 3D Secure, if the card asks for it.
            email: address, where the page asks for one.

        Raises:
            CardRefused: the card was declined, or the authentication failed.
        """
        form = {"card": card, "email": email}
        response = self._http.post(url, data=form)
        if response.status_code == httpx.codes.OK:  # the page asks for an authentication
            outcome = "complete" if authenticate else "fail"
            response = self._http.post(url, data={**form, "authentication": outcome})
        if not response.is_redirect:
            said = _ALERT.search(response.text)
            raise CardRefused(html.unescape(said.group(1)).strip() if said else f"status {response.status_code}")
        self.settle()
        return str(response.headers["location"])

    def decline_card(self, user_id: str) -> None:
        """Replace a person's card by one that is declined at every payment."""
        self.simulate("decline", customer=self.customer(user_id)["id"])

    def accept_card(self, user_id: str) -> None:
        """Replace a person's card by one that works, and pay what is open."""
        self.simulate("recover", customer=self.customer(user_id)["id"])

    def dispute(self, user_id: str) -> dict[str, Any]:
        """Contest a person's last payment at the bank, and return the dispute."""
        return self.simulate("dispute", subscription=self.subscription(user_id)["id"])

    def refund(self, user_id: str) -> dict[str, Any]:
        """Refund a person's last payment, and return the refund."""
        return self.simulate("refund", subscription=self.subscription(user_id)["id"])

    def cancel(self, user_id: str, *, now: bool = False) -> None:
        """Cancel a person's subscription, at the end of the period or now."""
        self.simulate("cancel", subscription=self.subscription(user_id)["id"], at="now" if now else "period_end")

    def simulate(self, action: str, **arguments: Any) -> dict[str, Any]:
        """Do something that happens outside Stripe's API, wait until its webhooks are delivered, and return its object.

        Args:
            action: name of the action, for example ``close_dispute``; the README of the Stripe double lists them.
            **arguments: its arguments.
        """
        done: dict[str, Any] = self._control("POST", f"simulate/{action}", arguments)
        self.settle()
        return done

    def customer(self, user_id: str) -> dict[str, Any]:
        """Return the customer of a person.

        Raises:
            LookupError: there is none.
        """
        return self._newest(user_id, "customer")

    def subscription(self, user_id: str) -> dict[str, Any]:
        """Return the newest subscription of a person.

        Raises:
            LookupError: there is none.
        """
        return self._newest(user_id, "subscription")

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """Return all objects of a kind, such as ``invoice``, oldest first, as in Stripe's API."""
        found: list[dict[str, Any]] = self._control("GET", "objects", query={"kind": kind})
        return found

    @contextmanager
    def webhooks(
        self, *, lost: float = 0.0, shuffled: float = 0.0, delayed: float = 0.0, copies: int = 1
    ) -> Iterator[None]:
        """Disturb the webhooks of events inside the block.

        Args:
            lost: share that is never sent, 0 to 1. Nest finds what it missed at its next sweep, after minutes.
            shuffled: each waits a random time of up to so many seconds, so that their order changes.
            delayed: each waits so many seconds.
            copies: how often each is sent.
        """
        faults = {"loss_rate": lost, "shuffle_seconds": shuffled, "delay_seconds": delayed, "copies": copies}
        self._control("POST", "webhooks", faults)
        try:
            yield
        finally:
            self._control("POST", "webhooks", {})

    def settle(self, seconds: float = 30.0) -> None:
        """Wait until no webhook is pending. Nest may still be handling what it has accepted."""
        self._control("POST", "webhooks/drain", {"seconds": seconds})

    def _newest(self, user_id: str, kind: str) -> dict[str, Any]:
        customers = {each["id"] for each in self.objects("customer") if each["metadata"].get("user_id") == user_id}
        found = [
            each
            for each in self.objects(kind)
            if each["metadata"].get("user_id") == user_id or each.get("customer") in customers
        ]
        if found:
            return found[-1]
        raise LookupError(f"{user_id} has no {kind} in Stripe")

    def _control(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> Any:
        response = self._http.request(verb, f"/_double/{path}", json=body, params=query)
        if response.is_error:
            raise RuntimeError(response.json()["error"]["message"])
        return response.json()
