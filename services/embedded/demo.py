"""Demo data of the first start: clients, a news item and a trial price, created over HTTP."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx

from services.embedded.errors import CannotStart

DEMO_CLIENT_ID = "client_demo"
"""The client of the start page and of README."""
CLIENT_ID = "client_000000C2kdCzNlbL1BqR5FeMatItU"
CLIENTS = {
    "Mac": CLIENT_ID,
    "Windows": "client_000000C2kdCzNlbL1BqR5FeMatItV",
    "Linux": "client_000000C2kdCzNlbL1BqR5FeMatItW",
}
"""IDs of the clients in documents that are older than Nest, by platform: every call in them works as it is written."""
CLIENT_REDIRECT_URIS = (
    "https://magic.getbeak.app/",
    "https://magic.getbeak.app/callback",
    "app.getbeak.beak:/callback",
)
"""Redirect URIs in those documents."""
NEWS_ITEM_ID = "newsitem_000000C2kdCzNlbL1BqR5FeMatItV"
_PRICE_KEY = "nest-demo-monthly"
_TIMEOUT_SECONDS = 15.0
_START_SECONDS = 60.0
_STARTING = {0, 503, 504}
"""No connection, and the gateway's responses while a service starts."""
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


async def trial_price(api_key: str, stripe_url: str) -> str:
    """Return the ID of the monthly price for trials; create the price the first time."""
    async with httpx.AsyncClient(base_url=stripe_url, auth=(api_key, ""), timeout=_TIMEOUT_SECONDS) as stripe:
        found = await stripe.get("/v1/prices", params={"lookup_keys[0]": _PRICE_KEY})
        found.raise_for_status()
        for price in found.json()["data"]:
            return str(price["id"])
        created = await stripe.post(
            "/v1/prices",
            data={
                "currency": "eur",
                "unit_amount": "900",
                "recurring[interval]": "month",
                "lookup_key": _PRICE_KEY,
                "product_data[name]": "Demo Pro",
            },
        )
        created.raise_for_status()
        return str(created.json()["id"])


async def seed(base_url: str, internal_key: str) -> None:
    """Create the clients and a live news item, and allow redirects of the clients to this port.

    Raises:
        CannotStart: Nest refused one of them, because of a bug or because the data are from another release.
    """
    callback = f"{base_url}/dev/callback"
    clients = [{"id": DEMO_CLIENT_ID, "name": "Demo", "redirect_uris": [callback]}]
    clients += [
        {"id": client_id, "name": f"Sample for {platform}", "redirect_uris": [*CLIENT_REDIRECT_URIS, callback]}
        for platform, client_id in CLIENTS.items()
    ]
    headers = {"authorization": f"internal {internal_key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=_TIMEOUT_SECONDS) as nest:
        for client in clients:
            if await _call(nest, "create_client", client, exists="client_already_exists") is None:
                known = await _call(nest, "list_clients", {})
                uris = next(each["redirect_uris"] for each in known if each["id"] == client["id"])
                if callback not in uris:
                    # Redirect URIs of other ports, and those that somebody added, are kept.
                    await _call(nest, "update_client", {"id": client["id"], "redirect_uris": [*uris, callback]})
        await _call(nest, "create_news_item", _NEWS_ITEM, exists="news_item_already_exists")


async def _call(nest: httpx.AsyncClient, method: str, body: Mapping[str, object], *, exists: str = "") -> Any:
    """Return the result of a method once its service has started; None for the refusal code `exists`."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            response = await nest.post(f"/1/2021-10-06/{method}", json=body)
        except httpx.TransportError as error:
            status, text = 0, repr(error)
        else:
            status, text = response.status_code, response.text
            if response.is_success:
                return response.json()
            if response.json().get("code") == exists:
                return None
        if status not in _STARTING or time.monotonic() > deadline:
            raise CannotStart(f"{method} was refused ({text}): try with an empty folder, --data")
        await asyncio.sleep(0.1)
