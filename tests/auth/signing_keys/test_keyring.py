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
from tests.desk import Desk, Heard
from tests.stack import eventually

ALGORITHMS: list[Algorithm] = ["ES256", "ES512", "EdDSA"]
OLD, NEW = {"a": bytes(32)}, {"b": bytes(range(32))}


@pytest.fixture
async def empty(new_desk: Callable[..., Desk]) -> AsyncIterator[Desk]:
    """The auth service at its very first start."""
    async with new_desk() as desk:
        yield desk


def keys_said(desk: Desk) -> list[SigningKeyPublished]:
    return [message for message in desk.announced if isinstance(message, SigningKeyPublished)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_first_start_makes_a_key_and_announces_its_public_half(
    new_desk: Callable[..., Desk], algorithm: Algorithm
) -> None:
    async with new_desk(signing_algorithm=algorithm) as desk:
        signing = desk.context.keyring.signing
        [public] = keys_said(desk)
        assert public.key == public.kid == signing.kid
        token = jwt.encode({"a": 1}, signing.private_key, signing.algorithm)
        assert jwt.decode(token, jwt.PyJWK(dict(public.jwk)), algorithms=[algorithm]) == {"a": 1}


async def test_a_later_start_finds_the_key_and_announces_it_where_kafka_has_lost_it(
    empty: Desk, new_desk: Callable[..., Desk]
) -> None:
    async with new_desk() as second:
        assert second.context.keyring.signing.kid == empty.context.keyring.signing.kid
        assert keys_said(second) == keys_said(empty)


async def test_a_later_start_repeats_nothing_that_the_topic_has(empty: Desk, new_desk: Callable[..., Desk]) -> None:
    [public] = keys_said(empty)
    second = new_desk()
    second.topic = [Heard(public.topic, public.kid.encode(), public.model_dump_json().encode())]
    async with second:
        assert keys_said(second) == []
        assert second.context.keyring.signing.kid == public.kid


async def test_of_instances_that_start_at_once_one_makes_the_key(new_desk: Callable[..., Desk]) -> None:
    desks = [new_desk() for _ in range(5)]
    await asyncio.gather(*(desk.__aenter__() for desk in desks))
    assert len({desk.context.keyring.signing.kid for desk in desks}) == 1
    for desk in desks:
        await desk.__aexit__(None, None, None)


async def test_every_start_orders_what_is_due_and_that_the_clients_are_announced(
    desk: Desk, new_desk: Callable[..., Desk]
) -> None:
    async with new_desk(signing_algorithm="EdDSA") as later:
        said = [message for message in later.announced if not isinstance(message, SigningKeyPublished)]
        assert said[0] == KeepSigningKeys(key=KEYRING, algorithm="EdDSA")
        assert {each.client_id for each in said[1:] if isinstance(each, AnnounceClient)} == {"client_one", "client_two"}


async def test_a_private_half_is_only_kept_sealed(
    empty: Desk, mongo_client: MongoClient[dict[str, Any]], database_name: str
) -> None:
    document = mongo_client[database_name]["signing_keys"].find_one({})
    assert document is not None
    [key] = document["keys"]
    assert key["private"].startswith("test.")
    assert "d" not in key["publicJwk"]
    assert empty.sealer.open(SEALED_FOR, key["private"])


async def test_a_master_key_that_is_gone_stops_the_start_in_words(new_desk: Callable[..., Desk]) -> None:
    async with new_desk(master_keys=OLD):
        pass
    with pytest.raises(SettingsError, match="NEST_SEALING_KEYS: does not open the signing keys"):
        await new_desk(master_keys=NEW).__aenter__()


async def test_a_start_with_a_new_master_key_seals_the_keys_again(
    new_desk: Callable[..., Desk], mongo_client: MongoClient[dict[str, Any]], database_name: str
) -> None:
    async with new_desk(master_keys=OLD) as desk:
        kid = desk.context.keyring.signing.kid
    async with new_desk(master_keys=NEW | OLD):
        document = mongo_client[database_name]["signing_keys"].find_one({})
        assert document is not None
        assert document["keys"][0]["private"].startswith("b.")
    async with new_desk(master_keys=NEW) as desk:
        assert desk.context.keyring.signing.kid == kid


async def test_a_key_that_is_withdrawn_signs_no_more(empty: Desk) -> None:
    keyring: Keyring = empty.context.keyring
    kid = keyring.signing.kid
    keyring.take(Heard("auth.keys", kid.encode(), None))
    with pytest.raises(NoSigningKey):
        _ = keyring.signing
    assert keyring.find(kid) is None
    # Nor when the store is looked into again: it is not announced any more.
    await eventually(lambda: kid in keyring._private)
    with pytest.raises(NoSigningKey):
        _ = keyring.signing


@pytest.mark.parametrize("value", [b"", b"x", b"[]", b"{}", b"\xff", b'{"kid": "k", "jwk": {"kty": "oct"}}'])
async def test_garbage_on_the_topic_is_passed_over(empty: Desk, value: bytes) -> None:
    keyring: Keyring = empty.context.keyring
    kid = keyring.signing.kid
    keyring.take(Heard("auth.keys", b"k", value))
    assert keyring.signing.kid == kid
    assert keyring.announced == {kid}
