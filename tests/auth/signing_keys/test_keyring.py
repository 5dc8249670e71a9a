import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from pymongo import MongoClient

from services.auth.signing_keys.key_pairs import SEALING_PURPOSE
from services.auth.signing_keys.keyring import Keyring
from shared.messages.auth.clients import AnnounceClient
from shared.messages.auth.errors import NoSigningKey
from shared.messages.auth.signing_keys import KEYRING, Algorithm, KeepSigningKeys, SigningKeyPublished
from shared.settings import SettingsError
from tests.service_harness import ServiceHarness, TopicRecord
from tests.stack import eventually

ALGORITHMS: list[Algorithm] = ["ES256", "ES512", "EdDSA"]
OLD, NEW = {"a": bytes(32)}, {"b": bytes(range(32))}


@pytest.fixture
async def empty(new_harness: Callable[..., ServiceHarness]) -> AsyncIterator[ServiceHarness]:
    """The auth service at the very first start."""
    async with new_harness() as harness:
        yield harness


def published_keys(harness: ServiceHarness) -> list[SigningKeyPublished]:
    return [message for message in harness.published_at_start if isinstance(message, SigningKeyPublished)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_first_start_generates_and_publishes_a_key(
    new_harness: Callable[..., ServiceHarness], algorithm: Algorithm
) -> None:
    async with new_harness(signing_algorithm=algorithm) as harness:
        key = harness.context.keyring.active
        [public] = published_keys(harness)
        assert public.key == public.kid == key.kid
        token = jwt.encode({"a": 1}, key.private_key, key.algorithm)
        assert jwt.decode(token, jwt.PyJWK(dict(public.jwk)), algorithms=[algorithm]) == {"a": 1}


async def test_later_start_publishes_a_key_that_the_topic_lacks(
    empty: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    async with new_harness() as second:
        assert second.context.keyring.active.kid == empty.context.keyring.active.kid
        assert published_keys(second) == published_keys(empty)


async def test_later_start_publishes_no_key_that_the_topic_has(
    empty: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    [public] = published_keys(empty)
    second = new_harness()
    second.topic = [TopicRecord(public.topic, public.kid.encode(), public.model_dump_json().encode())]
    async with second:
        assert published_keys(second) == []
        assert second.context.keyring.active.kid == public.kid


async def test_start_announces_a_key_again_that_was_announced_without_a_mac(
    empty: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    """By the release before: gateways that require a MAC would not know it."""
    [public] = published_keys(empty)
    second = new_harness()
    second.topic = [TopicRecord(public.topic, public.kid.encode(), public.model_dump_json().encode(), headers=())]
    async with second:
        assert published_keys(second) == [public]


async def test_withdrawal_is_ordered_again_if_a_withdrawn_key_returns(empty: ServiceHarness) -> None:
    """A copy of its record has a valid MAC."""
    [public] = published_keys(empty)
    jwk = {**public.jwk, "kid": "withdrawn"}
    empty.published_at_start.clear()
    empty.publish_to_followers(SigningKeyPublished(key="withdrawn", kid="withdrawn", jwk=jwk))
    await eventually(lambda: KeepSigningKeys(key=KEYRING) in empty.published_at_start, what="the order")


async def test_one_of_concurrent_starts_generates_the_key(new_harness: Callable[..., ServiceHarness]) -> None:
    harnesses = [new_harness() for _ in range(5)]
    await asyncio.gather(*(harness.__aenter__() for harness in harnesses))
    assert len({harness.context.keyring.active.kid for harness in harnesses}) == 1
    for harness in harnesses:
        await harness.__aexit__(None, None, None)


async def test_each_start_orders_due_changes_and_announces_clients(
    harness: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    async with new_harness(signing_algorithm="EdDSA") as later:
        messages = [message for message in later.published_at_start if not isinstance(message, SigningKeyPublished)]
        assert messages[0] == KeepSigningKeys(key=KEYRING, algorithm="EdDSA")
        assert {each.client_id for each in messages[1:] if isinstance(each, AnnounceClient)} == {
            "client_one",
            "client_two",
        }


async def test_private_key_is_stored_sealed(
    empty: ServiceHarness, mongo_client: MongoClient[dict[str, Any]], database_name: str
) -> None:
    document = mongo_client[database_name]["signing_keys"].find_one({})
    assert document is not None
    [key] = document["keys"]
    assert key["private"].startswith("test.")
    assert "d" not in key["publicJwk"]
    assert empty.sealer.unseal(SEALING_PURPOSE, key["private"])


async def test_missing_sealing_key_stops_the_start(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(master_keys=OLD):
        pass
    with pytest.raises(SettingsError, match="NEST_SEALING_KEYS: does not unseal the signing keys"):
        await new_harness(master_keys=NEW).__aenter__()


async def test_start_with_a_new_sealing_key_reseals_the_keys(
    new_harness: Callable[..., ServiceHarness], mongo_client: MongoClient[dict[str, Any]], database_name: str
) -> None:
    async with new_harness(master_keys=OLD) as harness:
        kid = harness.context.keyring.active.kid
    async with new_harness(master_keys=NEW | OLD):
        document = mongo_client[database_name]["signing_keys"].find_one({})
        assert document is not None
        assert document["keys"][0]["private"].startswith("b.")
    async with new_harness(master_keys=NEW) as harness:
        assert harness.context.keyring.active.kid == kid


async def test_withdrawn_key_does_not_sign(empty: ServiceHarness) -> None:
    keyring: Keyring = empty.context.keyring
    kid = keyring.active.kid
    keyring.apply(TopicRecord("auth.keys", kid.encode(), None))
    with pytest.raises(NoSigningKey):
        _ = keyring.active
    assert keyring.find(kid) is None
    # Nor after the next read of the store, since it is no longer published.
    await eventually(lambda: kid in keyring._private)
    with pytest.raises(NoSigningKey):
        _ = keyring.active


@pytest.mark.parametrize("value", [b"", b"x", b"[]", b"{}", b"\xff", b'{"kid": "k", "jwk": {"kty": "oct"}}'])
async def test_invalid_record_on_the_topic_is_ignored(empty: ServiceHarness, value: bytes) -> None:
    keyring: Keyring = empty.context.keyring
    kid = keyring.active.kid
    keyring.apply(TopicRecord("auth.keys", b"k", value))
    assert keyring.active.kid == kid
    assert keyring.published == {kid}
