"""What is there to try at the first start? A client, a news item, and a price for trials, all made over HTTP."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx

from services.embedded.errors import CannotStart

CLIENT_ID = "client_000000C2kdCzNlbL1BqR5FeMatItU"
NEWS_ITEM_ID = "newsitem_000000C2kdCzNlbL1BqR5FeMatItV"
_PRICE_KEY = "nest-demo-monthly"
_TIMEOUT_SECONDS = 15.0
_PATIENCE_SECONDS = 60.0
_NOT_READY_YET = {0, 503, 504}
"""No connection, and what the gateway answers while a service behind it starts."""


class SeedRefused(CannotStart):
    """Nest refused what every first start says to it: a fault of ours, or data of another release."""

    def __init__(self, method: str, answer: str) -> None:
        super().__init__(f"{method} was refused ({answer}): try with an empty folder, --data")


async def trial_price(api_key: str, stripe_url: str) -> str:
    """The id of the monthly price that trials are started for; made at the first call."""
    async with httpx.AsyncClient(base_url=stripe_url, auth=(api_key, ""), timeout=_TIMEOUT_SECONDS) as stripe:
        found = await stripe.get("/v1/prices", params={"lookup_keys[0]": _PRICE_KEY})
        found.raise_for_status()
        for price in found.json()["data"]:
            return str(price["id"])
        made = await stripe.post(
            "/v1/prices",
            data={
                "currency": "eur",
                "unit_amount": "900",
                "recurring[interval]": "month",
                "lookup_key": _PRICE_KEY,
                "product_data[name]": "Beak, monthly",
            },
        )
        made.raise_for_status()
        return str(made.json()["id"])


async def seed(base_url: str, internal_key: str) -> None:
    """Makes the demo client and a live news item, unless they are there; the client leads back to this port too.

    Raises:
        SeedRefused: Nest did not take one of them.
    """
    callback = f"{base_url}/dev/callback"
    redirect_uris = ["https://magic.getbeak.app/", "https://magic.getbeak.app/callback", callback]
    headers = {"authorization": f"internal {internal_key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=_TIMEOUT_SECONDS) as nest:
        client = {"id": CLIENT_ID, "name": "Beak", "redirect_uris": redirect_uris}
        if await _ask(nest, "create_client", client, "client_already_exists") is None:
            await _lead_back(nest, callback)
        await _ask(nest, "create_news_item", _NEWS_ITEM, "news_item_already_exists")


async def _lead_back(nest: httpx.AsyncClient, callback: str) -> None:
    """Have the client of an earlier start lead to this one's port as well."""
    clients = await _ask(nest, "list_clients", {})
    uris = next(client["redirect_uris"] for client in clients if client["id"] == CLIENT_ID)
    if callback not in uris:
        # Those of other ports stay, and whatever somebody has added.
        await _ask(nest, "update_client", {"id": CLIENT_ID, "redirect_uris": [*uris, callback]})


async def _ask(nest: httpx.AsyncClient, method: str, body: Mapping[str, object], taken: str = "") -> Any:
    """What a method answers, once the services behind it have started; None if it is there already."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            answer = await nest.post(f"/1/2021-10-06/{method}", json=body)
        except httpx.TransportError as error:
            status, text = 0, repr(error)
        else:
            status, text = answer.status_code, answer.text
            if answer.is_success:
                return answer.json()
            if answer.json().get("code") == taken:
                return None
        if status not in _NOT_READY_YET or time.monotonic() > deadline:
            raise SeedRefused(method, text)
        await asyncio.sleep(0.1)


_NEWS_ITEM: dict[str, object] = {
    "id": NEWS_ITEM_ID,
    "primary": {
        "code": "generic_banner",
        "dismissible": True,
        "payload": {
            "emoji": "🪺",
            "title": "Nest is running",
            "body": "This item comes from the news service on your own machine.",
            "action": None,
        },
    },
}
