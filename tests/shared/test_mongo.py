"""Options of a connection string that would weaken the guarantees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient, IndexModel
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError
from pymongo.read_preferences import ReadPreference

from services.embedded import ports
from services.embedded.mongo import find_mongod, mongod_environment
from shared.indexes import expiry_index, growing_index
from shared.mongo import (
    UnfitServer,
    check_server,
    connect,
    database,
    dependency_down,
    describe_failure,
    drop_indexes,
    ensure_indexes,
    refusal,
    responds,
    usable,
)
from shared.mongo_urls import OptionNotPermitted
from shared.paging import NewestFirst
from shared.settings import ServiceSettings, SettingsError, load
from tests.certificates import Authority
from tests.production import KAFKA
from tests.shared.bus_harness import wait_until

KEY = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
REFUSED = [
    ("readPreference=secondaryPreferred", "readPreference"),
    ("readPreference=nearest", "readPreference"),
    ("readpreference=primaryPreferred", "readPreference"),
    ("readPreference=secondary&readPreferenceTags=dc:ny", "readPreference"),
    ("readPreferenceTags=dc:ny,rack:1", "readPreferenceTags"),
    ("maxStalenessSeconds=120", "maxStalenessSeconds"),
    ("readConcernLevel=local", "readConcernLevel"),
    ("readConcernLevel=linearizable", "readConcernLevel"),
    ("retryWrites=false", "retryWrites"),
    ("RETRYWRITES=FALSE", "retryWrites"),
    ("retryReads=false", "retryReads"),
    ("w=0", "w"),
    ("w=1", "w"),
    ("w=3", "w"),
    ("w=majority&w=1", "w"),
    ("w=a+tag", "w"),
    ("replicaSet=rs0& W =1", "w"),
    ("w=", "w"),
    ("wTimeoutMS=500", "wTimeoutMS"),
    ("w=majority&wtimeoutMS=500", "wTimeoutMS"),
    ("wtimeout=500", "wtimeout"),
    ("journal=false", "journal"),
    ("j=false", "j"),
    ("fsync=true", "fsync"),
    ("replicaSet=rs0;readPreference=secondary", "readPreference"),
    ("appName=a?b&readPreference=secondary", "readPreference"),
]
PERMITTED = [
    "",
    "?replicaSet=rs0",
    "?retryWrites=true&w=majority",
    "?w=majority&journal=true&readConcernLevel=majority&readPreference=primary&retryReads=true",
    "?retryWrites=true;w=m%61jority",
    "?authSource=admin&tls=true&appName=Cluster0&compressors=zlib",
    "?directConnection=true",
    "?timeoutMS=1&socketTimeoutMS=1&maxPoolSize=1",
]


@pytest.mark.parametrize(("options", "name"), REFUSED)
def test_option_that_weakens_the_guarantees_is_refused_by_name(
    options: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB manual, Connection String Options."""
    url = f"mongodb://nest:hunter2@mongo.test/?{options}"
    monkeypatch.setenv("NEST_MONGO_URL", url)
    with pytest.raises(SettingsError) as refused:
        load(ServiceSettings, kafka_bootstrap="kafka:9092", sealing_keys=KEY, **KAFKA)
    assert str(refused.value).startswith(f"NEST_MONGO_URL: remove the option {name}")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(OptionNotPermitted, match=f"remove the option {name}[, ]"):
        connect(url, application="test")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("tlsCAFile={missing}", "tlsCAFile names a file that cannot be read"),
        ("tls=true&tlsCAFile={text}", "tlsCAFile names a file without PEM certificates"),
        ("tls=true&tlsCertificateKeyFile={missing}", "tlsCertificateKeyFile names a file that cannot be read"),
        ("tls=true&tlsCertificateKeyFile={text}", "tlsCertificateKeyFile names a file without a PEM certificate"),
        (
            "tls=true&tlsCertificateKeyFile={certificate}",
            "tlsCertificateKeyFile names a file without a PEM certificate",
        ),
        ("tls=true&tlsCertificateKeyFile={encrypted}", "tlsCertificateKeyFile names a file without a PEM certificate"),
        ("tls=true&tlsCRLFile={text}", "tlsCRLFile names a file without PEM certificates"),
        ("tls=true&tlsCAFile={ca}&tlsCertificateKeyFile={both}", ""),
        ("tls=true&tlsCertificateKeyFile={encrypted}&tlsCertificateKeyFilePassword=sesame", ""),
    ],
)
def test_a_wrong_tls_file_is_refused_by_the_name_of_its_option(options: str, reason: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued, encrypted = authority.issue("news"), authority.issue("encrypted", password="sesame")
    (tmp_path / "text").write_text("no certificate")
    files = {
        "missing": tmp_path / "missing",
        "text": tmp_path / "text",
        "ca": authority.ca_file,
        "certificate": issued.certificate,
        "both": issued.both,
        "encrypted": encrypted.both,
    }
    url = f"mongodb://nest:hunter2@mongo.test/?{options.format(**files)}"
    values = {"environment": "test", "mongo_url": url, "kafka_bootstrap": "kafka:9092", "sealing_keys": KEY}
    if not reason:
        assert load(ServiceSettings, **values).mongo_url.get_secret_value() == url
        return
    with pytest.raises(SettingsError) as refused:
        load(ServiceSettings, **values)
    assert str(refused.value).startswith(f"NEST_MONGO_URL: {reason}")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("options", PERMITTED)
async def test_every_other_url_gives_the_same_guarantees(options: str) -> None:
    url = f"mongodb://mongo.test/{options}"
    assert (
        load(
            ServiceSettings, environment="test", mongo_url=url, kafka_bootstrap="kafka:9092", sealing_keys=KEY
        ).mongo_url.get_secret_value()
        == url
    )
    async with connect(url, application="test") as client:
        opened = database(client, "nest_test")
        for each in (client, opened, opened["users"]):
            assert each.write_concern.document == {"w": "majority", "j": True}
            assert each.read_concern.document == {"level": "majority"}
            assert each.read_preference == ReadPreference.PRIMARY
        assert (client.options.retry_writes, client.options.retry_reads) == (True, True)
        assert (client.options.timeout, client.options.pool_options.max_pool_size) == (2.5, 64)


@asynccontextmanager
async def mongod(folder: Path, *options: str) -> AsyncIterator[int]:
    """Run a mongod with these options; yields its port."""
    port, data = ports.any_free(), folder / "data"
    data.mkdir()
    command = [str(find_mongod()), "--dbpath", str(data), "--bind_ip", "127.0.0.1", "--port", str(port), *options]
    process = await asyncio.create_subprocess_exec(
        *command, env=mongod_environment(folder), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await wait_until(lambda: answers(port), 60)
        yield port
    finally:
        process.kill()
        await process.wait()


async def answers(port: int) -> bool:
    async with AsyncMongoClient("127.0.0.1", port, directConnection=True, timeoutMS=500) as client:
        return await responds(client)


@pytest.mark.parametrize("query", ["", "?replicaSet=rs0"])
async def test_standalone_server_is_refused_in_one_line(query: str, tmp_path: Path) -> None:
    async with mongod(tmp_path) as port:
        url = SecretStr(f"mongodb://127.0.0.1:{port}/{query}")
        async with connect(url, application="test") as client:
            with pytest.raises(UnfitServer, match=r"^is a standalone server\. Nest needs a replica set.*rs\.initiate"):
                await check_server(client, url)
            assert not await usable(database(client, "test").rows)


async def test_transaction_on_a_standalone_server_is_an_outage(tmp_path: Path) -> None:
    async with mongod(tmp_path) as port, connect(f"mongodb://127.0.0.1:{port}/", application="test") as client:
        rows = database(client, "test").rows
        with pytest.raises(OperationFailure) as failed:
            async with client.start_session() as session, await session.start_transaction():
                await rows.insert_one({}, session=session)
    assert (refusal(failed.value) or "").startswith("is a standalone server")
    assert dependency_down(failed.value)


async def test_replica_set_that_is_not_initiated_is_waited_for(tmp_path: Path) -> None:
    async with mongod(tmp_path, "--replSet", "rs0") as port:
        url = SecretStr(f"mongodb://127.0.0.1:{port}/?replicaSet=rs0")
        async with connect(url, application="test") as client:
            with pytest.raises(ServerSelectionTimeoutError) as failed:
                await check_server(client, url)
    assert "Topology" not in describe_failure(failed.value)


async def test_another_replica_set_than_that_of_the_url_is_refused(mongo_url: str) -> None:
    url = SecretStr(mongo_url.replace("rs0", "rs1"))
    async with connect(url, application="test") as client:
        with pytest.raises(UnfitServer, match="is the replica set rs0, and the URL names rs1"):
            await check_server(client, url)


async def test_fit_server_passes_the_check_and_the_probe(mongo_url: str) -> None:
    for text in (mongo_url, mongo_url.partition("?")[0]):
        async with connect(text, application="test") as client:
            await check_server(client, SecretStr(text))
            assert await usable(database(client, "test").rows)


async def test_new_collections_are_compressed_with_zstd(mongo_url: str, database_prefix: str) -> None:
    async with connect(mongo_url, application="test") as client:
        created = database(client, f"{database_prefix}compression")
        await ensure_indexes(created, {"rows": [IndexModel("at")]})
        await created["rows"].insert_one({"_id": 1})
        (stats,) = await (await created["rows"].aggregate([{"$collStats": {"storageStats": {}}}])).to_list()
        await client.drop_database(created.name)
    assert "block_compressor=zstd" in stats["storageStats"]["wiredTiger"]["creationString"]


async def test_new_indexes_whose_keys_grow_are_compressed(mongo_url: str, database_prefix: str) -> None:
    async with connect(mongo_url, application="test") as client:
        own = database(client, f"{database_prefix}growing")
        await ensure_indexes(
            own, {"rows": [expiry_index("at", timedelta(hours=1)), growing_index([("kind", 1), ("at", 1)])]}
        )
        await ensure_indexes(own, {"rows": [NewestFirst("at").index("userId", scattered=True)]})
        (stats,) = await (await own.rows.aggregate([{"$collStats": {"storageStats": {}}}])).to_list()
        await client.drop_database(own.name)
    compressed = {
        name: "block_compressor=zstd" in details["creationString"]
        for name, details in stats["storageStats"]["indexDetails"].items()
    }
    assert compressed == {"_id_": False, "at_1": True, "kind_1_at_1": True, "userId_1_at_-1__id_-1": False}


async def test_indexes_of_an_earlier_release_keep_their_storage(mongo_url: str, database_prefix: str) -> None:
    wanted = [expiry_index("at", timedelta(hours=1)), growing_index([("kind", 1), ("at", 1)])]
    async with connect(mongo_url, application="test") as client:
        own = database(client, f"{database_prefix}storage")
        earlier = [IndexModel("at", expireAfterSeconds=3600), IndexModel([("kind", 1), ("at", 1)])]
        await own.rows.create_indexes(earlier)
        await own.command("profile", 2)
        await ensure_indexes(own, {"rows": wanted})
        await own.command("profile", 0)
        changes = await own["system.profile"].count_documents({"command.collMod": "rows"})
        existing = await own.rows.index_information()
        await client.drop_database(own.name)
    assert {name: dict(index["key"]) for name, index in existing.items()} == {
        "_id_": {"_id": 1},
        "at_1": {"at": 1},
        "kind_1_at_1": {"kind": 1, "at": 1},
    }
    assert not any("storageEngine" in index for index in existing.values())
    assert not changes, "readWrite does not permit collMod, so it is for a changed retention alone"


async def test_changed_expiry_of_an_index_of_an_earlier_release_takes_effect(
    mongo_url: str, database_prefix: str
) -> None:
    async with connect(mongo_url, application="test") as client:
        own = database(client, f"{database_prefix}expiry")
        await own.rows.create_indexes([IndexModel("at", expireAfterSeconds=5)])
        await ensure_indexes(own, {"rows": [expiry_index("at", timedelta(hours=1))]})
        existing = await own.rows.index_information()
        await client.drop_database(own.name)
    assert existing["at_1"]["expireAfterSeconds"] == 3600


async def test_user_of_a_service_needs_another_role_only_to_change_an_expiry(tmp_path: Path) -> None:
    async with mongod(tmp_path, "--auth") as port:
        async with AsyncMongoClient("127.0.0.1", port, directConnection=True) as client:
            role = {"role": "readWrite", "db": "own"}
            await client.admin.command("createUser", "admin", pwd="x", roles=["root"])
        async with AsyncMongoClient(f"mongodb://admin:x@127.0.0.1:{port}/?directConnection=true") as client:
            await client.admin.command("createUser", "auth", pwd="x", roles=[role])
        async with AsyncMongoClient(f"mongodb://auth:x@127.0.0.1:{port}/?directConnection=true") as client:
            own = database(client, "own")
            await own.rows.create_indexes([IndexModel("at", expireAfterSeconds=3600)])
            await ensure_indexes(own, {"rows": [expiry_index("at", timedelta(hours=1)), growing_index([("kind", 1)])]})
            with pytest.raises(UnfitServer, match="grant it the role dbAdmin on own"):
                await ensure_indexes(own, {"rows": [expiry_index("at", timedelta(hours=2))]})


@pytest.mark.parametrize("index", [IndexModel([("at", 1)], unique=True), growing_index([("at", 1)], unique=True)])
async def test_other_options_of_an_index_may_not_differ(
    mongo_url: str, database_prefix: str, index: IndexModel
) -> None:
    async with connect(mongo_url, application="test") as client:
        own = database(client, f"{database_prefix}options")
        await own.rows.create_indexes([IndexModel("at")])
        with pytest.raises(OperationFailure, match="existing index"):
            await ensure_indexes(own, {"rows": [index]})
        await client.drop_database(own.name)


async def test_former_indexes_are_dropped_and_missing_ones_ignored(mongo_url: str, database_prefix: str) -> None:
    async with connect(mongo_url, application="test") as client:
        own = database(client, f"{database_prefix}former")
        await own.things.create_indexes([IndexModel([("old", 1)]), IndexModel([("new", 1)])])
        for _start in range(2):
            await drop_indexes(own, {"things": ["old_1", "older_1"], "none": ["old_1"]})
            assert set(await own.things.index_information()) == {"_id_", "new_1"}
