"""Handlers that record events for endpoints and deliver them: in order per user, retried, and replayed on request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import Counter

from services.mailer.context import SERVICE, Mailer
from services.mailer.deliveries.models import retry_pause
from services.mailer.webhooks.events import SOURCES, webhook_events
from services.mailer.webhooks.http_client import Sent
from services.mailer.webhooks.models import ERASED_POSITION, GONE, Endpoint, WebhookDelivery
from services.mailer.webhooks.signatures import body_of
from services.mailer.webhooks.store import next_position
from shared.bus.handling import Handlers
from shared.bus.work import Work
from shared.fault_points import fault_point
from shared.messages import Event, Sealed
from shared.messages.auth.webhooks import FindLoginClients, UserErased
from shared.messages.mailer.mails import SendMail, WebhookVariables
from shared.messages.mailer.webhook_events import TEST, TestData, WebhookEvent
from shared.messages.mailer.webhooks import (
    AttemptWebhook,
    ContinueWebhookReplay,
    DisabledReason,
    DisableWebhookEndpoint,
    ListWebhookDeliveries,
    OfferWebhook,
    ReplayWebhooks,
    ResumeWebhooks,
    SendTestWebhook,
    WebhookDeliveriesView,
    WebhookReplayView,
    WebhookSelection,
    WebhookTestView,
)
from shared.paging import cursor_of
from shared.telemetry import log

BATCH: Final = 200
"""Subjects or deliveries that one message resumes or replays."""
CLOCK_MARGIN: Final = timedelta(seconds=5)
"""By how much the clocks of the event's sender and of the instance that created an endpoint may differ."""
BUSY_PAUSE: Final = timedelta(seconds=10)
"""Wait of an attempt for which too many requests are in flight; it is no attempt and has no growing pauses."""
ERASED: Final = "user.erased"
DISABLED: Final = Counter(
    "nest_webhook_endpoints_disabled", "Webhook endpoints that were disabled because they fail or are gone.", ["reason"]
)
RECORDED: Final = Counter("nest_webhooks_recorded", "Events recorded for a webhook endpoint.")
GIVEN_UP: Final = Counter("nest_webhooks_given_up", "Events given up at an endpoint that accepts other events.")
for _reason in ("failing", "gone"):
    # An alarm finds the first increase only of a series that exists.
    DISABLED.labels(_reason)


async def offer_event(event: Event, work: Work, mailer: Mailer) -> None:
    """Record an event for the endpoints that have chosen its type.

    Endpoints of a client get it only if its user has logged in to the client, which auth knows: see ``offer_webhook``.
    Erased users are unknown to auth, so the event of their erasure names their clients.
    """
    created_before = datetime.fromtimestamp(work.cause.time / 1000, UTC) + CLOCK_MARGIN
    endpoints = [each for each in await mailer.webhook_endpoints.enabled() if each.created_at <= created_before]
    occurrences = webhook_events(event, published_at=work.cause.time, new_id=lambda: work.new_id("webhookevent"))
    for number, occurrence in enumerate(occurrences):
        chosen = [each for each in endpoints if each.wants(occurrence.type)]
        clients = event.client_ids if isinstance(event, UserErased) else ()
        await _record(occurrence, _of_clients(chosen, (None, *clients)), work, mailer, number=number)
        user_id = occurrence.user_id
        if user_id is None or isinstance(event, UserErased):
            continue
        if any(each.client_id is not None for each in chosen):
            work.publish(FindLoginClients(key=user_id, user_id=user_id, event=occurrence))


EVENT_HANDLERS: Final[Handlers] = {kind: offer_event for kind in SOURCES if kind.service != SERVICE}
"""The handler of each event that webhooks carry. The mailer offers its own events where it publishes them."""


async def offer_webhook(command: OfferWebhook, work: Work, mailer: Mailer) -> None:
    """Record an event for the endpoints of clients."""
    event = command.event
    endpoints = [each for each in await mailer.webhook_endpoints.enabled() if each.wants(event.type)]
    clients = command.client_ids if event.client_id is None else (event.client_id,)
    # Two webhook events of one event are two messages, in order.
    await _record(event, _of_clients(endpoints, clients), work, mailer, number=0)


def _of_clients(endpoints: Iterable[Endpoint], client_ids: Sequence[str | None]) -> list[Endpoint]:
    return [each for each in endpoints if each.client_id in client_ids]


async def _record(
    event: WebhookEvent, endpoints: Sequence[Endpoint], work: Work, mailer: Mailer, *, number: int
) -> None:
    """Add a delivery of an event for each endpoint; ``number`` counts the events that one message records."""
    if not endpoints or (event.type != ERASED and await mailer.erased.contains_any(event.user_id)):
        return
    subject = event.user_id or event.event_id
    for endpoint in endpoints:
        if event.type == ERASED:
            first = await mailer.webhook_deliveries.first_pending(endpoint.id, subject)
            if first is not None and first.position == ERASED_POSITION:
                continue
            position = ERASED_POSITION
        else:
            last = await mailer.webhook_deliveries.last_position(endpoint.id, subject)
            position = next_position(last, at=work.now) + number
        delivery = _delivery(event, endpoint, position, work, mailer)
        mailer.webhook_deliveries.add(delivery, work)
        work.count(RECORDED)
        _order_attempt(delivery, work)


def _delivery(event: WebhookEvent, endpoint: Endpoint, position: int, work: Work, mailer: Mailer) -> WebhookDelivery:
    body = body_of(event.type, event.at, event.data)
    return WebhookDelivery(
        id=work.new_id("webhook"),
        endpoint_id=endpoint.id,
        event_id=event.event_id,
        type=event.type,
        user_id=event.user_id,
        subject=event.user_id or event.event_id,
        position=position,
        body=mailer.sealer.seal(SERVICE, body),
        created_at=work.now,
        updated_at=work.now,
    )


def _order_attempt(delivery: WebhookDelivery, work: Work, *, at: datetime | None = None) -> None:
    work.publish(
        AttemptWebhook(
            key=f"{delivery.endpoint_id}/{delivery.subject}",
            endpoint_id=delivery.endpoint_id,
            subject=delivery.subject,
            delivery_id=delivery.id,
            attempt=delivery.attempts + 1,
        ),
        at=at,
    )


async def attempt_webhook(command: AttemptWebhook, work: Work, mailer: Mailer) -> None:
    """Post the first pending event of a subject, and order the next attempt or the next event.

    A later event of the subject waits: whatever ends the first one orders the next. An attempt whose outcome could not
    be stored is repeated with the same ``webhook-id``.
    """
    endpoint = await mailer.webhook_endpoints.find(command.endpoint_id)
    if endpoint is None or not endpoint.enabled:
        # Enabling it orders the attempts anew.
        return
    delivery = await mailer.webhook_deliveries.first_pending(endpoint.id, command.subject)
    if delivery is None or not _is_due(delivery, command, at=work.now):
        return
    if delivery.type != ERASED and await mailer.erased.contains_any(delivery.user_id):
        mailer.webhook_deliveries.remove(delivery, work)
        await _order_next(delivery, work, mailer)
        return
    if mailer.webhook_client.busy(endpoint.id):
        pause = retry_pause(work.id, 1, first=BUSY_PAUSE, longest=BUSY_PAUSE)
        _order_attempt(delivery, work, at=work.now + pause)
        return
    sent = await _post(delivery, endpoint, work, mailer)
    if sent.attempt.succeeded:
        fault_point("M2")
    attempted = delivery.after(sent.attempt, retry_after=sent.retry_after, at=work.now)
    if attempted.expired(endpoint) and await _accepts_others(endpoint, attempted, mailer):
        attempted = attempted.given_up()
        work.count(GIVEN_UP)
        log.error("webhook given up", endpoint=endpoint.id, webhook=delivery.event_id, type=delivery.type)
    mailer.webhook_deliveries.save(attempted, work)
    if not attempted.pending:
        await _order_next(attempted, work, mailer)
    elif (reason := _reason_to_disable(attempted, endpoint)) is not None:
        work.publish(
            DisableWebhookEndpoint(key=endpoint.id, endpoint_id=endpoint.id, reason=reason, version=endpoint.version)
        )
    else:
        _order_attempt(attempted, work, at=attempted.next_attempt_at)


def _is_due(delivery: WebhookDelivery, command: AttemptWebhook, *, at: datetime) -> bool:
    """Return True if the first pending delivery is to be attempted now.

    The command may name one that is finished or erased, and the first one now may be another.
    """
    if delivery.id == command.delivery_id:
        return delivery.attempts < command.attempt
    return delivery.due(at=at)


def _reason_to_disable(delivery: WebhookDelivery, endpoint: Endpoint) -> DisabledReason | None:
    if delivery.log[-1].status == GONE:
        return "gone"
    return "failing" if delivery.expired(endpoint) else None


async def _accepts_others(endpoint: Endpoint, delivery: WebhookDelivery, mailer: Mailer) -> bool:
    """Return True if an endpoint has accepted an event since this one began to fail."""
    succeeded_at = await mailer.webhook_deliveries.last_delivered_at(endpoint.id)
    return succeeded_at is not None and delivery.failing_since is not None and succeeded_at >= delivery.failing_since


async def _order_next(delivery: WebhookDelivery, work: Work, mailer: Mailer) -> None:
    """Order the next event of the same subject; nothing follows the event of an erasure."""
    if delivery.type == ERASED:
        return
    following = await mailer.webhook_deliveries.first_pending(
        delivery.endpoint_id, delivery.subject, after=delivery.position
    )
    if following is not None:
        _order_attempt(following, work)


async def _post(delivery: WebhookDelivery, endpoint: Endpoint, work: Work, mailer: Mailer) -> Sent:
    return await mailer.webhook_client.post(
        endpoint.id,
        endpoint.url,
        delivery.event_id,
        mailer.sealer.unseal(SERVICE, delivery.body),
        [mailer.sealer.unseal(SERVICE, each.sealed).decode() for each in endpoint.signing(at=work.now)],
        at=work.now,
    )


async def disable_webhook_endpoint(command: DisableWebhookEndpoint, work: Work, mailer: Mailer) -> None:
    """Disable an endpoint that fails or is gone, and notify the operators; pending events wait.

    An endpoint that was changed since is attempted again, and may be disabled then.
    """
    endpoint = await mailer.webhook_endpoints.find(command.endpoint_id)
    if endpoint is None or not endpoint.enabled:
        return
    if endpoint.version != command.version:
        work.publish(ResumeWebhooks(key=endpoint.id, endpoint_id=endpoint.id))
        return
    mailer.webhook_endpoints.save(endpoint.disable(command.reason, at=work.now), work)
    work.count(DISABLED.labels(command.reason))
    log.error("webhook endpoint disabled", endpoint=endpoint.id, reason=command.reason)
    if mailer.operators_address is None:
        return
    variables = WebhookVariables(
        endpoint_id=endpoint.id,
        host=mailer.webhook_client.host_of(endpoint.url),
        gone=command.reason == "gone",
    )
    work.publish(
        SendMail(
            key=endpoint.id,
            template="webhook-disabled",
            to=Sealed.of(mailer.operators_address),
            variables=Sealed.of_json(variables),
        )
    )


async def resume_webhooks(command: ResumeWebhooks, work: Work, mailer: Mailer) -> None:
    """Order the first pending event of the next subjects of an endpoint, then the rest."""
    after = command.after
    for _ in range(BATCH):
        delivery = await mailer.webhook_deliveries.first_subject(command.endpoint_id, after=after)
        if delivery is None:
            return
        _order_attempt(delivery, work)
        after = delivery.subject
    work.publish(command.model_copy(update={"key": work.key, "after": after}))


async def replay_webhooks(command: ReplayWebhooks, work: Work, mailer: Mailer) -> WebhookReplayView:
    """Order the replay of selected events at an endpoint.

    Raises:
        WebhookEndpointNotFound: there is no such endpoint.
        WebhookEndpointDisabled: it is disabled.
    """
    endpoint = await mailer.webhook_endpoints.get(command.endpoint_id)
    work.annotate(resource_id=endpoint.id, client_id=endpoint.client_id)
    endpoint.must_be_enabled()
    count = await mailer.webhook_deliveries.count_selected(endpoint.id, command, before=work.now)
    selection = {name: getattr(command, name) for name in WebhookSelection.model_fields if name != "key"}
    work.publish(ContinueWebhookReplay(key=endpoint.id, endpoint_id=endpoint.id, ordered_at=work.now, **selection))
    return WebhookReplayView(replayed=count)


async def continue_webhook_replay(command: ContinueWebhookReplay, work: Work, mailer: Mailer) -> None:
    """Make the next selected deliveries pending, order the first of each subject, then the rest.

    Events of erased users are not sent again, apart from that of the erasure.
    """
    found = await mailer.webhook_deliveries.selected(
        command.endpoint_id, command, before=command.ordered_at, cursor=command.cursor, limit=BATCH
    )
    first: dict[str, WebhookDelivery] = {}
    for delivery in found:
        if delivery.type == TEST:
            continue
        replayed = delivery.replay(at=work.now)
        mailer.webhook_deliveries.save(replayed, work)
        other = first.get(delivery.subject)
        if other is None or replayed.position < other.position:
            first[delivery.subject] = replayed
    for delivery in first.values():
        _order_attempt(delivery, work)
    if len(found) == BATCH:
        cursor = cursor_of(found[-1].created_at, found[-1].id)
        work.publish(command.model_copy(update={"key": work.key, "cursor": cursor}))


async def list_webhook_deliveries(query: ListWebhookDeliveries, _work: Work, mailer: Mailer) -> WebhookDeliveriesView:
    """Return a page of deliveries with their attempts, newest first.

    Raises:
        InvalidCursor: no page ended with the query's cursor.
    """
    found = await mailer.webhook_deliveries.list_page(query)
    page = found[: query.limit]
    return WebhookDeliveriesView(
        deliveries=tuple(delivery.view() for delivery in page),
        next_cursor=cursor_of(page[-1].created_at, page[-1].id) if len(found) > len(page) else None,
    )


async def send_test_webhook(command: SendTestWebhook, work: Work, mailer: Mailer) -> WebhookTestView:
    """Post a test event to an endpoint once, and return the attempt.

    Raises:
        WebhookEndpointNotFound: there is no such endpoint.
        WebhookEndpointDisabled: it is disabled.
    """
    endpoint = await mailer.webhook_endpoints.get(command.id)
    work.annotate(resource_id=endpoint.id, client_id=endpoint.client_id)
    endpoint.must_be_enabled()
    event = WebhookEvent(
        event_id=work.new_id("webhookevent"),
        type=TEST,
        at=work.now,
        data=TestData(endpoint_id=endpoint.id).model_dump(mode="json"),
    )
    delivery = _delivery(event, endpoint, next_position(None, at=work.now), work, mailer)
    sent = await _post(delivery, endpoint, work, mailer)
    attempted = delivery.after(sent.attempt, retry_after=None, at=work.now)
    mailer.webhook_deliveries.add(attempted.given_up() if attempted.pending else attempted, work)
    return WebhookTestView(event_id=event.event_id, attempt=sent.attempt.view())
