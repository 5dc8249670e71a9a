"""Entitlements from billing's events to access tokens."""

import asyncio
from datetime import timedelta
from typing import Any

import jwt

from services.auth.tokens.signer import MAX_TOKEN_LENGTH
from shared.ids import new_message_id
from shared.messages.auth.clients import UpdateClient
from shared.messages.auth.tokens import AccessTokenRevoked
from shared.messages.billing.entitlements import EntitlementsChanged
from shared.messages.personal_data import EraseUser
from tests.auth.flows import CLIENT, OTHER_CLIENT, log_in, refresh
from tests.service_harness import ServiceHarness


def claims_of(tokens: dict[str, Any]) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    return {name: value for name, value in claims.items() if name.startswith("ent")}


def changed(user_id: str, version: int, *features: str) -> EntitlementsChanged:
    return EntitlementsChanged(key=user_id, user_id=user_id, features=features, version=version)


async def asking(harness: ServiceHarness) -> None:
    await harness.deliver(UpdateClient(id=CLIENT, entitlements_claim=True))


async def test_changed_entitlement_is_in_the_next_token_and_ends_no_session(harness: ServiceHarness) -> None:
    await asking(harness)
    tokens = await log_in(harness)
    assert claims_of(tokens) == {"ent": [], "ent_v": 0}
    user_id = tokens["user_id"]
    harness.clear()
    await harness.deliver(changed(user_id, 1, "export", "seats"))
    assert harness.published == []
    assert await harness.database["refresh_tokens"].count_documents({"revokedAt": None}) == 1
    tokens = await harness.deliver(refresh(tokens["refresh_token"]))
    assert claims_of(tokens) == {"ent": ["export", "seats"], "ent_v": 1}
    await harness.deliver(changed(user_id, 2))
    assert claims_of(await harness.deliver(refresh(tokens["refresh_token"]))) == {"ent": [], "ent_v": 2}
    assert claims_of(await log_in(harness)) == {"ent": [], "ent_v": 2}
    assert len(harness.published_of(AccessTokenRevoked)) == 2, "of the two refreshes"


async def test_only_tokens_of_clients_that_ask_for_it_have_the_claims(harness: ServiceHarness) -> None:
    tokens = await log_in(harness)
    await harness.deliver(changed(tokens["user_id"], 1, "export"))
    assert claims_of(await log_in(harness)) == {}
    await asking(harness)
    assert claims_of(await harness.deliver(refresh(tokens["refresh_token"]))) == {"ent": ["export"], "ent_v": 1}
    assert claims_of(await log_in(harness, client_id=OTHER_CLIENT)) == {}


async def test_repeated_refresh_whose_access_token_expired_has_the_newest_features(harness: ServiceHarness) -> None:
    await asking(harness)
    tokens = await log_in(harness)
    await harness.deliver(refresh(tokens["refresh_token"]))
    await harness.deliver(changed(tokens["user_id"], 1, "export"))
    assert claims_of(await harness.deliver(refresh(tokens["refresh_token"]))) == {"ent": [], "ent_v": 0}
    harness.now += timedelta(hours=2)
    assert claims_of(await harness.deliver(refresh(tokens["refresh_token"]))) == {"ent": ["export"], "ent_v": 1}


async def test_older_and_repeated_changes_are_ignored(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    message_id = new_message_id()
    for _ in range(2):
        await harness.deliver(changed(user_id, 7, "export"), id=message_id)
    await harness.deliver(changed(user_id, 6, "seats"))
    await asyncio.gather(*(harness.deliver(changed(user_id, 8 + number, f"f{number}")) for number in range(5)))
    document = await harness.database["entitlements"].find_one({"_id": user_id})
    assert (document["features"], document["entV"]) == (["f4"], 12)


async def test_largest_claim_fits_a_token_that_is_verified(harness: ServiceHarness) -> None:
    await asking(harness)
    user_id = (await log_in(harness))["user_id"]
    await harness.deliver(changed(user_id, 1, *(f"{number:026}" for number in range(50))))
    tokens = await log_in(harness)
    assert len(claims_of(tokens)["ent"]) == 50
    assert len(tokens["access_token"]) < MAX_TOKEN_LENGTH * 2 / 3
    claims = harness.context.signer.verify(tokens["access_token"], typ="JWT", audience=CLIENT, at=harness.now)
    assert claims["ent_v"] == 1


async def test_event_about_an_erased_or_unknown_user_stores_nothing(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    await harness.deliver(EraseUser(user_id=user_id))
    for gone in (user_id, "user_unknown"):
        await harness.deliver(changed(gone, 1, "export"))
    assert await harness.database["entitlements"].count_documents({}) == 0
