"""Pages of clients: the apps that are registered with Nest."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from services.gateway.console.calls import CallRefused
from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse

CLIENTS: Final = PageTable(Link("Apps", "Clients", "/console/clients"))


@CLIENTS.page("/console/clients")
async def clients(visit: Visit) -> HttpResponse:
    """All clients, the oldest first."""
    return visit.page("clients.html", clients=await visit.call("list_clients"))


@CLIENTS.act("/console/clients", page=clients)
async def create(visit: Visit) -> HttpResponse:
    """Register a client, and show its ID."""
    client = await visit.call(
        "create_client",
        name=visit.form.get("name", "").strip(),
        redirect_uris=visit.form.get("redirect_uris", "").split(),
        id=visit.form.get("id", "").strip() or None,
        press_to_redeem="press_to_redeem" in visit.form,
        entitlements_claim="entitlements_claim" in visit.form,
    )
    return visit.done(path_of(client["id"]), "The client is registered. Put its ID into your app.")


@CLIENTS.page("/console/clients/{id}")
async def client(visit: Visit) -> HttpResponse:
    """A client with its settings."""
    return visit.page("client.html", client=await find_client(visit))


@CLIENTS.act("/console/clients/{id}", page=client)
async def update(visit: Visit) -> HttpResponse:
    """Change the name and the settings."""
    return await _update(
        visit,
        "The changes are saved.",
        name=visit.form.get("name", "").strip(),
        press_to_redeem="press_to_redeem" in visit.form,
        entitlements_claim="entitlements_claim" in visit.form,
    )


@CLIENTS.act("/console/clients/{id}/redirect-uris/add", page=client)
async def add_redirect_uri(visit: Visit) -> HttpResponse:
    """Add a redirect URI."""
    present = (await find_client(visit))["redirect_uris"]
    added = visit.form.get("uri", "").strip()
    return await _update(visit, "The redirect URI is added.", redirect_uris=[*present, added])


@CLIENTS.act("/console/clients/{id}/redirect-uris/remove", page=client)
async def remove_redirect_uri(visit: Visit) -> HttpResponse:
    """Remove a redirect URI."""
    present, removed = (await find_client(visit))["redirect_uris"], visit.form.get("uri", "")
    left = [uri for uri in present if uri != removed]
    return await _update(visit, "The redirect URI is removed.", redirect_uris=left)


@CLIENTS.act("/console/clients/{id}/disable", page=client)
async def disable(visit: Visit) -> HttpResponse:
    """Prevent logins through the client."""
    return await _update(visit, "The client is disabled: its tokens are refused within a second.", disabled=True)


@CLIENTS.act("/console/clients/{id}/enable", page=client)
async def enable(visit: Visit) -> HttpResponse:
    """Allow logins through the client again."""
    return await _update(visit, "The client is enabled.", disabled=False)


async def find_client(visit: Visit) -> dict[str, Any]:
    """The client of the path, by its ID.

    Raises:
        CallRefused: the list of clients does not have it.
    """
    for each in await visit.call("list_clients"):
        if each["id"] == visit.path["id"]:
            return dict(each)
    raise CallRefused(HTTPStatus.NOT_FOUND, {"code": "client_not_found", "message": "No client has this ID."})


def path_of(client_id: str) -> str:
    """The path of a client's page; IDs may have any characters."""
    return f"/console/clients/{quote(client_id, safe='')}"


async def _update(visit: Visit, sentence: str, **changes: Any) -> HttpResponse:
    version = visit.form.get("version", "")
    await visit.call(
        "update_client", id=visit.path["id"], version=int(version) if version.isdecimal() else None, **changes
    )
    return visit.done(path_of(visit.path["id"]), sentence)
