import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.mailer.deliveries.models import Outcome
from services.mailer.settings import MailerSettings
from shared.bus.inbox import Inbox
from shared.messages import Message, Sealed
from shared.messages.mailer.consents import CarryMarketingConsent, ConsentLevel, RecordMarketingConsent
from shared.messages.mailer.mails import LinkVariables, SendMail
from shared.messages.mailer.suppressions import AddressSuppressed, MailBounced, RecordMailNotice
from shared.messages.personal_data import (
    AddExportedPart,
    ConfirmErasure,
    EraseUserFromMailer,
    ExportUserFromMailer,
    NoteErasureWait,
)
from shared.personal_data.erasure import MAX_ATTEMPTS
from tests.mailer.conftest import mailer_harness
from tests.mailer.mailchimp_double import MailchimpDouble, member_hash
from tests.service_harness import ServiceHarness

USER, ADDRESS, OLD_ADDRESS = "user_1", "ada@example.com", "ada@example.net"
IDENTIFIERS = Sealed.of(json.dumps([["email", ADDRESS], ["email", OLD_ADDRESS], ["phone", "+41791234567"]]))
ERASURE = EraseUserFromMailer(key=USER, process_id="userproc_1", user_id=USER, identifiers=IDENTIFIERS)
CONSENT_COLLECTIONS = ("marketing_consents", "marketing_consent_changes", "audience_members")


async def send_mail(harness: ServiceHarness, address: str) -> None:
    variables = Sealed.of_json(LinkVariables(link="https://app.example/cb?code=1"))
    await harness.deliver(SendMail(template="magic-link", to=Sealed.of(address), variables=variables))


async def choose(harness: ServiceHarness, level: ConsentLevel = "general") -> None:
    await harness.deliver(RecordMarketingConsent(key=USER, user_id=USER, level=level, source="user"))


async def test_export_contains_deliveries_and_consents(harness: ServiceHarness) -> None:
    await send_mail(harness, "Ada@Example.com")
    await send_mail(harness, "bob@example.com")
    await choose(harness)
    harness.clear()
    commands: list[Any] = [ExportUserFromMailer(process_id="userproc_1", user_id=USER, identifiers=IDENTIFIERS, run=1)]
    exported: dict[str, list[Any]] = {}
    while commands:
        await harness.deliver(commands.pop())
        commands = harness.published_of(ExportUserFromMailer)
        for part in harness.published_of(AddExportedPart):
            exported.setdefault(part.collection, []).extend(json.loads(harness.unseal_secret("auth", part.documents)))
        harness.clear()
    assert [delivery["recipient"] for delivery in exported["deliveries"]] == ["Ada@Example.com"]
    assert "recipientHash" not in exported["deliveries"][0]
    assert [consent["level"] for consent in exported["marketing_consents"]] == ["general"]


async def test_erasure_anonymises_deliveries_and_deletes_consents(harness: ServiceHarness) -> None:
    await send_mail(harness, ADDRESS)
    await send_mail(harness, "bob@example.com")
    await choose(harness)
    harness.clear()
    for _ in range(2):
        await harness.deliver(ERASURE)
    assert {event.holder for event in harness.published_of(ConfirmErasure)} == {"mailer"}
    assert await harness.database["marketing_consents"].count_documents({}) == 0
    deliveries = await harness.database["deliveries"].find().sort("createdAt").to_list()
    assert [delivery["state"] for delivery in deliveries] == ["handed_over", "handed_over"]
    assert [bool(delivery["recipient"]) for delivery in deliveries] == [False, True]
    assert [bool(delivery["recipientHash"]) for delivery in deliveries] == [False, True]


async def test_second_erasure_removes_late_data_without_confirmation(harness: ServiceHarness) -> None:
    await harness.deliver(ERASURE)
    [second] = [message for _, message in await harness.delayed() if isinstance(message, EraseUserFromMailer)]
    await send_mail(harness, ADDRESS)
    harness.clear()
    await harness.deliver(second)
    assert harness.published_of(ConfirmErasure) == []
    assert [row["recipient"] for row in await harness.database["deliveries"].find().to_list()] == [""]


async def test_late_report_about_an_erased_recipient_is_ignored(harness: ServiceHarness) -> None:
    await send_mail(harness, ADDRESS)
    await harness.deliver(ERASURE)
    [before] = await harness.database["deliveries"].find().to_list()
    harness.clear()
    for kind in ("delivered", "bounced", "complained"):
        report = RecordMailNotice(
            key="order", order_id=before["orderId"], notice=kind, status="5.1.1", reason=f"no such user {ADDRESS}"
        )
        await harness.deliver(report)
    assert await harness.database["deliveries"].find().to_list() == [before]
    assert await harness.database["suppressions"].count_documents({}) == 0
    assert harness.published_of(MailBounced) == harness.published_of(AddressSuppressed) == []


async def test_suppression_survives_an_erasure_as_a_hash(harness: ServiceHarness) -> None:
    await send_mail(harness, ADDRESS)
    [delivery] = await harness.database["deliveries"].find().to_list()
    await harness.deliver(
        RecordMailNotice(key="order", order_id=delivery["orderId"], notice="complained", reason=f"by {ADDRESS}")
    )
    await harness.deliver(ERASURE)
    [row] = await harness.database["suppressions"].find().to_list()
    assert set(row) == {"_id", "cause", "deliveryId", "since", "version"}
    assert row["_id"] in harness.sealer.keyed_hashes("recipient", ADDRESS.encode())


@pytest.fixture
async def syncing(
    mongo_url: str, database_prefix: str, mailchimp_settings: MailerSettings
) -> AsyncIterator[ServiceHarness]:
    """A harness of the mailer that syncs consents to the double of Mailchimp."""
    async with mailer_harness(mongo_url, database_prefix, mailchimp_settings) as harness:
        yield harness


async def choose_and_find_address(
    harness: ServiceHarness, level: ConsentLevel = "general", number: int = 1
) -> CarryMarketingConsent:
    """Record a choice; return the command that auth publishes in response."""
    await choose(harness, level)
    return CarryMarketingConsent(
        key=USER, user_id=USER, consent_version=number, address=Sealed.of(ADDRESS), ordered_at=harness.now
    )


async def retries(harness: ServiceHarness) -> list[Message]:
    """The delayed retries without second erasures; moves the time forward to the last one."""
    delayed = [(at, message) for at, message in await harness.delayed() if not getattr(message, "again", False)]
    await harness.database[Inbox.TIMERS].delete_many({})
    if delayed:
        harness.now = delayed[-1][0]
        # The circuit breaker's pause is measured in real time.
        harness.context.mailchimp._breaker.succeeded()
    return [message.model_copy(update={"key": USER}) for _, message in delayed]


async def consent_row_count(harness: ServiceHarness) -> int:
    return sum([await harness.database[name].count_documents({}) for name in CONSENT_COLLECTIONS])


async def test_all_addresses_are_erased_at_mailchimp_before_the_confirmation(
    syncing: ServiceHarness, double: MailchimpDouble
) -> None:
    await syncing.deliver(await choose_and_find_address(syncing))
    assert double.status_of(ADDRESS) == "subscribed"
    await syncing.deliver(ERASURE)
    assert double.erasures == [member_hash(ADDRESS), member_hash(OLD_ADDRESS)]
    assert double.members == {}
    assert [event.holder for event in syncing.published_of(ConfirmErasure)] == ["mailer"]
    assert syncing.published_of(NoteErasureWait) == []


async def test_outage_of_mailchimp_delays_the_confirmation_only(
    syncing: ServiceHarness, double: MailchimpDouble
) -> None:
    await syncing.deliver(await choose_and_find_address(syncing))
    double.always = 503
    await syncing.deliver(ERASURE)
    assert await consent_row_count(syncing) == 0
    assert syncing.published_of(ConfirmErasure) == []
    [wait] = syncing.published_of(NoteErasureWait)
    assert (wait.holder, wait.waits_for, wait.reason) == ("mailer", "mailchimp", "503 Fault")
    double.always = None
    for command in await retries(syncing):
        await syncing.deliver(command)
    assert double.members == {}
    assert len(syncing.published_of(ConfirmErasure)) == 1


async def test_rejected_erasure_is_retried_too(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    await syncing.deliver(await choose_and_find_address(syncing))
    double.always = 400
    await syncing.deliver(ERASURE)
    assert [wait.reason for wait in syncing.published_of(NoteErasureWait)] == ["400 Member In Compliance State"]
    assert syncing.published_of(ConfirmErasure) == []
    assert len(await retries(syncing)) == 1


async def test_own_retries_end_within_an_hour(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    # Afterwards auth publishes the command again.
    double.always = 503
    began, attempts = syncing.now, 0
    commands: list[Message] = [ERASURE]
    while commands:
        [command] = commands
        await syncing.deliver(command)
        attempts += 1
        commands = await retries(syncing)
    assert attempts == MAX_ATTEMPTS + 1
    assert timedelta(minutes=30) < syncing.now - began < timedelta(hours=1)


async def test_sync_after_the_erasure_calls_nobody(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    double.faults.extend(["done-hang", 503])
    await syncing.deliver(await choose_and_find_address(syncing))
    late = await retries(syncing)
    newer = await choose_and_find_address(syncing, "none", 2)
    await syncing.deliver(newer)
    assert len(double.updates) == 2
    await syncing.deliver(ERASURE)
    for command in (*late, newer, *(await retries(syncing))):
        await syncing.deliver(command)
    assert len(double.updates) == 2
    assert double.members == {}
    assert await syncing.database["audience_members"].count_documents({}) == 0


async def test_sync_during_the_erasure_leaves_no_member(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    command = await choose_and_find_address(syncing)
    update = syncing.context.mailchimp.update

    async def update_after_the_erasure(address: str, level: ConsentLevel) -> Outcome:
        # Possible with two instances during a rebalance: the erasure ends before the update reaches Mailchimp.
        await syncing.deliver(ERASURE)
        outcome: Outcome = await update(address, level)
        return outcome

    await syncing.context.mailchimp.update(ADDRESS, "none")
    syncing.context.mailchimp.update = update_after_the_erasure
    await syncing.deliver(command)
    assert double.members == {}
    assert await syncing.database["audience_members"].count_documents({}) == 0


async def test_choice_after_the_erasure_is_not_stored(syncing: ServiceHarness, double: MailchimpDouble) -> None:
    await syncing.deliver(await choose_and_find_address(syncing))
    await syncing.deliver(ERASURE)
    syncing.clear()
    for source in ("user", "unsubscribe-link"):
        await syncing.deliver(RecordMarketingConsent(key=USER, user_id=USER, level="none", source=source))
    assert syncing.published == []
    assert await consent_row_count(syncing) == 0
    assert len(double.updates) == 1


async def test_second_erasure_keeps_a_later_subscription_at_mailchimp(
    syncing: ServiceHarness, double: MailchimpDouble
) -> None:
    await syncing.deliver(ERASURE)
    [second] = [message for _, message in await syncing.delayed() if isinstance(message, EraseUserFromMailer)]
    double.members[member_hash(ADDRESS)] = "subscribed"
    await syncing.deliver(second)
    assert double.status_of(ADDRESS) == "subscribed"


async def test_erased_member_of_a_disabled_audience_is_logged(
    harness: ServiceHarness, capfd: pytest.CaptureFixture[str]
) -> None:
    member: dict[str, Any] = {"_id": USER, "state": "carried", "level": "general", "consentVersion": 1}
    rest = {"createdAt": harness.now, "updatedAt": harness.now, "attempts": 1, "reason": None, "version": 1}
    await harness.database["audience_members"].insert_one({**member, **rest})
    await harness.deliver(ERASURE)
    assert harness.published_of(ConfirmErasure)
    assert "still in a disabled audience" in capfd.readouterr().out
