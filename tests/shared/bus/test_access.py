"""The declared rights against what the code sends, reads and consumes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from services.gateway import methods
from shared.bus.access import CLUSTER, PRINCIPALS, Acl, declared_acls
from shared.bus.topics import GROWABLE, PROCESSES, SERVICES, TOPICS, WRITERS
from shared.messages import MESSAGES, Event
from shared.messages.message import GATEWAY

ROOT: Final = Path(__file__).parents[3]
NEST_MESSAGES: Final = [kind for kind in MESSAGES.values() if kind.__module__.startswith("shared.")]
"""All messages but those of tests."""
CLASSES: Final = {kind.__name__: kind for kind in NEST_MESSAGES}
EVERY_SERVICE: Final = {"republishing", "gateway.replies", "instances", "topic-growth"}
"""Topics that the shared code of all services writes to without naming the class of a message."""
SERVICES_ALONE: Final = {"paused-partitions"}
"""Topics that the shared code of services writes to, and that of gateways does not."""


def created(folder: str) -> Iterator[str]:
    """Yield the topics of the messages that the code of a folder creates, by name or from a table."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            classes = node.values if isinstance(node, ast.Dict) else [node.func] if isinstance(node, ast.Call) else []
            names = [getattr(each, "id", getattr(each, "attr", "")) for each in classes]
            yield from (CLASSES[name].topic for name in names if name in CLASSES)


@cache
def sent(process: str) -> frozenset[str]:
    """Return the topics that a process sends messages to, as far as its code names their classes."""
    topics = {*created(f"services/{process}"), *created("shared")}
    if process == "gateway":
        own = {"stripe.webhooks", "instances", "topic-growth"}
        return frozenset((topics | set(methods.TOPICS.values()) | own) - SERVICES_ALONE)
    return frozenset(topics | EVERY_SERVICE)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_may_write_what_it_sends(process: str) -> None:
    assert sent(process) <= {topic for topic, writers in WRITERS.items() if process in writers}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_may_write_nothing_else(process: str) -> None:
    # A command that is sent again, to the same service, has the class of the handled one.
    own = {f"{process}.commands"}
    assert {topic for topic, writers in WRITERS.items() if process in writers} <= sent(process) | own


def test_the_topics_of_all_messages_are_declared() -> None:
    assert {kind.topic for kind in NEST_MESSAGES if kind.service != GATEWAY} <= {topic.name for topic in TOPICS}
    assert {kind.topic for kind in NEST_MESSAGES if kind.service == GATEWAY} == {""}


def test_what_other_services_send_to_auth_is_called_by_no_one() -> None:
    """A command on ``auth.commands`` may act for any caller, so only the gateway and auth write there."""
    assert set(WRITERS["auth.commands"]) == {"gateway", "auth"}
    assert "auth.service-commands" not in methods.TOPICS.values()


@pytest.mark.parametrize("service", SERVICES)
def test_consumed_and_followed_topics_may_be_read(service: str) -> None:
    consumed = import_module(f"services.{service}.app").TOPICS
    readable = {acl.name for acl in declared_acls() if acl.principal == f"User:{service}" and acl.operation == "read"}
    assert set(consumed) <= readable
    assert {topic.name for topic in TOPICS if service in (*topic.consumers, *topic.readers)} <= readable


@pytest.mark.parametrize(
    ("topic", "writer"),
    [("auth.events", "auth"), ("auth.keys", "auth"), ("auth.clients", "auth"), ("auth.revocations", "auth")],
)
def test_auth_alone_writes(topic: str, writer: str) -> None:
    writing = {acl.principal for acl in declared_acls() if (acl.name, acl.operation) == (topic, "write")}
    assert writing == {f"User:{writer}"}


def test_an_event_is_written_by_its_service_and_by_auth_which_replays() -> None:
    for kind in NEST_MESSAGES:
        if issubclass(kind, Event) and kind.topic.endswith(".events"):
            writing = {acl.principal for acl in declared_acls() if (acl.name, acl.operation) == (kind.topic, "write")}
            assert writing == {f"User:{kind.service}", "User:auth"}


def test_the_operator_writes_no_record_but_orders_to_grow_and_changes_no_rights() -> None:
    own = [acl for acl in declared_acls() if acl.principal == "User:operator"]
    operations = {(acl.resource, acl.operation) for acl in own}
    assert not operations & {("topic", "delete"), ("cluster", "alter"), ("group", "read")}
    assert {acl.name for acl in own if acl.operation == "write"} == {"topic-growth"}
    assert {acl.name for acl in own if acl.operation == "alter"} == set(GROWABLE)


def test_prefix_and_principals_are_those_of_the_deployment() -> None:
    acls = declared_acls(prefix="staging.", principals={"auth": "User:CN=auth,O=Nest"})
    assert all(acl.name.startswith("staging.") or acl.name == CLUSTER for acl in acls)
    names = {acl.principal for acl in acls}
    assert names == {"User:CN=auth,O=Nest", *(f"User:{name}" for name in PRINCIPALS if name != "auth")}
    assert Acl("User:CN=auth,O=Nest", "topic", "staging.auth.keys", "write") in acls


@pytest.mark.parametrize(
    ("acl", "concerned"),
    [
        (Acl("User:x", "topic", "auth.keys", "read"), True),
        (Acl("User:x", "topic", "*", "read"), True),
        (Acl("User:x", "topic", "auth", "read", prefixed=True), True),
        (Acl("User:x", "topic", "auth", "read"), False),
        (Acl("User:x", "topic", "other", "read", prefixed=True), False),
        (Acl("User:x", "group", "auth", "read"), True),
        (Acl("User:x", "group", "auth.keys", "read"), False),
        (Acl("User:x", "cluster", CLUSTER, "alter"), False),
    ],
)
def test_a_right_concerns_topics_by_name_by_prefix_and_by_wildcard(acl: Acl, *, concerned: bool) -> None:
    assert acl.concerns({"auth.keys"}, {"auth"}) == concerned
