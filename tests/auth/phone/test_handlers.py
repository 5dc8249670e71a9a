"""Login and registration by phone number, with a texted code."""

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
from shared.messages.auth.sessions import ListSessions
from shared.messages.auth.tokens import UserAuthenticated
from shared.messages.auth.users import GetUser, IdentifierVerified, UserCreated
from shared.messages.mailer.texts import SendText
from shared.messages.personal_data import EraseUser, EraseUserFromMailer, FindUser
from tests.auth.flows import CLIENT, REDIRECT_URI, redeliverable, refusal
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
class Sent:
    """Result of one request for a code: the nonce in the app, the code on the phone."""

    nonce: str
    code: str

    @property
    def wrong(self) -> str:
        return "000000" if self.code != "000000" else "000001"


@pytest.fixture
async def harness(new_harness: Callable[..., ServiceHarness]) -> AsyncIterator[ServiceHarness]:
    """The auth service, with no rate limits except the guesses per code."""
    async with with_client(new_harness(**NO_LIMITS)) as harness:
        yield harness


@asynccontextmanager
async def with_client(harness: ServiceHarness) -> AsyncIterator[ServiceHarness]:
    """Enter a harness, and register a client."""
    async with harness:
        await harness.deliver(CreateClient(id=CLIENT, name="An app", redirect_uris=(REDIRECT_URI,)))
        harness.clear()
        yield harness


async def send_code(harness: ServiceHarness, number: str = NUMBER, **options: Any) -> Sent:
    """Request a code, and read it from the text."""
    view = await harness.deliver(SendPhoneCode(phone_number=number), **options)
    text = harness.published_of(SendText)[-1]
    return Sent(view["nonce"], harness.variables_of(text)["code"])


def verification(sent: Sent, code: str | None = None, clientid: str = CLIENT) -> VerifyPhoneCode:
    return VerifyPhoneCode(code=Sealed.of(code or sent.code), nonce=Sealed.of(sent.nonce), clientid=clientid)


def registration(sent: Sent, code: str | None = None, **changed: Any) -> RegisterPhoneUser:
    names = {"first_name": "Ada", "last_name": "Lovelace", **changed}
    return RegisterPhoneUser(code=Sealed.of(code or sent.code), nonce=Sealed.of(sent.nonce), **names)


def claims(view: dict[str, Any]) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(view["token"], options={"verify_signature": False})
    return decoded


async def users(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["users"].find().to_list()


async def test_send_phone_code_texts_six_digits_and_returns_the_nonce(harness: ServiceHarness) -> None:
    view = await harness.deliver(SendPhoneCode(phone_number="41 79 123 45 67"))
    assert set(view) == {"nonce"}
    assert len(view["nonce"]) == 32
    [text] = harness.published
    assert isinstance(text, SendText)
    assert harness.unseal_secret("mailer", text.to) == NUMBER
    variables = harness.variables_of(text)
    assert len(variables.pop("code")) == 6
    assert variables == {"minutes": 10}
    assert text.expires_at - text.ordered_at == timedelta(minutes=10)


async def test_mexican_number_with_and_without_the_former_1_is_one_user(harness: ServiceHarness) -> None:
    logins = []
    for number in ("+52 55 1234 5678", "+52 1 55 1234 5678"):
        sent = await send_code(harness, number)
        logins.append(claims(await harness.deliver(verification(sent)))["userid"])
    assert logins[0] == logins[1]
    assert len(await users(harness)) == 1


async def test_user_with_a_stored_former_number_logs_in_and_is_erased(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await send_code(harness, "+52 55 1234 5678"))))["userid"]
    former = {"identifierValue": "+5215512345678"}
    await harness.database["identifiers"].update_one({"userId": user_id}, {"$set": former})
    for number in ("+52 55 1234 5678", "+52 1 55 1234 5678"):
        sent = await send_code(harness, number)
        assert claims(await harness.deliver(verification(sent)))["userid"] == user_id
        found = await harness.deliver(FindUser(identifier_type="phone", identifier_value=Sealed.of(number)))
        assert found["id"] == user_id
    assert len(await users(harness)) == 1
    harness.clear()
    await harness.deliver(EraseUser(user_id=user_id))
    assert await harness.database["phone_codes"].count_documents({}) == 0
    [part] = harness.published_of(EraseUserFromMailer)
    known = json.loads(harness.unseal_secret("mailer", part.identifiers))
    assert known == [["phone", "+525512345678"], ["phone", "+5215512345678"]]


async def test_requested_locales_are_passed_to_mailer(harness: ServiceHarness) -> None:
    await harness.deliver(SendPhoneCode(phone_number=NUMBER, locales=("gsw-CH", "de-CH", "en")))
    [text] = harness.published_of(SendText)
    assert (text.locale, text.other_locales) == ("gsw-CH", ("de-CH", "en"))


async def test_code_and_nonce_are_stored_as_hashes_only(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    [document] = await harness.database["phone_codes"].find().to_list()
    stored = repr([document, await harness.database["inbox"].find().to_list()])
    assert sent.nonce not in stored
    assert f"'{sent.code}'" not in stored
    assert document["code"].startswith("test.")


@pytest.mark.parametrize("text", ["", "no number", "+41", '{"$gt": ""}', "0791234567"])
async def test_send_phone_code_refuses_an_invalid_number(harness: ServiceHarness, text: str) -> None:
    assert await refusal(harness, SendPhoneCode(phone_number=text)) == ("invalid", "invalid_phone_number")
    assert harness.published == []


async def test_only_numbers_of_allowed_countries_are_texted(new_harness: Callable[..., ServiceHarness]) -> None:
    async with with_client(new_harness(**{**NO_LIMITS, "text_countries": "CH,LI"})) as harness:
        await send_code(harness)
        german = SendPhoneCode(phone_number="+4915112345678")
        assert await refusal(harness, german) == ("forbidden", "phone_number_not_allowed")


async def test_no_number_is_texted_by_default(new_harness: Callable[..., ServiceHarness]) -> None:
    async with with_client(new_harness()) as harness:
        command = SendPhoneCode(phone_number=NUMBER)
        assert await refusal(harness, command) == ("forbidden", "phone_number_not_allowed")


async def test_second_delivery_of_send_phone_code_sends_no_second_code(harness: ServiceHarness) -> None:
    delivery = redeliverable(harness, SendPhoneCode(phone_number=NUMBER))
    first, second = [await harness.deliver(SendPhoneCode(phone_number=NUMBER), **delivery) for _ in range(2)]
    assert first == second
    assert len(harness.published_of(SendText)) == 1
    assert await harness.database["phone_codes"].count_documents({}) == 1


async def test_number_gets_3_texts_in_10_minutes_and_10_a_day(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with with_client(new_harness(text_countries="all")) as harness:
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


async def test_network_that_has_logged_in_has_its_own_text_quota(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    async with with_client(new_harness(text_countries="all")) as harness:
        home, stranger = Caller(client_ip="203.0.113.9"), Caller(client_ip="198.51.100.1")
        await harness.deliver(verification(await send_code(harness, caller=home)), caller=home)
        for _ in range(2):
            await send_code(harness, caller=stranger)
        assert await refusal(harness, SendPhoneCode(phone_number=NUMBER), caller=stranger) == ("throttled", "throttled")
        await harness.deliver(verification(await send_code(harness, caller=home)), caller=home)


async def test_prefix_gets_20_texts_an_hour(new_harness: Callable[..., ServiceHarness]) -> None:
    async with with_client(new_harness(text_countries="all")) as harness:
        for n in range(20):
            await harness.deliver(SendPhoneCode(phone_number=f"+4179123{n:04}"), caller=FROM)
        with pytest.raises(Refused) as refused:
            await harness.deliver(SendPhoneCode(phone_number="+41791239999"), caller=FROM)
        assert refused.value.kind == "throttled"
        assert refused.value.meta["retry_after"] > 0
        await harness.deliver(SendPhoneCode(phone_number="+41791239999"), caller=Caller(client_ip="198.51.100.7"))


async def test_verify_phone_code_creates_the_user_and_returns_a_day_token(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    harness.clear()
    view = await harness.deliver(verification(sent))
    token_claims = claims(view)
    [user] = await users(harness)
    assert (user["firstName"], user["lastName"]) == ("", "")
    assert (token_claims["userid"], token_claims["clientid"]) == (user["_id"], CLIENT)
    assert (token_claims["sub"], token_claims["aud"], token_claims["v"]) == (user["_id"], CLIENT, "1")
    assert token_claims["exp"] - token_claims["iat"] == 24 * 3600
    assert jwt.get_unverified_header(view["token"])["typ"] == "JWT"
    [token] = await harness.database["access_tokens"].find().to_list()
    assert token_claims["jti"] == token["_id"]
    assert token["grant"]["type"] == "phone_code"
    assert token["expiresAt"] - token["createdAt"] == timedelta(days=1)
    kinds = [type(message) for message in harness.published if "audited" not in message.wire]
    assert kinds == [UserCreated, IdentifierVerified, UserAuthenticated]


async def test_number_becomes_a_verified_identifier(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await send_code(harness))))["userid"]
    view = await harness.deliver(GetUser(user_id=user_id))
    [identifier] = view["identifiers"]
    assert (identifier["identifier_type"], identifier["identifier_value"]) == ("phone", NUMBER)
    assert identifier["verified_at"] is not None
    assert set(view) == {"id", "created_at", "identifiers"}


async def test_next_login_finds_the_same_user(harness: ServiceHarness) -> None:
    first = claims(await harness.deliver(verification(await send_code(harness))))
    second = claims(await harness.deliver(verification(await send_code(harness, "41791234567"))))
    assert first["userid"] == second["userid"]
    assert first["jti"] != second["jti"]
    assert len(await users(harness)) == 1
    assert len(harness.published_of(IdentifierVerified)) == 1


async def test_code_can_be_used_once(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    await harness.deliver(verification(sent))
    assert await refusal(harness, verification(sent)) == NOT_FOUND
    assert await refusal(harness, registration(sent)) == INCORRECT


async def test_second_delivery_of_verify_phone_code_returns_the_same_token(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    delivery = redeliverable(harness, verification(sent))
    first, second = [await harness.deliver(verification(sent), **delivery) for _ in range(2)]
    assert first == second
    assert await harness.database["access_tokens"].count_documents({}) == 1


async def test_one_of_20_concurrent_verifications_succeeds(harness: ServiceHarness) -> None:
    sent = await send_code(harness)

    outcomes = await asyncio.gather(*(harness.deliver(verification(sent)) for _ in range(20)), return_exceptions=True)
    refused = [(outcome.kind, outcome.code) for outcome in outcomes if isinstance(outcome, Refused)]
    assert refused == [NOT_FOUND] * 19
    assert len(await users(harness)) == 1
    assert await harness.database["access_tokens"].count_documents({}) == 1


async def test_concurrent_verifications_of_a_new_number_create_one_user(harness: ServiceHarness) -> None:
    sent = [await send_code(harness) for _ in range(4)]
    views = await asyncio.gather(*(harness.deliver(verification(each)) for each in sent))
    assert len({claims(view)["userid"] for view in views}) == 1
    assert len(await users(harness)) == 1


@pytest.mark.parametrize("nonce", ["", "0" * 32, "x", '{"$gt": ""}', "a\x00b", "n" * 128])
async def test_unknown_nonce_is_refused(harness: ServiceHarness, nonce: str) -> None:
    sent = await send_code(harness)
    assert await refusal(harness, verification(Sent(nonce, sent.code))) == NOT_FOUND
    assert await refusal(harness, registration(Sent(nonce, sent.code))) == INCORRECT


@pytest.mark.parametrize(
    "code", ["", "12345", "1234567", '{"$gt": ""}', "\uff11\uff12\uff13\uff14\uff15\uff16", "123456 "]
)
async def test_malformed_code_counts_as_a_wrong_one(harness: ServiceHarness, code: str) -> None:
    sent = await send_code(harness)
    wrong = VerifyPhoneCode(code=Sealed.of(code), nonce=Sealed.of(sent.nonce), clientid=CLIENT)
    assert await refusal(harness, wrong) == NOT_FOUND
    [document] = await harness.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 1


async def test_code_is_valid_only_with_its_own_nonce(harness: ServiceHarness) -> None:
    first, second = await send_code(harness), await send_code(harness)
    swapped = Sent(first.nonce, second.code)
    if first.code != second.code:
        assert await refusal(harness, verification(swapped)) == NOT_FOUND
    await harness.deliver(verification(first))
    await harness.deliver(verification(second))


async def test_code_expires(harness: ServiceHarness) -> None:
    sent, late = await send_code(harness), await send_code(harness)
    harness.now += timedelta(minutes=10) - timedelta(milliseconds=1)
    await harness.deliver(verification(sent))
    harness.now += timedelta(milliseconds=1)
    assert await refusal(harness, verification(late)) == NOT_FOUND
    assert await refusal(harness, registration(late)) == INCORRECT


async def test_right_code_is_refused_after_5_wrong_ones(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    for message in [verification(sent, sent.wrong)] * 3 + [registration(sent, sent.wrong)] * 2:
        await refusal(harness, message)
    assert await refusal(harness, verification(sent)) == NOT_FOUND
    assert await refusal(harness, registration(sent)) == INCORRECT


async def test_right_code_is_accepted_after_4_wrong_ones(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    for _ in range(4):
        await refusal(harness, verification(sent, sent.wrong))
    await harness.deliver(verification(sent))


async def test_wrong_code_delivered_twice_is_counted_once(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    wrong = verification(sent, sent.wrong)
    delivery = redeliverable(harness, wrong)
    for _ in range(2):
        assert await refusal(harness, wrong, **delivery) == NOT_FOUND
    [document] = await harness.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 1


async def test_5_of_many_concurrent_wrong_codes_are_compared(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    guesses = [f"{n:06}" for n in range(40) if f"{n:06}" != sent.code]
    outcomes = await asyncio.gather(*(refusal(harness, verification(sent, guess)) for guess in guesses))
    assert set(outcomes) == {NOT_FOUND}
    [document] = await harness.database["phone_codes"].find().to_list()
    assert document["wrongCodes"] == 5


async def test_equal_codes_of_two_people_are_independent(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.phone.handlers.new_code", lambda: "424242")
    hers, his = await send_code(harness, NUMBER), await send_code(harness, OTHER_NUMBER)
    assert hers.code == his.code == "424242"
    for _ in range(5):
        await refusal(harness, verification(his, "000000"))
    assert await refusal(harness, verification(his)) == NOT_FOUND
    assert claims(await harness.deliver(verification(hers)))["userid"]
    again = await send_code(harness, OTHER_NUMBER)
    user_ids = {claims(await harness.deliver(verification(each)))["userid"] for each in [again]}
    assert len(user_ids | {user["_id"] for user in await users(harness)}) == 2


APP_NAMES = ["app-7", CLIENT.upper(), f" {CLIENT}", f"{CLIENT} ", '{"$gt": ""}', "", None, ...]
"""Names of apps that are no clients; ``...`` stands for an omitted field."""


@pytest.mark.parametrize("access_token_type", ["JWT", "at+jwt"])
async def test_only_the_token_of_a_registered_client_is_an_access_token(
    new_harness: Callable[..., ServiceHarness], access_token_type: str
) -> None:
    async with with_client(new_harness(**NO_LIMITS, access_token_type=access_token_type)) as harness:
        token = (await harness.deliver(verification(await send_code(harness))))["token"]
        assert jwt.get_unverified_header(token)["typ"] == access_token_type
        for name in APP_NAMES:
            sent = await send_code(harness)
            app = {} if name is ... else {"clientid": name}
            command = VerifyPhoneCode(code=Sealed.of(sent.code), nonce=Sealed.of(sent.nonce), **app)
            reply = await harness.deliver(command)
            # RFC 8725 section 3.11
            assert jwt.get_unverified_header(reply["token"])["typ"] == "phone+jwt", name
            expected = "" if name in (None, ...) else name
            assert (claims(reply)["clientid"], claims(reply)["aud"]) == (expected, expected)


@pytest.mark.parametrize("client", [{}, {"clientid": None}, {"clientid": ""}])
async def test_login_without_a_client_is_a_session(harness: ServiceHarness, client: dict[str, Any]) -> None:
    sent = await send_code(harness)
    command = VerifyPhoneCode(code=Sealed.of(sent.code), nonce=Sealed.of(sent.nonce), **client)
    token_claims = claims(await harness.deliver(command))
    [session] = await harness.deliver(ListSessions(user_id=token_claims["userid"]))
    assert session["client_id"] == ""


async def test_disabled_client_is_refused_and_the_code_stays_open(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    await harness.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": harness.now}})
    assert await refusal(harness, verification(sent)) == ("forbidden", "client_disabled")
    await harness.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": None}})
    await harness.deliver(verification(sent))


async def test_code_survives_a_change_of_sealing_keys(new_harness: Callable[..., ServiceHarness]) -> None:
    old = {"old": bytes(range(32))}
    async with with_client(new_harness(old, **NO_LIMITS)) as harness:
        sent = await send_code(harness)
    async with new_harness({"new": bytes(32), **old}, **NO_LIMITS) as harness:
        await harness.deliver(verification(sent))
        again = await send_code(harness)
        await harness.deliver(verification(again))


@pytest.mark.parametrize(
    ("limit", "others"),
    [
        ("limit_texts_per_country", ["+41791234570", "+41 44 668 18 00"]),
        ("limit_texts_per_deployment", ["+41791234570", "+4915112345678", "+12125551212"]),
    ],
)
async def test_caps_on_texts_count_all_numbers_and_networks(
    new_harness: Callable[..., ServiceHarness], limit: str, others: list[str]
) -> None:
    async with with_client(new_harness(**{**NO_LIMITS, limit: "2/1h"})) as harness:
        for number in (NUMBER, OTHER_NUMBER):
            await send_code(harness, number, caller=FROM)
        for place, number in enumerate(others):
            request = SendPhoneCode(phone_number=number)
            caller = Caller(client_ip=f"198.18.{place}.1")
            assert await refusal(harness, request, caller=caller) == ("throttled", "throttled")
        assert len(harness.published_of(SendText)) == 2
        harness.now += timedelta(hours=1, minutes=5)
        await send_code(harness, NUMBER, caller=FROM)


async def test_cap_of_a_country_leaves_others_alone(new_harness: Callable[..., ServiceHarness]) -> None:
    """Countries that share the calling code +1 are told apart."""
    async with with_client(new_harness(**{**NO_LIMITS, "limit_texts_per_country": "1/1h"})) as harness:
        for number in ("+12125551212", "+14165551212", "+18765551212", NUMBER):
            await send_code(harness, number)
            assert await refusal(harness, SendPhoneCode(phone_number=number)) == ("throttled", "throttled")


async def test_limit_of_guesses_does_not_lock_the_owner_out(
    new_harness: Callable[..., ServiceHarness],
) -> None:
    """Ten guesses an hour for all codes; afterwards the first try with each nonce is still compared."""
    async with with_client(new_harness(**{**NO_LIMITS, "limit_guesses_per_identifier": "10/1h"})) as harness:
        for _ in range(2):
            strangers = await send_code(harness)
            for _ in range(5):
                await refusal(harness, verification(strangers, strangers.wrong), caller=FROM)
        third = await send_code(harness)
        assert await refusal(harness, verification(third, third.wrong), caller=FROM) == NOT_FOUND
        kind, _ = await refusal(harness, verification(third), caller=FROM)
        assert kind == "throttled"
        await harness.deliver(verification(await send_code(harness)), caller=Caller(client_ip="198.51.100.7"))


async def test_register_phone_user_creates_a_user_with_a_name(harness: ServiceHarness) -> None:
    view = await harness.deliver(
        registration(await send_code(harness), first_name=" Ada ", phone_number="41 79 123 45 67")
    )
    [user] = await users(harness)
    assert view == {"id": user["_id"], "first_name": "Ada", "last_name": "Lovelace", "phone_number": NUMBER}
    assert (user["firstName"], user["lastName"]) == ("Ada", "Lovelace")
    [identifier] = (await harness.deliver(GetUser(user_id=user["_id"])))["identifiers"]
    assert identifier["verified_at"] is not None


async def test_register_phone_user_sets_the_name_of_an_existing_user(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await send_code(harness))))["userid"]
    view = await harness.deliver(registration(await send_code(harness)))
    assert view["id"] == user_id
    [user] = await users(harness)
    assert (user["firstName"], user["lastName"]) == ("Ada", "Lovelace")


async def test_user_with_a_name_is_refused_and_the_code_stays_open(harness: ServiceHarness) -> None:
    await harness.deliver(registration(await send_code(harness)))
    sent = await send_code(harness)
    again = registration(sent, first_name="Grace")
    assert await refusal(harness, again) == ("conflict", "user_already_registered")
    [user] = await users(harness)
    assert user["firstName"] == "Ada"
    await harness.deliver(verification(sent))


async def test_concurrent_registrations_of_a_number_create_one_user(harness: ServiceHarness) -> None:
    sent = [await send_code(harness) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(harness.deliver(registration(each, first_name=f"Ada {n}")) for n, each in enumerate(sent)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    [created] = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert {each.code for each in refused} == {"user_already_registered"}
    [user] = await users(harness)
    assert (user["_id"], user["firstName"]) == (created["id"], created["first_name"])


async def test_second_delivery_of_register_phone_user_returns_the_same(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    delivery = redeliverable(harness, registration(sent))
    first, second = [await harness.deliver(registration(sent), **delivery) for _ in range(2)]
    assert first == second
    assert len(await users(harness)) == 1


async def test_register_phone_user_uses_the_code(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    await harness.deliver(registration(sent))
    assert await refusal(harness, verification(sent)) == NOT_FOUND


async def test_register_phone_user_refuses_a_wrong_code(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
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
async def test_invalid_registration_is_refused_and_the_code_stays_open(
    harness: ServiceHarness, changed: dict[str, Any], code: str
) -> None:
    sent = await send_code(harness)
    assert await refusal(harness, registration(sent, **changed)) == ("invalid", code)
    await harness.deliver(registration(sent))


async def test_wrong_code_does_not_reveal_the_number_of_the_nonce(harness: ServiceHarness) -> None:
    sent = await send_code(harness)
    assert await refusal(harness, registration(sent, sent.wrong, phone_number=OTHER_NUMBER)) == INCORRECT


async def test_user_document_without_name_fields_can_be_registered(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await send_code(harness))))["userid"]
    await harness.database["users"].update_one({"_id": user_id}, {"$unset": {"firstName": "", "lastName": ""}})
    assert (await harness.deliver(registration(await send_code(harness))))["id"] == user_id


async def test_log_in_for_testing_is_off_by_default(harness: ServiceHarness) -> None:
    user_id = claims(await harness.deliver(verification(await send_code(harness))))["userid"]
    command = LogInForTesting(userid=user_id, clientid=CLIENT)
    assert await refusal(harness, command) == ("not_found", "not_found")


async def test_log_in_for_testing_returns_a_token_of_the_user(new_harness: Callable[..., ServiceHarness]) -> None:
    async with with_client(new_harness(**NO_LIMITS, test_login=True)) as harness:
        user_id = claims(await harness.deliver(verification(await send_code(harness))))["userid"]
        command = LogInForTesting(userid=user_id, clientid=CLIENT)
        delivery = redeliverable(harness, command)
        first, second = [await harness.deliver(command, **delivery) for _ in range(2)]
        assert first == second
        assert (claims(first)["userid"], claims(first)["clientid"]) == (user_id, CLIENT)
        assert jwt.get_unverified_header(first["token"])["typ"] == "JWT"
        other = await harness.deliver(LogInForTesting(userid=user_id, clientid="app-7"))
        assert jwt.get_unverified_header(other["token"])["typ"] == "phone+jwt"
        unknown: list[tuple[Message, str]] = [
            (LogInForTesting(userid="nobody", clientid=CLIENT), "not_found"),
            (LogInForTesting(userid='{"$gt": ""}', clientid=CLIENT), "not_found"),
        ]
        for message, code in unknown:
            assert await refusal(harness, message, id=new_message_id()) == ("not_found", code)
