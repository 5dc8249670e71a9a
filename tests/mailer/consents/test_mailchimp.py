"""What a user consents to reaches the audience provider, late perhaps, and what was chosen last stands there."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.mailer.consents.mailchimp import Mailchimp, member_hash
from services.mailer.consents.models import AddressRejected, RetryLater, Synced, SyncOutcome
from services.mailer.settings import MailerSettings
from shared.bus.envelope import encode
from shared.bus.inbox import Inbox
from shared.messages import Sealed
from shared.messages.auth.users import FindConsentAddress
from shared.messages.mailer.consents import CarryMarketingConsent, ConsentLevel, RecordMarketingConsent
from tests.mailer.conftest import MakeSettings, mailer_harness
from tests.mailer.mailchimp_double import KEY, LIST, MailchimpDouble
from tests.service_harness import ServiceHarness

ADDRESS = "Ada@Example.com"


@pytest.fixture
async def mailchimp(double: MailchimpDouble) -> AsyncIterator[Mailchimp]:
    mailchimp = Mailchimp(KEY, LIST, timeout=0.3, api_base=double.url)
    yield mailchimp
    await mailchimp.close()


@pytest.fixture
async def harness(mongo_url: str, database_prefix: str, carrying: MailerSettings) -> AsyncIterator[ServiceHarness]:
    """The mailer with a double of Mailchimp."""
    async with mailer_harness(mongo_url, database_prefix, carrying) as harness:
        yield harness


async def choose(harness: ServiceHarness, level: ConsentLevel) -> CarryMarketingConsent:
    """Record a choice; returns the order that auth then gives."""
    await harness.deliver(RecordMarketingConsent(key="user_1", user_id="user_1", level=level, source="user"))
    asked = harness.published_of(FindConsentAddress)[-1]
    return carry(harness, asked.consent_version)


def carry(harness: ServiceHarness, version: int, address: str | None = ADDRESS) -> CarryMarketingConsent:
    return CarryMarketingConsent(
        key="user_1",
        user_id="user_1",
        consent_version=version,
        address=None if address is None else Sealed.of(address),
        ordered_at=harness.now,
    )


async def member(harness: ServiceHarness) -> dict[str, Any]:
    row = await harness.database["audience_members"].find_one({})
    assert row is not None
    return row


async def due(harness: ServiceHarness) -> list[CarryMarketingConsent]:
    """The orders that wait; the time of the last one is now."""
    waiting = await harness.delayed()
    await harness.database[Inbox.TIMERS].delete_many({})
    if waiting:
        harness.now = waiting[-1][0]
        # A pause of the breaker is counted in real seconds.
        harness.context.audience._breaker.succeeded()
    return [message.model_copy(update={"key": "user_1"}) for _, message in waiting]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fault", "carriage", "done"),
    [
        (None, Synced(), True),
        (400, AddressRejected("400 Member In Compliance State"), False),
        (429, RetryLater("429 Too Many Requests"), False),
        (401, RetryLater("401 Fault"), False),
        (404, RetryLater("404 Fault"), False),
        (503, RetryLater("503 Fault"), False),
        ("html", RetryLater("502"), False),
        ("done-500", RetryLater("500 Internal Server Error"), True),
        ("done-hang", RetryLater("no answer within 0.3 s"), True),
        ("hang", RetryLater("no answer within 0.3 s"), False),
        ("drop", RetryLater("ServerDisconnectedError"), True),
    ],
)
async def test_what_mailchimp_does_is_told_without_the_address(
    *, mailchimp: Mailchimp, double: MailchimpDouble, fault: int | str | None, carriage: SyncOutcome, done: bool
) -> None:
    double.always = fault
    assert await mailchimp.update(ADDRESS, "general") == carriage
    assert (double.status_of(ADDRESS) == "subscribed") == done
    assert double.calls[0][0] == member_hash(ADDRESS) == member_hash("ada@example.com")


async def test_who_was_never_in_the_audience_is_not_made_one_that_has_left(
    mailchimp: Mailchimp, double: MailchimpDouble
) -> None:
    levels: list[ConsentLevel] = ["none", "general", "none", "none"]
    seen = []
    for level in levels:
        assert await mailchimp.update(ADDRESS, level) == Synced()
        seen.append(double.status_of(ADDRESS))
    assert seen == ["transactional", "subscribed", "unsubscribed", "unsubscribed"]


async def test_a_slow_mailchimp_holds_few_of_our_places(mailchimp: Mailchimp, double: MailchimpDouble) -> None:
    double.always = "hang"
    carriages = await asyncio.gather(*(mailchimp.update(f"{number}@example.com", "none") for number in range(20)))
    assert len(double.calls) == 8
    assert carriages.count(RetryLater("busy")) == 12
    # After as many failures in a row it is not asked at all for a while.
    assert await mailchimp.update(ADDRESS, "none") == RetryLater("no answer within 0.3 s")
    assert len(double.calls) == 8


async def test_nobody_at_its_address_is_told_as_well() -> None:
    mailchimp = Mailchimp(KEY, LIST, timeout=0.3, api_base="http://127.0.0.1:9")
    try:
        assert await mailchimp.update(ADDRESS, "none") == RetryLater("ClientConnectorError")
    finally:
        await mailchimp.close()


async def test_the_key_names_the_data_centre() -> None:
    mailchimp = Mailchimp(KEY, LIST, timeout=1)
    assert mailchimp._list == f"https://us21.api.mailchimp.com/3.0/lists/{LIST}"
    await mailchimp.close()


async def test_a_consent_is_carried(harness: ServiceHarness, double: MailchimpDouble) -> None:
    await harness.deliver(await choose(harness, "general"))
    assert double.status_of(ADDRESS) == "subscribed"
    row = await member(harness)
    assert (row["_id"], row["state"], row["level"], row["attempts"]) == ("user_1", "carried", "general", 1)
    assert await harness.delayed() == []
    assert "example.com" not in str(await harness.database["audience_members"].find().to_list()).lower()


async def test_the_latest_choice_wins_over_late_retries(harness: ServiceHarness, double: MailchimpDouble) -> None:
    # Done, and the answer lost; then the user thinks again, and that reaches Mailchimp at once.
    double.faults.extend(["done-hang"])
    await harness.deliver(await choose(harness, "general"))
    [late] = await due(harness)
    await harness.deliver(await choose(harness, "none"))
    assert double.status_of(ADDRESS) == "unsubscribed"
    await harness.deliver(late)
    assert double.status_of(ADDRESS) == "unsubscribed"
    assert [body["status"] for _, body in double.calls] == ["subscribed", "unsubscribed", "unsubscribed"]
    assert ((await member(harness))["state"], await harness.delayed()) == ("carried", [])


async def test_while_mailchimp_is_away_only_the_newest_choice_is_tried_on(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    double.always = 503
    first = await choose(harness, "general")
    second = await choose(harness, "none")
    await harness.deliver(first)
    await harness.deliver(second)
    [waiting] = await due(harness)
    assert waiting.consent_version == 2
    double.always = None
    await harness.deliver(waiting)
    assert double.status_of(ADDRESS) == "transactional"


async def test_a_choice_made_while_mailchimp_is_asked_is_told_it_too(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    order = await choose(harness, "general")
    tell, meanwhile = harness.context.audience.update, []

    async def told_slowly(address: str, level: ConsentLevel) -> SyncOutcome:
        carriage = await tell(address, level)
        if not meanwhile:
            meanwhile.append(await choose(harness, "none"))
        assert isinstance(carriage, Synced)
        return carriage

    harness.context.audience.update = told_slowly
    await harness.deliver(order)
    assert double.status_of(ADDRESS) == "unsubscribed"
    assert (await member(harness))["consentVersion"] == 2


async def test_a_consent_is_tried_for_a_week_and_then_given_up(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    double.always = 503
    began = harness.now
    orders = [await choose(harness, "none")]
    tries = 0
    while orders:
        [order] = orders
        await harness.deliver(order)
        tries += 1
        orders = await due(harness)
    assert timedelta(days=6.5) < harness.now - began <= timedelta(days=7.2)
    assert tries == (await member(harness))["attempts"] < 110
    assert (await member(harness))["state"] == "given_up"


async def test_what_mailchimp_never_takes_is_given_up_at_once(harness: ServiceHarness, double: MailchimpDouble) -> None:
    double.always = 400
    await harness.deliver(await choose(harness, "general"))
    row = await member(harness)
    assert (row["state"], row["reason"]) == ("given_up", "400 Member In Compliance State")
    assert await harness.delayed() == []
    # The next choice begins anew.
    double.always = None
    await harness.deliver(await choose(harness, "none"))
    row = await member(harness)
    assert (row["state"], row["reason"], row["attempts"]) == ("carried", None, 1)


async def test_second_delivery_of_an_order_asks_mailchimp_once(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    order = await choose(harness, "general")
    body = encode(order, harness.sealer)
    for _ in range(2):
        await harness.deliver(order, id="ab" * 16, body=body)
    assert len(double.calls) == 1


async def test_a_user_without_an_address_is_not_carried(harness: ServiceHarness, double: MailchimpDouble) -> None:
    order = await choose(harness, "general")
    await harness.deliver(order.model_copy(update={"address": None}))
    assert ((await member(harness))["state"], double.calls, await harness.delayed()) == ("no_address", [], [])


async def test_an_order_about_nobody_changes_nothing(harness: ServiceHarness, double: MailchimpDouble) -> None:
    await harness.deliver(carry(harness, 1))
    assert double.calls == []
    assert await harness.database["audience_members"].find().to_list() == []


async def test_the_audience_is_off_by_default(
    mongo_url: str, database_prefix: str, settings: MakeSettings, double: MailchimpDouble
) -> None:
    async with mailer_harness(mongo_url, database_prefix, settings()) as harness:
        await harness.deliver(RecordMarketingConsent(key="user_1", user_id="user_1", level="general", source="user"))
        assert harness.published_of(FindConsentAddress) == []
        # An order from when it was on.
        await harness.deliver(carry(harness, 1))
        assert await harness.database["audience_members"].find().to_list() == []
