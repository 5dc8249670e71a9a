"""How are events fetched that did not come, and looked at again that did? From Stripe's list, or from those kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from services.billing.events.models import EventRow
from services.billing.runs.models import Run
from services.billing.runs.steps import Done, Step
from services.billing.stripe_api.lists import Page, as_far, events_page, find_event
from services.billing.stripe_api.parsing import Json
from shared.ids import derived_message_id
from shared.messages.billing.runs import ReplayStripeEvent
from shared.messages.billing.stripe_events import StripeEvent, StripeEventData, StripeObject

KEPT_AT_ONCE: Final = 100


async def failed_deliveries(step: Step) -> Done:
    """Hand over the events that Stripe could not deliver, as if they had come: under the ids they would have had.

    So one that comes after all, or is swept twice, is handled once.
    """
    run, at = step.run, step.work.now
    since = run.started_at - timedelta(days=run.asked["days"])
    created = {"gte": int(since.timestamp())}
    page = await events_page(step.stripe.calls, after=run.cursor, created=created, delivery_success=False)
    events = [_event(entry) for entry in page.entries]
    kept = await step.billing.events.known(EventRow.of(event, at=at).id for event in events)
    # As they happened: the list begins with the newest.
    for event in reversed(events):
        event_id = EventRow.of(event, at=at).id
        if event_id not in kept:
            step.work.publish(event, id=event_id)
    run = run.counted(events=len(events), known=len(kept), handed_over=len(events) - len(kept))
    return Done(run.on(page.entries[-1]["id"], at=at) if page.more else run.past_stage(at=at))


async def chosen_events(step: Step) -> Done:
    """Order a new look at the events that were chosen: by id, or by type and time."""
    if step.run.asked["event_ids"]:
        return await _by_id(step)
    if step.run.asked["kept"]:
        return await _kept(step)
    run, at = step.run, step.work.now
    page = await _listed(step)
    _replay([_event(entry) for entry in reversed(page.entries)], step)
    run = run.counted(events=len(page.entries))
    return Done(run.on(page.entries[-1]["id"], at=at) if page.more else run.past_stage(at=at))


async def _by_id(step: Step) -> Done:
    run, at = step.run, step.work.now
    done = int(run.cursor or "0")
    wanted: list[str] = run.asked["event_ids"][done:]
    found = await as_far(wanted, lambda event_id: _find(event_id, step))
    events = [event for event in found if event is not None]
    _replay(events, step)
    run = run.counted(events=len(events), missing=len(found) - len(events))
    over = len(found) == len(wanted)
    return Done(run.past_stage(at=at) if over else run.on(str(done + len(found)), at=at))


async def _find(event_id: str, step: Step) -> StripeEvent | None:
    """An event as Stripe tells of it, or, since Stripe forgets them, as it was kept."""
    found = await find_event(event_id, step.stripe.calls)
    if found is not None:
        return _event(found)
    kept = await step.billing.events.find_by_stripe_id(event_id)
    return None if kept is None else _event_of(kept)


async def _kept(step: Step) -> Done:
    run, at, asked = step.run, step.work.now, step.run.asked
    found = await step.billing.events.made(
        types=asked["types"], since=asked["since"], until=asked["until"], after=run.cursor, limit=KEPT_AT_ONCE
    )
    _replay([_event_of(kept) for kept in found], step)
    run = run.counted(events=len(found))
    return Done(run.on(found[-1].id, at=at) if len(found) == KEPT_AT_ONCE else run.past_stage(at=at))


async def _listed(step: Step) -> Page:
    types: list[str] = step.run.asked["types"]
    # What ends in a star is taken for one type alone (https://docs.stripe.com/api/events/list).
    chosen: dict[str, Any] = {"type": types[0]} if len(types) == 1 else {"types": types} if types else {}
    created = _between(step.run)
    if created:
        chosen["created"] = created
    return await events_page(step.stripe.calls, after=step.run.cursor, **chosen)


def _between(run: Run) -> dict[str, int]:
    bounds: dict[str, datetime | None] = {"gte": run.asked["since"], "lte": run.asked["until"]}
    return {name: int(moment.timestamp()) for name, moment in bounds.items() if moment is not None}


def _replay(events: list[StripeEvent], step: Step) -> None:
    for event in events:
        order = ReplayStripeEvent(key=event.data.object.id or event.id, event=event)
        step.work.publish(order, id=derived_message_id("replay", step.run.id, event.id))


def _event(found: Json) -> StripeEvent:
    """An event of Stripe's as it would have come, ordered by what the gateway orders it by."""
    about = found["data"]["object"]
    customer = about.get("id") if about.get("object") == "customer" else about.get("customer")
    if isinstance(customer, dict):
        customer = customer.get("id")
    return StripeEvent.model_validate({**found, "key": customer or about.get("id") or ""})


def _event_of(kept: EventRow) -> StripeEvent:
    return StripeEvent(
        key=kept.object_id,
        id=kept.stp_event_id,
        type=kept.type,
        created=int(kept.made_at.timestamp()),
        livemode=kept.livemode,
        account=kept.account or None,
        data=StripeEventData(object=StripeObject(object=kept.object_type, id=kept.object_id)),
    )
