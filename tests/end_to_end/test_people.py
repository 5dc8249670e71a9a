"""People exported and erased on the real stack, while a service is away and while they log in; then searched for."""

import asyncio
import base64
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pymongo import MongoClient

from services.embedded.demo import CLIENT_ID
from shared.ids import derived_message_id
from shared.topics import FOREVER, declared
from tests.end_to_end.test_operator import run
from tests.stack import Login, Stack, eventually, running_stack

SERVICES = ("auth", "billing", "mailer", "news")


@pytest.fixture(scope="module")
async def away(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """A Nest whose services can be stopped, and write logs."""
    prefix = unique()
    async with running_stack(
        tmp_path_factory.mktemp("away"),
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        separate=SERVICES,
    ) as stack:
        yield stack


def forms(value: str) -> Iterator[bytes]:
    """How an address may be written by whoever knows it alone: plain, encoded, or hashed."""
    raw = value.encode()
    yield raw
    yield raw.hex().encode()
    yield derived_message_id("address", value).encode()
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(algorithm, raw).digest()
        yield digest.hex().encode()
        yield base64.b64encode(digest).rstrip(b"=")
        yield base64.urlsafe_b64encode(digest).rstrip(b"=")
        yield repr(digest)[2:-1].encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        yield encoded[4 if before else 0 :].rstrip(b"=")[:-1]


def found(value: str, where: bytes) -> bool:
    return any(form in where for form in forms(value))


@pytest.mark.parametrize("written", ["{}", "x{}", "xy{}"])
def test_an_address_is_found_however_it_is_written(written: str) -> None:
    text = written.format("ada@example.com").encode()
    assert found("ada@example.com", text)
    assert found("ada@example.com", base64.b64encode(text + b"..."))
    assert found("ada@example.com", text.hex().encode())
    assert found("ada@example.com", repr(hashlib.sha256(b"ada@example.com").digest()).encode())
    assert not found("ada@example.com", b"bda@example.com")


async def ask(nest: Stack, method: str, **body: Any) -> Any:
    answer = await nest.call(method, body, **nest.internal)
    assert answer.status_code in {200, 204}, answer.text
    return answer.json() if answer.content else None


async def done(nest: Stack, process: dict[str, Any], *, within: float = 40) -> dict[str, Any]:
    async def finished() -> Any:
        now = await ask(nest, "get_user_process", process_id=process["id"])
        return now if now["state"] == "done" else None

    whole: dict[str, Any] = await eventually(finished, within=within, what="every service's part")
    return whole


async def lived(nest: Stack, email: str) -> tuple[str, str, list[str]]:
    """Somebody with a trial, sessions, consent and a phone of their own; the user's id, the number's, and addresses."""
    device = {"platform": "mac", "beak_id": f"beak-{email}", "fingerprint": f"print-{email}"}
    answer = await nest.call("create_trial_and_magic_link", Login(email).order(device=device))
    assert answer.status_code == 204, answer.text
    await nest.mail(email, count=2)
    await nest.stripe.webhooks.drained()
    user_id = (await nest.log_in(email))["user_id"]
    await ask(nest, "set_marketing_consent", user_id=user_id, level="general")
    [item, *_] = await ask(nest, "list_news_items", client_id=CLIENT_ID)
    await ask(nest, "dismiss_news_item", user_id=user_id, news_item_id=item["id"])
    number = f"+4179{secrets.randbelow(10**7):07}"
    nonce = (await nest.http.post("/init", json={"phone_number": number})).text
    texts = await eventually(lambda: nest.inbox.arrivals(number), what="the text")
    code = re.findall(r"#(\d{6})", texts[0].text)[-1]
    registered = await nest.http.post(f"/register/{code}/{nonce}", json={"first_name": "Ada", "last_name": "L"})
    assert registered.status_code == 200, registered.text
    return user_id, registered.json()["id"], [email, number]


def documents(nest: Stack, mongo_client: MongoClient[dict[str, Any]]) -> dict[str, bytes]:
    """Everything in every collection of every service."""
    prefix = nest.environment["NEST_DATABASE_PREFIX"]
    return {
        f"{name}.{collection}": "\n".join(map(repr, mongo_client[prefix + name][collection].find())).encode()
        for name in SERVICES
        for collection in mongo_client[prefix + name].list_collection_names()
    }


async def kept_records(nest: Stack) -> dict[str, bytes]:
    """Everything on topics that are compacted or kept for ever, and among the dead letters."""
    prefix = nest.environment["NEST_TOPIC_PREFIX"]
    names = [
        prefix + topic.name
        for topic in declared()
        if topic.compacted or topic.retention == FOREVER or topic.name.endswith(".dead")
    ]
    places: dict[str, bytes] = {}
    consumer = AIOKafkaConsumer(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"], enable_auto_commit=False)
    await consumer.start()
    try:
        for name in names:
            await consumer.topics()
            for partition in consumer.partitions_for_topic(name) or ():
                at = TopicPartition(name, partition)
                consumer.assign([at])
                end = (await consumer.end_offsets([at]))[at]
                await consumer.seek_to_beginning(at)
                while await consumer.position(at) < end:
                    record = await consumer.getone(at)
                    places[f"{name}/{record.offset}"] = repr((record.key, record.value, record.headers)).encode()
    finally:
        await consumer.stop()
    return places


async def test_an_export_waits_for_a_service_that_is_away(away: Stack, email: str) -> None:
    user_id, _, _ = await lived(away, email)
    await away.processes["billing"].stop()
    begun = await ask(away, "export_user", user_id=user_id)

    async def others_are_done() -> bool:
        now = await ask(away, "get_user_process", process_id=begun["id"])
        return {part["service"] for part in now["services"] if part["done_at"]} == {"auth", "mailer", "news"}

    await eventually(others_are_done, within=40, what="all but billing")
    refused = await away.call("get_user_export", {"process_id": begun["id"]}, **away.internal)
    assert (refused.status_code, refused.json()["code"]) == (409, "user_export_not_finished")
    await away.processes["billing"].start()
    await done(away, begun)
    document = await ask(away, "get_user_export", process_id=begun["id"])
    services = document["services"]
    assert services["auth"]["identifiers"][0]["identifierValue"] == email
    assert [trial["userId"] for trial in services["billing"]["trials"]] == [user_id]
    assert services["billing"]["subscriptions"]
    assert {delivery["recipient"] for delivery in services["mailer"]["deliveries"]} == {email}
    assert [consent["level"] for consent in services["mailer"]["marketing_consents"]] == ["general"]
    assert services["news"]["dismissals"]


async def test_nothing_of_an_erased_person_is_left_though_a_service_was_away(
    away: Stack, email: str, mongo_client: MongoClient[dict[str, Any]]
) -> None:
    user_id, phone_user_id, addresses = await lived(away, email)
    export = await done(away, await ask(away, "export_user", user_id=user_id))
    before = documents(away, mongo_client)
    for address in addresses:
        assert any(found(address, text) for text in before.values()), "the search can't find anything"
    await away.processes["mailer"].stop()
    processes = [
        await ask(away, "erase_user", user_id=user_id, delete_stripe_customer=True),
        await ask(away, "erase_user", user_id=phone_user_id),
    ]
    await away.processes["mailer"].start()
    for process in processes:
        await done(away, process)
    customers = [each for each in away.stripe.objects("customer") if each.get("email") == email]
    assert customers == []
    await away.stripe.webhooks.drained()
    assert (await away.call("get_user", {"user_id": user_id}, **away.internal)).status_code == 404
    assert (await away.call("get_user_export", {"process_id": export["id"]}, **away.internal)).status_code in {200, 404}

    def leaks() -> list[str]:
        return [name for name, text in documents(away, mongo_client).items() if any(found(a, text) for a in addresses)]

    assert leaks() == []
    rows = {name: text for name, text in documents(away, mongo_client).items() if name.endswith((".inbox", ".timers"))}
    assert any(b"clientIp" in text for text in rows.values())
    assert [name for name, text in rows.items() if b"client_ip" in text] == []
    kept = await kept_records(away)
    assert [name for name, text in kept.items() if any(found(address, text) for address in addresses)] == []
    logs = {name: process.log.encode() for name, process in away.processes.items()}
    assert [name for name, text in logs.items() if any(found(address, text) for address in addresses)] == []
    prefix = away.environment["NEST_DATABASE_PREFIX"]
    assert mongo_client[f"{prefix}billing"]["subscriptions"].count_documents({"userId": user_id}) == 0
    assert mongo_client[f"{prefix}auth"]["users"].count_documents({"_id": user_id}) == 0


async def test_of_an_erasure_and_a_login_at_once_nobody_is_left_with_an_old_session(nest: Stack, email: str) -> None:
    for number in range(20):
        address = f"{number}.{email}"
        first = await nest.log_in(address)
        login = Login(address)
        code = await nest.code(login)
        answer, process = await asyncio.gather(
            nest.call("authenticate_user", login.redemption(code)), ask(nest, "erase_user", user_id=first["user_id"])
        )
        await done(nest, process)
        assert answer.status_code in {200, 404}, answer.text
        if answer.status_code == 200 and answer.json()["user_id"] == first["user_id"]:
            again = {"client_id": CLIENT_ID, "grant_type": "refresh_token"}
            for tokens in (first, answer.json()):
                refused = await nest.call("authenticate_user", {**again, "refresh_token": tokens["refresh_token"]})
                assert refused.status_code == 404, refused.text
        assert (await nest.call("get_user", {"user_id": first["user_id"]}, **nest.internal)).status_code == 404
    assert (await nest.log_in(address))["user_id"] != first["user_id"]


async def test_operators_find_export_and_erase_people_by_the_nest_command(
    nest: Stack, email: str, tmp_path: Path
) -> None:
    user_id = (await nest.log_in(email))["user_id"]
    assert user_id in (await run(nest, "users", "find", email.upper())).out
    assert email in (await run(nest, "users", "show", user_id)).out
    assert len((await run(nest, "users", "sessions", user_id)).out.splitlines()) == 2
    ended = await run(nest, "users", "sessions", user_id, "--end", "all", "--yes")
    assert len(ended.out.splitlines()) == 1, ended.err
    exported = await run(nest, "users", "export", user_id, "--to", str(tmp_path / "ada.json"))
    assert exported.code == 0, exported.err
    assert json.loads((tmp_path / "ada.json").read_text())["services"]["auth"]["users"][0]["id"] == user_id
    assert (tmp_path / "ada.json").stat().st_mode & 0o077 == 0
    unsaid = await run(nest, "users", "erase", user_id)
    assert unsaid.code == 1
    erased = await run(nest, "users", "erase", user_id, "--yes", "--json")
    assert (erased.code, json.loads(erased.out)["state"]) == (0, "done"), erased.err
    later = await run(nest, "users", "erase", "--process", json.loads(erased.out)["id"], "--json")
    assert json.loads(later.out)["state"] == "done"
    assert (await run(nest, "users", "find", email)).code == 1
