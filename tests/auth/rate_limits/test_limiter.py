"""Rate limits as callers meet them: several instances of auth over one database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.auth.rate_limits.models import LIMIT_NAMES
from shared.ids import new_message_id
from shared.messages import Caller, Message, Sealed
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.magic_links import CreateTrialAndMagicLink, Device, SendTrialMagicLink
from shared.messages.auth.rate_limits import ListRateLimits
from shared.messages.billing.trials import StartTrial
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import (
    ADDRESS,
    CLIENT,
    LINK_REQUEST,
    REDIRECT_URI,
    WRONG_VERIFIER,
    log_in,
    redemption,
    request_code,
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
    """Factory of instances of auth over one database, with the same time and one registered app."""
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
async def instance(instances: Callable[..., Any]) -> ServiceHarness:
    """One instance with the default limits."""
    harnesses: list[ServiceHarness] = await instances()
    return harnesses[0]


def from_ip(ip: str) -> dict[str, Any]:
    return {"caller": Caller(client_ip=ip)}


async def throttled(harness: ServiceHarness, message: Message, **options: Any) -> int:
    """Deliver a message that is throttled, and return its ``retry_after``."""
    with pytest.raises(Refused) as refused:
        await harness.deliver(message, **options)
    assert (refused.value.kind, refused.value.code) == ("throttled", "throttled")
    assert list(refused.value.meta) == ["retry_after"]
    seconds: int = refused.value.meta["retry_after"]
    return seconds


async def allowed(harness: ServiceHarness, message: Message, **options: Any) -> bool:
    """Whether a message is allowed; any other refusal than ``throttled`` is an error."""
    try:
        await harness.deliver(message, **options)
    except Refused as refused:
        if refused.code != "throttled":
            raise
        return False
    return True


async def test_address_gets_1_link_a_minute_5_an_hour_10_a_day(instance: ServiceHarness) -> None:
    begin = instance.now
    waits = []
    for _ in range(10):
        while not await allowed(instance, send_magic_link()):
            waits.append(await throttled(instance, send_magic_link()))
            instance.now += timedelta(seconds=waits[-1])
    assert len(instance.published_of(SendMail)) == 10
    assert waits == [60, 60, 60, 60, 3360, 60, 60, 60, 60]
    wait = await throttled(instance, send_magic_link())
    # The wait is exact to the second.
    instance.now += timedelta(seconds=wait - 1)
    assert await throttled(instance, send_magic_link()) == 1
    instance.now += timedelta(seconds=1)
    assert instance.now == begin + timedelta(days=1)
    await instance.deliver(send_magic_link())


async def test_refused_attempts_do_not_lengthen_the_wait(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link())
    instance.now += timedelta(seconds=59)
    for _ in range(20):
        assert await throttled(instance, send_magic_link()) == 1
    instance.now += timedelta(seconds=1)
    await instance.deliver(send_magic_link())


async def test_limit_does_not_affect_another_address(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link())
    await throttled(instance, send_magic_link())
    await instance.deliver(send_magic_link(identifier_value="ben@example.com"))


async def test_spellings_of_one_address_share_a_limit(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link(identifier_value="Ana@Example.com"))
    assert await throttled(instance, send_magic_link(identifier_value="ana@EXAMPLE.com")) == 60


async def test_known_and_unknown_addresses_are_limited_alike(instance: ServiceHarness) -> None:
    known, unknown = "ana@example.com", "nobody@example.com"
    await log_in(instance, identifier_value=known)
    instance.now += MINUTE
    for address in (known, unknown):
        await instance.deliver(send_magic_link(identifier_value=address))
    waits = {await throttled(instance, send_magic_link(identifier_value=address)) for address in (known, unknown)}
    assert waits == {60}


async def test_redelivered_message_is_counted_once(instances: Callable[..., Any]) -> None:
    [instance] = await instances(limit_magic_links_per_address="2/1h", limit_magic_links_per_prefix="2/5m")
    for _ in range(5):
        await instance.deliver(send_magic_link(), id="a" * 32, **from_ip(IP))
    await instance.deliver(send_magic_link(), **from_ip(IP))
    assert len(instance.published_of(SendMail)) == 2
    await throttled(instance, send_magic_link(), **from_ip(IP))


async def test_throttled_message_id_is_accepted_after_the_wait(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link())
    same: dict[str, Any] = {"id": new_message_id()}
    await throttled(instance, send_magic_link(), **same)
    instance.now += MINUTE
    await instance.deliver(send_magic_link(), **same)
    assert len(instance.published_of(SendMail)) == 2
    await instance.deliver(send_magic_link(), **same)
    assert len(instance.published_of(SendMail)) == 2


async def test_redelivery_after_the_wait_sends_nothing_to_a_throttled_caller(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link())
    same: dict[str, Any] = {"id": new_message_id(), "reply_id": "call 1"}
    await throttled(instance, send_magic_link(), **same)
    instance.now += MINUTE
    # A crash before the offset commit causes a redelivery. The client has already received 429.
    await throttled(instance, send_magic_link(), **same)
    assert len(instance.published_of(SendMail)) == 1
    # The client repeats its call with the same Idempotency-Key.
    await instance.deliver(send_magic_link(), id=same["id"], reply_id="call 2")
    assert len(instance.published_of(SendMail)) == 2


async def test_each_throttled_request_is_audited(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link())
    same = new_message_id()
    for _ in range(2):
        await throttled(instance, send_magic_link(), id=same)
    assert await instance.database["audit"].count_documents({"code": "throttled", "messageId": same}) == 2


async def test_limit_of_a_person_is_exact_across_instances(instances: Callable[..., Any]) -> None:
    harnesses = await instances(6, limit_magic_links_per_address="3/1m")
    requests = [allowed(harness, send_magic_link()) for harness in harnesses for _ in range(8)]
    assert sum(await asyncio.gather(*requests)) == 3
    assert sum(len(harness.published_of(SendMail)) for harness in harnesses) == 3


async def test_limit_of_a_person_survives_a_restart(instances: Callable[..., Any]) -> None:
    [before] = await instances()
    await before.deliver(send_magic_link())
    [after] = await instances()
    assert await throttled(after, send_magic_link()) == 60


async def test_stored_documents_do_not_reveal_the_subject(instance: ServiceHarness) -> None:
    await log_in(instance, device=DEVICE)
    await instance.deliver(send_magic_link(identifier_value="ben@example.com", device=DEVICE), **from_ip(IP))
    await eventually(lambda: instance.database["tallies"].count_documents({}))
    for collection in ("limits", "familiars", "tallies"):
        text = repr(await instance.database[collection].find().to_list())
        assert text != "[]"
        for secret in ("ana@", "ben@", "example", "beak", "print", "203.0", CLIENT):
            assert secret not in text, (collection, text)


async def test_use_log_expires_with_its_longest_window(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link())
    [document] = await instance.database["limits"].find().to_list()
    assert document["expiresAt"] - instance.now.replace(
        microsecond=instance.now.microsecond // 1000 * 1000
    ) == timedelta(days=1)
    indexes = await instance.database["limits"].index_information()
    assert indexes["expiresAt_1"]["expireAfterSeconds"] == 0


async def test_device_that_has_logged_in_has_its_own_quota(instance: ServiceHarness) -> None:
    await log_in(instance, device=DEVICE)
    instance.now += MINUTE
    # A stranger uses up the quota of the address.
    while await allowed(instance, send_magic_link(device=Device(fingerprint="stranger"))):
        instance.now += MINUTE
    await instance.deliver(send_magic_link(device=DEVICE))
    # One of the two device IDs is enough, and the device's quota is limited too.
    assert await throttled(instance, send_magic_link(device=Device(fingerprint="print"))) == 60
    instance.now += MINUTE
    await instance.deliver(send_magic_link(device=Device(fingerprint="print")))


async def test_device_is_not_known_before_it_has_logged_in(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link(device=DEVICE))
    await throttled(instance, send_magic_link(device=DEVICE))


async def test_device_is_known_only_for_its_address(instance: ServiceHarness) -> None:
    await log_in(instance, device=DEVICE)
    other = "ben@example.com"
    await instance.deliver(send_magic_link(identifier_value=other))
    await throttled(instance, send_magic_link(identifier_value=other, device=DEVICE))


async def test_login_from_a_known_device_writes_no_device(instance: ServiceHarness) -> None:
    await log_in(instance, device=DEVICE)
    before = await instance.database["familiars"].find().to_list()
    instance.now += MINUTE
    await log_in(instance, device=DEVICE)
    assert await instance.database["familiars"].find().to_list() == before
    assert len(before) == 1


async def test_login_without_a_device_stores_none(instance: ServiceHarness) -> None:
    await log_in(instance)
    assert await instance.database["familiars"].find().to_list() == []


async def test_prefix_gets_30_links_in_5_minutes(instance: ServiceHarness) -> None:
    for number in range(30):
        ip = (IP, NEIGHBOUR)[number % 2]
        await instance.deliver(send_magic_link(identifier_value=f"p{number}@example.com"), **from_ip(ip))
    wait = await throttled(instance, send_magic_link(identifier_value="last@example.com"), **from_ip(IP))
    assert 300 <= wait <= 325
    await instance.deliver(send_magic_link(identifier_value="last@example.com"), **from_ip(ELSEWHERE))
    instance.now += timedelta(seconds=wait)
    await instance.deliver(send_magic_link(identifier_value="later@example.com"), **from_ip(IP))


async def test_throttled_request_counts_under_no_other_limit(instances: Callable[..., Any]) -> None:
    [instance] = await instances(limit_magic_links_per_prefix="2/5m", limit_magic_links_per_client="3/5m")
    await instance.deliver(send_magic_link(), **from_ip(IP))
    for _ in range(10):
        await throttled(instance, send_magic_link(), **from_ip(IP))
    await instance.deliver(send_magic_link(identifier_value="b@example.com"), **from_ip(IP))
    for _ in range(10):
        await throttled(instance, send_magic_link(identifier_value="c@example.com"), **from_ip(IP))
    await instance.deliver(send_magic_link(identifier_value="c@example.com"), **from_ip(ELSEWHERE))
    await throttled(instance, send_magic_link(identifier_value="d@example.com"), **from_ip(ELSEWHERE))


async def test_caller_without_an_ip_address_has_no_prefix_limit(instances: Callable[..., Any]) -> None:
    [instance] = await instances(limit_magic_links_per_prefix="1/5m")
    for number in range(3):
        await instance.deliver(send_magic_link(identifier_value=f"p{number}@example.com"))


@pytest.mark.parametrize("lifted", ["true", "false"])
async def test_loopback_is_limited_unless_lifted(instances: Callable[..., Any], lifted: str) -> None:
    [instance] = await instances(limit_magic_links_per_prefix="1/5m", limit_lift_loopback=lifted)
    await instance.deliver(send_magic_link(), **from_ip("127.0.0.1"))
    second_allowed = await allowed(instance, send_magic_link(identifier_value="b@example.com"), **from_ip("127.0.0.1"))
    assert second_allowed is (lifted == "true")
    # The limit is lifted for loopback only.
    await instance.deliver(send_magic_link(identifier_value="c@example.com"), **from_ip(IP))
    await throttled(instance, send_magic_link(identifier_value="d@example.com"), **from_ip(IP))


async def test_instances_learn_each_others_counts_within_a_second(instances: Callable[..., Any]) -> None:
    here, there = await instances(2, limit_magic_links_per_prefix="4/5m")
    for number in range(2):
        for harness, name in ((here, "here"), (there, "there")):
            await harness.deliver(send_magic_link(identifier_value=f"{name}{number}@example.com"), **from_ip(IP))
    # The documented bound, not a guess.
    await asyncio.sleep(1.0)
    for harness in (here, there):
        await throttled(harness, send_magic_link(identifier_value="more@example.com"), **from_ip(IP))


async def test_shared_counts_survive_a_restart(
    new_harness: Callable[..., ServiceHarness], instances: Callable[..., Any]
) -> None:
    [here] = await instances(limit_magic_links_per_prefix="3/5m")
    async with new_harness(limit_magic_links_per_prefix="3/5m") as before:
        before.now = here.now
        for number in range(3):
            await before.deliver(send_magic_link(identifier_value=f"p{number}@example.com"), **from_ip(IP))
    # The instance stopped before its first exchange, and exchanged its counts on shutdown.
    await throttled(here, send_magic_link(identifier_value="more@example.com"), **from_ip(IP))


async def test_trials_have_their_own_limit_and_their_links_none(instances: Callable[..., Any]) -> None:
    [instance] = await instances(limit_trials_per_address="2/1h")
    trial = CreateTrialAndMagicLink(**{**LINK_REQUEST, "device": DEVICE.model_dump()})
    link = SendTrialMagicLink(**{**LINK_REQUEST, "device": DEVICE})
    await instance.deliver(send_magic_link())
    for _ in range(2):
        await instance.deliver(trial)
        await instance.deliver(link)
    assert await throttled(instance, trial) == 3600
    await instance.deliver(link)
    assert len(instance.published_of(StartTrial)) == 2
    assert len(instance.published_of(SendMail)) == 4


async def test_trials_count_under_the_prefix_and_client_limits(instances: Callable[..., Any]) -> None:
    [instance] = await instances(limit_magic_links_per_prefix="1/5m", limit_magic_links_per_client="2/5m")
    trial = CreateTrialAndMagicLink(**{**LINK_REQUEST, "device": DEVICE.model_dump()})
    await instance.deliver(trial, **from_ip(IP))
    await throttled(instance, trial, **from_ip(IP))
    await instance.deliver(trial, **from_ip(ELSEWHERE))
    await throttled(instance, trial, **from_ip("192.0.2.1"))


async def test_10_wrong_guesses_an_hour_block_all_codes_of_an_address(instance: ServiceHarness) -> None:
    codes = []
    for _ in range(3):
        codes.append(await request_code(instance))
        instance.now += MINUTE
    for code in codes[:2]:
        for _ in range(5):
            with pytest.raises(Refused, match="incorrect_code_verifier"):
                await instance.deliver(redemption(code, code_verifier=WRONG_VERIFIER))
    # Now even the right verifier is refused.
    assert await throttled(instance, redemption(codes[2])) == 3600
    instance.now += timedelta(hours=1)
    code = await request_code(instance)
    await instance.deliver(redemption(code))


async def test_concurrent_guesses_are_each_counted(instances: Callable[..., Any]) -> None:
    harnesses = await instances(4, limit_magic_links_per_address="1000/1s", limit_guesses_per_identifier="7/1h")
    codes = [await request_code(harnesses[0]) for _ in range(2)]

    async def guess(harness: ServiceHarness, code: str) -> str:
        with pytest.raises(Refused) as refused:
            await harness.deliver(redemption(code, code_verifier=WRONG_VERIFIER))
        return refused.value.code

    codes_of_refusals = await asyncio.gather(
        *(guess(harness, code) for harness in harnesses for code in codes for _ in range(3))
    )
    assert codes_of_refusals.count("incorrect_code_verifier") == 7


async def test_guesses_per_code_is_a_setting(instances: Callable[..., Any]) -> None:
    [instance] = await instances(guesses_per_code=2)
    code = await request_code(instance)
    for _ in range(2):
        with pytest.raises(Refused, match="incorrect_code_verifier"):
            await instance.deliver(redemption(code, code_verifier=WRONG_VERIFIER))
    with pytest.raises(Refused, match="authorization_not_found"):
        await instance.deliver(redemption(code))


async def test_wrong_keys_count_under_the_prefix_and_void_no_code(instances: Callable[..., Any]) -> None:
    [instance] = await instances(limit_wrong_keys_per_prefix="20/5m")
    code = await request_code(instance)
    wrong = code.partition(".")[0] + "." + "0" * 64
    for _ in range(20):
        with pytest.raises(Refused, match="token_not_found"):
            await instance.deliver(redemption(wrong), **from_ip(IP))
    await throttled(instance, redemption(wrong), **from_ip(IP))
    with pytest.raises(Refused, match="token_not_found"):
        await instance.deliver(redemption(wrong), **from_ip(ELSEWHERE))
    # The right code is accepted from that prefix too.
    await instance.deliver(redemption(code), **from_ip(NEIGHBOUR))


async def test_right_verifier_is_not_counted_as_a_guess(instances: Callable[..., Any]) -> None:
    [instance] = await instances(limit_magic_links_per_address="1000/1s", limit_guesses_per_identifier="1/1h")
    for _ in range(3):
        await log_in(instance)


async def test_link_is_redeemable_while_new_links_are_throttled(instance: ServiceHarness) -> None:
    code = await request_code(instance)
    await throttled(instance, send_magic_link())
    await instance.deliver(redemption(code))


async def listed(harness: ServiceHarness, kind: str | None = None, subject: str | None = None) -> dict[str, Any]:
    query = ListRateLimits(kind=kind, subject=None if subject is None else Sealed.of(subject))  # type: ignore[arg-type]
    view = await harness.deliver(query, caller=Caller(kind="internal"))
    return {each["name"]: each for each in view["limits"]}


async def test_rate_limits_are_listed_with_the_uses_of_the_deployment(instance: ServiceHarness) -> None:
    limits = await listed(instance)
    assert set(limits) == set(LIMIT_NAMES)
    address = limits["magic-links-per-address"]
    assert address["setting"] == "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS"
    assert [(each["count"], each["seconds"], each["used"]) for each in address["rules"]] == [
        (1, 60, None),
        (5, 3_600, None),
        (10, 86_400, None),
    ]
    assert [rule["used"] for rule in limits["trials-per-deployment"]["rules"]] == [0]


async def test_rate_limits_show_the_uses_of_an_address_and_a_network(instance: ServiceHarness) -> None:
    await instance.deliver(send_magic_link(), **from_ip(IP))
    address = await listed(instance, "address", f" {ADDRESS.upper()} ")
    assert set(address) == {
        "magic-links-per-address",
        "trials-per-address",
        "typed-codes-per-address",
        "guesses-per-identifier",
    }
    links = address["magic-links-per-address"]
    assert [rule["used"] for rule in links["rules"]] == [1, 1, 1]
    free_at = datetime.fromisoformat(links["free_at"])
    assert timedelta(0) < free_at - instance.now <= MINUTE
    assert address["trials-per-address"]["free_at"] is None
    for ip in (IP, NEIGHBOUR):
        network = await listed(instance, "network", ip)
        assert [rule["used"] for rule in network["magic-links-per-prefix"]["rules"]] == [1]
    elsewhere = await listed(instance, "network", ELSEWHERE)
    assert [rule["used"] for rule in elsewhere["magic-links-per-prefix"]["rules"]] == [0]


@pytest.mark.parametrize(("kind", "code"), [("address", "invalid_email"), ("number", "invalid_phone_number")])
async def test_rate_limits_of_something_else_are_refused(instance: ServiceHarness, kind: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        await listed(instance, kind, "nobody")
    assert refused.value.code == code
