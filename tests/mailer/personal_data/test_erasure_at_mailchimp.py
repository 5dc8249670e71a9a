"""Who is erased is forgotten by the audience provider too, late perhaps, and nothing of them stands there again."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.mailer.consents.mailchimp import Mailchimp
from services.mailer.consents.models import AddressRejected, RetryLater, Synced, SyncOutcome
from services.mailer.settings import MailerSettings
from shared.bus.inbox import Inbox
from shared.messages import Message, Sealed
from shared.messages.mailer.consents import CarryMarketingConsent, ConsentLevel, RecordMarketingConsent
from shared.messages.personal_data import ConfirmErasure, EraseUserFromMailer, NoteErasureWait
from shared.personal_data.erasure import MAX_ATTEMPTS
from tests.mailer.conftest import MakeSettings, mailer_harness
from tests.mailer.mailchimp_double import KEY, LIST, MailchimpDouble, member_hash
from tests.service_harness import ServiceHarness

USER, ADDRESS, OLD_ADDRESS = "user_1", "ada@example.com", "ada@example.net"
ORDER = EraseUserFromMailer(
    key=USER,
    process_id="userproc_1",
    user_id=USER,
    identifiers=Sealed.of(json.dumps([["email", ADDRESS], ["email", OLD_ADDRESS], ["phone", "+41791234567"]])),
)


@pytest.fixture
async def harness(mongo_url: str, database_prefix: str, carrying: MailerSettings) -> AsyncIterator[ServiceHarness]:
    """The mailer with a double of Mailchimp."""
    async with mailer_harness(mongo_url, database_prefix, carrying) as harness:
        yield harness


async def consents(harness: ServiceHarness, level: ConsentLevel = "general", number: int = 1) -> CarryMarketingConsent:
    """Record a choice; returns the order that auth then gives."""
    await harness.deliver(RecordMarketingConsent(key=USER, user_id=USER, level=level, source="user"))
    return CarryMarketingConsent(
        key=USER, user_id=USER, consent_version=number, address=Sealed.of(ADDRESS), ordered_at=harness.now
    )


async def due(harness: ServiceHarness) -> list[Message]:
    """The tries that wait, second looks left out; the time of the last one is now."""
    waiting = [(at, message) for at, message in await harness.delayed() if not getattr(message, "again", False)]
    await harness.database[Inbox.TIMERS].delete_many({})
    if waiting:
        harness.now = waiting[-1][0]
        # A pause of the breaker is counted in real seconds.
        harness.context.audience._breaker.succeeded()
    return [message.model_copy(update={"key": USER}) for _, message in waiting]


@pytest.mark.parametrize(
    ("fault", "carriage"),
    [
        (None, Synced()),
        (400, AddressRejected("400 Member In Compliance State")),
        (401, RetryLater("401 Fault")),
        (503, RetryLater("503 Fault")),
        ("html", RetryLater("502")),
        ("hang", RetryLater("no answer within 0.3 s")),
        ("done-hang", RetryLater("no answer within 0.3 s")),
        ("drop", RetryLater("ServerDisconnectedError")),
    ],
)
async def test_what_mailchimp_says_to_an_order_to_forget_is_told(
    double: MailchimpDouble, fault: int | str | None, carriage: SyncOutcome
) -> None:
    mailchimp = Mailchimp(KEY, LIST, timeout=0.3, api_base=double.url)
    try:
        await mailchimp.update("Ada@Example.com", "general")
        double.always = fault
        assert await mailchimp.erase(ADDRESS) == carriage
        assert double.forgets == [member_hash(ADDRESS)]
        # Whatever became of the first try: the second one finds nobody, or somebody to forget.
        double.always = None
        assert await mailchimp.erase(ADDRESS) == Synced()
        assert double.members == {}
        assert await mailchimp.update(ADDRESS, "general") == AddressRejected("400 Forgotten Email Not Subscribed")
    finally:
        await mailchimp.close()


async def test_who_was_never_there_is_forgotten_and_a_list_that_is_not_there_forgets_nobody(
    double: MailchimpDouble,
) -> None:
    right = Mailchimp(KEY, LIST, timeout=1, api_base=double.url)
    wrong = Mailchimp(KEY, "no-such-list", timeout=1, api_base=double.url)
    try:
        assert await right.erase(ADDRESS) == Synced()
        assert await wrong.erase(ADDRESS) == RetryLater("404 Resource Not Found")
    finally:
        await right.close()
        await wrong.close()


async def test_of_an_erased_user_all_addresses_are_forgotten_before_it_is_confirmed(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    await harness.deliver(await consents(harness))
    assert double.status_of(ADDRESS) == "subscribed"
    await harness.deliver(ORDER)
    assert double.forgets == [member_hash(ADDRESS), member_hash(OLD_ADDRESS)]
    assert double.members == {}
    assert [confirmed.holder for confirmed in harness.published_of(ConfirmErasure)] == ["mailer"]
    assert harness.published_of(NoteErasureWait) == []


async def test_while_mailchimp_is_away_ours_is_gone_the_process_says_so_and_it_is_tried_until_done(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    await harness.deliver(await consents(harness))
    double.always = 503
    await harness.deliver(ORDER)
    for name in ("marketing_consents", "marketing_consent_changes", "audience_members"):
        assert await harness.database[name].count_documents({}) == 0, name
    assert harness.published_of(ConfirmErasure) == []
    [note] = harness.published_of(NoteErasureWait)
    assert (note.holder, note.waits_for, note.reason) == ("mailer", "mailchimp", "503 Fault")
    double.always = None
    for order in await due(harness):
        await harness.deliver(order)
    assert double.members == {}
    assert len(harness.published_of(ConfirmErasure)) == 1


async def test_even_what_mailchimp_refuses_is_not_given_up(harness: ServiceHarness, double: MailchimpDouble) -> None:
    await harness.deliver(await consents(harness))
    double.always = 400
    await harness.deliver(ORDER)
    assert [note.reason for note in harness.published_of(NoteErasureWait)] == ["400 Member In Compliance State"]
    assert harness.published_of(ConfirmErasure) == []
    assert len(await due(harness)) == 1


async def test_its_own_tries_take_most_of_an_hour_and_then_auth_orders_anew(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    double.always = 503
    began, orders, tries = harness.now, [ORDER], 0
    while orders:
        [order] = orders
        await harness.deliver(order)
        tries += 1
        orders = await due(harness)  # type: ignore[assignment]  # of the one class that there is
    assert tries == MAX_ATTEMPTS + 1
    assert timedelta(minutes=30) < harness.now - began < timedelta(hours=1)


async def test_an_order_to_carry_that_comes_after_the_erasure_tells_nobody(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    double.faults.extend(["done-hang", 503])
    await harness.deliver(await consents(harness))
    late = await due(harness)
    newer = await consents(harness, "none", 2)
    await harness.deliver(newer)
    assert len(double.calls) == 2
    await harness.deliver(ORDER)
    for order in (*late, newer, *(await due(harness))):
        await harness.deliver(order)
    assert len(double.calls) == 2
    assert double.members == {}
    assert await harness.database["audience_members"].count_documents({}) == 0


async def test_a_level_under_way_while_its_user_is_erased_ends_forgotten(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    order = await consents(harness)
    tell = harness.context.audience.update

    async def told_slowly(address: str, level: ConsentLevel) -> SyncOutcome:
        # Two instances, as while partitions move: the erasure is done before the level reaches Mailchimp.
        await harness.deliver(ORDER)
        carriage: SyncOutcome = await tell(address, level)
        return carriage

    await harness.context.audience.update(ADDRESS, "none")
    harness.context.audience.update = told_slowly
    await harness.deliver(order)
    assert double.members == {}
    assert await harness.database["audience_members"].count_documents({}) == 0


async def test_what_comes_late_brings_no_consent_back(harness: ServiceHarness, double: MailchimpDouble) -> None:
    await harness.deliver(await consents(harness))
    await harness.deliver(ORDER)
    harness.clear()
    for source in ("user", "unsubscribe-link"):
        await harness.deliver(RecordMarketingConsent(key=USER, user_id=USER, level="none", source=source))
    assert harness.published == []
    for name in ("marketing_consents", "marketing_consent_changes", "audience_members"):
        assert await harness.database[name].count_documents({}) == 0, name
    assert len(double.calls) == 1


async def test_the_second_look_leaves_what_the_owner_of_the_address_told_since(
    harness: ServiceHarness, double: MailchimpDouble
) -> None:
    await harness.deliver(ORDER)
    [again] = [message for _, message in await harness.delayed() if isinstance(message, EraseUserFromMailer)]
    double.members[member_hash(ADDRESS)] = "subscribed"
    await harness.deliver(again)
    assert double.status_of(ADDRESS) == "subscribed"


async def test_an_audience_that_was_switched_off_is_named_in_the_log(
    mongo_url: str, database_prefix: str, settings: MakeSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    async with mailer_harness(mongo_url, database_prefix, settings()) as harness:
        member: dict[str, Any] = {"_id": USER, "state": "carried", "level": "general", "consentVersion": 1}
        times = {"createdAt": harness.now, "updatedAt": harness.now}
        await harness.database["audience_members"].insert_one(
            {**member, **times, "attempts": 1, "reason": None, "version": 1}
        )
        await harness.deliver(ORDER)
        assert harness.published_of(ConfirmErasure)
    assert "still in a disabled audience" in capfd.readouterr().out
