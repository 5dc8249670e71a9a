"""Login with the six digits that a mail shows beside the link."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from shared.messages import Caller
from shared.messages.auth.magic_links import OrderTrialMagicLink, SendTrialMagicLink, TrialDevice
from shared.messages.auth.tokens import UserAuthenticated
from shared.messages.billing.trials import OfferTrial
from shared.messages.mailer.mails import SendMail
from tests.auth.flows import (
    ADDRESS,
    CLIENT,
    LINK_REQUEST,
    OTHER_CLIENT,
    REDIRECT_URI,
    VERIFIER,
    log_in,
    redeliverable,
    redemption,
    refusal,
    request_code,
    request_typed_code,
    typed,
)
from tests.readable import contains
from tests.service_harness import Refused, ServiceHarness

OTHER_VERIFIER = "o" * 43
OTHER_CHALLENGE = "OQd5GoMeLlw4P7pgGg8I4L-uh6VsL0USEQGXbYdO49Y"
WRONG = ("invalid", "incorrect_code")


def other_than(code: str) -> str:
    """Six other digits."""
    return f"{(int(code) + 1) % 10**6:06}"


async def test_typed_code_logs_the_requesting_device_in(harness: ServiceHarness) -> None:
    digits, _ = await request_typed_code(harness)
    tokens = await harness.deliver(typed(digits, redirect_uri=None))
    assert (tokens["client_id"], tokens["token_type"]) == (CLIENT, "bearer")
    identifier = await harness.database["identifiers"].find_one({})
    assert (identifier["userId"], identifier["identifierValue"]) == (tokens["user_id"], ADDRESS)
    assert len(harness.published_of(UserAuthenticated)) == 1


@pytest.mark.parametrize("first", ["digits", "link"])
async def test_digits_and_link_redeem_one_grant(harness: ServiceHarness, first: str) -> None:
    codes = await request_typed_code(harness)
    one, other = codes if first == "digits" else codes[::-1]
    await harness.deliver(typed(one))
    for code in (one, other):
        assert await refusal(harness, typed(code)) == ("conflict", "token_used")


async def test_second_delivery_of_digits_returns_the_same_tokens(harness: ServiceHarness) -> None:
    command = typed((await request_typed_code(harness))[0])
    delivery = redeliverable(harness, command)
    answers = [await harness.deliver(command, **delivery) for _ in range(2)]
    assert answers[0] == answers[1]
    assert await harness.database["refresh_tokens"].count_documents({}) == 1


async def test_digits_may_be_typed_with_spaces_and_in_other_scripts(harness: ServiceHarness) -> None:
    digits, _ = await request_typed_code(harness)
    full_width = digits.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})
    assert (await harness.deliver(typed(f" {full_width[:3]} {full_width[3:]}")))["client_id"] == CLIENT


@pytest.mark.parametrize("redirect_uri", [REDIRECT_URI, None])
async def test_malformed_digits_are_no_guess(harness: ServiceHarness, redirect_uri: str | None) -> None:
    digits, _ = await request_typed_code(harness)
    for _ in range(6):
        assert await refusal(harness, typed(f"{digits}7", redirect_uri=redirect_uri)) == ("invalid", "malformed_code")
    await harness.deliver(typed(digits))


async def test_digits_of_another_device_are_unknown(harness: ServiceHarness) -> None:
    digits, _ = await request_typed_code(harness)
    command = typed(digits, code_verifier=OTHER_VERIFIER)
    assert await refusal(harness, command) == ("not_found", "token_not_found")
    await request_typed_code(harness, code_challenge=OTHER_CHALLENGE, identifier_value="eve@example.com")
    assert await refusal(harness, command) == WRONG, "a guess at the code of the other device"
    await harness.deliver(typed(digits))


async def test_5_wrong_codes_revoke_the_digits_but_not_the_link(harness: ServiceHarness) -> None:
    digits, link = await request_typed_code(harness)
    left = []
    for _ in range(5):
        with pytest.raises(Refused) as refused:
            await harness.deliver(typed(other_than(digits)))
        assert (refused.value.kind, refused.value.code) == WRONG
        left.append(refused.value.meta["guesses_left"])
    assert left == [4, 3, 2, 1, 0]
    for _ in range(2):
        assert await refusal(harness, typed(digits)) == ("not_found", "authorization_not_found")
    await harness.deliver(typed(link))


async def test_parallel_guesses_are_no_more_than_5(harness: ServiceHarness) -> None:
    digits, _ = await request_typed_code(harness)

    async def guess(number: int) -> str:
        try:
            await harness.deliver(typed(f"{(int(digits) + 1 + number) % 10**6:06}"))
        except Refused as refused:
            return refused.code
        return "done"

    outcomes = Counter(await asyncio.gather(*map(guess, range(12))))
    assert outcomes == {"incorrect_code": 5, "authorization_not_found": 7}
    assert await refusal(harness, typed(digits)) == ("not_found", "authorization_not_found")


async def test_wrong_digits_delivered_twice_are_counted_once(harness: ServiceHarness) -> None:
    digits, _ = await request_typed_code(harness)
    command = typed(other_than(digits))
    delivery = redeliverable(harness, command)
    for _ in range(2):
        assert await refusal(harness, command, **delivery) == WRONG
    assert (await harness.database["authorizations"].find_one({}))["typedCode"]["wrong"] == 1


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"client_id": OTHER_CLIENT}, ("forbidden", "incorrect_client")),
        ({"redirect_uri": f"{REDIRECT_URI}/other"}, ("invalid", "incorrect_redirect_uri")),
        ({"code_verifier": None}, ("invalid", "code_verifier_missing")),
        ({"code_verifier": "short"}, ("not_found", "token_not_found")),
    ],
)
async def test_faulty_request_is_no_guess(
    harness: ServiceHarness, changed: dict[str, str], status: tuple[str, str]
) -> None:
    digits, _ = await request_typed_code(harness)
    assert await refusal(harness, typed(digits, **changed)) == status
    await harness.deliver(typed(digits))


async def test_newer_request_for_the_address_replaces_the_digits(harness: ServiceHarness) -> None:
    first, link = await request_typed_code(harness)
    others = {
        "other address": await request_typed_code(
            harness, code_challenge=OTHER_CHALLENGE, identifier_value="eve@example.com"
        ),
        "other client": await request_typed_code(harness, code_challenge=OTHER_CHALLENGE, client_id=OTHER_CLIENT),
    }
    assert await harness.database["authorizations"].count_documents({"typedCode.revokedAt": None}) == 3, others
    second, _ = await request_typed_code(harness, code_challenge=OTHER_CHALLENGE)
    assert await refusal(harness, typed(first)) == ("not_found", "authorization_not_found")
    assert await harness.database["authorizations"].count_documents({"typedCode.revokedAt": None}) == 3
    harness.now += timedelta(seconds=1)
    await harness.deliver(typed(link))
    assert await refusal(harness, typed(second, code_verifier=OTHER_VERIFIER)) == (
        "not_found",
        "authorization_not_found",
    )


async def test_newest_request_counts_if_an_app_repeats_its_verifier(harness: ServiceHarness) -> None:
    first, _ = await request_typed_code(harness)
    harness.now += timedelta(seconds=1)
    second, _ = await request_typed_code(harness)
    if first != second:
        assert await refusal(harness, typed(first)) == WRONG
    await harness.deliver(typed(second))


async def test_digits_may_expire_before_the_link(
    new_harness: Callable[..., ServiceHarness], harness: ServiceHarness
) -> None:
    async with new_harness(typed_code_minutes=5) as shorter:
        digits, link = await request_typed_code(shorter)
        variables = shorter.variables_of(shorter.published_of(SendMail)[0])
        assert (variables["minutes"], variables["code_minutes"]) == (10, 5)
        shorter.now += timedelta(minutes=5)
        assert await refusal(shorter, typed(digits)) == ("gone", "token_expired")
        await shorter.deliver(typed(link))


async def test_digits_expire_no_later_than_the_link(
    new_harness: Callable[..., ServiceHarness], harness: ServiceHarness
) -> None:
    async with new_harness(authorization_minutes=3) as shorter:
        digits, _ = await request_typed_code(shorter)
        document = await shorter.database["authorizations"].find_one({})
        assert document["typedCode"]["expiresAt"] == document["expiresAt"]
        shorter.now += timedelta(minutes=3)
        assert await refusal(shorter, typed(digits)) == ("gone", "token_expired")


async def test_strangers_guesses_leave_the_owners_first_guess(harness: ServiceHarness) -> None:
    for number in range(3):
        stranger, _ = await request_typed_code(harness, code_challenge=OTHER_CHALLENGE)
        for _ in range(5):
            code = (await refusal(harness, typed(other_than(stranger), code_verifier=OTHER_VERIFIER)))[1]
            assert code == ("incorrect_code" if number < 2 else code)
        harness.now += timedelta(seconds=1)
    assert code == "throttled", "10 wrong codes of one address in an hour"
    digits, _ = await request_typed_code(harness)
    await harness.deliver(typed(digits))
    await harness.deliver(redemption(await request_code(harness)))


async def test_wrong_digits_count_against_the_network(
    new_harness: Callable[..., ServiceHarness], harness: ServiceHarness
) -> None:
    caller = Caller(client_ip="203.0.113.7")
    async with new_harness(limit_wrong_keys_per_prefix="2/5m") as strict:
        for number in range(2):
            digits, _ = await request_typed_code(strict, identifier_value=f"person{number}@example.com")
            assert await refusal(strict, typed(other_than(digits)), caller=caller) == WRONG
            strict.now += timedelta(seconds=1)
        digits, _ = await request_typed_code(strict, identifier_value="third@example.com")
        assert await refusal(strict, typed(other_than(digits)), caller=caller) == WRONG, "the first guess is allowed"
        assert await refusal(strict, typed(digits), caller=caller) == ("throttled", "throttled")
        await strict.deliver(typed(digits), caller=Caller(client_ip="198.51.100.1"))


async def test_clients_of_older_versions_get_and_send_no_digits(harness: ServiceHarness) -> None:
    await request_code(harness)
    [mail] = harness.published_of(SendMail)
    variables = harness.variables_of(mail)
    assert (variables["code"], variables["code_minutes"]) == (None, None)
    assert await refusal(harness, typed("123456")) == ("not_found", "token_not_found")
    digits, _ = await request_typed_code(harness)
    assert await refusal(harness, redemption(digits)) == ("invalid", "malformed_code")


async def test_digits_are_stored_as_a_keyed_hash_only(harness: ServiceHarness) -> None:
    digits, _ = await request_typed_code(harness)
    await harness.deliver(typed(digits))
    for name in await harness.database.list_collection_names():
        for document in await harness.database[name].find({}).to_list():
            if name == "authorizations":
                key_id, _, stored = document.pop("typedCode")["hash"].partition(".")
                assert (key_id, len(stored)) == ("test", 64)
                document.pop("key")
            for message in document.get("messages", ()):
                assert not contains(message.pop("body"), digits)
            assert "typedCode" not in document


async def test_same_digits_have_different_hashes(harness: ServiceHarness) -> None:
    sealer = harness.context.sealer
    assert len({sealer.keyed_hash("typed codes", b"123456", id.encode()) for id in ("a", "b")}) == 2  # noqa: A001


async def test_trial_mail_has_digits_too(harness: ServiceHarness) -> None:
    device = TrialDevice(platform="mac", beak_id="beak-1", fingerprint="f-1")
    await harness.deliver(OrderTrialMagicLink(**{**LINK_REQUEST, "device": device}))
    assert [offer.with_digits for offer in harness.published_of(OfferTrial)] == [True]
    await harness.deliver(SendTrialMagicLink(**LINK_REQUEST, with_digits=True))
    [mail] = harness.published_of(SendMail)
    assert mail.template == "trial-magic-link"
    variables = harness.variables_of(mail)
    await harness.deliver(typed(variables["code"]))


async def test_answer_is_the_same_for_known_and_unknown_addresses(harness: ServiceHarness) -> None:
    await log_in(harness)
    for address in (ADDRESS, "unknown@example.com"):
        digits, _ = await request_typed_code(harness, identifier_value=address)
        assert await refusal(harness, typed(other_than(digits), code_verifier=VERIFIER)) == WRONG
        harness.now += timedelta(seconds=1)
