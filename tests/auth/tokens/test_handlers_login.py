import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from shared.messages import Caller
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.auth.tokens import UserAuthenticated
from shared.messages.auth.users import EnsureUser, IdentifierVerified, UserCreated
from tests.auth.flows import (
    ADDRESS,
    CHALLENGE,
    CLIENT,
    OTHER_CLIENT,
    REDIRECT_URI,
    VERIFIER,
    WRONG_VERIFIER,
    logged_in,
    one_delivery,
    ordered_code,
    redemption,
    refusal,
)
from tests.service_harness import Refused, ServiceHarness

MALFORMED_CODES = ["id", ".key", "id.", "id.key.more", "."]


async def test_a_code_is_exchanged_for_tokens(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    answer = await harness.deliver(redemption(code))
    user = await harness.database["users"].find_one({})
    expires_at = harness.now.astimezone(UTC) + timedelta(hours=1)
    refresh_id = (await harness.database["refresh_tokens"].find_one({}))["_id"]
    assert answer["refresh_token"].startswith(f"01.{refresh_id}.")
    assert len(answer["refresh_token"].split(".")[2]) == 64
    assert {**answer, "access_token": "", "refresh_token": ""} == {
        "access_token": "",
        "token_type": "bearer",
        "expires_in": 3600,
        "expires_at": expires_at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{expires_at.microsecond // 1000:03d}Z",
        "refresh_token": "",
        "user_id": user["_id"],
        "client_id": CLIENT,
    }


async def test_the_access_token_says_exactly_what_the_page_lists(harness: ServiceHarness) -> None:
    harness.now = datetime(2030, 1, 2, 3, 4, 5, 678_000, UTC)
    answer = await logged_in(harness)
    keys = {event.kid: event for event in harness.published_at_start if isinstance(event, SigningKeyPublished)}
    header = jwt.get_unverified_header(answer["access_token"])
    published = keys[header["kid"]]
    assert header == {"alg": "ES256", "kid": published.kid, "typ": "JWT"}
    claims = jwt.decode(
        answer["access_token"],
        jwt.PyJWK(dict(published.jwk)),
        algorithms=["ES256"],
        audience=CLIENT,
        issuer="http://127.0.0.1:8080",
        options={"verify_exp": False, "verify_iat": False},
    )
    token = await harness.database["access_tokens"].find_one({})
    assert claims == {
        "v": "1",
        "jti": token["_id"],
        "iss": "http://127.0.0.1:8080",
        "sub": answer["user_id"],
        "aud": CLIENT,
        "iat": int(harness.now.timestamp()),
        "exp": int(harness.now.timestamp()) + 3600,
    }


async def test_a_login_keeps_what_the_page_on_data_at_rest_says(harness: ServiceHarness) -> None:
    code = await ordered_code(harness, device={"platform": "linux"})
    answer = await harness.deliver(redemption(code), caller=Caller(client_ip="203.0.113.77"))
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    authorization_id = code.split(".")[0]
    refresh_key = answer["refresh_token"].split(".")[2]

    authorization = await harness.database["authorizations"].find_one({})
    assert (authorization["usedAt"], authorization["revokedAt"], authorization["version"]) == (now, None, 2)
    user = await harness.database["users"].find_one({})
    assert (user["_id"], user["createdAt"], user["version"]) == (answer["user_id"], now, 1)
    identifier = await harness.database["identifiers"].find_one({})
    assert identifier.pop("_id").startswith("test_userident_")
    assert identifier == {
        "userId": answer["user_id"],
        "identifierType": "email",
        "identifierValue": ADDRESS,
        "createdAt": now,
        "updatedAt": now,
        "verifiedAt": now,
        "removedAt": None,
        "version": 1,
    }
    shared = {
        "clientId": CLIENT,
        "userId": answer["user_id"],
        "grant": {"type": "authorization_code", "value": authorization_id},
        "rootGrant": authorization_id,
        "cidrBlocks": [],
        "createdAt": now,
        "revokedAt": None,
        "network": "203.0.113.0/24",
        "version": 1,
    }
    access = await harness.database["access_tokens"].find_one({})
    access_token_id = access.pop("_id")
    assert access_token_id.startswith("test_acstok_")
    assert access == {**shared, "expiresAt": now + timedelta(hours=1)}
    refresh = await harness.database["refresh_tokens"].find_one({})
    assert refresh.pop("_id").startswith("test_reftok_")
    assert refresh == {
        **shared,
        "key": hashlib.sha256(refresh_key.encode()).hexdigest(),
        "expiresAt": now + timedelta(days=60),
        "chainBeganAt": now,
        "chainEndsAt": now + timedelta(days=365),
        "platform": "linux",
        "accessTokenId": access_token_id,
        "usedAt": None,
        "successor": None,
    }


async def test_the_first_login_makes_the_user_and_says_so(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    harness.clear()
    await harness.deliver(redemption(code))
    assert [type(event) for event in harness.published] == [UserCreated, IdentifierVerified, UserAuthenticated]


async def test_a_later_login_finds_the_user(harness: ServiceHarness) -> None:
    first = await logged_in(harness)
    code = await ordered_code(harness, identifier_value="ANA@EXAMPLE.COM")
    harness.clear()
    second = await harness.deliver(redemption(code))
    assert second["user_id"] == first["user_id"]
    assert [type(event) for event in harness.published] == [UserAuthenticated]
    assert await harness.database["users"].count_documents({}) == 1


async def test_a_login_verifies_an_identifier_that_was_not(harness: ServiceHarness) -> None:
    await harness.deliver(EnsureUser(reference="r", email=ADDRESS))
    [made] = harness.published_of(UserCreated)
    harness.now += timedelta(minutes=1)
    answer = await logged_in(harness)
    assert answer["user_id"] == made.user_id
    identifier = await harness.database["identifiers"].find_one({})
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    assert (identifier["verifiedAt"], identifier["updatedAt"], identifier["version"]) == (now, now, 2)
    assert len(harness.published_of(IdentifierVerified)) == 1


async def test_an_identifier_that_was_removed_is_free_for_a_new_user(harness: ServiceHarness) -> None:
    first = await logged_in(harness)
    await harness.database["identifiers"].update_one({}, {"$set": {"removedAt": harness.now}})
    second = await logged_in(harness)
    assert second["user_id"] != first["user_id"]


async def test_a_second_delivery_gives_the_same_tokens(harness: ServiceHarness) -> None:
    command = redemption(await ordered_code(harness))
    delivery = one_delivery(harness, command)
    answers = [await harness.deliver(command, **delivery) for _ in range(2)]
    assert answers[0] == answers[1]
    assert await harness.database["refresh_tokens"].count_documents({}) == 1


async def test_a_hex_challenge_of_an_old_client_is_met(harness: ServiceHarness) -> None:
    challenge = hashlib.sha256(b"short").hexdigest()
    code = await ordered_code(harness, code_challenge=challenge)
    assert (await harness.deliver(redemption(code, code_verifier="short")))["client_id"] == CLIENT


async def test_a_short_verifier_does_not_meet_a_challenge_of_the_rfc(harness: ServiceHarness) -> None:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"short").digest()).rstrip(b"=").decode()
    code = await ordered_code(harness, code_challenge=challenge)
    assert await refusal(harness, redemption(code, code_verifier="short")) == ("invalid", "incorrect_code_verifier")


@pytest.mark.parametrize("empty", [None, ""])
@pytest.mark.parametrize("field", ["code", "code_verifier", "redirect_uri"])
async def test_a_missing_field_is_named(harness: ServiceHarness, field: str, empty: str | None) -> None:
    assert await refusal(harness, redemption(**{"code": "a.b", field: empty})) == ("invalid", f"{field}_missing")


@pytest.mark.parametrize("code", MALFORMED_CODES)
async def test_a_code_that_is_not_id_and_key_is_malformed(harness: ServiceHarness, code: str) -> None:
    assert await refusal(harness, redemption(code)) == ("invalid", "malformed_code")


async def test_an_unknown_id_and_a_wrong_key_are_refused_alike(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    authorization_id, _, key = code.partition(".")
    for wrong in (
        f"authzcode_unknown.{key}",
        f"{authorization_id}.{'0' * 64}",
        f"{authorization_id}.ü",
        '{"$gt": ""}.k',
    ):
        assert await refusal(harness, redemption(wrong)) == ("not_found", "token_not_found")
    await harness.deliver(redemption(code))


async def test_a_code_is_good_for_one_use(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    await harness.deliver(redemption(code))
    assert await refusal(harness, redemption(code)) == ("conflict", "token_used")


async def test_a_code_expires_at_its_time(harness: ServiceHarness) -> None:
    code, in_time = await ordered_code(harness), await ordered_code(harness, identifier_value="bo@example.com")
    harness.now += timedelta(minutes=10) - timedelta(milliseconds=1)
    await harness.deliver(redemption(in_time))
    harness.now += timedelta(milliseconds=1)
    assert await refusal(harness, redemption(code)) == ("gone", "token_expired")


async def test_another_client_is_refused_and_takes_nothing_away(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    for client_id in (OTHER_CLIENT, "client_unknown"):
        assert await refusal(harness, redemption(code, client_id=client_id)) == ("forbidden", "incorrect_client")
    await harness.deliver(redemption(code))


async def test_another_redirect_uri_is_refused(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    wrong = redemption(code, redirect_uri=f"{REDIRECT_URI}/two?a=b")
    assert await refusal(harness, wrong) == ("invalid", "incorrect_redirect_uri")


async def test_a_client_disabled_since_is_refused(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    await harness.database["clients"].update_one({"_id": CLIENT}, {"$set": {"disabledAt": harness.now}})
    assert await refusal(harness, redemption(code)) == ("forbidden", "client_disabled")


async def test_four_wrong_verifiers_leave_a_code_good(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    for _ in range(4):
        wrong = redemption(code, code_verifier=WRONG_VERIFIER)
        assert await refusal(harness, wrong) == ("invalid", "incorrect_code_verifier")
    await harness.deliver(redemption(code))


async def test_five_wrong_verifiers_void_a_code(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    for _ in range(5):
        wrong = redemption(code, code_verifier=WRONG_VERIFIER)
        assert await refusal(harness, wrong) == ("invalid", "incorrect_code_verifier")
    assert await refusal(harness, redemption(code)) == ("not_found", "authorization_not_found")
    document = await harness.database["authorizations"].find_one({})
    assert document["wrongVerifiers"] == 5
    assert document["revokedAt"] is not None


async def test_wrong_verifiers_in_parallel_all_count(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    wrong = redemption(code, code_verifier=WRONG_VERIFIER)
    refusals = await asyncio.gather(*(refusal(harness, wrong) for _ in range(20)))
    assert refusals.count(("invalid", "incorrect_code_verifier")) == 5
    assert refusals.count(("not_found", "authorization_not_found")) == 15


async def test_one_wrong_verifier_delivered_twice_counts_once(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    wrong = redemption(code, code_verifier=WRONG_VERIFIER)
    delivery = one_delivery(harness, wrong)
    for _ in range(2):
        assert await refusal(harness, wrong, **delivery) == ("invalid", "incorrect_code_verifier")
    assert (await harness.database["authorizations"].find_one({}))["wrongVerifiers"] == 1


async def test_a_login_revokes_the_other_links_of_the_address_and_client(harness: ServiceHarness) -> None:
    older, used, newer = [await ordered_code(harness) for _ in range(3)]
    elsewhere = await ordered_code(harness, client_id=OTHER_CLIENT)
    somebody_elses = await ordered_code(harness, identifier_value="bo@example.com")
    await harness.deliver(redemption(used))
    for revoked in (older, newer):
        assert await refusal(harness, redemption(revoked)) == ("not_found", "authorization_not_found")
    await harness.deliver(redemption(elsewhere, client_id=OTHER_CLIENT))
    await harness.deliver(redemption(somebody_elses))


async def test_a_login_leaves_an_expired_link_to_be_refused_as_expired(harness: ServiceHarness) -> None:
    expired = await ordered_code(harness)
    harness.now += timedelta(minutes=11)
    await logged_in(harness)
    assert await refusal(harness, redemption(expired)) == ("gone", "token_expired")


async def test_of_a_hundred_parallel_redemptions_one_succeeds(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    answers = await asyncio.gather(*(harness.deliver(redemption(code)) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert [(one.kind, one.code) for one in refused] == [("conflict", "token_used")] * 99
    assert await harness.database["refresh_tokens"].count_documents({}) == 1
    assert await harness.database["access_tokens"].count_documents({}) == 1


async def test_parallel_first_logins_by_different_codes_make_one_user(harness: ServiceHarness) -> None:
    # Of one client's links the first one used would revoke the others.
    codes = {client_id: await ordered_code(harness, client_id=client_id) for client_id in (CLIENT, OTHER_CLIENT)}
    answers = await asyncio.gather(
        *(harness.deliver(redemption(code, client_id=client_id)) for client_id, code in codes.items())
    )
    assert len({answer["user_id"] for answer in answers}) == 1
    assert await harness.database["users"].count_documents({}) == 1
    assert await harness.database["identifiers"].count_documents({}) == 1
    assert len(harness.published_of(UserCreated)) == 1


async def test_of_parallel_redemptions_of_two_links_of_one_client_one_succeeds(harness: ServiceHarness) -> None:
    codes = [await ordered_code(harness) for _ in range(2)]
    answers = await asyncio.gather(*(harness.deliver(redemption(code)) for code in codes), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    [refused] = [answer for answer in answers if isinstance(answer, Refused)]
    assert refused.code == "authorization_not_found"


@pytest.mark.parametrize("grant_type", ["password", "", "AUTHORIZATION_CODE"])
async def test_another_grant_is_unsupported(harness: ServiceHarness, grant_type: str) -> None:
    with pytest.raises(Refused) as refused:
        await harness.deliver(redemption("a.b", grant_type=grant_type))
    assert refused.value.code == "unsupported_grant_type"
    assert refused.value.meta == {"grant_type": grant_type}


async def test_no_secret_is_readable_in_what_is_kept(harness: ServiceHarness) -> None:
    code = await ordered_code(harness)
    answer = await harness.deliver(redemption(code))
    secrets = [code.split(".")[1], VERIFIER, answer["access_token"], answer["refresh_token"].split(".")[2]]
    for name in await harness.database.list_collection_names():
        kept = json.dumps(await harness.database[name].find().to_list(), default=repr)
        assert not [secret for secret in secrets if secret in kept]
    assert CHALLENGE not in secrets
