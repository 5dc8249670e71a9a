"""A whole Nest on a Kafka and a MongoDB with TLS, users and rights, and attacks on both."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from pydantic import SecretStr
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from services.embedded.demo import CLIENT_ID
from shared.bus import topics
from shared.bus.access import (
    PRINCIPALS,
    Acl,
    MayNotChangeAcls,
    NoAuthorizer,
    _CreateAcls,
    apply_acls,
    compare_acls,
    declared_acls,
)
from shared.bus.kafka_connection import KafkaAccessDenied, KafkaConnection
from tests.certificates import Authority
from tests.end_to_end.flows import finished, operator_call
from tests.secured_backing import ADMIN, SecuredKafka, SecuredMongo, unsecured_token
from tests.stack import Stack, eventually, running_stack

PREFIX = "secured."
DATABASES = "secured_"
DECLARED = declared_acls(prefix=PREFIX)
TOPICS = [PREFIX + topic.name for topic in topics.declared()]


def may(process: str, operation: str, name: str) -> bool:
    return any((acl.principal, acl.operation, acl.name) == (f"User:{process}", operation, name) for acl in DECLARED)


@dataclass
class Secured:
    """The secured Kafka and MongoDB, and a Nest on them."""

    authority: Authority
    kafka: SecuredKafka
    mongo: SecuredMongo
    nest: Stack

    def command_environment(self, **changed: str) -> dict[str, str]:
        names = {"NEST_KAFKA_BOOTSTRAP": self.kafka.bootstrap, "NEST_TOPIC_PREFIX": PREFIX}
        return {**self.kafka.settings(), **names, **changed}


@pytest.fixture(scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    async with (
        SecuredKafka(folder / "kafka", authority) as kafka,
        SecuredMongo(folder / "mongo", authority, DATABASES) as mongo,
    ):
        await apply_acls(kafka.connection(ADMIN), prefix=PREFIX)
        urls = {f"NEST_{name.upper()}_MONGO_URL": mongo.url_of(name) for name in topics.SERVICES}
        async with running_stack(
            folder,
            kafka_bootstrap=kafka.bootstrap,
            mongo_url=mongo.url,
            topic_prefix=PREFIX,
            database_prefix=DATABASES,
            settings={**kafka.settings(), **urls},
            operator=kafka.connection("operator"),
        ) as nest:
            yield Secured(authority, kafka, mongo, nest)


async def test_every_service_works_with_its_declared_rights(secured: Secured) -> None:
    """Login, a call to each service, the audit of another service, and an erasure, to which all services report."""
    nest = secured.nest
    tokens = await nest.log_in("ada@example.com")
    user_id, bearer = tokens["user_id"], {"authorization": f"bearer {tokens['access_token']}"}
    user = await nest.call("get_user", {"user_id": user_id}, **bearer)
    consent = await nest.call("get_marketing_consent", {"user_id": user_id}, **bearer)
    news = await nest.call("list_news_items", {"client_id": CLIENT_ID})
    # The user has given no consent yet.
    assert [each.status_code for each in (user, consent, news)] == [200, 404, 200]
    missing = await nest.call("remove_news_item", {"id": "newsitem_none"}, **nest.internal)
    assert missing.status_code == 404
    exported = await operator_call(nest, "export_user", user_id=user_id)
    await finished(nest, exported)
    erased = await operator_call(nest, "erase_user", user_id=user_id)
    await finished(nest, erased)

    async def recorded() -> bool:
        entries = await operator_call(nest, "list_audit_entries", action="remove_news_item")
        return bool(entries)

    await eventually(recorded, what="the audit entry of another service")


@pytest.mark.parametrize("process", PRINCIPALS)
async def test_a_process_writes_to_no_other_topic_than_the_declared_ones(secured: Secured, process: str) -> None:
    async with AIOKafkaProducer(**secured.kafka.connection(process).options, request_timeout_ms=20_000) as producer:
        for topic in TOPICS:
            if not may(process, "write", topic):
                with pytest.raises(TopicAuthorizationFailedError):
                    await producer.send_and_wait(topic, b"forged", b"key", partition=0)


@pytest.mark.parametrize(
    ("topic", "writers"),
    [
        ("auth.events", {"auth"}),
        ("auth.audit", {"auth"}),
        ("auth.keys", {"auth"}),
        ("auth.clients", {"auth"}),
        ("auth.revocations", {"auth"}),
        ("auth.commands", {"gateway", "auth"}),
        ("billing.commands", {"gateway", "auth", "billing"}),
        ("mailer.commands", {"gateway", "auth", "billing", "mailer"}),
        ("news.commands", {"gateway", "auth", "news"}),
    ],
)
def test_only_these_processes_may_write(topic: str, writers: set[str]) -> None:
    assert {process for process in PRINCIPALS if may(process, "write", PREFIX + topic)} == writers


@pytest.mark.parametrize("process", ["billing", "mailer", "news", "operator"])
async def test_a_forged_internal_command_reaches_nobody(secured: Secured, process: str) -> None:
    """The record that erased a user before: a command of an internal caller on ``auth.commands``."""
    tokens = await secured.nest.log_in(f"{process}@example.com")
    headers = {
        "id": uuid.uuid4().hex,
        "type": "auth.erase-user",
        "caller": json.dumps({"kind": "internal"}),
    }
    async with AIOKafkaProducer(**secured.kafka.connection(process).options) as producer:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(
                f"{PREFIX}auth.commands",
                json.dumps({"user_id": tokens["user_id"]}).encode(),
                tokens["user_id"].encode(),
                headers=[(name, value.encode()) for name, value in headers.items()],
            )
    bearer = {"authorization": f"bearer {tokens['access_token']}"}
    assert (await secured.nest.call("get_user", {"user_id": tokens["user_id"]}, **bearer)).status_code == 200


@pytest.mark.parametrize("process", PRINCIPALS)
async def test_a_process_reads_no_other_topic_than_the_declared_ones(secured: Secured, process: str) -> None:
    async with AIOKafkaConsumer(**secured.kafka.connection(process).options, group_id=None) as consumer:
        visible = await consumer.topics()
        for topic in TOPICS:
            if may(process, "read", topic):
                assert topic in visible
            elif topic in visible:
                partition = TopicPartition(topic, 0)
                consumer.assign([partition])
                consumer.seek(partition, 0)
                with pytest.raises(TopicAuthorizationFailedError):
                    await consumer.getmany(timeout_ms=20_000)


async def test_a_process_joins_no_other_consumer_group(secured: Secured) -> None:
    consumer = AIOKafkaConsumer(
        f"{PREFIX}news.commands", **secured.kafka.connection("news").options, group_id=f"{PREFIX}auth"
    )
    with pytest.raises(GroupAuthorizationFailedError):
        await consumer.start()
    await consumer.stop()


def _refused(secured: Secured, case: str, folder: Path) -> KafkaConnection:
    kafka, other = secured.kafka, Authority(folder, "another authority")
    token = folder / "token"
    token.write_text("not.a.token")
    return {
        "no TLS": KafkaConnection(kafka.bootstrap),
        "no TLS, login": kafka.connection("news", protocol="SASL_PLAINTEXT", ca_file=None),
        "no login": KafkaConnection(kafka.bootstrap, "SSL", ca_file=secured.authority.ca_file),
        "wrong password": kafka.connection("news", password=SecretStr("wrong")),
        "unknown user": kafka.connection("nobody"),
        "wrong password of PLAIN": kafka.connection("news", mechanism="PLAIN"),
        "wrong token": kafka.connection("news", mechanism="OAUTHBEARER", user=None, token_file=token),
        "untrusted broker": kafka.connection("news", ca_file=other.ca_file),
        "no certificate": kafka.certificate_connection(None),
        "certificate of another authority": kafka.certificate_connection("stranger", other),
        "login where none is": replace(
            kafka.connection("news"), bootstrap=kafka.certificate_connection("login").bootstrap
        ),
    }[case]


@pytest.mark.parametrize(
    ("case", "setting"),
    [
        ("no TLS", "NEST_KAFKA_SECURITY_PROTOCOL: is PLAINTEXT, and the broker requires TLS"),
        ("no TLS, login", "NEST_KAFKA_SECURITY_PROTOCOL: is SASL_PLAINTEXT, and the broker requires TLS"),
        ("no login", "NEST_KAFKA_SECURITY_PROTOCOL: is SSL, and the broker requires a login"),
        ("wrong password", "NEST_KAFKA_USER, NEST_KAFKA_PASSWORD: Kafka refused the password of the user news"),
        ("unknown user", "NEST_KAFKA_USER, NEST_KAFKA_PASSWORD: Kafka refused the password of the user nobody"),
        ("wrong password of PLAIN", "NEST_KAFKA_USER, NEST_KAFKA_PASSWORD: Kafka refused the password"),
        ("wrong token", "NEST_KAFKA_TOKEN_FILE: Kafka refused the token"),
        ("untrusted broker", "NEST_KAFKA_CA_FILE: the broker's certificate is not accepted"),
        ("no certificate", "NEST_KAFKA_CERTIFICATE_FILE: the broker does not accept the client certificate"),
        ("certificate of another authority", "NEST_KAFKA_CERTIFICATE_FILE: the broker does not accept the client"),
        ("login where none is", "NEST_KAFKA_"),
    ],
)
async def test_a_refused_connection_names_the_setting(
    secured: Secured, case: str, setting: str, tmp_path: Path
) -> None:
    connection = _refused(secured, case, tmp_path)
    with pytest.raises(KafkaAccessDenied) as refused:
        async with asyncio.timeout(30):
            await connection.check()
    assert str(refused.value).startswith(setting)


async def test_every_way_to_log_in_is_accepted(secured: Secured, tmp_path: Path) -> None:
    kafka, token = secured.kafka, tmp_path / "token"
    token.write_text(unsecured_token("news"))
    new = SecretStr(kafka.passwords["news"] + "-new")
    for connection in (
        kafka.connection("news"),
        # A user has a password for each mechanism, so one can be replaced while the other one is used.
        kafka.connection("news", mechanism="SCRAM-SHA-256", password=new),
        kafka.connection(ADMIN),
        kafka.connection("news", mechanism="OAUTHBEARER", user=None, token_file=token),
        kafka.certificate_connection("news-certificate"),
    ):
        await connection.check()


async def test_a_service_with_a_wrong_password_ends_at_once_and_names_the_setting(secured: Secured) -> None:
    environment = {**secured.nest.environment, "NEST_NEWS_KAFKA_PASSWORD": "wrong"}
    done = await secured.nest.command("run", "news", **environment)
    assert done.code == 78, done.err
    assert "NEST_KAFKA_PASSWORD: Kafka refused the password of the user news" in done.err


async def test_the_rights_are_compared_and_applied(secured: Secured) -> None:
    kafka, nest = secured.kafka, secured.nest
    same = await nest.command("topics", "check", "--acls", **secured.command_environment())
    assert "rights" not in same.out
    assert "not declared" not in same.out
    assert "missing" not in same.out
    wrong = Acl("User:news", "topic", f"{PREFIX}auth.keys", "write")
    stranger = Acl("User:stranger", "topic", f"{PREFIX}auth", "all", prefixed=True)
    await _create(kafka, wrong, stranger)
    differs = await nest.command("topics", "check", "--acls", **secured.command_environment())
    assert differs.code == 1
    assert f"not declared: {wrong}" in differs.out
    assert f"not declared, of another principal: {stranger}" in differs.out
    denied = await nest.command("topics", "apply", "--acls", **secured.command_environment())
    assert denied.code == 1
    assert "may not read or change access control lists" in denied.err
    admin = {
        "NEST_OPERATOR_KAFKA_USER": ADMIN,
        "NEST_OPERATOR_KAFKA_PASSWORD": kafka.passwords[ADMIN],
        "NEST_KAFKA_SASL_MECHANISM": "PLAIN",
    }
    applied = await nest.command("topics", "apply", "--acls", **secured.command_environment(**admin))
    assert applied.code == 0, applied.err
    assert f"removed: {wrong}" in applied.out
    assert f"not declared, left: {stranger}" in applied.out
    assert "0 rights added, 1 removed" in applied.out
    left = await compare_acls(kafka.connection("operator"), prefix=PREFIX)
    assert (left.missing, left.extra, left.foreign) == ([], [], [stranger])


async def _create(kafka: SecuredKafka, *acls: Acl) -> None:
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415

    admin = AIOKafkaAdminClient(**kafka.connection(ADMIN).options)
    await admin.start()
    try:
        await admin._send_request(_CreateAcls(acls))
    finally:
        await admin.close()


async def test_the_rights_are_read_by_operators_alone(secured: Secured) -> None:
    with pytest.raises(MayNotChangeAcls):
        await compare_acls(secured.kafka.connection("news"), prefix=PREFIX)


async def test_a_kafka_without_an_authorizer_is_reported(kafka_bootstrap: str) -> None:
    with pytest.raises(NoAuthorizer):
        await compare_acls(KafkaConnection(kafka_bootstrap))


async def test_the_doctor_checks_a_secured_kafka_and_mongodb(secured: Secured) -> None:
    done = await secured.nest.command("doctor", "--json", "--replication", "1", **secured.nest.environment)
    findings: list[dict[str, Any]] = json.loads(done.out)
    areas = {"kafka", "topics", "consumers", "clock", "dead letters", "mongodb", "indexes", "timers", "sealing keys"}
    checked = [each for each in findings if each["area"] in areas]
    assert {each["area"] for each in checked} == areas
    assert not [each for each in checked if each["level"] == "problem"]


SECRETS_OF = {
    "gateway": {"NEST_INTERNAL_KEYS", "NEST_STRIPE_WEBHOOK_SECRETS", "NEST_MAIL_WEBHOOK_SECRETS"},
    "auth": set(),
    "billing": {"NEST_STRIPE_API_KEY"},
    "mailer": {"NEST_SMTP_HOST"},
    "news": set(),
    "operator": set(),
}
"""Variables that only the pod of one process has, beside its Kafka user and its MongoDB user."""


def pod(secured: Secured, process: str) -> dict[str, str]:
    """Return the environment of a process's pod: the shared settings, and its own credentials only."""
    mine, prefix = dict(secured.nest.environment), f"NEST_{process.upper()}_"
    url = mine.get(f"{prefix}MONGO_URL", "")
    others = set().union(*SECRETS_OF.values()) - SECRETS_OF[process]
    for name in list(mine):
        own = name.endswith(("_KAFKA_USER", "_KAFKA_PASSWORD")) and name != "NEST_KAFKA_USER"
        if name in others or name.endswith("MONGO_URL") or (own and not name.startswith(prefix)):
            del mine[name]
    return {**mine, "NEST_URL": "", **({"NEST_MONGO_URL": url} if url else {})}


@pytest.mark.parametrize(
    ("process", "checked", "skipped"),
    [
        ("gateway", {"settings", "consumers", "gateway"}, {"topics", "clock", "mongodb", "stripe", "mail server"}),
        ("auth", {"indexes", "timers", "sealing keys", "dead letters"}, {"topics", "mongodb", "stripe events"}),
        ("billing", {"indexes", "timers", "stripe events", "stripe"}, {"topics", "clock", "mongodb", "sealing keys"}),
        ("mailer", {"indexes", "timers", "mail server"}, {"topics", "mongodb", "stripe", "dead letters"}),
        ("news", {"indexes", "timers", "consumers"}, {"mongodb", "stripe", "mail server", "dead letters"}),
        ("operator", {"kafka", "topics", "consumers", "clock", "dead letters"}, {"settings", "mongodb", "stripe"}),
    ],
)
async def test_the_doctor_of_a_pod_skips_what_the_pod_may_not_see(
    secured: Secured, process: str, checked: set[str], skipped: set[str]
) -> None:
    done = await secured.nest.command("doctor", "--json", "--replication", "1", **pod(secured, process))
    findings: list[dict[str, Any]] = json.loads(done.out)
    assert (done.code, [each for each in findings if each["level"] == "problem"]) == (0, [])
    assert {each["area"] for each in findings if each["level"] in ("ok", "warning")} >= checked
    reasons = [each for each in findings if each["level"] == "skipped"]
    assert {each["area"] for each in reasons} >= skipped
    assert all(each["do"] and ("not" in each["says"]) for each in reasons)


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("own database", None),
        ("database of another service", OperationFailure),
        ("no user", OperationFailure),
        ("wrong password", OperationFailure),
        ("no TLS", PyMongoError),
        ("untrusted server", PyMongoError),
    ],
)
async def test_mongodb_serves_a_service_its_own_database_only(
    secured: Secured, case: str, error: type[Exception] | None, tmp_path: Path
) -> None:
    mongo = secured.mongo
    other = Authority(tmp_path, "another authority")
    own = mongo.url_of("news", serverSelectionTimeoutMS="2000")
    url = {
        "no user": own.replace(f"news:{mongo.passwords['news']}@", ""),
        "wrong password": own.replace(mongo.passwords["news"], "wrong"),
        "no TLS": mongo.url_of("news", serverSelectionTimeoutMS="2000", tls="", tlsCAFile=""),
        "untrusted server": mongo.url_of("news", serverSelectionTimeoutMS="2000", tlsCAFile=str(other.ca_file)),
    }.get(case, own)
    database = f"{DATABASES}{'auth' if case == 'database of another service' else 'news'}"
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url)
    async with client:
        if error is None:
            await client[database]["items"].find_one({})
        else:
            with pytest.raises(error):
                await client[database]["users"].find_one({})
