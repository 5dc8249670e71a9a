"""Stages of sweeps and replays: events that Stripe could not deliver, and events chosen to be handled again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from services.billing.events.models import EventRow
from services.billing.runs.models import Run
from services.billing.runs.steps import Step, StepResult, map_until_timeout
from services.billing.stripe_api.lists import Page
from services.billing.stripe_api.parsing import Json
from shared.ids import derived_message_id
from shared.messages.billing.runs import ReplayStripeEvent
from shared.messages.billing.stripe_events import StripeEvent, StripeEventData, StripeObject
from shared.paging import cursor_of

ROWS_PER_STEP: Final = 100


async def failed_deliveries(step: Step) -> StepResult:
    """Publish the events that Stripe could not deliver, under the message IDs of their webhooks.

    Therefore an event that arrives after all, or is swept twice, is handled once.
    """
    run, at = step.run, step.work.now
    since = run.started_at - timedelta(days=run.parameters["days"])
    created = {"gte": int(since.timestamp())}
    page = await step.stripe.events_page(after=run.cursor, created=created, delivery_success=False)
    events = [parse_event(entry) for entry in page.entries]
    known = await step.billing.events.known(EventRow.of(event, at=at).id for event in events)
    # In the order in which they happened; the list begins with the newest.
    for event in reversed(events):
        row_id = EventRow.of(event, at=at).id
        if row_id not in known:
            step.work.publish(event, id=row_id)
    run = run.counted(events=len(events), known=len(known), handed_over=len(events) - len(known))
    return _result(run, page, step)


async def chosen_events(step: Step) -> StepResult:
    """Order the replay of the chosen events: by ID, or by type and time, from Stripe's list or from our rows."""
    if step.run.parameters["event_ids"]:
        return await _replay_by_id(step)
    if step.run.parameters["kept"]:
        return await _replay_rows(step)
    page = await _listed_events(step)
    _replay([parse_event(entry) for entry in reversed(page.entries)], step)
    return _result(step.run.counted(events=len(page.entries)), page, step)


async def _replay_by_id(step: Step) -> StepResult:
    run, at = step.run, step.work.now
    done = int(run.cursor or "0")
    event_ids: list[str] = run.parameters["event_ids"][done:]
    found = await map_until_timeout(event_ids, lambda event_id: _find(event_id, step))
    events = [event for event in found if event is not None]
    _replay(events, step)
    run = run.counted(events=len(events), missing=len(found) - len(events))
    if len(found) == len(event_ids):
        return StepResult(run.stage_completed(at=at))
    return StepResult(run.continued(str(done + len(found)), at=at))


async def _find(event_id: str, step: Step) -> StripeEvent | None:
    """An event as Stripe has it, or as we stored it if Stripe no longer has it."""
    json = await step.stripe.event(event_id)
    if json is not None:
        return parse_event(json)
    row = await step.billing.events.find_by_stripe_id(event_id)
    return None if row is None else _event_of_row(row)


async def _replay_rows(step: Step) -> StepResult:
    run, at, parameters = step.run, step.work.now, step.run.parameters
    rows = await step.billing.events.made(
        types=parameters["types"],
        since=parameters["since"],
        until=parameters["until"],
        after=run.cursor,
        limit=ROWS_PER_STEP,
    )
    _replay([_event_of_row(row) for row in rows], step)
    run = run.counted(events=len(rows))
    if len(rows) == ROWS_PER_STEP:
        return StepResult(run.continued(cursor_of(rows[-1].made_at, rows[-1].id), at=at))
    return StepResult(run.stage_completed(at=at))


async def _listed_events(step: Step) -> Page:
    types: list[str] = step.run.parameters["types"]
    # Stripe accepts a wildcard only in ``type`` (https://docs.stripe.com/api/events/list).
    filters: dict[str, Any] = {"type": types[0]} if len(types) == 1 else {"types": types} if types else {}
    created = _created_filter(step.run)
    if created:
        filters["created"] = created
    return await step.stripe.events_page(after=step.run.cursor, **filters)


def _created_filter(run: Run) -> dict[str, int]:
    bounds: dict[str, datetime | None] = {"gte": run.parameters["since"], "lte": run.parameters["until"]}
    return {name: int(moment.timestamp()) for name, moment in bounds.items() if moment is not None}


def _replay(events: list[StripeEvent], step: Step) -> None:
    for event in events:
        command = ReplayStripeEvent(key=event.data.object.id or event.id, event=event)
        step.work.publish(command, id=derived_message_id("replay", step.run.id, event.id))


def _result(run: Run, page: Page, step: Step) -> StepResult:
    at = step.work.now
    return StepResult(run.continued(page.entries[-1]["id"], at=at) if page.more else run.stage_completed(at=at))


def parse_event(json: Json) -> StripeEvent:
    """An event from Stripe's JSON, with the ordering key that the gateway gives to the webhook."""
    event = StripeEvent.model_validate(json)
    return event.model_copy(update={"key": event.ordering_key})


def _event_of_row(row: EventRow) -> StripeEvent:
    return StripeEvent(
        key=row.object_id,
        id=row.stp_event_id,
        type=row.type,
        created=int(row.made_at.timestamp()),
        livemode=row.livemode,
        account=row.account,
        data=StripeEventData(object=StripeObject(object=row.object_type, id=row.object_id)),
    )
