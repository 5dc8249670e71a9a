"""Reads of every store, and of what the services share: each is served by an index, whatever the collection holds."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

import pytest
from pymongo import IndexModel

from services.auth.account_links.store import AccountLinks
from services.auth.accounts import api_keys
from services.auth.accounts.store import Applications, Owners
from services.auth.application_users.store import ApplicationUsers
from services.auth.magic_links.store import Authorizations
from services.auth.personal_data.store import PersonalData as AuthPersonalData
from services.auth.personal_data.store import UserExportParts, UserProcesses
from services.auth.phone.store import PhoneCodes
from services.auth.rate_limits.store import CounterSlots
from services.auth.tokens.store import AccessTokens, RefreshTokens
from services.auth.users.store import Identifiers, Users
from services.billing.catalog.store import Products
from services.billing.checkout.store import Checkouts
from services.billing.customers.store import ProviderMappings
from services.billing.disputes.store import Disputes
from services.billing.events.store import StripeEvents
from services.billing.payments.store import Payments
from services.billing.personal_data.store import PersonalData as BillingPersonalData
from services.billing.runs.store import Differences, RecordReaders, Runs
from services.billing.subscriptions.store import Subscriptions
from services.billing.trials.models import TrialDevice
from services.billing.trials.store import Trials
from services.billing.usage.store import UsageRows
from services.mailer.consents.store import Consents
from services.mailer.deliveries.store import Deliveries
from services.mailer.personal_data.store import PersonalData as MailerPersonalData
from services.mailer.suppressions.store import Suppressions
from services.mailer.webhooks.store import Endpoints, WebhookDeliveries
from services.news.store import Dismissals, personal_data
from services.news.store import Subscriptions as NewsSubscriptions
from shared.bus.inbox import Inbox
from shared.bus.republisher import Republisher
from shared.bus.timers import Timers
from shared.errors import Refusal
from shared.messages.mailer.mails import LastLogin
from shared.messages.republishing import RepublishFromAuth
from shared.mongo import Database, Document, connect, database
from shared.personal_data.subjects import DataSubject, PersonalDataCollection
from tests.query_profile import QueryProfile, flaws
from tests.shared.inbox_harness import ROW_ENCRYPTION, SEALER, envelope

COUNT: Final = 100
SLACK: Final = 12
"""Index entries and documents that a read may examine in vain."""
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)
SUBJECT: Final = DataSubject("none", ("none@example.org", "other@example.org"), ("+15550000000",))
Read = Callable[[Database], Awaitable[object]]

CONSTANTS: Final[dict[str, Document]] = {
    Identifiers.COLLECTION: {"identifierType": "email", "removedAt": None},
    Authorizations.COLLECTION: {"usedAt": None, "revokedAt": None, "typedCode": {}},
    AccessTokens.COLLECTION: {"revokedAt": None},
    RefreshTokens.COLLECTION: {"revokedAt": None},
    UserProcesses.COLLECTION: {"kind": "erasure"},
    ProviderMappings.COLLECTION: {"providerType": "stripe", "removedAt": None},
    Subscriptions.COLLECTION: {"status": "paused"},
    Checkouts.COLLECTION: {"status": "replaced"},
    StripeEvents.COLLECTION: {"handledAt": None},
    Runs.COLLECTION: {"underWay": False},
    Products.COLLECTION: {"product": {"active": True}, "deletedAt": None},
    WebhookDeliveries.COLLECTION: {"state": "pending"},
}
"""Values that all documents of a collection have, so that only the other conditions of a query select."""


NOTHING: Final[Any] = SimpleNamespace()
TOKEN: Final[Any] = SimpleNamespace(access_token=None, user_id="none", root_grant=None)
AUTHORIZATION: Final[Any] = SimpleNamespace(identifier_value="none")
SUBSCRIPTION: Final[Any] = SimpleNamespace(user_id="none", stp_subscription_id="none")
PROCESS: Final[Any] = SimpleNamespace(id="none", runs_done={"auth": 1, "billing": 1})
DEVICE: Final = TrialDevice(beak_id="none", fingerprint="none")
PERIOD: Final = {"made_from": NOW, "made_until": NOW + timedelta(hours=1)}
LIMIT: Final = {"limit": 5}
READS: Final[dict[str, tuple[tuple[Any, str, Sequence[Any], Mapping[str, Any]], ...]]] = {
    "auth": (
        (AccountLinks, "of_account", ["none"], {}),
        (Owners, "find_by_email", ["none"], {}),
        (Applications, "find_by_key", [api_keys.api_key(UUID(int=0))], {}),
        (Applications, "find_by_audience", ["none"], {}),
        (Applications, "some_of_owner", ["none"], LIMIT),
        (ApplicationUsers, "find_by_email", ["none", "none"], {}),
        (ApplicationUsers, "some_of_application", ["none"], LIMIT),
        (Authorizations, "open_competitors", [AUTHORIZATION], {"at": NOW}),
        (Authorizations, "open_others", [AUTHORIZATION], {"at": NOW}),
        (Authorizations, "newest_open", [["none", "other"]], {"at": NOW}),
        (Authorizations, "get_by_verifier", ["none"], {}),
        (Authorizations, "open_until", ["none"], {"at": NOW}),
        (UserProcesses, "find_erasure", ["none"], {}),
        (UserExportParts, "of_process", [PROCESS], {"skip": 0, "limit": 5}),
        (PhoneCodes, "find", ["none"], {}),
        (CounterSlots, "read", ["none"], {}),
        (AccessTokens, "issued_with", [TOKEN], {}),
        (AccessTokens, "unrevoked", ["none"], {}),
        (AccessTokens, "clients_of", ["none"], {}),
        (AccessTokens, "some_of_user", ["none", 5], {}),
        (RefreshTokens, "unrevoked", ["none"], {}),
        (RefreshTokens, "last_login", ["none"], {}),
        (RefreshTokens, "clients_of", ["none"], {}),
        (RefreshTokens, "some_of_user", ["none", 5], {}),
        (Users, "of_ids", [["none"]], {}),
        (Users, "with_identifiers", ["none"], {}),
        (Identifiers, "find_by_value", ["email", "none"], {}),
        (Identifiers, "of_users", [["none", "other"]], {}),
        (Identifiers, "of_user", ["none"], {}),
        (AuthPersonalData, "login_ids", [SUBJECT], {}),
    ),
    "billing": (
        (Checkouts, "find_open", ["none"], {}),
        (Checkouts, "replaced_any", ["none"], {}),
        (Checkouts, "newest_of", ["none"], LIMIT),
        (ProviderMappings, "find", ["none"], {}),
        (ProviderMappings, "find_by_user", ["none"], {}),
        (ProviderMappings, "customers_of", ["none"], {}),
        (ProviderMappings, "users_of", [["none", "other"]], {}),
        (Disputes, "find_by_stripe_id", ["none"], {}),
        (Disputes, "of_payment", ["none"], {}),
        (StripeEvents, "find_by_stripe_id", ["none"], {}),
        (StripeEvents, "pending_of", ["none"], {}),
        (StripeEvents, "known", [["none"]], {}),
        (Payments, "find_by_stripe_id", ["none"], {}),
        (Payments, "latest_for", [SUBSCRIPTION], {}),
        (Runs, "find_under_way", ["sweep"], {}),
        (Differences, "known", [["none"]], {}),
        (Subscriptions, "find", ["none"], {}),
        (Subscriptions, "find_by_stripe_id", ["none"], {}),
        (Subscriptions, "of_user", ["none"], {}),
        (Subscriptions, "paused_of_customer", ["none"], {}),
        (Subscriptions, "customers_of", ["none"], {}),
        (Subscriptions, "customers_of_others", ["u", ["none"]], {}),
        (Trials, "find_by_user", ["none"], {}),
        (Trials, "of_device", [DEVICE], {}),
        (Trials, "of_person", [["none"]], {}),
        (Trials, "of_card", [["none"]], {}),
        (UsageRows, "with_ids", [["none"]], {}),
    ),
    "mailer": (
        (Consents, "get", ["none"], {}),
        (Consents, "find", ["none"], {}),
        (Deliveries, "find", ["none"], {}),
        (Deliveries, "find_by_provider_id", ["none"], {}),
        (Deliveries, "find_last_branded", ["none", LastLogin(order_id="none", at=NOW)], {}),
        (Deliveries, "find_by_ids", [["none"]], {}),
        (Suppressions, "get_by_delivery", ["none"], {}),
        (Suppressions, "find", [["none", "other"]], {}),
        (Endpoints, "count", ["none"], {}),
        (WebhookDeliveries, "of_endpoint", ["none", 5], {}),
    ),
    "news": ((Dismissals, "list_item_ids", ["none"], {}), (NewsSubscriptions, "list_states", ["none"], {})),
}
"""Reads of the stores of each service: store, method, its arguments; none of them finds anything."""


@pytest.fixture
async def own(mongo_url: str, database_prefix: str) -> AsyncIterator[Database]:
    client = connect(mongo_url, application="stores", timeout=20)
    yield database(client, f"{database_prefix}stores")
    await client.close()


def document(number: int, indexes: Sequence[IndexModel], constants: Document) -> Document:
    """A document whose indexed fields have values of its own."""
    made: Document = {"_id": f"{number:04}"}
    for path in {path for index in indexes for path in index.document["key"] if path != "_id"}:
        *parents, last = path.split(".")
        target = made
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = f"{path} {number}"
    return {**made, **constants}


async def fill(own: Database, indexes: Mapping[str, Sequence[IndexModel]]) -> None:
    """Create the collections with their indexes and documents."""

    async def fill_one(name: str, declared: Sequence[IndexModel]) -> None:
        if declared:
            await own[name].create_indexes(list(declared))
        constants = CONSTANTS.get(name, {})
        await own[name].insert_many([document(number, declared, constants) for number in range(COUNT)])

    await asyncio.gather(*(fill_one(name, declared) for name, declared in indexes.items()))


def lookup_flaws(operation: Document) -> list[str]:
    """What is wrong with a lookup. It finds so few documents, such as those of a user, that it may sort them."""
    return flaws({**operation, "hasSortStage": False}, slack=SLACK)


@pytest.mark.parametrize("service", READS)
async def test_every_read_of_a_store_uses_an_index(own: Database, service: str) -> None:
    await fill(own, import_module(f"services.{service}.app").INDEXES)
    profile = QueryProfile(own)
    await profile.start()
    wrong = []
    for store, method, arguments, named in READS[service]:
        made = Applications(own, SEALER) if store is Applications else store(own)
        with suppress(Refusal):
            await getattr(made, method)(*arguments, **named)
        operations = await profile.operations()
        assert operations, f"{store.__name__}.{method} reads nothing"
        wrong += [f"{store.__name__}.{method} {flaw}" for each in operations for flaw in lookup_flaws(each)]
    for source in personal_data_of(service, own):
        for query in filter(None, (source.query, source.erasure_query)):
            # As exports and erasures read them.
            await source.collection.find(query(SUBJECT)).sort("_id", 1).limit(500).to_list()
            await source.collection.find(query(SUBJECT)).limit(500).to_list()
            for each in await profile.operations():
                wrong += [f"personal data in {source.collection.name} {flaw}" for flaw in lookup_flaws(each)]
    assert not wrong, "\n".join(wrong)


def personal_data_of(service: str, own: Database) -> Sequence[PersonalDataCollection]:
    if service == "news":
        return personal_data(own)
    if service == "mailer":
        mailer = MailerPersonalData(own, SEALER)
        return (*mailer.exported, *mailer.erased)
    if service == "billing":
        billing = BillingPersonalData(own)
        return (*billing.exported, *billing.erased)
    auth = AuthPersonalData(own)
    return (*auth.exported, *auth.erased, *auth.pending_logins, auth.audit_before_login(["none", "other"]))


RECORDS: Final = tuple(
    (kind, method, arguments, named)
    for kind in ("customers", "subscriptions", "trials", "payments", "disputes")
    for method, arguments, named in (
        ("of", [["none"]], {}),
        *([("unlisted", [["none"]], PERIOD)] if kind in ("subscriptions", "payments", "disputes") else []),
        *([("of_customers", [["none"]], {})] if kind in ("subscriptions", "payments") else []),
        *([("users_with_several", [["active"]], {"after": None, "limit": 5})] if kind == "subscriptions" else []),
    )
)
"""Billing's bulk reads of its records of a kind of Stripe object."""


async def test_bulk_reads_of_records_use_an_index(own: Database) -> None:
    indexes = import_module("services.billing.app").INDEXES
    kept = (ProviderMappings, Subscriptions, Trials, Payments, Disputes)
    await fill(own, {store.COLLECTION: indexes[store.COLLECTION] for store in kept})
    profile = QueryProfile(own)
    await profile.start()
    wrong = []
    for kind, method, arguments, named in RECORDS:
        await getattr(getattr(RecordReaders(own), kind), method)(*arguments, **named)
        for operation in await profile.operations():
            wrong += [f"{kind}.{method} {flaw}" for flaw in lookup_flaws(operation)]
    assert not wrong, "\n".join(wrong)


async def test_users_with_several_records_are_found_in_any_steps(own: Database) -> None:
    users = {"u1": "aa", "u2": "a", "u3": "ae", "u4": "aaa"}
    await own[Subscriptions.COLLECTION].insert_many(
        [{"userId": user, "status": status} for user, statuses in users.items() for status in statuses]
    )
    for limit in range(4, 10):
        found, after = await RecordReaders(own).subscriptions.users_with_several(["a"], after=None, limit=limit)
        while after is not None:
            more, after = await RecordReaders(own).subscriptions.users_with_several(["a"], after=after, limit=limit)
            found += more
        assert found == ["u1", "u4"]


async def test_inbox_and_timers_use_an_index(own: Database) -> None:
    inbox = Inbox(own.client, own, retention=timedelta(days=8), service="auth", encryption=ROW_ENCRYPTION)
    times = {"at": NOW, "sentAt": NOW, "expiresAt": "never", "topic": "auth.events"}
    for name, declared in inbox.indexes().items():
        await own[name].create_indexes(declared)
        await own[name].insert_many([{"_id": f"{number:04}", **times} for number in range(COUNT)])
    profile = QueryProfile(own)
    await profile.start()
    await inbox.find(envelope("a" * 32))
    await inbox.drop_messages(["none"])
    await inbox.drop_sent_timers(["none"])
    timers = Timers(own, NOTHING, service="auth", encryption=ROW_ENCRYPTION, clock=lambda: NOW - DAY)
    await timers.publish_due()
    await timers._look()
    republisher = Republisher(own, NOTHING, service="auth", encryption=ROW_ENCRYPTION, retention=9_999 * DAY)
    since, before = (round((NOW - days * DAY).timestamp() * 1000) for days in (2, 1))
    command = RepublishFromAuth(key="auth.events", recipient="auth.events", since=since, before=before)
    await republisher.republish(command, NOTHING, None)
    operations = await profile.operations()
    assert {each["ns"].rpartition(".")[2] for each in operations} == {"inbox", "timers"}
    wrong = [flaw for each in operations for flaw in flaws(each, slack=SLACK)]
    assert not wrong, "\n".join(wrong)


LISTS: Final = """
AuditEntries.page BillingHistory.page Clients.all Deliveries.list_page Differences.open Differences.page Disputes.page
Endpoints.all Endpoints.of_client KnownDrifts.page NewsItems.list_page Payments.page Replays.by_id
RemovedLetters.among Runs.latest Runs.latest_done StripeEvents.about StripeEvents.count_pending StripeEvents.made
Suppressions.list_page Users.page WebhookDeliveries.count_pending WebhookDeliveries.count_selected
WebhookDeliveries.first_pending WebhookDeliveries.first_subject WebhookDeliveries.last_delivered_at
WebhookDeliveries.last_position WebhookDeliveries.list_page WebhookDeliveries.selected
"""
"""In ``test_list_queries``."""
BY_ID: Final = """
ApplicationUsers.get_of_application Authorizations.get_by_code BillingHistory.add_events BillingHistory.record
Catalog.price Catalog.product Clients.get_recent CounterSlots.write EntitlementRows.claims FailedPaymentMails.claim
KnownDevicesStore.get Payers.serialize RefreshTokens.get_by_string RefreshTokens.issued_for SigningKeys.add_first
SigningKeys.get_key_set SigningKeys.reseal Subscriptions.store_status Takeover.covers Takeover.extend
Takeover.happened UseLogs.get
"""
"""Reads of the documents of given IDs."""
BY_ANOTHER: Final = """
Applications.get_by_key RecordReader.find RecordReader.of RecordReader.of_customers RecordReader.unlisted
RecordReader.users_with_several RecordReaders.users_of_customers
"""
"""Calls of reads that are listed, and those of ``RECORDS``."""
WHOLE: Final = """
BrandingCache.get Catalog.plans Catalog.plans_view Clients.ids Endpoints.enabled KnownDrifts.all
NewsItems.load_current Prices.active Products.active SealingKeys.export_metrics
"""
"""Collections of what operators configure, which are read as a whole into memory."""
PASSES: Final = """
Applications.report_lost_keys Identifiers.containing RecordReader.after RecordReader.count Subscriptions.live_after
"""
"""Passes over a collection or an index, in steps: at a start, by a run, for a search for a part of an address."""


def test_every_read_of_a_store_is_listed() -> None:
    listed = [f"{store.__name__}.{method}" for reads in READS.values() for store, method, *_ in reads]
    listed += f"{LISTS} {BY_ID} {BY_ANOTHER} {WHOLE} {PASSES}".split()
    paths = [path for service in READS for path in Path("services", service).rglob("store.py")]
    modules = [import_module(".".join(path.with_suffix("").parts)) for path in paths]
    reads = {
        f"{name}.{method}"
        for module in modules
        for name, store in inspect.getmembers(module, inspect.isclass)
        if store.__module__ == module.__name__
        for method, function in vars(store).items()
        if inspect.iscoroutinefunction(function) and not method.startswith("_")
    }
    assert reads == set(listed), "add a new read to READS, or to the group that says why it needs no index of its own"
