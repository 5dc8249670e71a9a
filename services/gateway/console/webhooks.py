"""Pages of outgoing webhooks: endpoints, their secrets, and the log of deliveries with every attempt."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, get_args
from urllib.parse import quote

from services.gateway.console.calls import CallRefused
from services.gateway.console.deliveries import PERIOD
from services.gateway.console.lists import TONES, Column, Filter, ListPage, filter_fields, utc_time
from services.gateway.console.pages import PAGE_SIZE, Link, PageTable, Visit
from services.gateway.responses import HttpResponse
from shared.messages.mailer.webhook_events import EVENT_TYPES, EventFamily
from shared.messages.mailer.webhooks import DeliveryState

WEBHOOKS: Final = PageTable(Link("Apps", "Webhooks", "/console/webhooks"))
PATH: Final = "/console/webhooks"
FAMILIES: Final[dict[str, list[str]]] = {
    family: [each for each in EVENT_TYPES if each.startswith(family[:-1])]
    for family in get_args(EventFamily)
    if family != "*"
}
"""Types of each family."""
SELECTION: Final = (
    Filter("event_id", "Event ID", hint="webhookevent_…"),
    Filter("type", "Type", "choice", EVENT_TYPES),
    Filter("state", "State", "choice", get_args(DeliveryState)),
    *PERIOD,
)
"""Filters of deliveries that ``replay_webhooks`` takes too."""


def last_attempt(row: Any) -> str | None:
    """The status or the error of the latest attempt."""
    if not row["attempts"]:
        return None
    last = row["attempts"][-1]
    return f"{last['status'] or last['error'].replace('_', ' ')} in {last['duration_ms']:,} ms"


DELIVERY_LIST: Final = ListPage(
    title="Webhook deliveries",
    intro="Events that were sent to endpoints, newest first, with their latest attempt.",
    method="list_webhook_deliveries",
    entries="deliveries",
    columns=(
        Column("Created", "created_at", "time"),
        Column("State", "state", "state"),
        Column("Type", "type"),
        Column("Latest attempt", last_attempt),
        Column("Attempts", lambda row: len(row["attempts"]), "number"),
        Column("Next attempt", "next_attempt_at", "time"),
        Column("User", "user_id", "code", "/console/people/{}"),
        Column("Event", "event_id", "code", lambda row: f"{PATH}/deliveries?event_id={quote(row['event_id'])}"),
        Column("Endpoint", "endpoint_id", "code", lambda row: path_of(row["endpoint_id"])),
    ),
    filters=(
        *SELECTION,
        Filter("endpoint_id", "Endpoint ID", hint="webhookendpoint_…"),
        Filter("user_id", "User ID", hint="user_…"),
    ),
    empty="No event was sent yet",
    empty_hint="Events that happen after an endpoint was created appear here.",
    template="webhook_deliveries.html",
)


@WEBHOOKS.page(PATH)
async def webhooks(visit: Visit) -> HttpResponse:
    """The endpoints, and the form of a new one."""
    view = await visit.call("list_webhook_endpoints")
    return visit.page(
        "webhooks.html",
        endpoints=view["endpoints"],
        clients=await visit.call("list_clients"),
        families=FAMILIES,
        chosen=visit.form_list("types"),
    )


@WEBHOOKS.act(PATH, page=webhooks)
async def create(visit: Visit) -> HttpResponse:
    """Create an endpoint, and show its secret once."""
    endpoint = await visit.call(
        "create_webhook_endpoint",
        url=visit.form.get("url", "").strip(),
        types=visit.form_list("types"),
        description=visit.form.get("description", "").strip(),
        client_id=visit.form.get("client_id") or None,
    )
    return _secret(visit, endpoint)


@WEBHOOKS.page(f"{PATH}/deliveries")
async def deliveries(visit: Visit) -> HttpResponse:
    """The log of deliveries."""
    return await DELIVERY_LIST.show(visit, chosen=filter_fields(DELIVERY_LIST, visit))


@WEBHOOKS.page(f"{PATH}/{{id}}")
async def endpoint(visit: Visit) -> HttpResponse:
    """An endpoint with its settings and latest deliveries."""
    found = await _find(visit)
    view = await visit.call("list_webhook_deliveries", endpoint_id=found["id"], limit=PAGE_SIZE)
    return visit.page(
        "webhook.html",
        endpoint=found,
        path=path_of(found["id"]),
        families=FAMILIES,
        chosen=visit.form_list("types") or found["types"],
        deliveries=view["deliveries"],
        selection=SELECTION,
        tones=TONES,
    )


@WEBHOOKS.act(f"{PATH}/{{id}}", page=endpoint)
async def update(visit: Visit) -> HttpResponse:
    """Change URL, types and description."""
    return await _update(
        visit,
        "The changes are saved.",
        url=visit.form.get("url", "").strip(),
        types=visit.form_list("types"),
        description=visit.form.get("description", "").strip(),
    )


@WEBHOOKS.act(f"{PATH}/{{id}}/enable", page=endpoint)
async def enable(visit: Visit) -> HttpResponse:
    """Enable an endpoint."""
    return await _update(visit, "The endpoint is enabled, and pending events are sent.", enabled=True)


@WEBHOOKS.act(f"{PATH}/{{id}}/disable", page=endpoint)
async def disable(visit: Visit) -> HttpResponse:
    """Disable an endpoint."""
    return await _update(visit, "The endpoint is disabled.", enabled=False)


@WEBHOOKS.act(f"{PATH}/{{id}}/delete", page=endpoint)
async def delete(visit: Visit) -> HttpResponse:
    """Delete an endpoint."""
    await visit.call("delete_webhook_endpoint", id=visit.path["id"])
    return visit.done(PATH, "The endpoint is deleted.")


@WEBHOOKS.act(f"{PATH}/{{id}}/roll", page=endpoint)
async def roll(visit: Visit) -> HttpResponse:
    """Create a new secret, and show it once."""
    hours = visit.form.get("overlap_hours", "")
    rolled = await visit.call(
        "roll_webhook_secret", id=visit.path["id"], overlap_hours=int(hours) if hours.isdecimal() else None
    )
    return _secret(visit, rolled)


@WEBHOOKS.act(f"{PATH}/{{id}}/test", page=endpoint)
async def test(visit: Visit) -> HttpResponse:
    """Send a test event."""
    attempt = (await visit.call("send_test_webhook", id=visit.path["id"]))["attempt"]
    answer = f"status {attempt['status']}" if attempt["status"] else attempt["error"].replace("_", " ")
    accepted = attempt["error"] is None
    sentence = f"{'Accepted' if accepted else 'Not accepted'}: {answer} in {attempt['duration_ms']:,} ms."
    return visit.done(path_of(visit.path["id"]), sentence, tone="good" if accepted else "bad")


@WEBHOOKS.act(f"{PATH}/{{id}}/replay", page=endpoint)
async def replay(visit: Visit) -> HttpResponse:
    """Deliver events again."""
    form = {each.name: visit.form.get(each.name, "").strip() for each in SELECTION}
    times = {"since", "until"}
    chosen = {name: utc_time(value) if name in times else value for name, value in form.items() if value}
    view = await visit.call("replay_webhooks", endpoint_id=visit.path["id"], **chosen)
    count = view["replayed"]
    return visit.done(path_of(visit.path["id"]), f"{count:,} event{' is' if count == 1 else 's are'} sent again.")


def path_of(endpoint_id: str) -> str:
    """The path of an endpoint's page."""
    return f"{PATH}/{quote(endpoint_id, safe='')}"


async def _find(visit: Visit) -> dict[str, Any]:
    """The endpoint of the path.

    Raises:
        CallRefused: there is none.
    """
    for each in (await visit.call("list_webhook_endpoints"))["endpoints"]:
        if each["id"] == visit.path["id"]:
            return dict(each)
    body = {"code": "webhook_endpoint_not_found", "message": "No endpoint has this ID."}
    raise CallRefused(HTTPStatus.NOT_FOUND, body)


async def _update(visit: Visit, sentence: str, **changes: Any) -> HttpResponse:
    version = visit.form.get("version", "")
    await visit.call(
        "update_webhook_endpoint", id=visit.path["id"], version=int(version) if version.isdecimal() else None, **changes
    )
    return visit.done(path_of(visit.path["id"]), sentence)


def _secret(visit: Visit, created: dict[str, Any]) -> HttpResponse:
    """The only page that shows a secret. It is an answer to the act, so that the secret is in no cookie or URL."""
    return visit.page("webhook_secret.html", endpoint=created, path=path_of(created["id"]))
