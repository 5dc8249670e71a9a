"""`nest keys reseal` on a real MongoDB: afterwards the older key is not needed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from pymongo import MongoClient

from services.operator.client import CommandError
from services.operator.reseal import Resealer, reseal_all
from shared.bus.row_encryption import RowEncryption
from shared.bus.topics import SERVICES
from shared.messages import Caller
from shared.mongo import connect, database
from shared.sealing import CannotUnseal, Sealer
from tests.shared.inbox_harness import envelope

OLD, NEW = Sealer({"old": bytes(32)}), Sealer({"new": bytes(range(32))})
BOTH = {"new": bytes(range(32)), "old": bytes(32)}
SEALED: dict[str, tuple[str, str]] = {
    "auth.signing_keys": ("keys.0.private", "auth.signing-keys"),
    "auth.refresh_tokens": ("successor.sealed", "auth.successors"),
    "auth.user_processes": ("identifiers", "auth.people"),
    "auth.user_export_parts": ("documents", "auth.people"),
    "billing.trials": ("email", "billing"),
    "mailer.deliveries": ("recipient", "mailer"),
    **{
        f"{service}.{collection}": (path, f"{service}.rows")
        for service in SERVICES
        for collection, path in (("inbox", "messages.0.clientIp"), ("timers", "sealed"))
    },
}
"""Path and receiver of the sealed value, by collection."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, mongo_url: str, database_prefix: str) -> str:
    keys = ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in BOTH.items())
    for name, value in (("SEALING_KEYS", keys), ("MONGO_URL", mongo_url), ("DATABASE_PREFIX", database_prefix)):
        monkeypatch.setenv(f"NEST_{name}", value)
    return database_prefix


def nested(path: str, value: Any) -> Any:
    """Return a document with a value at a path, in which numbers are positions in lists."""
    name, _, rest = path.partition(".")
    inner = nested(rest, value) if rest else value
    return [inner] if name == "0" else {name: inner}


def at(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document[int(name)] if name.isdigit() else document[name]
    return document


@pytest.mark.usefixtures("environment")
async def test_every_sealed_value_is_readable_without_the_older_key(
    mongo_client: MongoClient[dict[str, Any]], database_prefix: str
) -> None:
    def collection(name: str) -> Any:
        service, _, rest = name.partition(".")
        return mongo_client[database_prefix + service][rest]

    for name, (path, receiver) in SEALED.items():
        documents = [nested(path, OLD.seal(receiver, b"%d" % number)) for number in range(3)]
        collection(name).insert_many([{**document, "note": "old. and new."} for document in documents])
    outcomes = await reseal_all(SERVICES, lambda *_: None)
    assert sum(outcome.resealed.total() for outcome in outcomes.values()) == 3 * len(SEALED)
    assert not any(outcome.left for outcome in outcomes.values())
    for name, (path, receiver) in SEALED.items():
        found = {NEW.unseal(receiver, at(each, path)) for each in collection(name).find()}
        assert found == {b"0", b"1", b"2"}, name
    again = await reseal_all(SERVICES, lambda *_: None)
    assert not any(outcome.resealed for outcome in again.values())


async def test_rows_of_the_bus_are_readable_without_the_older_key(mongo_url: str, database_prefix: str) -> None:
    client = connect(mongo_url, application="tests")
    own = database(client, f"{database_prefix}mailer")
    message = envelope("1" * 32, caller=Caller(kind="anonymous", client_ip="203.0.113.7"), body=b'{"a": "old.b"}')
    await own["timers"].insert_one({"_id": "1", **RowEncryption(OLD, "mailer").message_row(message)})
    await own["inbox"].insert_one({"_id": "2", "reply": OLD.seal("gateway", b"{}").encode(), "messages": []})
    outcome = await Resealer(own, "mailer", Sealer(BOTH), frozenset(BOTH)).reseal()
    (row,) = await own["timers"].find().to_list()
    assert RowEncryption(NEW, "mailer").message_of(row) == message
    (inbox_row,) = await own["inbox"].find().to_list()
    assert NEW.unseal("gateway", inbox_row["reply"].decode()) == b"{}"
    # The body names the older key and stays, since receivers compare it.
    assert dict(outcome.left) == {("old", "timers", "in the body of a message"): 1}
    await client.close()


LEFT: dict[str, tuple[Any, str]] = {
    "keyed hash": ({"hash": OLD.keyed_hash("recipient", b"a")}, "keyed hash"),
    "keyed hash as ID": ({"_id": OLD.keyed_hash("recipient", b"b")}, "keyed hash"),
    "damaged": ({"text": f"old.{base64.urlsafe_b64encode(bytes(60)).decode()}"}, "cannot be sealed again"),
    "sealed ID": ({"_id": OLD.seal("mailer", b"a")}, "cannot be sealed again"),
    "unknown receiver": ({"text": OLD.seal("somebody", b"a")}, "cannot be sealed again"),
}


@pytest.mark.parametrize("case", LEFT)
async def test_what_needs_the_older_key_is_counted_and_unchanged(
    mongo_url: str, database_prefix: str, case: str
) -> None:
    document, what = LEFT[case]
    client = connect(mongo_url, application="tests")
    own = database(client, f"{database_prefix}mailer")
    await own["x"].insert_one(document)
    outcome = await Resealer(own, "mailer", Sealer(BOTH), frozenset(BOTH)).reseal()
    assert dict(outcome.left) == {("old", "x", what): 1}
    assert await own["x"].find_one({}) == document
    await client.close()


async def test_value_that_is_stored_again_meanwhile_is_found_by_another_pass(
    mongo_url: str, database_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler has read the document before, and replaces it afterwards."""
    client = connect(mongo_url, application="tests")
    own = database(client, f"{database_prefix}mailer")
    stale = {"_id": 1, "recipient": OLD.seal("mailer", b"a")}
    await own["deliveries"].insert_one(stale)
    resealer = Resealer(own, "mailer", Sealer(BOTH), frozenset(BOTH))
    replace: Callable[..., Any] = resealer._replace

    async def raced(*arguments: Any) -> None:
        monkeypatch.setattr(resealer, "_replace", replace)
        await replace(*arguments)
        await own["deliveries"].replace_one({"_id": 1}, stale)

    monkeypatch.setattr(resealer, "_replace", raced)
    await resealer.reseal()
    stored = await own["deliveries"].find_one({})
    assert stored is not None
    assert NEW.unseal("mailer", stored["recipient"]) == b"a"
    with pytest.raises(CannotUnseal):
        OLD.unseal("mailer", stored["recipient"])
    await client.close()


@pytest.mark.usefixtures("environment")
async def test_missing_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEST_SEALING_KEYS")
    with pytest.raises(CommandError, match="NEST_SEALING_KEYS: is not set"):
        await reseal_all(["auth"], lambda *_: None)
