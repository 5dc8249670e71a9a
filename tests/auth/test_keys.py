import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from pymongo import AsyncMongoClient, MongoClient

from services.auth.keys import SEALED_FOR, Keyring, make, open_keyring, thumbprint
from services.auth.models.signing_keys import Algorithm, KeyState
from services.auth.store.signing_keys import SigningKeys
from shared.mongo import connect, database, ensure_indexes
from shared.sealed import CannotOpen, Sealer
from tests.desk import Desk

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
SEALER = Sealer({"a": bytes(range(32))})
ALGORITHMS: list[Algorithm] = ["ES256", "ES512", "EdDSA"]


@pytest.fixture
async def client(mongo_url: str) -> Any:
    """A client of this test's own."""
    async with connect(mongo_url, application="tests") as client:
        yield client


@pytest.fixture
async def store(client: AsyncMongoClient[dict[str, Any]], database_prefix: str) -> SigningKeys:
    """An empty store of signing keys."""
    own = database(client, f"{database_prefix}auth")
    await ensure_indexes(own, {SigningKeys.COLLECTION: SigningKeys.INDEXES})
    return SigningKeys(own)


def test_a_name_is_the_thumbprint_of_rfc_8037_appendix_a_3() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "ignored"}
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_announced_of_a_key_is_its_public_half(algorithm: Algorithm) -> None:
    key = make(algorithm, SEALER, at=NOW)
    members = {"kty", "crv", "x", "y"} if algorithm != "EdDSA" else {"kty", "crv", "x"}
    assert key.public_jwk.keys() == members | {"kid", "alg", "use"}
    assert (key.public_jwk["kid"], key.public_jwk["alg"], key.public_jwk["use"]) == (key.id, algorithm, "sig")
    assert key.state is KeyState.ACTIVE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_first_start_makes_a_key_whose_signature_the_announced_half_verifies(
    store: SigningKeys, algorithm: Algorithm
) -> None:
    keyring = await open_keyring(store, SEALER, algorithm, at=NOW)
    [public] = keyring.public_keys
    assert public.key == public.kid == keyring.signing.kid
    token = jwt.encode({"a": 1}, keyring.signing.private_key, algorithm)
    assert jwt.decode(token, jwt.PyJWK(dict(public.jwk)), algorithms=[algorithm]) == {"a": 1}


async def test_a_later_start_finds_the_key(store: SigningKeys) -> None:
    first = await open_keyring(store, SEALER, "ES256", at=NOW)
    second = await open_keyring(store, SEALER, "ES256", at=NOW)
    assert second.signing.kid == first.signing.kid
    assert second.public_keys == first.public_keys


async def test_of_instances_that_start_at_once_one_makes_the_key(store: SigningKeys) -> None:
    keyrings: list[Keyring] = await asyncio.gather(*(open_keyring(store, SEALER, "ES256", at=NOW) for _ in range(10)))
    assert len({keyring.signing.kid for keyring in keyrings}) == 1
    assert len(await store.all()) == 1


async def test_another_algorithm_gets_its_own_key_and_the_old_one_stays_announced(store: SigningKeys) -> None:
    old = await open_keyring(store, SEALER, "ES256", at=NOW)
    new = await open_keyring(store, SEALER, "EdDSA", at=NOW)
    assert {key.kid for key in new.public_keys} == {old.signing.kid, new.signing.kid}


async def test_a_private_half_is_only_kept_sealed(store: SigningKeys, client: Any, database_prefix: str) -> None:
    await open_keyring(store, SEALER, "ES256", at=NOW)
    document = await client[f"{database_prefix}auth"]["signing_keys"].find_one({})
    assert document["private"].startswith("a.")
    assert "d" not in document["publicJwk"]
    with pytest.raises(CannotOpen):
        SEALER.open("auth", document["private"])
    assert SEALER.open(SEALED_FOR, document["private"])


async def test_a_master_key_that_is_gone_stops_the_start(store: SigningKeys) -> None:
    await open_keyring(store, SEALER, "ES256", at=NOW)
    with pytest.raises(CannotOpen, match="no sealing key 'a' is held"):
        await open_keyring(store, Sealer({"b": bytes(32)}), "ES256", at=NOW)


async def test_every_start_announces_the_keys(
    new_desk: Callable[..., Desk], mongo_client: MongoClient[dict[str, Any]]
) -> None:
    async with new_desk() as first, new_desk() as second:
        assert len(first.announced) == 1
        assert second.announced == first.announced
