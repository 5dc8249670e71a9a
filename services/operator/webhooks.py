"""`nest webhooks`: endpoints of apps for events, the deliveries to them, replays and tests."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import typer

from services.operator.client import Client
from services.operator.command_line import note
from services.operator.output import Limit, Since, Table, Until, Yes, columns, command, confirm, request_body

app = typer.Typer(no_args_is_help=True, help="Manage webhook endpoints, and show and replay the events sent to them.")
ENDPOINTS: Final = columns("id: ENDPOINT, client_id: CLIENT, url, types, enabled, disabled_reason, pending, version")
CREATED: Final = columns("id: ENDPOINT, url, types, secret")
DELIVERIES: Final = columns("created_at, type, state, attempts, last_attempt, next_attempt_at, endpoint_id, event_id")
TEST: Final = columns("status, error, duration_ms, event_id")
SHOWN_ONCE: Final = "Store the secret in your app's settings now: it is not shown again."
DELETE_WARNING: Final = "Its pending events and the log of its deliveries are deleted too.\nDelete this endpoint?"
DISABLE_WARNING: Final = "Events that happen while it is disabled are not recorded for it.\nDisable this endpoint?"

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="ID of the endpoint.")]
Types = typer.Option("--type", help="Event type or family, such as payment.failed or payment.*; repeat it for several.")
State = Literal["pending", "delivered", "failed"]


@command(app, "list", "nest webhooks list", "nest webhooks list --client client_…")
def list_endpoints(
    nest: Client,
    *,
    client: Annotated[str | None, typer.Option(help="Only of the client with this ID.")] = None,
) -> Table:
    """List the endpoints, oldest first."""
    response = nest.call("list_webhook_endpoints", request_body(client_id=client))
    return Table(response, response["endpoints"], ENDPOINTS)


@command(app, "create", "nest webhooks create https://app.example/webhooks --type 'subscription.*' --type user.erased")
def create(
    nest: Client,
    url: Annotated[str, typer.Argument(help="URL that events are posted to.")],
    types: Annotated[list[str], Types],
    client: Annotated[str | None, typer.Option(help="Only events of users of the client with this ID.")] = None,
    description: Annotated[str | None, typer.Option(help="Text for people.")] = None,
) -> Table:
    """Create an endpoint and show its secret, once."""
    body = request_body(url=url, types=types, client_id=client, description=description)
    return _with_secret(nest.call("create_webhook_endpoint", body))


@command(app, "update", "nest webhooks update webhookendpoint_… --type '*'")
def update(
    nest: Client,
    endpoint: EndpointId,
    url: Annotated[str | None, typer.Option(help="URL that events are posted to.")] = None,
    types: Annotated[list[str] | None, Types] = None,
    description: Annotated[str | None, typer.Option(help="Text for people.")] = None,
    *,
    version: Annotated[int | None, typer.Option(help="Fail if the endpoint was changed since this version.")] = None,
) -> Table:
    """Change an endpoint's URL, types or description; omitted options are unchanged."""
    body = request_body(id=endpoint, url=url, types=types or None, description=description, version=version)
    return _one(nest.call("update_webhook_endpoint", body))


@command(app, "enable", "nest webhooks enable webhookendpoint_…")
def enable(nest: Client, endpoint: EndpointId) -> Table:
    """Enable an endpoint, and deliver the events that were pending."""
    return _one(nest.call("update_webhook_endpoint", {"id": endpoint, "enabled": True}))


@command(app, "disable", "nest webhooks disable webhookendpoint_… --yes")
def disable(nest: Client, endpoint: EndpointId, *, yes: Yes = False) -> Table:
    """Disable an endpoint; pending events wait until it is enabled."""
    confirm(DISABLE_WARNING, yes=yes)
    return _one(nest.call("update_webhook_endpoint", {"id": endpoint, "enabled": False}))


@command(app, "delete", "nest webhooks delete webhookendpoint_… --yes")
def delete(nest: Client, endpoint: EndpointId, *, yes: Yes = False) -> Table:
    """Delete an endpoint with its deliveries."""
    confirm(DELETE_WARNING, yes=yes)
    nest.call("delete_webhook_endpoint", {"id": endpoint})
    return Table({"deleted": endpoint}, [{"deleted": endpoint}], columns("deleted"))


@command(app, "roll", "nest webhooks roll webhookendpoint_… --overlap-hours 48")
def roll(
    nest: Client,
    endpoint: EndpointId,
    overlap_hours: Annotated[
        int, typer.Option(min=0, max=168, help="Hours for which the earlier secrets sign too.")
    ] = 24,
) -> Table:
    """Create a new secret for an endpoint and show it, once."""
    return _with_secret(nest.call("roll_webhook_secret", {"id": endpoint, "overlap_hours": overlap_hours}))


@command(app, "deliveries", "nest webhooks deliveries --endpoint webhookendpoint_… --state failed")
def deliveries(
    nest: Client,
    *,
    endpoint: Annotated[str | None, typer.Option(help="Only to the endpoint with this ID.")] = None,
    event: Annotated[str | None, typer.Option(help="Only of the event with this ID.")] = None,
    user: Annotated[str | None, typer.Option(help="Only about the user with this ID.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only of this event type.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Annotated[str | None, typer.Option(help="Older entries: next_cursor of the previous page.")] = None,
) -> Table:
    """List deliveries of events to endpoints, newest first, with their latest attempts."""
    body = request_body(
        endpoint_id=endpoint,
        event_id=event,
        user_id=user,
        type=type_,
        state=state,
        since=since,
        until=until,
        limit=limit,
        cursor=cursor,
    )
    response = nest.call("list_webhook_deliveries", body)
    rows = [{**each, **_attempts(each["attempts"])} for each in response["deliveries"]]
    return Table(response, rows, DELIVERIES)


@command(
    app,
    "replay",
    "nest webhooks replay webhookendpoint_… --event webhookevent_…",
    "nest webhooks replay webhookendpoint_… --state failed --since 2026-11-21",
)
def replay(
    nest: Client,
    endpoint: EndpointId,
    *,
    event: Annotated[str | None, typer.Option(help="Only the event with this ID.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only events of this type.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state; pending events are sent at once.")] = None,
    since: Since = None,
    until: Until = None,
) -> Table:
    """Deliver events again, by ID, type, state or time. Each has the same ID as before."""
    selection = request_body(event_id=event, type=type_, state=state, since=since, until=until)
    if not selection:
        raise typer.BadParameter("give --event, --type, --state, --since or --until")
    response = nest.call("replay_webhooks", {"endpoint_id": endpoint, **selection})
    return Table(response, [response], columns("replayed"))


@command(app, "test", "nest webhooks test webhookendpoint_…")
def test(nest: Client, endpoint: EndpointId) -> Table:
    """Send a test event to an endpoint, and show its answer."""
    response = nest.call("send_test_webhook", {"id": endpoint})
    return Table(response, [{**response["attempt"], "event_id": response["event_id"]}], TEST)


def _attempts(attempts: list[dict[str, Any]]) -> dict[str, Any]:
    last = attempts[-1] if attempts else {"status": None, "error": None}
    return {"attempts": len(attempts), "last_attempt": last["status"] or last["error"]}


def _with_secret(endpoint: dict[str, Any]) -> Table:
    note(SHOWN_ONCE)
    return Table(endpoint, [endpoint], CREATED)


def _one(endpoint: dict[str, Any]) -> Table:
    return Table(endpoint, [endpoint], ENDPOINTS)
