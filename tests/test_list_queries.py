"""Reads of the lists for operators: with any filters and in any period they examine no more than they return."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from services.auth.audit.store import AuditEntries
from services.auth.clients.models import Client
from services.auth.clients.store import Clients
from services.auth.dead_letters.store import RemovedLetters, Replay, Replays
from services.auth.users.models import User
from services.auth.users.store import Users
from services.billing.disputes.models import Dispute
from services.billing.disputes.store import Disputes
from services.billing.events.models import EventRow
from services.billing.events.store import StripeEvents
from services.billing.history.models import HistoryEntry
from services.billing.history.store import BillingHistory
from services.billing.payments.models import Payment
from services.billing.payments.store import PageQuery, Payments
from services.billing.runs.models import Difference, KnownDrift, Run
from services.billing.runs.store import Differences, KnownDrifts, Runs
from services.mailer.deliveries.models import Delivery
from services.mailer.deliveries.store import Deliveries
from services.mailer.suppressions.models import Suppression
from services.mailer.suppressions.store import Suppressions
from services.mailer.webhooks.models import Endpoint, WebhookDelivery
from services.mailer.webhooks.store import Endpoints, WebhookDeliveries
from services.news.models import NewsItem
from services.news.store import NewsItems
from shared.documents import document_of
from shared.messages import MESSAGES, OperatorList
from shared.messages.auth.audit import AuditEntryView, ListAuditEntries
from shared.messages.auth.clients import ListClients
from shared.messages.auth.dead_letters import ListDeadLetters
from shared.messages.auth.partitions import ListPausedPartitions
from shared.messages.auth.rate_limits import ListRateLimits
from shared.messages.auth.signing_keys import ListSigningKeys
from shared.messages.auth.users import ListUsers
from shared.messages.billing.disputes import ListDisputes
from shared.messages.billing.history import ListBillingHistory, ListStripeEvents
from shared.messages.billing.payments import ListPayments
from shared.messages.billing.runs import ListStripeDifferences, ListStripeRuns
from shared.messages.mailer.deliveries import ListDeliveries
from shared.messages.mailer.suppressions import ListSuppressions
from shared.messages.mailer.webhooks import ListWebhookDeliveries, ListWebhookEndpoints, WebhookSelection
from shared.messages.news import ListAllNewsItems
from shared.mongo import Database, Document, connect, database, ensure_indexes, indexes_of
from shared.paging import cursor_of
from tests.query_profile import QueryProfile, flaws

COUNT = 1_200
RARE = 250
"""One of so many documents has other values than the rest."""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SLACK = 12
"""Index entries that a query may examine in vain, such as the first one of each range."""
MANY_RANGES = 200
"""The same for a filter that leaves a field of the index open: MongoDB merges up to so many ranges."""
Read = Callable[[Database], Awaitable[object]]


def moment(number: int) -> datetime:
    """Time of a document; the last one is the newest."""
    return BEGAN + timedelta(minutes=number)


EARLY, LATE = moment(100), moment(120)
"""A period in which a fiftieth of the documents was written, long before the newest."""
AFTER_HALF = cursor_of(moment(500), "0500")


def rare(number: int) -> bool:
    return number % RARE == RARE // 2


def documents(kind: type[Any], /, **values: Callable[[int], Any]) -> list[Document]:
    """Documents of a dataclass. Fields without a value are null; values are by the name in the document."""
    assert is_dataclass(kind)
    empty = document_of(kind(**{field.name: None for field in fields(kind)}))
    unknown = values.keys() - empty.keys() - {"_id"}
    assert not unknown, f"{kind.__name__} has no {unknown}"
    return [
        {**empty, "_id": f"{number:04}", **{name: value(number) for name, value in values.items()}}
        for number in range(COUNT)
    ]


def one_of(common: Any, other: Any) -> Callable[[int], Any]:
    return lambda number: other if rare(number) else common


def audit_entries() -> list[Document]:
    empty = AuditEntryView.model_construct(**dict.fromkeys(AuditEntryView.model_fields))
    entry = {**document_of(empty), "caller": "anonymous", "messageId": "m", "count": 1}
    return [
        {
            **entry,
            "_id": f"{number:04}",
            "at": moment(number),
            "userId": "rare" if rare(number) else "common",
            "action": "refresh" if rare(number) else "log_in",
            "outcome": "refused" if rare(number) else "done",
        }
        for number in range(COUNT)
    ]


def page_query(**values: Any) -> PageQuery:
    usual = {"user_id": None, "customers": [], "status": None, "limit": 5, "cursor": None}
    return PageQuery(**{**usual, **values})


def audit(**filters: Any) -> Read:
    return lambda own: AuditEntries(own).page(ListAuditEntries(limit=5, **filters))


def users(**filters: Any) -> Read:
    return lambda own: Users(own).page(ListUsers(limit=5, **filters))


def deliveries(*hashes: str, **filters: Any) -> Read:
    return lambda own: Deliveries(own).list_page(ListDeliveries(limit=5, **filters), hashes or None)


def webhook_deliveries(**filters: Any) -> Read:
    return lambda own: WebhookDeliveries(own).list_page(ListWebhookDeliveries(limit=5, **filters))


def suppressions(*hashes: str, **filters: Any) -> Read:
    return lambda own: Suppressions(own).list_page(ListSuppressions(limit=5, **filters), hashes or None)


def payments(**filters: Any) -> Read:
    return lambda own: Payments(own).page(page_query(**filters))


def disputes(**filters: Any) -> Read:
    return lambda own: Disputes(own).page(page_query(**filters))


def history(user_id: str, cursor: str | None = None) -> Read:
    return lambda own: BillingHistory(own).page(user_id, limit=5, cursor=cursor)


def events(**filters: Any) -> Read:
    usual = {"types": (), "since": None, "until": None, "after": None, "limit": 5}
    return lambda own: StripeEvents(own).made(**{**usual, **filters})


def events_about(object_ids: list[str], cursor: str | None = None) -> Read:
    return lambda own: StripeEvents(own).about(object_ids, limit=5, cursor=cursor)


def periods(read: Callable[..., Read], **filters: Any) -> dict[str, Read]:
    """A list with these filters: its first page, a later one, and in periods."""
    name = ", ".join(f"{field}={value}" for field, value in filters.items()) or "all"
    return pages(read, **filters) | {
        f"{name}, since": read(**filters, since=moment(COUNT - 3)),
        f"{name}, until": read(**filters, until=EARLY),
        f"{name}, since and until": read(**filters, since=EARLY, until=LATE),
        f"{name}, since and until, later page": read(**filters, since=EARLY, until=moment(900), cursor=AFTER_HALF),
    }


def replays(**filters: Any) -> dict[str, Read]:
    """The deliveries that a replay with these filters selects: the first ones, the next, and their number."""
    selection = WebhookSelection(key="", **filters)
    name = ", ".join(f"{field}={value}" for field, value in filters.items()) or "all"

    def selected(cursor: str | None) -> Read:
        return lambda own: WebhookDeliveries(own).selected("rare", selection, before=LATE, cursor=cursor, limit=5)

    return {
        f"replay, {name}": selected(None),
        f"replay, {name}, next": selected(AFTER_HALF),
        f"replay, {name}, count": lambda own: WebhookDeliveries(own).count_selected("rare", selection, before=LATE),
    }


def pages(read: Callable[..., Read], **filters: Any) -> dict[str, Read]:
    """A list with these filters: its first page and a later one."""
    name = ", ".join(f"{field}={value}" for field, value in filters.items()) or "all"
    return {name: read(**filters), f"{name}, later page": read(**filters, cursor=AFTER_HALF)}


@dataclass(frozen=True)
class Case:
    """A list, the stores that it reads, and its reads by their filters."""

    messages: tuple[type[OperatorList], ...]
    store: Any
    content: Callable[[], list[Document]]
    reads: dict[str, Read]
    merging: dict[str, Read] = field(default_factory=dict)
    """Reads that merge ranges of an index."""

    def bounded(self) -> dict[str, tuple[Read, int]]:
        """Each read, and how many ranges it may merge."""
        return {name: (read, 0) for name, read in self.reads.items()} | {
            name: (read, MANY_RANGES) for name, read in self.merging.items()
        }


def some_of(filters: dict[str, str]) -> list[dict[str, str]]:
    """Every combination of some of these filters."""
    return [dict(chosen) for count in range(len(filters)) for chosen in combinations(filters.items(), count + 1)]


PAYMENT_READS = (
    {},
    {"user_id": "rare", "status": "rare"},
    {"user_id": "rare"},
    {"user_id": "none", "customers": ["cus_rare"]},
    {"status": "rare"},
)
CASES = [
    Case(
        (ListAuditEntries,),
        AuditEntries,
        audit_entries,
        periods(audit)
        | periods(audit, user_id="rare")
        | {
            "user_id=rare, outcome=refused": audit(user_id="rare", outcome="refused"),
            "user_id=rare, action=refresh, outcome=refused": audit(user_id="rare", action="refresh", outcome="refused"),
        },
        {
            name: read
            for filters in some_of({"action": "refresh", "outcome": "refused"})
            for name, read in periods(audit, **filters).items()
        },
    ),
    Case(
        # A search for a part of an address examines the index of all addresses: see docs/operations.md.
        (ListUsers,),
        Users,
        lambda: documents(User, createdAt=moment, firstName=lambda _: "", lastName=lambda _: ""),
        periods(users),
    ),
    Case(
        (ListDeliveries,),
        Deliveries,
        lambda: documents(
            Delivery,
            orderId=lambda number: f"o{number}",
            createdAt=moment,
            recipientHash=one_of("common", "rare"),
            channel=one_of("mail", "text"),
            state=one_of("delivered", "failed"),
            template=one_of("magic-link", "login-code"),
            clientId=one_of("common", "rare"),
        ),
        periods(deliveries)
        | {
            "recipient": deliveries("rare", "rotated"),
            "recipient, state": deliveries("rare", "rotated", state="failed"),
        },
        {
            name: read
            for filters in some_of({"medium": "text", "state": "failed", "template": "login-code", "client_id": "rare"})
            for name, read in periods(deliveries, **filters).items()
        },
    ),
    Case(
        (ListWebhookDeliveries,),
        WebhookDeliveries,
        lambda: documents(
            WebhookDelivery,
            createdAt=moment,
            endpointId=one_of("common", "rare"),
            eventId=one_of("common", "rare"),
            userId=one_of("common", "rare"),
            subject=one_of("common", "rare"),
            position=lambda number: number,
            type=one_of("user.created", "trial.ended"),
            state=one_of("delivered", "pending"),
            deliveredAt=lambda number: None if rare(number) else moment(number),
        ),
        periods(webhook_deliveries)
        | periods(webhook_deliveries, event_id="rare")
        | periods(webhook_deliveries, user_id="rare")
        | {
            "event_id=rare, others": webhook_deliveries(event_id="rare", endpoint_id="rare", type="user.created"),
            "user_id=rare, others": webhook_deliveries(user_id="rare", type="user.created", state="pending"),
            "first pending": lambda own: WebhookDeliveries(own).first_pending("rare", "rare"),
            "next subject": lambda own: WebhookDeliveries(own).first_subject("rare", after="common"),
            "pending": lambda own: WebhookDeliveries(own).count_pending("rare"),
            "last position": lambda own: WebhookDeliveries(own).last_position("common", "common"),
            "last success": lambda own: WebhookDeliveries(own).last_delivered_at("common"),
        },
        {
            name: read
            for filters in some_of({"endpoint_id": "rare", "type": "trial.ended", "state": "pending"})
            for name, read in periods(webhook_deliveries, **filters).items()
        }
        | {
            name: read
            for filters in ({}, *some_of({"type": "trial.ended", "state": "pending"}))
            for name, read in replays(**filters).items()
        },
    ),
    Case(
        (ListWebhookEndpoints,),
        Endpoints,
        lambda: documents(Endpoint, clientId=one_of("common", "rare"), createdAt=moment),
        {"all": lambda own: Endpoints(own).all(), "client": lambda own: Endpoints(own).of_client("rare")},
    ),
    Case(
        (ListSuppressions,),
        Suppressions,
        lambda: documents(
            Suppression,
            since=moment,
            cause=one_of("bounce", "complaint"),
            deliveryId=lambda number: f"{number:04}",
        ),
        periods(suppressions) | periods(suppressions, cause="complaint") | {"recipient": suppressions("0007", "none")},
    ),
    *(
        Case(
            (message,),
            store,
            lambda kind=kind, stripe_id=stripe_id: documents(
                kind,
                **{stripe_id: lambda number: f"s{number}"},
                stpCreatedAt=moment,
                userId=lambda number: None if number == 7 else "rare" if rare(number) else "common",
                stpCustomerId=lambda number: "cus_rare" if number == 7 else "cus_common",
                status=one_of("common", "rare"),
            ),
            {name: read for filters in PAYMENT_READS for name, read in pages(reader, **filters).items()},
        )
        for message, store, kind, stripe_id, reader in (
            (ListPayments, Payments, Payment, "stpPaymentIntentId", payments),
            (ListDisputes, Disputes, Dispute, "stpDisputeId", disputes),
        )
    ),
    Case(
        (ListBillingHistory,),
        BillingHistory,
        lambda: documents(HistoryEntry, userId=one_of("common", "rare"), at=moment),
        pages(history, user_id="rare") | pages(history, user_id="common"),
    ),
    Case(
        (ListStripeRuns,),
        Runs,
        lambda: documents(
            Run, startedAt=moment, finishedAt=moment, kind=one_of("verify", "sweep"), status=one_of("failed", "done")
        ),
        {"all": lambda own: Runs(own).latest(5), "latest done": lambda own: Runs(own).latest_done("sweep")},
    ),
    Case(
        (ListStripeDifferences,),
        Differences,
        lambda: documents(Difference, runId=one_of("common", "rare"), state=one_of("known", "suspected")),
        {
            "run": lambda own: Differences(own).page("rare", after=None, limit=5),
            "run, later page": lambda own: Differences(own).page("common", after="0500", limit=5),
            "open": lambda own: Differences(own).open("common", after=None, limit=5),
        },
    ),
    Case(
        (),
        KnownDrifts,
        lambda: documents(KnownDrift),
        {"later page": lambda own: KnownDrifts(own).page(after="0500", limit=5)},
    ),
    Case(
        (ListStripeEvents,),
        StripeEvents,
        lambda: documents(
            EventRow,
            stpEventId=lambda number: f"e{number}",
            account=lambda number: f"a{number}",
            madeAt=moment,
            receivedAt=moment,
            type=one_of("common", "rare"),
            objectId=one_of("in_common", "sub_rare"),
            leadsTo=lambda number: "pi_rare" if number % RARE == 7 else None,
            handledAt=lambda number: None if rare(number) else moment(number),
        ),
        {
            "all, later page": events(after=AFTER_HALF),
            "types": events(types=["rare", "none"]),
            "types, later page": events(types=["rare"], after=AFTER_HALF),
            "since and until": events(since=EARLY, until=LATE),
            "types, since and until": events(types=["rare"], since=EARLY, until=LATE),
            "pending": lambda own: StripeEvents(own).count_pending(),
            **pages(events_about, object_ids=["sub_rare", "pi_rare", "none"]),
            **pages(events_about, object_ids=["in_common", "pi_rare"]),
        },
    ),
    Case(
        (ListClients,),
        Clients,
        lambda: documents(Client, createdAt=moment),
        {"all": lambda own: Clients(own).all()},
    ),
    Case(
        (ListAllNewsItems,),
        NewsItems,
        lambda: [
            {**document, "clients": ["rare"] if rare(number) else ["common", "other"]}
            for number, document in enumerate(documents(NewsItem, createdAt=moment))
        ],
        {
            "all": lambda own: NewsItems(own).list_page(None, cursor=None, limit=5),
            "later page": lambda own: NewsItems(own).list_page(None, cursor="0500", limit=5),
            "client": lambda own: NewsItems(own).list_page("rare", cursor=None, limit=5),
            "client, later page": lambda own: NewsItems(own).list_page("rare", cursor="0500", limit=5),
        },
    ),
    Case(
        (ListDeadLetters,),
        Replays,
        lambda: documents(Replay),
        {"replays": lambda own: Replays(own).by_id(["0005", "none"])},
    ),
    Case(
        (ListDeadLetters,),
        RemovedLetters,
        lambda: documents(Replay),
        {"removed": lambda own: RemovedLetters(own).among(["0005", "none"])},
    ),
]


@pytest.fixture
async def own(mongo_url: str, database_prefix: str) -> AsyncIterator[Database]:
    client = connect(mongo_url, application="lists", timeout=20)
    yield database(client, f"{database_prefix}lists")
    await client.close()


def test_every_list_for_operators_has_a_case() -> None:
    # The signing keys are one document, which auth holds in memory, as it holds the paused partitions and the rate
    # limits, whose counts are read by their ID.
    in_memory = {ListSigningKeys, ListPausedPartitions, ListRateLimits}
    lists = {kind for kind in MESSAGES.values() if issubclass(kind, OperatorList)} - in_memory
    assert {message for case in CASES for message in case.messages} == lists


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.store.COLLECTION)
async def test_a_list_examines_what_it_returns(own: Database, case: Case) -> None:
    wrong = await _flaws(own, case.store, case.content(), case.bounded())
    # The few documents of given IDs may be sorted in memory.
    wrong = [flaw for flaw in wrong if not flaw.endswith("sorts in memory: IXSCAN { _id: 1 }")]
    assert not wrong, "\n".join(wrong)


def exclusive(fields: dict[str, Any], content: list[Document]) -> list[Document]:
    """Give each field its value in every n-th document, of which no other field has its own."""
    for number, document in enumerate(content):
        for place, (name, value) in enumerate(fields.items()):
            if number % len(fields) == place:
                document[name] = value
    return content


@pytest.mark.parametrize(
    ("case", "stored", "read", "filters"),
    [
        (CASES[0], {"action": "refresh", "outcome": "refused"}, audit, {"action": "refresh", "outcome": "refused"}),
        (
            CASES[2],
            {"template": "login-code", "state": "failed", "clientId": "chosen"},
            deliveries,
            {"medium": "text", "template": "login-code", "state": "failed", "client_id": "chosen"},
        ),
        (
            CASES[3],
            {"endpointId": "chosen", "type": "trial.ended", "state": "pending"},
            webhook_deliveries,
            {"endpoint_id": "chosen", "type": "trial.ended", "state": "pending"},
        ),
    ],
    ids=lambda each: each.store.COLLECTION if isinstance(each, Case) else "",
)
async def test_filters_that_match_much_apart_examine_nothing_together(
    own: Database, case: Case, stored: dict[str, Any], read: Callable[..., Read], filters: dict[str, str]
) -> None:
    reads = {name: (each, MANY_RANGES) for chosen in some_of(filters) for name, each in periods(read, **chosen).items()}
    content = exclusive(stored, case.content())
    wrong = await _flaws(own, case.store, content, reads)
    assert not wrong, "\n".join(wrong)


async def _flaws(own: Database, store: Any, content: list[Document], reads: dict[str, tuple[Read, int]]) -> list[str]:
    await ensure_indexes(own, indexes_of(store))
    await own[store.COLLECTION].insert_many(content)
    profile = QueryProfile(own)
    await profile.start()
    wrong = []
    for name, (read, ranges) in reads.items():
        await read(own)
        operations = await profile.operations()
        assert operations, f"{name}: nothing was read"
        wrong += [f"{name} {flaw}" for each in operations for flaw in flaws(each, slack=SLACK, ranges=ranges)]
    return wrong
