import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from services.mailer.consents.mailchimp import Mailchimp, member_hash
from services.mailer.deliveries.models import Accepted, AccountRefused, Deferred, Outcome, Rejected
from shared.circuit_breaker import FAILURES
from shared.messages.mailer.consents import ConsentLevel
from tests.mailer.mailchimp_double import KEY, LIST, TEMPORARY_DETAILS, MailchimpDouble

ADDRESS = "Ada@Example.com"


@pytest.fixture
async def mailchimp(double: MailchimpDouble) -> AsyncIterator[Mailchimp]:
    mailchimp = Mailchimp(SecretStr(KEY), LIST, timeout=30, api_base=double.url)
    yield mailchimp
    await mailchimp.close()


@pytest.fixture
async def impatient(double: MailchimpDouble) -> AsyncIterator[Mailchimp]:
    """A client that meets a server which hangs."""
    mailchimp = Mailchimp(SecretStr(KEY), LIST, timeout=0.3, api_base=double.url)
    yield mailchimp
    await mailchimp.close()


@pytest.mark.parametrize(
    ("fault", "outcome", "takes_effect"),
    [
        (None, Accepted(), True),
        (400, Rejected("400 Member In Compliance State"), False),
        (429, Deferred("429 Too Many Requests"), False),
        (TEMPORARY_DETAILS[0], Deferred("400 Invalid Resource: too many recent sign-ups of the address"), False),
        (TEMPORARY_DETAILS[1], Deferred("400 Invalid Resource: too many recent sign-ups of the address"), False),
        (401, AccountRefused("401 Fault"), False),
        (403, AccountRefused("403 Fault"), False),
        (404, AccountRefused("404 Fault"), False),
        (503, Deferred("503 Fault"), False),
        ("html", Deferred("502"), False),
        ("done-500", Deferred("500 Internal Server Error"), True),
        ("done-hang", Deferred("no answer within 0.3 s"), True),
        ("hang", Deferred("no answer within 0.3 s"), False),
        ("drop", Deferred("ServerDisconnectedError"), True),
    ],
)
async def test_outcome_of_an_update_does_not_quote_the_address(
    *,
    mailchimp: Mailchimp,
    impatient: Mailchimp,
    double: MailchimpDouble,
    fault: int | str | None,
    outcome: Outcome,
    takes_effect: bool,
) -> None:
    double.always = fault
    assert await (impatient if "hang" in str(fault) else mailchimp).update(ADDRESS, "general") == outcome
    assert (double.status_of(ADDRESS) == "subscribed") == takes_effect
    assert double.updates[0][0] == member_hash(ADDRESS) == member_hash("ada@example.com")


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (None, Accepted()),
        (400, Rejected("400 Member In Compliance State")),
        (401, AccountRefused("401 Fault")),
        (403, AccountRefused("403 Fault")),
        (503, Deferred("503 Fault")),
        ("html", Deferred("502")),
        ("hang", Deferred("no answer within 0.3 s")),
        ("done-hang", Deferred("no answer within 0.3 s")),
        ("drop", Deferred("ServerDisconnectedError")),
    ],
)
async def test_erasure_succeeds_at_the_latest_in_the_retry(
    mailchimp: Mailchimp, impatient: Mailchimp, double: MailchimpDouble, fault: int | str | None, outcome: Outcome
) -> None:
    await mailchimp.update(ADDRESS, "general")
    double.always = fault
    assert await (impatient if "hang" in str(fault) else mailchimp).erase("ada@example.com") == outcome
    assert double.erasures == [member_hash(ADDRESS)]
    # Whether or not the first attempt took effect.
    double.always = None
    assert await mailchimp.erase("ada@example.com") == Accepted()
    assert double.members == {}
    assert await mailchimp.update(ADDRESS, "general") == Rejected("400 Forgotten Email Not Subscribed")


async def test_unknown_member_counts_as_erased_but_an_unknown_list_does_not(double: MailchimpDouble) -> None:
    right = Mailchimp(SecretStr(KEY), LIST, timeout=30, api_base=double.url)
    wrong = Mailchimp(SecretStr(KEY), "no-such-list", timeout=30, api_base=double.url)
    try:
        assert await right.erase(ADDRESS) == Accepted()
        assert await wrong.erase(ADDRESS) == AccountRefused("404 Resource Not Found")
    finally:
        await right.close()
        await wrong.close()


async def test_new_member_without_consent_is_not_added_as_unsubscribed(
    mailchimp: Mailchimp, double: MailchimpDouble
) -> None:
    levels: list[ConsentLevel] = ["none", "general", "none", "none"]
    statuses = []
    for level in levels:
        assert await mailchimp.update(ADDRESS, level) == Accepted()
        statuses.append(double.status_of(ADDRESS))
    assert statuses == ["transactional", "subscribed", "unsubscribed", "unsubscribed"]


async def test_recent_sign_ups_of_one_address_do_not_suspend_the_calls(
    mailchimp: Mailchimp, double: MailchimpDouble
) -> None:
    double.always = TEMPORARY_DETAILS[0]
    for _ in range(2 * FAILURES):
        await mailchimp.update(ADDRESS, "general")
    double.always = None
    assert await mailchimp.update("bob@example.com", "general") == Accepted()


async def test_slow_mailchimp_occupies_eight_calls_only(impatient: Mailchimp, double: MailchimpDouble) -> None:
    double.always = "hang"
    outcomes = await asyncio.gather(*(impatient.update(f"{number}@example.com", "none") for number in range(20)))
    assert len(double.updates) == 8
    assert outcomes.count(Deferred("busy")) == 12
    # After that many failures the circuit breaker is open.
    assert await impatient.update(ADDRESS, "none") == Deferred("no answer within 0.3 s")
    assert len(double.updates) == 8


async def test_unreachable_server_is_an_outcome() -> None:
    mailchimp = Mailchimp(SecretStr(KEY), LIST, timeout=30, api_base="http://127.0.0.1:9")
    try:
        assert await mailchimp.update(ADDRESS, "none") == Deferred("ClientConnectorError")
    finally:
        await mailchimp.close()


async def test_api_key_determines_the_data_centre() -> None:
    mailchimp = Mailchimp(SecretStr(KEY), LIST, timeout=1)
    assert mailchimp._list == f"https://us21.api.mailchimp.com/3.0/lists/{LIST}"
    await mailchimp.close()
