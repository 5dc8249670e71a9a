"""Limits as their callers see them: several instances of auth over one database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.auth.rate_limits.limiter import device_ids, network_ids, trait
from shared.ids import new_message_id
from shared.messages import Caller, Message
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.magic_links import CreateTrialAndMagicLink, Device, SendTrialMagicLink
from shared.messages.billing.trials import StartTrial
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import (
    CLIENT,
    REDIRECT_URI,
    USUAL_LINK,
    WRONG_VERIFIER,
    logged_in,
    ordered_code,
    redemption,
    send_magic_link,
)
from tests.service_harness import Refused, ServiceHarness
from tests.stack import eventually

MINUTE = timedelta(minutes=1)
DEVICE = Device(platform="mac", beak_id="beak", fingerprint="print")
DEFAULT = {"limit_magic_links_per_address": "1/1m, 5/1h, 10/1d"}
IP = "203.0.113.9"
NEIGHBOUR = "203.0.113.77"
ELSEWHERE = "198.51.100.1"


@pytest.fixture
async def instances(new_harness: Callable[..., ServiceHarness]) -> AsyncIterator[Callable[..., Any]]:
    """Makes instances of auth over one database, all at the same moment; they know an app."""
    async with AsyncExitStack() as stack:
        now = datetime.now(UTC)

        async def make(count: int = 1, **changed: Any) -> list[ServiceHarness]:
            harnesses = []
            for _ in range(count):
                harness = await stack.enter_async_context(new_harness(**{**DEFAULT, **changed}))
                harness.now = now
                harnesses.append(harness)
            await harnesses[0].deliver(
                CreateClient(id=CLIENT, name="An app", redirect_uris=(REDIRECT_URI,)), id="c" * 32
            )
            harnesses[0].clear()
            return harnesses

        yield make


@pytest.fixture
async def one(instances: Callable[..., Any]) -> ServiceHarness:
    """One instance, with the limits that hold by default."""
    harnesses: list[ServiceHarness] = await instances()
    return harnesses[0]


def from_ip(ip: str) -> dict[str, Any]:
    return {"caller": Caller(client_ip=ip)}


async def throttled(harness: ServiceHarness, message: Message, **how: Any) -> int:
    """How many seconds a message that comes too soon is told to wait."""
    with pytest.raises(Refused) as refused:
        await harness.deliver(message, **how)
    assert (refused.value.kind, refused.value.code) == ("throttled", "throttled")
    assert list(refused.value.meta) == ["retry_after"]
    seconds: int = refused.value.meta["retry_after"]
    return seconds


async def admitted(harness: ServiceHarness, message: Message, **how: Any) -> bool:
    """Whether a message is let through; anything but a limit that is in its way is a failure."""
    try:
        await harness.deliver(message, **how)
    except Refused as refused:
        if refused.code != "throttled":
            raise
        return False
    return True


async def test_an_address_gets_a_link_a_minute_five_an_hour_and_ten_a_day(one: ServiceHarness) -> None:
    begin = one.now
    waits = []
    for _ in range(10):
        while not await admitted(one, send_magic_link()):
            waits.append(await throttled(one, send_magic_link()))
            one.now += timedelta(seconds=waits[-1])
    assert len(one.published_of(SendMail)) == 10
    assert waits == [60, 60, 60, 60, 3360, 60, 60, 60, 60]
    told = await throttled(one, send_magic_link())
    # What is told is true to the second, however long it is.
    one.now += timedelta(seconds=told - 1)
    assert await throttled(one, send_magic_link()) == 1
    one.now += timedelta(seconds=1)
    assert one.now == begin + timedelta(days=1)
    await one.deliver(send_magic_link())


async def test_who_is_refused_waits_no_longer_for_having_tried(one: ServiceHarness) -> None:
    await one.deliver(send_magic_link())
    one.now += timedelta(seconds=59)
    for _ in range(20):
        assert await throttled(one, send_magic_link()) == 1
    one.now += timedelta(seconds=1)
    await one.deliver(send_magic_link())


async def test_another_address_is_not_held_up(one: ServiceHarness) -> None:
    await one.deliver(send_magic_link())
    await throttled(one, send_magic_link())
    await one.deliver(send_magic_link(identifier_value="ben@example.com"))


async def test_spellings_of_one_address_share_its_limit(one: ServiceHarness) -> None:
    await one.deliver(send_magic_link(identifier_value="Ana@Example.com"))
    assert await throttled(one, send_magic_link(identifier_value="ana@EXAMPLE.com")) == 60


async def test_a_known_and_an_unknown_address_are_limited_alike(one: ServiceHarness) -> None:
    known, unknown = "ana@example.com", "nobody@example.com"
    await logged_in(one, identifier_value=known)
    one.now += MINUTE
    for address in (known, unknown):
        await one.deliver(send_magic_link(identifier_value=address))
    answers = {await throttled(one, send_magic_link(identifier_value=address)) for address in (known, unknown)}
    assert answers == {60}


async def test_a_message_that_comes_again_is_counted_once(instances: Callable[..., Any]) -> None:
    [one] = await instances(limit_magic_links_per_address="2/1h", limit_magic_links_per_prefix="2/5m")
    for _ in range(5):
        await one.deliver(send_magic_link(), id="a" * 32, **from_ip(IP))
    await one.deliver(send_magic_link(), **from_ip(IP))
    assert len(one.published_of(SendMail)) == 2
    await throttled(one, send_magic_link(), **from_ip(IP))


async def test_who_repeats_after_the_wait_under_the_same_key_is_heard(one: ServiceHarness) -> None:
    await one.deliver(send_magic_link())
    same: dict[str, Any] = {"id": new_message_id()}
    await throttled(one, send_magic_link(), **same)
    one.now += MINUTE
    await one.deliver(send_magic_link(), **same)
    assert len(one.published_of(SendMail)) == 2
    await one.deliver(send_magic_link(), **same)
    assert len(one.published_of(SendMail)) == 2


async def test_each_order_that_is_refused_leaves_an_entry_in_the_audit(one: ServiceHarness) -> None:
    await one.deliver(send_magic_link())
    same = new_message_id()
    for _ in range(2):
        await throttled(one, send_magic_link(), id=same)
    assert await one.database["audit"].count_documents({"code": "throttled", "messageId": same}) == 2


async def test_many_instances_together_let_nobody_through_twice(instances: Callable[..., Any]) -> None:
    harnesses = await instances(6, limit_magic_links_per_address="3/1m")
    orders = [admitted(harness, send_magic_link()) for harness in harnesses for _ in range(8)]
    assert sum(await asyncio.gather(*orders)) == 3
    assert sum(len(harness.published_of(SendMail)) for harness in harnesses) == 3


async def test_a_limit_holds_after_a_restart(instances: Callable[..., Any]) -> None:
    [before] = await instances()
    await before.deliver(send_magic_link())
    [after] = await instances()
    assert await throttled(after, send_magic_link()) == 60


async def test_nothing_stored_tells_whose_limit_it_is(one: ServiceHarness) -> None:
    await logged_in(one, device=DEVICE)
    await one.deliver(send_magic_link(identifier_value="ben@example.com", device=DEVICE), **from_ip(IP))
    await eventually(lambda: one.database["tallies"].count_documents({}), within=5)
    for collection in ("limits", "familiars", "tallies"):
        text = repr(await one.database[collection].find().to_list())
        assert text != "[]"
        for secret in ("ana", "ben", "example", "beak", "print", "203.0", CLIENT):
            assert secret not in text, (collection, text)


async def test_uses_are_removed_once_they_decide_nothing(one: ServiceHarness) -> None:
    await one.deliver(send_magic_link())
    [document] = await one.database["limits"].find().to_list()
    assert document["expiresAt"] - one.now.replace(microsecond=one.now.microsecond // 1000 * 1000) == timedelta(days=1)
    indexes = await one.database["limits"].index_information()
    assert indexes["expiresAt_1"]["expireAfterSeconds"] == 0


async def test_a_device_that_has_logged_in_has_a_budget_of_its_own(one: ServiceHarness) -> None:
    await logged_in(one, device=DEVICE)
    one.now += MINUTE
    # A stranger uses up all that the address has.
    while await admitted(one, send_magic_link(device=Device(fingerprint="stranger"))):
        one.now += MINUTE
    await one.deliver(send_magic_link(device=DEVICE))
    # Either of what identifies it will do, and the budget ends.
    assert await throttled(one, send_magic_link(device=Device(fingerprint="print"))) == 60
    one.now += MINUTE
    await one.deliver(send_magic_link(device=Device(fingerprint="print")))


async def test_a_device_that_only_ordered_is_not_known(one: ServiceHarness) -> None:
    await one.deliver(send_magic_link(device=DEVICE))
    await throttled(one, send_magic_link(device=DEVICE))


async def test_a_device_is_known_for_its_own_address_alone(one: ServiceHarness) -> None:
    await logged_in(one, device=DEVICE)
    other = "ben@example.com"
    await one.deliver(send_magic_link(identifier_value=other))
    await throttled(one, send_magic_link(identifier_value=other, device=DEVICE))


async def test_a_login_from_a_known_device_writes_nothing_about_it(one: ServiceHarness) -> None:
    await logged_in(one, device=DEVICE)
    before = await one.database["familiars"].find().to_list()
    one.now += MINUTE
    await logged_in(one, device=DEVICE)
    assert await one.database["familiars"].find().to_list() == before
    assert len(before) == 1


async def test_a_login_without_a_device_is_not_remembered(one: ServiceHarness) -> None:
    await logged_in(one)
    assert await one.database["familiars"].find().to_list() == []


async def test_a_prefix_orders_thirty_links_in_five_minutes(one: ServiceHarness) -> None:
    for number in range(30):
        ip = (IP, NEIGHBOUR)[number % 2]
        await one.deliver(send_magic_link(identifier_value=f"p{number}@example.com"), **from_ip(ip))
    wait = await throttled(one, send_magic_link(identifier_value="last@example.com"), **from_ip(IP))
    assert 300 <= wait <= 325
    await one.deliver(send_magic_link(identifier_value="last@example.com"), **from_ip(ELSEWHERE))
    one.now += timedelta(seconds=wait)
    await one.deliver(send_magic_link(identifier_value="later@example.com"), **from_ip(IP))


async def test_a_refused_order_counts_against_nobody_else(instances: Callable[..., Any]) -> None:
    [one] = await instances(limit_magic_links_per_prefix="2/5m", limit_magic_links_per_client="3/5m")
    await one.deliver(send_magic_link(), **from_ip(IP))
    for _ in range(10):
        await throttled(one, send_magic_link(), **from_ip(IP))
    await one.deliver(send_magic_link(identifier_value="b@example.com"), **from_ip(IP))
    for _ in range(10):
        await throttled(one, send_magic_link(identifier_value="c@example.com"), **from_ip(IP))
    await one.deliver(send_magic_link(identifier_value="c@example.com"), **from_ip(ELSEWHERE))
    await throttled(one, send_magic_link(identifier_value="d@example.com"), **from_ip(ELSEWHERE))


async def test_a_caller_whose_address_is_not_known_has_no_prefix(instances: Callable[..., Any]) -> None:
    [one] = await instances(limit_magic_links_per_prefix="1/5m")
    for number in range(3):
        await one.deliver(send_magic_link(identifier_value=f"p{number}@example.com"))


@pytest.mark.parametrize("lifted", ["true", "false"])
async def test_this_machine_itself_is_limited_unless_that_is_lifted(instances: Callable[..., Any], lifted: str) -> None:
    [one] = await instances(limit_magic_links_per_prefix="1/5m", limit_lift_loopback=lifted)
    await one.deliver(send_magic_link(), **from_ip("127.0.0.1"))
    let_through = await admitted(one, send_magic_link(identifier_value="b@example.com"), **from_ip("127.0.0.1"))
    assert let_through is (lifted == "true")
    # It is lifted for this machine alone.
    await one.deliver(send_magic_link(identifier_value="c@example.com"), **from_ip(IP))
    await throttled(one, send_magic_link(identifier_value="d@example.com"), **from_ip(IP))


async def test_instances_know_of_each_others_orders_within_a_second(instances: Callable[..., Any]) -> None:
    here, there = await instances(2, limit_magic_links_per_prefix="4/5m")
    for number in range(2):
        for harness, name in ((here, "here"), (there, "there")):
            await harness.deliver(send_magic_link(identifier_value=f"{name}{number}@example.com"), **from_ip(IP))
    # Not for luck: a second is what is promised.
    await asyncio.sleep(1.0)
    for harness in (here, there):
        await throttled(harness, send_magic_link(identifier_value="more@example.com"), **from_ip(IP))


async def test_shared_counts_outlive_a_restart(
    new_harness: Callable[..., ServiceHarness], instances: Callable[..., Any]
) -> None:
    [here] = await instances(limit_magic_links_per_prefix="3/5m")
    async with new_harness(limit_magic_links_per_prefix="3/5m") as before:
        before.now = here.now
        for number in range(3):
            await before.deliver(send_magic_link(identifier_value=f"p{number}@example.com"), **from_ip(IP))
    # It stopped before it had exchanged anything, and did so at its end.
    await throttled(here, send_magic_link(identifier_value="more@example.com"), **from_ip(IP))


async def test_a_trial_is_limited_apart_from_links_and_its_link_is_not(instances: Callable[..., Any]) -> None:
    [one] = await instances(limit_trials_per_address="2/1h")
    trial = CreateTrialAndMagicLink(**{**USUAL_LINK, "device": DEVICE})
    link = SendTrialMagicLink(**{**USUAL_LINK, "device": DEVICE})
    await one.deliver(send_magic_link())
    for _ in range(2):
        await one.deliver(trial)
        await one.deliver(link)
    assert await throttled(one, trial) == 3600
    await one.deliver(link)
    assert len(one.published_of(StartTrial)) == 2
    assert len(one.published_of(SendMail)) == 4


async def test_trials_count_against_the_prefix_and_the_app(instances: Callable[..., Any]) -> None:
    [one] = await instances(limit_magic_links_per_prefix="1/5m", limit_magic_links_per_client="2/5m")
    trial = CreateTrialAndMagicLink(**{**USUAL_LINK, "device": DEVICE})
    await one.deliver(trial, **from_ip(IP))
    await throttled(one, trial, **from_ip(IP))
    await one.deliver(trial, **from_ip(ELSEWHERE))
    await throttled(one, trial, **from_ip("192.0.2.1"))


async def test_ten_wrong_guesses_an_hour_end_guessing_across_codes(one: ServiceHarness) -> None:
    codes = []
    for _ in range(3):
        codes.append(await ordered_code(one))
        one.now += MINUTE
    for code in codes[:2]:
        for _ in range(5):
            with pytest.raises(Refused, match="incorrect_code_verifier"):
                await one.deliver(redemption(code, code_verifier=WRONG_VERIFIER))
    # Not even the right one is compared any more.
    assert await throttled(one, redemption(codes[2])) == 3600
    one.now += timedelta(hours=1)
    code = await ordered_code(one)
    await one.deliver(redemption(code))


async def test_guesses_at_once_are_counted_one_by_one(instances: Callable[..., Any]) -> None:
    harnesses = await instances(4, limit_magic_links_per_address="1000/1s", limit_guesses_per_identifier="7/1h")
    codes = [await ordered_code(harnesses[0]) for _ in range(4)]

    async def guess(harness: ServiceHarness, code: str) -> str:
        with pytest.raises(Refused) as refused:
            await harness.deliver(redemption(code, code_verifier=WRONG_VERIFIER))
        return refused.value.code

    said = await asyncio.gather(*(guess(harness, code) for harness in harnesses for code in codes for _ in range(3)))
    assert said.count("incorrect_code_verifier") == 7


async def test_how_many_guesses_void_a_code_is_a_setting(instances: Callable[..., Any]) -> None:
    [one] = await instances(guesses_per_code=2)
    code = await ordered_code(one)
    for _ in range(2):
        with pytest.raises(Refused, match="incorrect_code_verifier"):
            await one.deliver(redemption(code, code_verifier=WRONG_VERIFIER))
    with pytest.raises(Refused, match="authorization_not_found"):
        await one.deliver(redemption(code))


async def test_wrong_keys_count_against_where_they_come_from_and_void_nothing(instances: Callable[..., Any]) -> None:
    [one] = await instances(limit_wrong_keys_per_prefix="20/5m")
    code = await ordered_code(one)
    wrong = code.partition(".")[0] + "." + "0" * 64
    for _ in range(20):
        with pytest.raises(Refused, match="token_not_found"):
            await one.deliver(redemption(wrong), **from_ip(IP))
    await throttled(one, redemption(wrong), **from_ip(IP))
    with pytest.raises(Refused, match="token_not_found"):
        await one.deliver(redemption(wrong), **from_ip(ELSEWHERE))
    # The right one is taken, from there too.
    await one.deliver(redemption(code), **from_ip(NEIGHBOUR))


async def test_a_right_verifier_is_no_guess(instances: Callable[..., Any]) -> None:
    [one] = await instances(limit_magic_links_per_address="1000/1s", limit_guesses_per_identifier="1/1h")
    for _ in range(3):
        await logged_in(one)


async def test_a_link_that_was_ordered_elsewhere_leads_on_while_orders_are_throttled(one: ServiceHarness) -> None:
    code = await ordered_code(one)
    await throttled(one, send_magic_link())
    await one.deliver(redemption(code))


def test_traits_are_what_there_is() -> None:
    assert device_ids(None) == ()
    assert device_ids(Device(platform="mac")) == ()
    assert device_ids(Device(fingerprint="a", beak_id="b")) == ("fingerprint:a", "beak-id:b")
    assert device_ids(Device(beak_id="")) == ()
    assert network_ids(IP) == network_ids(NEIGHBOUR) == ("network:203.0.113.0/24",)
    assert network_ids(None) == ()
    assert trait("network", None) == ()
