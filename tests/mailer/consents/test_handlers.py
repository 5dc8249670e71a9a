import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.mailer.consents import models
from services.mailer.deliveries.models import Accepted, Outcome
from services.mailer.settings import MailerSettings
from shared.bus.envelope import encode
from shared.bus.inbox import Inbox
from shared.messages import Caller, Sealed
from shared.messages.auth.users import FindConsentAddress
from shared.messages.mailer.consents import (
    CarryMarketingConsent,
    ConsentLevel,
    GetMarketingConsent,
    MarketingConsentChanged,
    RecordMarketingConsent,
)
from tests.mailer.conftest import mailer_harness
from tests.mailer.mailchimp_double import MailchimpDouble
from tests.service_harness import Refused, ServiceHarness

ADDRESS = "Ada@Example.com"


async def choose(harness: ServiceHarness, level: ConsentLevel, source: str = "user") -> None:
    await harness.deliver(RecordMarketingConsent(key="user_1", user_id="user_1", level=level, source=source))


async def consent_rows(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["marketing_consents"].find().to_list()


async def test_query_before_the_first_choice_is_refused(harness: ServiceHarness) -> None:
    with pytest.raises(Refused) as refused:
        await harness.deliver(GetMarketingConsent(user_id="user_1"))
    assert (refused.value.kind, refused.value.code) == ("not_found", "awaiting_consent")


async def test_choice_is_stored_with_time_and_source(harness: ServiceHarness) -> None:
    await choose(harness, "general", "internal")
    [row] = await consent_rows(harness)
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    assert row.pop("_id").startswith("test_mktngconsent_")
    assert row == {
        "userId": "user_1",
        "level": "general",
        "source": "internal",
        "createdAt": now,
        "updatedAt": now,
        "version": 1,
    }
    assert await harness.deliver(GetMarketingConsent(user_id="user_1")) == {"level": "general"}


async def test_event_is_published_only_if_the_level_changes(harness: ServiceHarness) -> None:
    levels: list[ConsentLevel] = ["general", "general", "none", "none", "general"]
    for level in levels:
        harness.now += timedelta(minutes=1)
        await choose(harness, level)
    events = harness.published_of(MarketingConsentChanged)
    assert [event.level for event in events] == ["general", "none", "general"]
    [row] = await consent_rows(harness)
    assert row["updatedAt"] - row["createdAt"] == timedelta(minutes=4)


async def test_second_delivery_of_a_choice_changes_nothing(harness: ServiceHarness) -> None:
    command = RecordMarketingConsent(key="user_1", user_id="user_1", level="general", source="user")
    await harness.deliver(command, id="a" * 32)
    await choose(harness, "none")
    await harness.deliver(command, id="a" * 32)
    assert await harness.deliver(GetMarketingConsent(user_id="user_1")) == {"level": "none"}


async def test_every_choice_is_recorded_with_caller_source_and_time(harness: ServiceHarness) -> None:
    by_user, by_link = Caller(kind="user", user_id="user_1"), Caller(kind="anonymous")
    began = harness.now
    choices: list[tuple[ConsentLevel, str, Caller]] = [
        ("general", "user", by_user),
        ("general", "user", by_user),
        ("none", "unsubscribe-link", by_link),
    ]
    for level, source, caller in choices:
        harness.now += timedelta(minutes=1)
        command = RecordMarketingConsent(key="user_1", user_id="user_1", level=level, source=source)
        await harness.deliver(command, caller=caller)
    rows = await harness.database["marketing_consent_changes"].find().sort("number").to_list()
    assert [(row["number"], row["level"], row["source"], row["caller"]) for row in rows] == [
        (1, "general", "user", {"kind": "user", "userId": "user_1"}),
        (2, "general", "user", {"kind": "user", "userId": "user_1"}),
        (3, "none", "unsubscribe-link", {"kind": "anonymous", "userId": None}),
    ]
    assert [round((row["createdAt"] - began).total_seconds() / 60) for row in rows] == [1, 2, 3]
    assert len({row["_id"] for row in rows}) == 3


CONCURRENT_CHOICES: list[tuple[ConsentLevel, str]] = [
    ("general", "user"),
    ("none", "unsubscribe-link"),
    ("general", "internal"),
]


@pytest.mark.parametrize("last", range(3))
async def test_concurrent_choices_are_all_recorded_and_the_last_one_wins(harness: ServiceHarness, last: int) -> None:
    for _ in range(3):
        harness.now += timedelta(seconds=1)
        # A handler that commits second finds a newer version and runs again.
        await asyncio.gather(*(choose(harness, level, source) for level, source in CONCURRENT_CHOICES))
    harness.now += timedelta(seconds=1)
    await choose(harness, *CONCURRENT_CHOICES[last])
    rows = await harness.database["marketing_consent_changes"].find().sort("number").to_list()
    assert [row["number"] for row in rows] == list(range(1, 11))
    choices = Counter((row["level"], row["source"]) for row in rows)
    assert choices == Counter([*CONCURRENT_CHOICES * 3, CONCURRENT_CHOICES[last]])
    times = [row["createdAt"] for row in rows]
    assert times == sorted(times)
    [current] = await consent_rows(harness)
    assert current["version"] == 10
    assert (current["level"], current["source"]) == CONCURRENT_CHOICES[last]
    assert (current["level"], current["source"]) == (rows[-1]["level"], rows[-1]["source"])
    assert current["updatedAt"] == times[-1]
    assert await harness.deliver(GetMarketingConsent(user_id="user_1")) == {"level": CONCURRENT_CHOICES[last][0]}
    # Events report changes only, and the last one has the current level.
    events = harness.published_of(MarketingConsentChanged)
    assert len(events) < 10
    assert events[-1].level == CONCURRENT_CHOICES[last][0]


@pytest.fixture
async def syncing(
    mongo_url: str, database_prefix: str, mailchimp_settings: MailerSettings
) -> AsyncIterator[ServiceHarness]:
    """A harness of the mailer that syncs consents to the double of Mailchimp."""
    async with mailer_harness(mongo_url, database_prefix, mailchimp_settings) as harness:
        yield harness


async def choose_and_find_address(harness: ServiceHarness, level: ConsentLevel) -> CarryMarketingConsent:
    """Record a choice; return the command that auth publishes in response."""
    await choose(harness, level)
    return sync_command(harness, harness.published_of(FindConsentAddress)[-1].consent_version)


def sync_command(harness: ServiceHarness, version: int) -> CarryMarketingConsent:
    return CarryMarketingConsent(
        key="user_1",
        user_id="user_1",
        consent_version=version,
        address=Sealed.of(ADDRESS),
        ordered_at=harness.now,
    )


async def member_row(harness: ServiceHarness) -> dict[str, Any]:
    row = await harness.database["audience_members"].find_one({})
    assert row is not None
    return row


async def retries(harness: ServiceHarness) -> list[CarryMarketingConsent]:
    """The delayed retries; moves the time forward to the last one."""
    delayed = await harness.delayed()
    await harness.database[Inbox.TIMERS].delete_many({})
    if delayed:
        harness.now = delayed[-1][0]
        # The circuit breaker's pause is measured in real time.
        harness.context.mailchimp._breaker.succeeded()
    return [message.model_copy(update={"key": "user_1"}) for _, message in delayed]  # type: ignore[misc]


async def test_choice_is_synced_to_mailchimp(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    await syncing.deliver(await choose_and_find_address(syncing, "general"))
    assert double.status_of(ADDRESS) == "subscribed"
    row = await member_row(syncing)
    now = syncing.now.replace(microsecond=syncing.now.microsecond // 1000 * 1000)
    assert row == {
        "_id": "user_1",
        "state": "carried",
        "level": "general",
        "consentVersion": 1,
        "attempts": 1,
        "reason": None,
        "createdAt": now,
        "updatedAt": now,
        "version": 1,
    }
    assert await syncing.delayed() == []


async def test_late_retry_syncs_the_latest_choice(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    # The first update takes effect, but its response is lost; meanwhile the user chooses again.
    double.faults.extend(["done-hang"])
    await syncing.deliver(await choose_and_find_address(syncing, "general"))
    [late] = await retries(syncing)
    await syncing.deliver(await choose_and_find_address(syncing, "none"))
    assert double.status_of(ADDRESS) == "unsubscribed"
    await syncing.deliver(late)
    assert double.status_of(ADDRESS) == "unsubscribed"
    assert [body["status"] for _, body in double.updates] == ["subscribed", "unsubscribed", "unsubscribed"]
    assert ((await member_row(syncing))["state"], await syncing.delayed()) == ("carried", [])


async def test_only_the_newest_choice_is_retried_after_an_outage(
    syncing: ServiceHarness, double: MailchimpDouble
) -> None:
    double.always = 503
    first = await choose_and_find_address(syncing, "general")
    second = await choose_and_find_address(syncing, "none")
    await syncing.deliver(first)
    await syncing.deliver(second)
    [retry] = await retries(syncing)
    assert retry.consent_version == 2
    double.always = None
    await syncing.deliver(retry)
    assert double.status_of(ADDRESS) == "transactional"


async def test_choice_during_a_call_is_synced_too(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    command = await choose_and_find_address(syncing, "general")
    update, later_choices = syncing.context.mailchimp.update, []

    async def update_slowly(address: str, level: ConsentLevel) -> Outcome:
        outcome = await update(address, level)
        if not later_choices:
            later_choices.append(await choose_and_find_address(syncing, "none"))
        assert isinstance(outcome, Accepted)
        return outcome

    syncing.context.mailchimp.update = update_slowly
    await syncing.deliver(command)
    assert double.status_of(ADDRESS) == "unsubscribed"
    assert (await member_row(syncing))["consentVersion"] == 2


async def test_sync_is_given_up_after_a_week(
    syncing: ServiceHarness, double: MailchimpDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer attempts; test_models.py checks the real pauses.
    monkeypatch.setattr(models, "FIRST_PAUSE", timedelta(hours=12))
    monkeypatch.setattr(models, "MAX_PAUSE", timedelta(days=1))
    double.always = 503
    began = syncing.now
    commands = [await choose_and_find_address(syncing, "none")]
    attempts = 0
    while commands:
        [command] = commands
        await syncing.deliver(command)
        attempts += 1
        commands = await retries(syncing)
    assert timedelta(days=6) < syncing.now - began <= timedelta(days=8.2)
    row = await member_row(syncing)
    assert (row["state"], row["attempts"]) == ("given_up", attempts)


async def test_rejected_address_is_given_up_at_once(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    double.always = 400
    await syncing.deliver(await choose_and_find_address(syncing, "general"))
    row = await member_row(syncing)
    assert (row["state"], row["reason"]) == ("given_up", "400 Member In Compliance State")
    assert await syncing.delayed() == []
    # The next choice is synced again.
    double.always = None
    await syncing.deliver(await choose_and_find_address(syncing, "none"))
    row = await member_row(syncing)
    assert (row["state"], row["reason"], row["attempts"]) == ("carried", None, 1)


async def test_second_delivery_of_a_sync_calls_mailchimp_once(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    command = await choose_and_find_address(syncing, "general")
    body = encode(command, syncing.sealer)
    for _ in range(2):
        await syncing.deliver(command, id="ab" * 16, body=body)
    assert len(double.updates) == 1


async def test_user_without_address_is_not_synced(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    command = await choose_and_find_address(syncing, "general")
    await syncing.deliver(command.model_copy(update={"address": None}))
    assert ((await member_row(syncing))["state"], double.updates, await syncing.delayed()) == ("no_address", [], [])


async def test_sync_without_a_consent_changes_nothing(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    await syncing.deliver(sync_command(syncing, 1))
    assert double.updates == []
    assert await syncing.database["audience_members"].find().to_list() == []


async def test_without_an_audience_nothing_is_synced(harness: ServiceHarness) -> None:
    await choose(harness, "general")
    assert harness.published_of(FindConsentAddress) == []
    # A command published before the audience was disabled.
    await harness.deliver(sync_command(harness, 1))
    assert await harness.database["audience_members"].find().to_list() == []
