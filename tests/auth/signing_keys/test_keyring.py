import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from pymongo import MongoClient

from services.auth.signing_keys.key_pairs import SEALED_FOR
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
    """The auth service at its very first start."""
    async with new_harness() as harness:
        yield harness


def keys_said(harness: ServiceHarness) -> list[SigningKeyPublished]:
    return [message for message in harness.published_at_start if isinstance(message, SigningKeyPublished)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_first_start_makes_a_key_and_announces_its_public_half(
    new_harness: Callable[..., ServiceHarness], algorithm: Algorithm
) -> None:
    async with new_harness(signing_algorithm=algorithm) as harness:
        signing = harness.context.keyring.signing
        [public] = keys_said(harness)
        assert public.key == public.kid == signing.kid
        token = jwt.encode({"a": 1}, signing.private_key, signing.algorithm)
        assert jwt.decode(token, jwt.PyJWK(dict(public.jwk)), algorithms=[algorithm]) == {"a": 1}


async def test_a_later_start_finds_the_key_and_announces_it_where_kafka_has_lost_it(
    empty: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    async with new_harness() as second:
        assert second.context.keyring.signing.kid == empty.context.keyring.signing.kid
        assert keys_said(second) == keys_said(empty)


async def test_a_later_start_repeats_nothing_that_the_topic_has(
    empty: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    [public] = keys_said(empty)
    second = new_harness()
    second.topic = [TopicRecord(public.topic, public.kid.encode(), public.model_dump_json().encode())]
    async with second:
        assert keys_said(second) == []
        assert second.context.keyring.signing.kid == public.kid


async def test_of_instances_that_start_at_once_one_makes_the_key(new_harness: Callable[..., ServiceHarness]) -> None:
    harnesses = [new_harness() for _ in range(5)]
    await asyncio.gather(*(harness.__aenter__() for harness in harnesses))
    assert len({harness.context.keyring.signing.kid for harness in harnesses}) == 1
    for harness in harnesses:
        await harness.__aexit__(None, None, None)


async def test_every_start_orders_what_is_due_and_that_the_clients_are_announced(
    harness: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    async with new_harness(signing_algorithm="EdDSA") as later:
        said = [message for message in later.published_at_start if not isinstance(message, SigningKeyPublished)]
        assert said[0] == KeepSigningKeys(key=KEYRING, algorithm="EdDSA")
        assert {each.client_id for each in said[1:] if isinstance(each, AnnounceClient)} == {"client_one", "client_two"}


async def test_a_private_half_is_only_kept_sealed(
    empty: ServiceHarness, mongo_client: MongoClient[dict[str, Any]], database_name: str
) -> None:
    document = mongo_client[database_name]["signing_keys"].find_one({})
    assert document is not None
    [key] = document["keys"]
    assert key["private"].startswith("test.")
    assert "d" not in key["publicJwk"]
    assert empty.sealer.unseal(SEALED_FOR, key["private"])


async def test_a_master_key_that_is_gone_stops_the_start_in_words(new_harness: Callable[..., ServiceHarness]) -> None:
    async with new_harness(master_keys=OLD):
        pass
    with pytest.raises(SettingsError, match="NEST_SEALING_KEYS: does not open the signing keys"):
        await new_harness(master_keys=NEW).__aenter__()


async def test_a_start_with_a_new_master_key_seals_the_keys_again(
    new_harness: Callable[..., ServiceHarness], mongo_client: MongoClient[dict[str, Any]], database_name: str
) -> None:
    async with new_harness(master_keys=OLD) as harness:
        kid = harness.context.keyring.signing.kid
    async with new_harness(master_keys=NEW | OLD):
        document = mongo_client[database_name]["signing_keys"].find_one({})
        assert document is not None
        assert document["keys"][0]["private"].startswith("b.")
    async with new_harness(master_keys=NEW) as harness:
        assert harness.context.keyring.signing.kid == kid


async def test_a_key_that_is_withdrawn_signs_no_more(empty: ServiceHarness) -> None:
    keyring: Keyring = empty.context.keyring
    kid = keyring.signing.kid
    keyring.take(TopicRecord("auth.keys", kid.encode(), None))
    with pytest.raises(NoSigningKey):
        _ = keyring.signing
    assert keyring.find(kid) is None
    # Nor when the store is looked into again: it is not announced any more.
    await eventually(lambda: kid in keyring._private)
    with pytest.raises(NoSigningKey):
        _ = keyring.signing


@pytest.mark.parametrize("value", [b"", b"x", b"[]", b"{}", b"\xff", b'{"kid": "k", "jwk": {"kty": "oct"}}'])
async def test_garbage_on_the_topic_is_passed_over(empty: ServiceHarness, value: bytes) -> None:
    keyring: Keyring = empty.context.keyring
    kid = keyring.signing.kid
    keyring.take(TopicRecord("auth.keys", b"k", value))
    assert keyring.signing.kid == kid
    assert keyring.announced == {kid}
