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
    disable_client,
    log_in,
    redeliverable,
    redemption,
    refusal,
    request_code,
)
from tests.service_harness import Refused, ServiceHarness

MALFORMED_CODES = ["id", ".key", "id.", "id.key.more", "."]


async def test_code_is_exchanged_for_tokens(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    tokens = await harness.deliver(redemption(code))
    user = await harness.database["users"].find_one({})
    expires_at = harness.now.astimezone(UTC) + timedelta(hours=1)
    refresh_id = (await harness.database["refresh_tokens"].find_one({}))["_id"]
    assert tokens["refresh_token"].startswith(f"01.{refresh_id}.")
    assert len(tokens["refresh_token"].split(".")[2]) == 64
    assert {**tokens, "access_token": "", "refresh_token": ""} == {
        "access_token": "",
        "token_type": "bearer",
        "expires_in": 3600,
        "expires_at": expires_at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{expires_at.microsecond // 1000:03d}Z",
        "refresh_token": "",
        "user_id": user["_id"],
        "client_id": CLIENT,
    }


async def test_access_token_has_exactly_the_documented_claims(harness: ServiceHarness) -> None:
    harness.now = datetime(2030, 1, 2, 3, 4, 5, 678_000, UTC)
    tokens = await log_in(harness)
    keys = {event.kid: event for event in harness.published_at_start if isinstance(event, SigningKeyPublished)}
    header = jwt.get_unverified_header(tokens["access_token"])
    published = keys[header["kid"]]
    assert header == {"alg": "ES256", "kid": published.kid, "typ": "JWT"}
    claims = jwt.decode(
        tokens["access_token"],
        jwt.PyJWK(dict(published.jwk)),
        algorithms=["ES256"],
        audience=CLIENT,
        issuer="http://127.0.0.1:8080",
        options={"verify_exp": False, "verify_iat": False},
    )
    token = await harness.database["refresh_tokens"].find_one({})
    assert claims == {
        "v": "1",
        "jti": token["accessTokenId"],
        "iss": "http://127.0.0.1:8080",
        "sub": tokens["user_id"],
        "aud": CLIENT,
        "iat": int(harness.now.timestamp()),
        "exp": int(harness.now.timestamp()) + 3600,
    }


async def test_login_stores_the_documented_fields(harness: ServiceHarness) -> None:
    code = await request_code(harness, device={"platform": "linux"})
    tokens = await harness.deliver(redemption(code), caller=Caller(client_ip="203.0.113.77"))
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    authorization_id = code.split(".")[0]
    refresh_key = tokens["refresh_token"].split(".")[2]

    authorization = await harness.database["authorizations"].find_one({})
    assert (authorization["usedAt"], authorization["revokedAt"], authorization["version"]) == (now, None, 2)
    user = await harness.database["users"].find_one({})
    assert (user["_id"], user["createdAt"], user["version"]) == (tokens["user_id"], now, 1)
    identifier = await harness.database["identifiers"].find_one({})
    assert identifier.pop("_id").startswith("test_userident_")
    assert identifier == {
        "userId": tokens["user_id"],
        "identifierType": "email",
        "identifierValue": ADDRESS,
        "createdAt": now,
        "updatedAt": now,
        "verifiedAt": now,
        "removedAt": None,
        "version": 1,
    }
    refresh = await harness.database["refresh_tokens"].find_one({})
    assert refresh.pop("_id").startswith("test_reftok_")
    assert refresh.pop("accessTokenId").startswith("test_acstok_")
    assert refresh == {
        "clientId": CLIENT,
        "userId": tokens["user_id"],
        "grant": {"type": "authorization_code", "value": authorization_id},
        "rootGrant": {"type": "authorization_code", "value": authorization_id},
        "cidrBlocks": ["203.0.113.0/24"],
        "createdAt": now,
        "revokedAt": None,
        "version": 1,
        "key": hashlib.sha256(refresh_key.encode()).hexdigest(),
        "previousKey": None,
        "chainKey": None,
        "expiresAt": now + timedelta(days=60),
        "chainBeganAt": now,
        "chainEndsAt": now + timedelta(days=365),
        "platform": "linux",
        "accessTokenExpiresAt": now + timedelta(hours=1),
        "previousAccessTokenId": None,
        "usedAt": None,
        "successor": None,
        "sealedReply": None,
    }
    assert await harness.database["access_tokens"].count_documents({}) == 0


async def test_first_login_creates_the_user_and_publishes_it(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    harness.clear()
    await harness.deliver(redemption(code))
    assert [type(event) for event in harness.published] == [
        *(UserCreated, IdentifierVerified, UserAuthenticated),
    ]


async def test_later_login_finds_the_user(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    code = await request_code(harness, identifier_value="ANA@EXAMPLE.COM")
    harness.clear()
    second = await harness.deliver(redemption(code))
    assert second["user_id"] == first["user_id"]
    assert [type(event) for event in harness.published] == [UserAuthenticated]
    assert await harness.database["users"].count_documents({}) == 1


async def test_login_verifies_an_unverified_identifier(harness: ServiceHarness) -> None:
    await harness.deliver(EnsureUser(reference="r", email=ADDRESS))
    [created] = harness.published_of(UserCreated)
    harness.now += timedelta(minutes=1)
    tokens = await log_in(harness)
    assert tokens["user_id"] == created.user_id
    identifier = await harness.database["identifiers"].find_one({})
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    assert (identifier["verifiedAt"], identifier["updatedAt"], identifier["version"]) == (now, now, 2)
    assert len(harness.published_of(IdentifierVerified)) == 1


async def test_removed_identifier_is_free_for_a_new_user(harness: ServiceHarness) -> None:
    first = await log_in(harness)
    await harness.database["identifiers"].update_one({}, {"$set": {"removedAt": harness.now}})
    second = await log_in(harness)
    assert second["user_id"] != first["user_id"]


async def test_second_delivery_returns_the_same_tokens(harness: ServiceHarness) -> None:
    command = redemption(await request_code(harness))
    delivery = redeliverable(harness, command)
    answers = [await harness.deliver(command, **delivery) for _ in range(2)]
    assert answers[0] == answers[1]
    assert await harness.database["refresh_tokens"].count_documents({}) == 1


async def test_hex_challenge_of_an_old_client_is_accepted(harness: ServiceHarness) -> None:
    challenge = hashlib.sha256(b"short").hexdigest()
    code = await request_code(harness, code_challenge=challenge)
    assert (await harness.deliver(redemption(code, code_verifier="short")))["client_id"] == CLIENT


async def test_short_verifier_does_not_match_an_rfc_challenge(harness: ServiceHarness) -> None:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"short").digest()).rstrip(b"=").decode()
    code = await request_code(harness, code_challenge=challenge)
    assert await refusal(harness, redemption(code, code_verifier="short")) == ("invalid", "incorrect_code_verifier")


@pytest.mark.parametrize("empty", [None, ""])
@pytest.mark.parametrize("field", ["code", "code_verifier", "redirect_uri"])
async def test_missing_field_is_named(harness: ServiceHarness, field: str, empty: str | None) -> None:
    assert await refusal(harness, redemption(**{"code": "a.b", field: empty})) == ("invalid", f"{field}_missing")


@pytest.mark.parametrize("code", MALFORMED_CODES)
async def test_code_without_id_and_key_is_malformed(harness: ServiceHarness, code: str) -> None:
    assert await refusal(harness, redemption(code)) == ("invalid", "malformed_code")


async def test_unknown_id_and_wrong_key_are_refused_alike(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    authorization_id, _, key = code.partition(".")
    for wrong in (
        f"authzcode_unknown.{key}",
        f"{authorization_id}.{'0' * 64}",
        f"{authorization_id}.ü",
        '{"$gt": ""}.k',
    ):
        assert await refusal(harness, redemption(wrong)) == ("not_found", "token_not_found")
    await harness.deliver(redemption(code))


async def test_code_can_be_used_once(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    await harness.deliver(redemption(code))
    assert await refusal(harness, redemption(code)) == ("conflict", "token_used")


async def test_code_expires(harness: ServiceHarness) -> None:
    expired, in_time = await request_code(harness), await request_code(harness, identifier_value="bo@example.com")
    harness.now += timedelta(minutes=10) - timedelta(milliseconds=1)
    await harness.deliver(redemption(in_time))
    harness.now += timedelta(milliseconds=1)
    assert await refusal(harness, redemption(expired)) == ("gone", "token_expired")


async def test_other_client_is_refused_and_the_code_stays_open(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    for client_id in (OTHER_CLIENT, "client_unknown"):
        assert await refusal(harness, redemption(code, client_id=client_id)) == ("forbidden", "incorrect_client")
    await harness.deliver(redemption(code))


async def test_other_redirect_uri_is_refused(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    wrong = redemption(code, redirect_uri=f"{REDIRECT_URI}/two?a=b")
    assert await refusal(harness, wrong) == ("invalid", "incorrect_redirect_uri")


async def test_client_disabled_meanwhile_is_refused(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    await disable_client(harness)
    assert await refusal(harness, redemption(code)) == ("forbidden", "client_disabled")


async def test_4_wrong_verifiers_leave_the_code_open(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    for _ in range(4):
        wrong = redemption(code, code_verifier=WRONG_VERIFIER)
        assert await refusal(harness, wrong) == ("invalid", "incorrect_code_verifier")
    await harness.deliver(redemption(code))


async def test_5_wrong_verifiers_void_the_code(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    for _ in range(5):
        wrong = redemption(code, code_verifier=WRONG_VERIFIER)
        assert await refusal(harness, wrong) == ("invalid", "incorrect_code_verifier")
    assert await refusal(harness, redemption(code)) == ("not_found", "authorization_not_found")
    document = await harness.database["authorizations"].find_one({})
    assert document["wrongVerifiers"] == 5
    assert document["revokedAt"] is not None


async def test_concurrent_wrong_verifiers_are_all_counted(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    wrong = redemption(code, code_verifier=WRONG_VERIFIER)
    refusals = await asyncio.gather(*(refusal(harness, wrong) for _ in range(20)))
    assert refusals.count(("invalid", "incorrect_code_verifier")) == 5
    assert refusals.count(("not_found", "authorization_not_found")) == 15


async def test_wrong_verifier_delivered_twice_is_counted_once(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    wrong = redemption(code, code_verifier=WRONG_VERIFIER)
    delivery = redeliverable(harness, wrong)
    for _ in range(2):
        assert await refusal(harness, wrong, **delivery) == ("invalid", "incorrect_code_verifier")
    assert (await harness.database["authorizations"].find_one({}))["wrongVerifiers"] == 1


async def test_login_revokes_other_links_of_the_address_and_client(harness: ServiceHarness) -> None:
    older, used, newer = [await request_code(harness) for _ in range(3)]
    other_client = await request_code(harness, client_id=OTHER_CLIENT)
    other_address = await request_code(harness, identifier_value="bo@example.com")
    await harness.deliver(redemption(used))
    for revoked in (older, newer):
        assert await refusal(harness, redemption(revoked)) == ("not_found", "authorization_not_found")
    await harness.deliver(redemption(other_client, client_id=OTHER_CLIENT))
    await harness.deliver(redemption(other_address))


async def test_login_leaves_expired_links_expired(harness: ServiceHarness) -> None:
    expired = await request_code(harness)
    harness.now += timedelta(minutes=11)
    await log_in(harness)
    assert await refusal(harness, redemption(expired)) == ("gone", "token_expired")


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.slow)])
async def test_one_of_many_concurrent_redemptions_succeeds(harness: ServiceHarness, count: int) -> None:
    code = await request_code(harness)
    results = await asyncio.gather(*(harness.deliver(redemption(code)) for _ in range(count)), return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) == 1
    refused = [result for result in results if isinstance(result, Refused)]
    assert [(each.kind, each.code) for each in refused] == [("conflict", "token_used")] * (count - 1)
    assert await harness.database["refresh_tokens"].count_documents({}) == 1


async def test_concurrent_first_logins_create_one_user(harness: ServiceHarness) -> None:
    # Two clients, since a login revokes the other links of its client.
    codes = {client_id: await request_code(harness, client_id=client_id) for client_id in (CLIENT, OTHER_CLIENT)}
    answers = await asyncio.gather(
        *(harness.deliver(redemption(code, client_id=client_id)) for client_id, code in codes.items())
    )
    assert len({answer["user_id"] for answer in answers}) == 1
    assert await harness.database["users"].count_documents({}) == 1
    assert await harness.database["identifiers"].count_documents({}) == 1
    assert len(harness.published_of(UserCreated)) == 1


async def test_one_of_two_concurrent_logins_to_one_client_succeeds(harness: ServiceHarness) -> None:
    codes = [await request_code(harness) for _ in range(2)]
    answers = await asyncio.gather(*(harness.deliver(redemption(code)) for code in codes), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    [refused] = [answer for answer in answers if isinstance(answer, Refused)]
    assert refused.code == "authorization_not_found"


@pytest.mark.parametrize("grant_type", ["password", "", "AUTHORIZATION_CODE"])
async def test_other_grant_types_are_unsupported(harness: ServiceHarness, grant_type: str) -> None:
    with pytest.raises(Refused) as refused:
        await harness.deliver(redemption("a.b", grant_type=grant_type))
    assert refused.value.code == "unsupported_grant_type"
    assert refused.value.meta == {}


async def test_stored_documents_contain_no_readable_secret(harness: ServiceHarness) -> None:
    code = await request_code(harness)
    tokens = await harness.deliver(redemption(code))
    secrets = [code.split(".")[1], VERIFIER, tokens["access_token"], tokens["refresh_token"].split(".")[2]]
    for name in await harness.database.list_collection_names():
        documents = json.dumps(await harness.database[name].find().to_list(), default=repr)
        assert not [secret for secret in secrets if secret in documents]
    assert CHALLENGE not in secrets
