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
from tests.desk import Desk, Refused

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
async def desk(new_desk: Callable[..., Desk]) -> AsyncIterator[Desk]:
    """The auth service, without limits other than those of a code."""
    async with opened(new_desk(**NO_LIMITS)) as desk:
        yield desk


@asynccontextmanager
async def opened(desk: Desk) -> AsyncIterator[Desk]:
    """A desk whose service knows an app."""
    async with desk:
        await desk.perform(CreateClient(id=CLIENT, name="An app", redirect_uris=(REDIRECT_URI,)))
        desk.clear()
        yield desk


async def texted(desk: Desk, number: str = NUMBER, **how: Any) -> TextPolicy:
    """Order a code, and read it as the phone would."""
    view = await desk.perform(SendPhoneCode(phone_number=number), **how)
    text = desk.said(SendText)[-1]
    return TextPolicy(view["nonce"], json.loads(desk.reveal("mailer", text.variables))["code"])


def verification(sent: TextPolicy, code: str | None = None, clientid: str = CLIENT) -> VerifyPhoneCode:
    return VerifyPhoneCode(code=Sealed.of(code or sent.code), nonce=Sealed.of(sent.nonce), clientid=clientid)


def registration(sent: TextPolicy, code: str | None = None, **changed: Any) -> RegisterPhoneUser:
    named = {"first_name": "Ada", "last_name": "Lovelace", **changed}
    return RegisterPhoneUser(code=Sealed.of(code or sent.code), nonce=Sealed.of(sent.nonce), **named)


def claims(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(answer["token"], options={"verify_signature": False})
    return found


async def users(desk: Desk) -> list[dict[str, Any]]:
    return await desk.database["users"].find().to_list()


# --- send_phone_code


async def test_send_phone_code_texts_six_digits_and_answers_the_nonce(desk: Desk) -> None:
    view = await desk.perform(SendPhoneCode(phone_number="41 79 123 45 67"))
    assert set(view) == {"nonce"}
    assert len(view["nonce"]) == 32
    [text] = desk.published
    assert isinstance(text, SendText)
    assert desk.reveal("mailer", text.to) == NUMBER
    variables = json.loads(desk.reveal("mailer", text.variables))
    assert len(variables.pop("code")) == 6
    assert variables == {"minutes": 10}
    assert text.expires_at - text.ordered_at == timedelta(minutes=10)


async def test_the_text_is_ordered_in_the_languages_that_the_phone_asks_for(desk: Desk) -> None:
    await desk.perform(SendPhoneCode(phone_number=NUMBER, locales=("gsw-CH", "de-CH", "en")))
    [text] = desk.said(SendText)
    assert (text.locale, text.other_locales) == ("gsw-CH", ("de-CH", "en"))


async def test_of_code_and_nonce_only_hashes_are_kept(desk: Desk) -> None:
    sent = await texted(desk)
    [document] = await desk.database["phone_codes"].find().to_list()
    everything = repr([document, await desk.database["inbox"].find().to_list()])
    assert sent.nonce not in everything
    assert f"'{sent.code}'" not in everything
    assert document["code"].startswith("test.")


@pytest.mark.parametrize("text", ["", "no number", "+41", '{"$gt": ""}', "0791234567"])
async def test_send_phone_code_refuses_what_is_no_number(desk: Desk, text: str) -> None:
    assert await refusal(desk, SendPhoneCode(phone_number=text)) == ("invalid", "invalid_phone_number")
    assert desk.published == []


async def test_only_numbers_of_countries_in_the_settings_are_texted(new_desk: Callable[..., Desk]) -> None:
    async with opened(new_desk(**{**NO_LIMITS, "text_countries": "CH,LI"})) as desk:
        await texted(desk)
        german = SendPhoneCode(phone_number="+4915112345678")
        assert await refusal(desk, german) == ("forbidden", "phone_number_not_allowed")


async def test_by_default_nobody_is_texted(new_desk: Callable[..., Desk]) -> None:
    async with opened(new_desk()) as desk:
        order = SendPhoneCode(phone_number=NUMBER)
        assert await refusal(desk, order) == ("forbidden", "phone_number_not_allowed")


async def test_second_delivery_of_the_order_makes_no_second_code(desk: Desk) -> None:
    delivery = one_delivery(desk, SendPhoneCode(phone_number=NUMBER))
    first, second = [await desk.perform(SendPhoneCode(phone_number=NUMBER), **delivery) for _ in range(2)]
    assert first == second
    assert len(desk.said(SendText)) == 1
    assert await desk.database["phone_codes"].count_documents({}) == 1


async def test_a_number_gets_three_texts_in_ten_minutes_and_ten_a_day(new_desk: Callable[..., Desk]) -> None:
    async with opened(new_desk(text_countries="all")) as desk:
        waits = []
        for texts in (3, 3, 3, 1):
            for n in range(texts):
                await desk.perform(SendPhoneCode(phone_number=NUMBER), caller=Caller(client_ip=f"198.51.{n}.1"))
            with pytest.raises(Refused) as refused:
                await desk.perform(SendPhoneCode(phone_number="41 79 123 45 67"))
            assert refused.value.kind == "throttled"
            waits.append(refused.value.meta["retry_after"])
            desk.now += timedelta(minutes=10)
        assert waits == [600, 600, 600, 24 * 3600 - 1800]
        await desk.perform(SendPhoneCode(phone_number=OTHER_NUMBER))


async def test_strangers_use_up_no_texts_of_a_network_that_has_logged_in(new_desk: Callable[..., Desk]) -> None:
    async with opened(new_desk(text_countries="all")) as desk:
        home, stranger = Caller(client_ip="203.0.113.9"), Caller(client_ip="198.51.100.1")
        await desk.perform(verification(await texted(desk, caller=home)), caller=home)
        for _ in range(2):
            await texted(desk, caller=stranger)
        assert await refusal(desk, SendPhoneCode(phone_number=NUMBER), caller=stranger) == ("throttled", "throttled")
        await desk.perform(verification(await texted(desk, caller=home)), caller=home)


async def test_an_address_orders_twenty_texts_an_hour(new_desk: Callable[..., Desk]) -> None:
    async with opened(new_desk(text_countries="all")) as desk:
        for n in range(20):
            await desk.perform(SendPhoneCode(phone_number=f"+4179123{n:04}"), caller=FROM)
        with pytest.raises(Refused) as refused:
            await desk.perform(SendPhoneCode(phone_number="+41791239999"), caller=FROM)
        assert refused.value.kind == "throttled"
        assert refused.value.meta["retry_after"] > 0
        await desk.perform(SendPhoneCode(phone_number="+41791239999"), caller=Caller(client_ip="198.51.100.7"))


# --- verify_phone_code


async def test_verify_phone_code_makes_the_user_and_gives_a_token_for_a_day(desk: Desk) -> None:
    sent = await texted(desk)
    desk.clear()
    answer = await desk.perform(verification(sent))
    said = claims(answer)
    [user] = await users(desk)
    assert (user["firstName"], user["lastName"]) == ("", "")
    assert (said["userid"], said["clientid"]) == (user["_id"], CLIENT)
    assert (said["sub"], said["aud"], said["v"]) == (user["_id"], CLIENT, "1")
    assert said["exp"] - said["iat"] == 24 * 3600
    assert jwt.get_unverified_header(answer["token"])["typ"] == "JWT"
    [token] = await desk.database["access_tokens"].find().to_list()
    assert said["jti"] == token["_id"]
    assert token["grant"]["type"] == "phone_code"
    assert token["expiresAt"] - token["createdAt"] == timedelta(days=1)
    kinds = [type(message) for message in desk.published if "audited" not in message.wire]
    assert kinds == [UserCreated, IdentifierVerified, UserAuthenticated]


async def test_the_number_becomes_a_verified_identifier_that_get_user_shows(desk: Desk) -> None:
    user_id = claims(await desk.perform(verification(await texted(desk))))["userid"]
    view = await desk.perform(GetUser(user_id=user_id))
    [identifier] = view["identifiers"]
    assert (identifier["identifier_type"], identifier["identifier_value"]) == ("phone", NUMBER)
    assert identifier["verified_at"] is not None
    assert set(view) == {"id", "created_at", "identifiers"}


async def test_the_next_login_is_of_the_same_user(desk: Desk) -> None:
    first = claims(await desk.perform(verification(await texted(desk))))
    second = claims(await desk.perform(verification(await texted(desk, "41791234567"))))
    assert first["userid"] == second["userid"]
    assert first["jti"] != second["jti"]
    assert len(await users(desk)) == 1
    assert len(desk.said(IdentifierVerified)) == 1


async def test_a_code_works_once(desk: Desk) -> None:
    sent = await texted(desk)
    await desk.perform(verification(sent))
    assert await refusal(desk, verification(sent)) == NOT_FOUND
    assert await refusal(desk, registration(sent)) == INCORRECT


async def test_second_delivery_of_a_verification_gives_the_same_token(desk: Desk) -> None:
    sent = await texted(desk)
    delivery = one_delivery(desk, verification(sent))
    first, second = [await desk.perform(verification(sent), **delivery) for _ in range(2)]
    assert first == second
    assert await desk.database["access_tokens"].count_documents({}) == 1


async def test_of_twenty_verifications_at_once_one_succeeds(desk: Desk) -> None:
    sent = await texted(desk)

    outcomes = await asyncio.gather(*(desk.perform(verification(sent)) for _ in range(20)), return_exceptions=True)
    refused = [(outcome.kind, outcome.code) for outcome in outcomes if isinstance(outcome, Refused)]
    assert refused == [NOT_FOUND] * 19
    assert len(await users(desk)) == 1
    assert await desk.database["access_tokens"].count_documents({}) == 1


async def test_two_codes_of_a_new_number_used_at_once_make_one_user(desk: Desk) -> None:
    sent = [await texted(desk) for _ in range(4)]
    answers = await asyncio.gather(*(desk.perform(verification(each)) for each in sent))
    assert len({claims(answer)["userid"] for answer in answers}) == 1
    assert len(await users(desk)) == 1


@pytest.mark.parametrize("nonce", ["", "0" * 32, "x", '{"$gt": ""}', "a\x00b", "n" * 5000])
async def test_an_unknown_nonce_is_not_found(desk: Desk, nonce: str) -> None:
    sent = await texted(desk)
    assert await refusal(desk, verification(TextPolicy(nonce, sent.code))) == NOT_FOUND
    assert await refusal(desk, registration(TextPolicy(nonce, sent.code))) == INCORRECT


@pytest.mark.parametrize(
    "code", ["", "12345", "1234567", '{"$gt": ""}', "\uff11\uff12\uff13\uff14\uff15\uff16", "123456 "]
)
async def test_a_code_of_another_form_is_a_wrong_one(desk: Desk, code: str) -> None:
    sent = await texted(desk)
    wrong = VerifyPhoneCode(code=Sealed.of(code), nonce=Sealed.of(sent.nonce), clientid=CLIENT)
    assert await refusal(desk, wrong) == NOT_FOUND
    [document] = await desk.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 1


async def test_a_code_goes_with_its_own_nonce_only(desk: Desk) -> None:
    first, second = await texted(desk), await texted(desk)
    crossed = TextPolicy(first.nonce, second.code)
    if first.code != second.code:
        assert await refusal(desk, verification(crossed)) == NOT_FOUND
    await desk.perform(verification(first))
    await desk.perform(verification(second))


async def test_a_code_is_refused_from_its_last_moment_on(desk: Desk) -> None:
    sent, late = await texted(desk), await texted(desk)
    desk.now += timedelta(minutes=10) - timedelta(milliseconds=1)
    await desk.perform(verification(sent))
    desk.now += timedelta(milliseconds=1)
    assert await refusal(desk, verification(late)) == NOT_FOUND
    assert await refusal(desk, registration(late)) == INCORRECT


async def test_after_five_wrong_codes_the_right_one_is_refused(desk: Desk) -> None:
    sent = await texted(desk)
    for message in [verification(sent, sent.wrong)] * 3 + [registration(sent, sent.wrong)] * 2:
        await refusal(desk, message)
    assert await refusal(desk, verification(sent)) == NOT_FOUND
    assert await refusal(desk, registration(sent)) == INCORRECT


async def test_after_four_wrong_codes_the_right_one_is_taken(desk: Desk) -> None:
    sent = await texted(desk)
    for _ in range(4):
        await refusal(desk, verification(sent, sent.wrong))
    await desk.perform(verification(sent))


async def test_a_wrong_code_that_is_delivered_twice_counts_once(desk: Desk) -> None:
    sent = await texted(desk)
    wrong = verification(sent, sent.wrong)
    delivery = one_delivery(desk, wrong)
    for _ in range(2):
        assert await refusal(desk, wrong, **delivery) == NOT_FOUND
    [document] = await desk.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 1


async def test_of_many_wrong_codes_at_once_five_are_looked_at(desk: Desk) -> None:
    sent = await texted(desk)
    guesses = [f"{n:06}" for n in range(40) if f"{n:06}" != sent.code]
    outcomes = await asyncio.gather(*(refusal(desk, verification(sent, guess)) for guess in guesses))
    assert set(outcomes) == {NOT_FOUND}
    [document] = await desk.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 5


async def test_two_people_with_the_same_code_never_disturb_each_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.phone.handlers.new_code", lambda: "424242")
    hers, his = await texted(desk, NUMBER), await texted(desk, OTHER_NUMBER)
    assert hers.code == his.code == "424242"
    for _ in range(5):
        await refusal(desk, verification(his, "000000"))
    assert await refusal(desk, verification(his)) == NOT_FOUND
    assert claims(await desk.perform(verification(hers)))["userid"]
    again = await texted(desk, OTHER_NUMBER)
    user_ids = {claims(await desk.perform(verification(each)))["userid"] for each in [again]}
    assert len(user_ids | {user["_id"] for user in await users(desk)}) == 2


async def test_an_app_of_any_name_gets_a_token_for_itself(desk: Desk) -> None:
    said = claims(await desk.perform(verification(await texted(desk), clientid="app-7")))
    assert said["clientid"] == said["aud"] == "app-7"


async def test_a_disabled_client_is_told_and_the_code_stays_good(desk: Desk) -> None:
    sent = await texted(desk)
    await desk.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": desk.now}})
    assert await refusal(desk, verification(sent)) == ("forbidden", "client_disabled")
    await desk.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": None}})
    await desk.perform(verification(sent))


async def test_a_code_outlives_a_new_sealing_key(new_desk: Callable[..., Desk]) -> None:
    old = {"old": bytes(range(32))}
    async with opened(new_desk(old, **NO_LIMITS)) as desk:
        sent = await texted(desk)
    async with new_desk({"new": bytes(32), **old}, **NO_LIMITS) as desk:
        await desk.perform(verification(sent))
        again = await texted(desk)
        await desk.perform(verification(again))


async def test_guesses_at_codes_of_a_number_come_to_an_end_but_lock_nobody_out(new_desk: Callable[..., Desk]) -> None:
    """Ten an hour across codes; after that each nonce still has one try, which its own holder gets right."""
    async with opened(new_desk(**{**NO_LIMITS, "limit_guesses_per_identifier": "10/1h"})) as desk:
        for _ in range(2):
            strangers = await texted(desk)
            for _ in range(5):
                await refusal(desk, verification(strangers, strangers.wrong), caller=FROM)
        third = await texted(desk)
        assert await refusal(desk, verification(third, third.wrong), caller=FROM) == NOT_FOUND
        kind, _ = await refusal(desk, verification(third), caller=FROM)
        assert kind == "throttled"
        await desk.perform(verification(await texted(desk)), caller=Caller(client_ip="198.51.100.7"))


# --- register_phone_user


async def test_register_phone_user_makes_a_user_with_a_name(desk: Desk) -> None:
    view = await desk.perform(registration(await texted(desk), first_name=" Ada ", phone_number="41 79 123 45 67"))
    [user] = await users(desk)
    assert view == {"id": user["_id"], "first_name": "Ada", "last_name": "Lovelace", "phone_number": NUMBER}
    assert (user["firstName"], user["lastName"]) == ("Ada", "Lovelace")
    [identifier] = (await desk.perform(GetUser(user_id=user["_id"])))["identifiers"]
    assert identifier["verified_at"] is not None


async def test_register_fills_in_the_name_of_a_user_who_has_logged_in(desk: Desk) -> None:
    user_id = claims(await desk.perform(verification(await texted(desk))))["userid"]
    view = await desk.perform(registration(await texted(desk)))
    assert view["id"] == user_id
    [user] = await users(desk)
    assert (user["firstName"], user["lastName"]) == ("Ada", "Lovelace")


async def test_who_has_a_name_is_not_registered_again_and_may_log_in_with_the_code(desk: Desk) -> None:
    await desk.perform(registration(await texted(desk)))
    sent = await texted(desk)
    again = registration(sent, first_name="Grace")
    assert await refusal(desk, again) == ("conflict", "user_already_registered")
    [user] = await users(desk)
    assert user["firstName"] == "Ada"
    await desk.perform(verification(sent))


async def test_two_registrations_of_a_number_at_once_make_one_user(desk: Desk) -> None:
    sent = [await texted(desk) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(desk.perform(registration(each, first_name=f"Ada {n}")) for n, each in enumerate(sent)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    [made] = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert {each.code for each in refused} == {"user_already_registered"}
    [user] = await users(desk)
    assert (user["_id"], user["firstName"]) == (made["id"], made["first_name"])


async def test_second_delivery_of_a_registration_answers_the_same(desk: Desk) -> None:
    sent = await texted(desk)
    delivery = one_delivery(desk, registration(sent))
    first, second = [await desk.perform(registration(sent), **delivery) for _ in range(2)]
    assert first == second
    assert len(await users(desk)) == 1


async def test_register_uses_the_code_up(desk: Desk) -> None:
    sent = await texted(desk)
    await desk.perform(registration(sent))
    assert await refusal(desk, verification(sent)) == NOT_FOUND


async def test_register_refuses_a_wrong_code(desk: Desk) -> None:
    sent = await texted(desk)
    assert await refusal(desk, registration(sent, sent.wrong)) == INCORRECT
    assert await users(desk) == []


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
    desk: Desk, changed: dict[str, Any], code: str
) -> None:
    sent = await texted(desk)
    assert await refusal(desk, registration(sent, **changed)) == ("invalid", code)
    await desk.perform(registration(sent))


async def test_a_wrong_code_does_not_tell_whose_the_nonce_is(desk: Desk) -> None:
    sent = await texted(desk)
    assert await refusal(desk, registration(sent, sent.wrong, phone_number=OTHER_NUMBER)) == INCORRECT


async def test_users_from_before_there_were_names_can_be_given_one(desk: Desk) -> None:
    user_id = claims(await desk.perform(verification(await texted(desk))))["userid"]
    await desk.database["users"].update_one({"_id": user_id}, {"$unset": {"firstName": "", "lastName": ""}})
    assert (await desk.perform(registration(await texted(desk))))["id"] == user_id


# --- log_in_for_testing


async def test_log_in_for_testing_is_off_unless_the_settings_say_so(desk: Desk) -> None:
    user_id = claims(await desk.perform(verification(await texted(desk))))["userid"]
    order = LogInForTesting(userid=user_id, clientid=CLIENT)
    assert await refusal(desk, order) == ("not_found", "not_found")


async def test_log_in_for_testing_gives_a_token_of_the_user(new_desk: Callable[..., Desk]) -> None:
    async with opened(new_desk(**NO_LIMITS, test_login=True)) as desk:
        user_id = claims(await desk.perform(verification(await texted(desk))))["userid"]
        order = LogInForTesting(userid=user_id, clientid=CLIENT)
        delivery = one_delivery(desk, order)
        first, second = [await desk.perform(order, **delivery) for _ in range(2)]
        assert first == second
        assert (claims(first)["userid"], claims(first)["clientid"]) == (user_id, CLIENT)
        unknown: list[tuple[Message, str]] = [
            (LogInForTesting(userid="nobody", clientid=CLIENT), "not_found"),
            (LogInForTesting(userid='{"$gt": ""}', clientid=CLIENT), "not_found"),
        ]
        for message, code in unknown:
            assert await refusal(desk, message, id=new_message_id()) == ("not_found", code)
