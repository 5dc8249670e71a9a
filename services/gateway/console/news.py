"""Pages of news items, with a preview of the item as an app shows it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final, get_args
from urllib.parse import quote

from services.gateway.console.calls import CallRefused
from services.gateway.console.lists import local_time, utc_time
from services.gateway.console.pages import PAGE_SIZE, Link, PageTable, Visit
from services.gateway.responses import HttpResponse
from shared.messages.news import SubscriptionState

NEWS: Final = PageTable(Link("Apps", "News", "/console/news"))
BANNER: Final = "generic_banner"
SEARCHED: Final = 1_000
"""Items per call in the search for one by its ID."""


@NEWS.page("/console/news")
async def news(visit: Visit) -> HttpResponse:
    """All items, also future and past ones, newest first."""
    items = await visit.call(
        "list_all_news_items",
        client_id=visit.query.get("client_id", "").strip() or None,
        cursor=visit.query.get("cursor") or None,
        limit=PAGE_SIZE,
    )
    return visit.page("news.html", items=items, next_cursor=items[-1]["id"] if len(items) == PAGE_SIZE else None)


@NEWS.page("/console/news/new")
async def new_item(visit: Visit) -> HttpResponse:
    """The form of a new item."""
    return await _form(visit, None)


@NEWS.act("/console/news/new", page=new_item)
async def create(visit: Visit) -> HttpResponse:
    """Publish an item."""
    await visit.call("create_news_item", **_item(visit))
    return visit.done("/console/news", "The item is published. Apps show it from its start on.")


@NEWS.act("/console/news/preview", page=new_item)
async def preview(visit: Visit) -> HttpResponse:
    """The part of the page that shows the typed item as an app does."""
    return visit.page("news_preview.html", values=visit.form)


@NEWS.page("/console/news/{id}")
async def item(visit: Visit) -> HttpResponse:
    """The form of an item."""
    return await _form(visit, await _find(visit))


@NEWS.act("/console/news/{id}", page=item)
async def update(visit: Visit) -> HttpResponse:
    """Replace an item."""
    await visit.call("update_news_item", id=visit.path["id"], version=_version(visit), **_item(visit))
    return visit.done("/console/news", "The item is changed. Apps show the change when they next ask.")


@NEWS.act("/console/news/{id}/remove", page=item)
async def remove(visit: Visit) -> HttpResponse:
    """Remove an item."""
    await visit.call("remove_news_item", id=visit.path["id"], version=_version(visit))
    return visit.done("/console/news", "The item is removed.")


async def _form(visit: Visit, found: dict[str, Any] | None) -> HttpResponse:
    values = visit.form or _values(found)
    chosen = visit.form_list if visit.form else (lambda name: list((found or {}).get(name) or ()))
    return visit.page(
        "news_item.html",
        item=found,
        path="/console/news/new" if found is None else f"/console/news/{quote(found['id'], safe='')}",
        values=values,
        clients=await visit.call("list_clients"),
        chosen_clients=chosen("clients"),
        states=get_args(SubscriptionState),
        chosen_states=chosen("subscriptions"),
    )


async def _find(visit: Visit) -> dict[str, Any]:
    """The item of the path, searched in the list of all items.

    Raises:
        CallRefused: there is none.
    """
    cursor = None
    while True:
        items = await visit.call("list_all_news_items", cursor=cursor, limit=SEARCHED)
        for each in items:
            if each["id"] == visit.path["id"]:
                return dict(each)
        if len(items) < SEARCHED:
            raise CallRefused(HTTPStatus.NOT_FOUND, {"code": "not_found", "message": "No news item has this ID."})
        cursor = items[-1]["id"]


def _version(visit: Visit) -> int | None:
    version = visit.form.get("version", "")
    return int(version) if version.isdecimal() else None


def _values(found: dict[str, Any] | None) -> dict[str, str]:
    """The fields of the form for an item; for a new one those that have a default."""
    if found is None:
        return {"dismissible": "yes", "priority": "0"}
    primary = found["primary"]
    banner = primary if primary["code"] == BANNER else found["fallback"]
    payload, action = banner["payload"], banner["payload"].get("action") or {}
    other = primary["code"] != BANNER
    return {
        **{name: payload[name] for name in ("emoji", "title", "body")},
        "cta": action.get("cta", ""),
        "url": action.get("url", ""),
        **({"dismissible": "yes"} if primary["dismissible"] else {}),
        "code": primary["code"] if other else "",
        "payload": json.dumps(primary["payload"], indent=2, ensure_ascii=False) if other else "",
        "locales": ", ".join(found["locales"] or ()),
        "min_app_version": found["min_app_version"] or "",
        "max_app_version": found["max_app_version"] or "",
        "priority": str(found["priority"]),
        "starts_at": local_time(found["starts_at"]),
        "ends_at": local_time(found["ends_at"]),
        "version": str(found["version"]),
    }


def _item(visit: Visit) -> dict[str, Any]:
    """The fields of the methods, from those of the form."""
    form = {name: value.strip() for name, value in visit.form.items()}
    dismissible = "dismissible" in form
    action = {"cta": form.get("cta", ""), "url": form.get("url", "")}
    banner = {
        "code": BANNER,
        "dismissible": dismissible,
        "payload": {
            **{name: form.get(name, "") for name in ("emoji", "title", "body")},
            "action": action if any(action.values()) else None,
        },
    }
    primary, fallback = banner, None
    if form.get("code"):
        primary = {"code": form["code"], "dismissible": dismissible, "payload": _payload(form.get("payload", ""))}
        fallback = banner
    return {
        "primary": primary,
        "fallback": fallback,
        "clients": visit.form_list("clients") or None,
        "locales": form.get("locales", "").replace(",", " ").split() or None,
        "subscriptions": visit.form_list("subscriptions") or None,
        "min_app_version": form.get("min_app_version") or None,
        "max_app_version": form.get("max_app_version") or None,
        "priority": int(form["priority"]) if form.get("priority", "").lstrip("-").isdecimal() else 0,
        "starts_at": utc_time(form["starts_at"]) if form.get("starts_at") else None,
        "ends_at": utc_time(form["ends_at"]) if form.get("ends_at") else None,
    }


def _payload(text: str) -> Any:
    """The JSON object of a payload.

    Raises:
        CallRefused: the text is none.
    """
    try:
        payload = json.loads(text or "{}")
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        problem = {"path": "payload", "message": "Write one JSON object"}
        body = {"code": "validation_failed", "message": "Write one JSON object.", "meta": {"errors": [problem]}}
        raise CallRefused(HTTPStatus.UNPROCESSABLE_ENTITY, body)
    return payload
