"""Logging in by phone number: a code by text, used up by a login or a registration."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
import pytest

from shared.ids import new_message_id
from shared.messages import Caller, Message, Sealed
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.phone import LogInForTesting, RegisterPhoneUser, SendPhoneCode, VerifyPhoneCode
from shared.messages.auth.tokens import UserAuthenticated
from shared.messages.auth.users import GetUser, IdentifierVerified, UserCreated
from shared.messages.mailer.texts import SendText
from tests.auth.flows import CLIENT, REDIRECT_URI, one_delivery, refusal
from tests.service_harness import Refused, ServiceHarness

NUMBER = "+41791234567"
OTHER_NUMBER = "+41791234568"
NO_LIMITS = {
    "limit_texts_per_number": "none",
    "limit_texts_per_prefix": "none",
    "limit_guesses_per_identifier": "none",
    "text_countries": "all",
}
FROM = Caller(client_ip="203.0.113.7")
NOT_FOUND = ("not_found", "phone_code_not_found")
INCORRECT = ("unauthenticated", "incorrect_phone_code")


@dataclass(frozen=True)
class TextPolicy:
    """What one order of a code leads to: the nonce for the app, the code on the phone."""

    nonce: str
    code: str

    @property
    def wrong(self) -> str:
        return "000000" if self.code != "000000" else "000001"


@pytest.fixture
async def harness(new_harness: Callable[..., ServiceHarness]) -> AsyncIterator[ServiceHarness]:
    """The auth service, without limits other than those of a code."""
    async with opened(new_harness(**NO_LIMITS)) as harness:
        yield harness


@asynccontextmanager
async def opened(harness: ServiceHarness) -> AsyncIterator[ServiceHarness]:
    """A harness whose service knows an app."""
    async with harness:
        await harness.deliver(CreateClient(id=CLIENT, name="An app", redirect_uris=(REDIRECT_URI,)))
        harness.clear()
        yield harness


async def texted(harness: ServiceHarness, number: str = NUMBER, **how: Any) -> TextPolicy:
    """Order a code, and read it as the phone would."""
    view = await harness.deliver(SendPhoneCode(phone_number=number), **how)
    text = harness.published_of(SendText)[-1]
    return TextPolicy(view["nonce"], json.loads(harness.unseal_secret("mailer", text.variables))["code"])


def verification(sent: TextPolicy, code: str | None = None, clientid: str = CLIENT) -> VerifyPhoneCode:
    return VerifyPhoneCode(code=Sealed.of(code or sent.code), nonce=Sealed.of(sent.nonce), clientid=clientid)


def registration(sent: TextPolicy, code: str | None = None, **changed: Any) -> RegisterPhoneUser:
    named = {"first_name": "Ada", "last_name": "Lovelace", **changed}
    return RegisterPhoneUser(code=Sealed.of(code or sent.code), nonce=Sealed.of(sent.nonce), **named)


def claims(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(answer["token"], options={"verify_signature": False})
    return found


async def users(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["users"].find().to_list()


# --- send_phone_code


async def test_send_phone_code_texts_six_digits_and_answers_the_nonce(harness: ServiceHarness) -> None:
    view = await harness.deliver(SendPhoneCode(phone_number="41 79 123 45 67"))
    assert set(view) == {"nonce"}
    assert len(view["nonce"]) == 32
    [text] = harness.published
    assert isinstance(text, SendText)
    assert harness.unseal_secret("mailer", text.to) == NUMBER
    variables = json.loads(harness.unseal_secret("mailer", text.variables))
    assert len(variables.pop("code")) == 6
    assert variables == {"minutes": 10}
    assert text.expires_at - text.ordered_at == timedelta(minutes=10)


async def test_the_text_is_ordered_in_the_languages_that_the_phone_asks_for(harness: ServiceHarness) -> None:
    await harness.deliver(SendPhoneCode(phone_number=NUMBER, locales=("gsw-CH", "de-CH", "en")))
    [text] = harness.published_of(SendText)
    assert (text.locale, text.other_locales) == ("gsw-CH", ("de-CH", "en"))


async def test_of_code_and_nonce_only_hashes_are_kept(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    [document] = await harness.database["phone_codes"].find().to_list()
    everything = repr([document, await harness.database["inbox"].find().to_list()])
    assert sent.nonce not in everything
    assert f"'{sent.code}'" not in everything
    assert document["code"].startswith("test.")


@pytest.mark.parametrize("text", ["", "no number", "+41", '{"$gt": ""}', "0791234567"])
async def test_send_phone_code_refuses_what_is_no_number(harness: ServiceHarness, text: str) -> None:
    assert await refusal(harness, SendPhoneCode(phone_number=text)) == ("invalid", "invalid_phone_number")
    assert harness.published == []


async def test_only_numbers_of_countries_in_the_settings_are_texted(new_harness: Callable[..., ServiceHarness]) -> None:
    async with opened(new_harness(**{**NO_LIMITS, "text_countries": "CH,LI"})) as harness:
        await texted(harness)
        german = SendPhoneCode(phone_number="+4915112345678")
        assert await refusal(harness, german) == ("forbidden", "phone_number_not_allowed")


async def test_by_default_nobody_is_texted(new_harness: Callable[..., ServiceHarness]) -> None:
    async with opened(new_harness()) as harness:
        order = SendPhoneCode(phone_number=NUMBER)
        assert await refusal(harness, order) == ("forbidden", "phone_number_not_allowed")


async def test_second_delivery_of_the_order_makes_no_second_code(harness: ServiceHarness) -> None:
    delivery = one_delivery(harness, SendPhoneCode(phone_number=NUMBER))
    first, second = [await harness.deliver(SendPhoneCode(phone_number=NUMBER), **delivery) for _ in range(2)]
    assert first == second
    assert len(harness.published_of(SendText)) == 1
    assert await harness.database["phone_codes"].count_documents({}) == 1


async def test_a_number_gets_three_texts_in_ten_minutes_and_ten_a_day(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with opened(new_harness(text_countries="all")) as harness:
        waits = []
        for texts in (3, 3, 3, 1):
            for n in range(texts):
                await harness.deliver(SendPhoneCode(phone_number=NUMBER), caller=Caller(client_ip=f"198.51.{n}.1"))
            with pytest.raises(Refused) as refused:
                await harness.deliver(SendPhoneCode(phone_number="41 79 123 45 67"))
            assert refused.value.kind == "throttled"
            waits.append(refused.value.meta["retry_after"])
            harness.now += timedelta(minutes=10)
        assert waits == [600, 600, 600, 24 * 3600 - 1800]
        await harness.deliver(SendPhoneCode(phone_number=OTHER_NUMBER))


async def test_strangers_use_up_no_texts_of_a_network_that_has_logged_in(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with opened(new_harness(text_countries="all")) as harness:
        home, stranger = Caller(client_ip="203.0.113.9"), Caller(client_ip="198.51.100.1")
        await harness.deliver(verification(await texted(harness, caller=home)), caller=home)
        for _ in range(2):
            await texted(harness, caller=stranger)
        assert await refusal(harness, SendPhoneCode(phone_number=NUMBER), caller=stranger) == ("throttled", "throttled")
        await harness.deliver(verification(await texted(harness, caller=home)), caller=home)


async def test_an_address_orders_twenty_texts_an_hour(new_harness: Callable[..., ServiceHarness]) -> None:
    async with opened(new_harness(text_countries="all")) as harness:
        for n in range(20):
            await harness.deliver(SendPhoneCode(phone_number=f"+4179123{n:04}"), caller=FROM)
        with pytest.raises(Refused) as refused:
            await harness.deliver(SendPhoneCode(phone_number="+41791239999"), caller=FROM)
        assert refused.value.kind == "throttled"
        assert refused.value.meta["retry_after"] > 0
        await harness.deliver(SendPhoneCode(phone_number="+41791239999"), caller=Caller(client_ip="198.51.100.7"))


# --- verify_phone_code


async def test_verify_phone_code_makes_the_user_and_gives_a_token_for_a_day(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    harness.clear()
    answer = await harness.deliver(verification(sent))
    said = claims(answer)
    [user] = await users(harness)
    assert (user["firstName"], user["lastName"]) == ("", "")
    assert (said["userid"], said["clientid"]) == (user["_id"], CLIENT)
    assert (said["sub"], said["aud"], said["v"]) == (user["_id"], CLIENT, "1")
    assert said["exp"] - said["iat"] == 24 * 3600
    assert jwt.get_unverified_header(answer["token"])["typ"] == "JWT"
    [token] = await harness.database["access_tokens"].find().to_list()
    assert said["jti"] == token["_id"]
    assert token["grant"]["type"] == "phone_code"
    assert token["expiresAt"] - token["createdAt"] == timedelta(days=1)
    kinds = [type(message) for message in harness.published if "audited" not in message.wire]
    assert kinds == [UserCreated, IdentifierVerified, UserAuthenticated]


async def test_the_number_becomes_a_verified_identifier_that_get_user_shows(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await texted(harness))))["userid"]
    view = await harness.deliver(GetUser(user_id=user_id))
    [identifier] = view["identifiers"]
    assert (identifier["identifier_type"], identifier["identifier_value"]) == ("phone", NUMBER)
    assert identifier["verified_at"] is not None
    assert set(view) == {"id", "created_at", "identifiers"}


async def test_the_next_login_is_of_the_same_user(harness: ServiceHarness) -> None:
    first = claims(await harness.deliver(verification(await texted(harness))))
    second = claims(await harness.deliver(verification(await texted(harness, "41791234567"))))
    assert first["userid"] == second["userid"]
    assert first["jti"] != second["jti"]
    assert len(await users(harness)) == 1
    assert len(harness.published_of(IdentifierVerified)) == 1


async def test_a_code_works_once(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    await harness.deliver(verification(sent))
    assert await refusal(harness, verification(sent)) == NOT_FOUND
    assert await refusal(harness, registration(sent)) == INCORRECT


async def test_second_delivery_of_a_verification_gives_the_same_token(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    delivery = one_delivery(harness, verification(sent))
    first, second = [await harness.deliver(verification(sent), **delivery) for _ in range(2)]
    assert first == second
    assert await harness.database["access_tokens"].count_documents({}) == 1


async def test_of_twenty_verifications_at_once_one_succeeds(harness: ServiceHarness) -> None:
    sent = await texted(harness)

    outcomes = await asyncio.gather(*(harness.deliver(verification(sent)) for _ in range(20)), return_exceptions=True)
    refused = [(outcome.kind, outcome.code) for outcome in outcomes if isinstance(outcome, Refused)]
    assert refused == [NOT_FOUND] * 19
    assert len(await users(harness)) == 1
    assert await harness.database["access_tokens"].count_documents({}) == 1


async def test_two_codes_of_a_new_number_used_at_once_make_one_user(harness: ServiceHarness) -> None:
    sent = [await texted(harness) for _ in range(4)]
    answers = await asyncio.gather(*(harness.deliver(verification(each)) for each in sent))
    assert len({claims(answer)["userid"] for answer in answers}) == 1
    assert len(await users(harness)) == 1


@pytest.mark.parametrize("nonce", ["", "0" * 32, "x", '{"$gt": ""}', "a\x00b", "n" * 5000])
async def test_an_unknown_nonce_is_not_found(harness: ServiceHarness, nonce: str) -> None:
    sent = await texted(harness)
    assert await refusal(harness, verification(TextPolicy(nonce, sent.code))) == NOT_FOUND
    assert await refusal(harness, registration(TextPolicy(nonce, sent.code))) == INCORRECT


@pytest.mark.parametrize(
    "code", ["", "12345", "1234567", '{"$gt": ""}', "\uff11\uff12\uff13\uff14\uff15\uff16", "123456 "]
)
async def test_a_code_of_another_form_is_a_wrong_one(harness: ServiceHarness, code: str) -> None:
    sent = await texted(harness)
    wrong = VerifyPhoneCode(code=Sealed.of(code), nonce=Sealed.of(sent.nonce), clientid=CLIENT)
    assert await refusal(harness, wrong) == NOT_FOUND
    [document] = await harness.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 1


async def test_a_code_goes_with_its_own_nonce_only(harness: ServiceHarness) -> None:
    first, second = await texted(harness), await texted(harness)
    crossed = TextPolicy(first.nonce, second.code)
    if first.code != second.code:
        assert await refusal(harness, verification(crossed)) == NOT_FOUND
    await harness.deliver(verification(first))
    await harness.deliver(verification(second))


async def test_a_code_is_refused_from_its_last_moment_on(harness: ServiceHarness) -> None:
    sent, late = await texted(harness), await texted(harness)
    harness.now += timedelta(minutes=10) - timedelta(milliseconds=1)
    await harness.deliver(verification(sent))
    harness.now += timedelta(milliseconds=1)
    assert await refusal(harness, verification(late)) == NOT_FOUND
    assert await refusal(harness, registration(late)) == INCORRECT


async def test_after_five_wrong_codes_the_right_one_is_refused(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    for message in [verification(sent, sent.wrong)] * 3 + [registration(sent, sent.wrong)] * 2:
        await refusal(harness, message)
    assert await refusal(harness, verification(sent)) == NOT_FOUND
    assert await refusal(harness, registration(sent)) == INCORRECT


async def test_after_four_wrong_codes_the_right_one_is_taken(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    for _ in range(4):
        await refusal(harness, verification(sent, sent.wrong))
    await harness.deliver(verification(sent))


async def test_a_wrong_code_that_is_delivered_twice_counts_once(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    wrong = verification(sent, sent.wrong)
    delivery = one_delivery(harness, wrong)
    for _ in range(2):
        assert await refusal(harness, wrong, **delivery) == NOT_FOUND
    [document] = await harness.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 1


async def test_of_many_wrong_codes_at_once_five_are_looked_at(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    guesses = [f"{n:06}" for n in range(40) if f"{n:06}" != sent.code]
    outcomes = await asyncio.gather(*(refusal(harness, verification(sent, guess)) for guess in guesses))
    assert set(outcomes) == {NOT_FOUND}
    [document] = await harness.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 5


async def test_two_people_with_the_same_code_never_disturb_each_other(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.phone.handlers.new_code", lambda: "424242")
    hers, his = await texted(harness, NUMBER), await texted(harness, OTHER_NUMBER)
    assert hers.code == his.code == "424242"
    for _ in range(5):
        await refusal(harness, verification(his, "000000"))
    assert await refusal(harness, verification(his)) == NOT_FOUND
    assert claims(await harness.deliver(verification(hers)))["userid"]
    again = await texted(harness, OTHER_NUMBER)
    user_ids = {claims(await harness.deliver(verification(each)))["userid"] for each in [again]}
    assert len(user_ids | {user["_id"] for user in await users(harness)}) == 2


async def test_an_app_of_any_name_gets_a_token_for_itself(harness: ServiceHarness) -> None:
    said = claims(await harness.deliver(verification(await texted(harness), clientid="app-7")))
    assert said["clientid"] == said["aud"] == "app-7"


async def test_a_disabled_client_is_told_and_the_code_stays_good(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    await harness.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": harness.now}})
    assert await refusal(harness, verification(sent)) == ("forbidden", "client_disabled")
    await harness.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": None}})
    await harness.deliver(verification(sent))


async def test_a_code_outlives_a_new_sealing_key(new_harness: Callable[..., ServiceHarness]) -> None:
    old = {"old": bytes(range(32))}
    async with opened(new_harness(old, **NO_LIMITS)) as harness:
        sent = await texted(harness)
    async with new_harness({"new": bytes(32), **old}, **NO_LIMITS) as harness:
        await harness.deliver(verification(sent))
        again = await texted(harness)
        await harness.deliver(verification(again))


async def test_guesses_at_codes_of_a_number_come_to_an_end_but_lock_nobody_out(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    """Ten an hour across codes; after that each nonce still has one try, which its own holder gets right."""
    async with opened(new_harness(**{**NO_LIMITS, "limit_guesses_per_identifier": "10/1h"})) as harness:
        for _ in range(2):
            strangers = await texted(harness)
            for _ in range(5):
                await refusal(harness, verification(strangers, strangers.wrong), caller=FROM)
        third = await texted(harness)
        assert await refusal(harness, verification(third, third.wrong), caller=FROM) == NOT_FOUND
        kind, _ = await refusal(harness, verification(third), caller=FROM)
        assert kind == "throttled"
        await harness.deliver(verification(await texted(harness)), caller=Caller(client_ip="198.51.100.7"))


# --- register_phone_user


async def test_register_phone_user_makes_a_user_with_a_name(harness: ServiceHarness) -> None:
    view = await harness.deliver(
        registration(await texted(harness), first_name=" Ada ", phone_number="41 79 123 45 67")
    )
    [user] = await users(harness)
    assert view == {"id": user["_id"], "first_name": "Ada", "last_name": "Lovelace", "phone_number": NUMBER}
    assert (user["firstName"], user["lastName"]) == ("Ada", "Lovelace")
    [identifier] = (await harness.deliver(GetUser(user_id=user["_id"])))["identifiers"]
    assert identifier["verified_at"] is not None


async def test_register_fills_in_the_name_of_a_user_who_has_logged_in(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await texted(harness))))["userid"]
    view = await harness.deliver(registration(await texted(harness)))
    assert view["id"] == user_id
    [user] = await users(harness)
    assert (user["firstName"], user["lastName"]) == ("Ada", "Lovelace")


async def test_who_has_a_name_is_not_registered_again_and_may_log_in_with_the_code(harness: ServiceHarness) -> None:
    await harness.deliver(registration(await texted(harness)))
    sent = await texted(harness)
    again = registration(sent, first_name="Grace")
    assert await refusal(harness, again) == ("conflict", "user_already_registered")
    [user] = await users(harness)
    assert user["firstName"] == "Ada"
    await harness.deliver(verification(sent))


async def test_two_registrations_of_a_number_at_once_make_one_user(harness: ServiceHarness) -> None:
    sent = [await texted(harness) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(harness.deliver(registration(each, first_name=f"Ada {n}")) for n, each in enumerate(sent)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    [made] = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert {each.code for each in refused} == {"user_already_registered"}
    [user] = await users(harness)
    assert (user["_id"], user["firstName"]) == (made["id"], made["first_name"])


async def test_second_delivery_of_a_registration_answers_the_same(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    delivery = one_delivery(harness, registration(sent))
    first, second = [await harness.deliver(registration(sent), **delivery) for _ in range(2)]
    assert first == second
    assert len(await users(harness)) == 1


async def test_register_uses_the_code_up(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    await harness.deliver(registration(sent))
    assert await refusal(harness, verification(sent)) == NOT_FOUND


async def test_register_refuses_a_wrong_code(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    assert await refusal(harness, registration(sent, sent.wrong)) == INCORRECT
    assert await users(harness) == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"first_name": ""}, "first_name_missing"),
        ({"first_name": "  \t"}, "first_name_missing"),
        ({"last_name": ""}, "last_name_missing"),
        ({"phone_number": "no number"}, "invalid_phone_number"),
        ({"phone_number": ""}, "invalid_phone_number"),
        ({"phone_number": OTHER_NUMBER}, "incorrect_phone_number"),
    ],
)
async def test_register_refuses_what_is_missing_or_of_somebody_else_and_the_code_stays_good(
    harness: ServiceHarness, changed: dict[str, Any], code: str
) -> None:
    sent = await texted(harness)
    assert await refusal(harness, registration(sent, **changed)) == ("invalid", code)
    await harness.deliver(registration(sent))


async def test_a_wrong_code_does_not_tell_whose_the_nonce_is(harness: ServiceHarness) -> None:
    sent = await texted(harness)
    assert await refusal(harness, registration(sent, sent.wrong, phone_number=OTHER_NUMBER)) == INCORRECT


async def test_users_from_before_there_were_names_can_be_given_one(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await texted(harness))))["userid"]
    await harness.database["users"].update_one({"_id": user_id}, {"$unset": {"firstName": "", "lastName": ""}})
    assert (await harness.deliver(registration(await texted(harness))))["id"] == user_id


# --- log_in_for_testing


async def test_log_in_for_testing_is_off_unless_the_settings_say_so(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await texted(harness))))["userid"]
    order = LogInForTesting(userid=user_id, clientid=CLIENT)
    assert await refusal(harness, order) == ("not_found", "not_found")


async def test_log_in_for_testing_gives_a_token_of_the_user(new_harness: Callable[..., ServiceHarness]) -> None:
    async with opened(new_harness(**NO_LIMITS, test_login=True)) as harness:
        user_id = claims(await harness.deliver(verification(await texted(harness))))["userid"]
        order = LogInForTesting(userid=user_id, clientid=CLIENT)
        delivery = one_delivery(harness, order)
        first, second = [await harness.deliver(order, **delivery) for _ in range(2)]
        assert first == second
        assert (claims(first)["userid"], claims(first)["clientid"]) == (user_id, CLIENT)
        unknown: list[tuple[Message, str]] = [
            (LogInForTesting(userid="nobody", clientid=CLIENT), "not_found"),
            (LogInForTesting(userid='{"$gt": ""}', clientid=CLIENT), "not_found"),
        ]
        for message, code in unknown:
            assert await refusal(harness, message, id=new_message_id()) == ("not_found", code)
