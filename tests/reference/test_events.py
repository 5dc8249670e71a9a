"""The AsyncAPI document: every topic and message of the bus, and valid for AsyncAPI's parser and the samples."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest

from services.reference.__main__ import EVENTS, SAMPLES, indented
from services.reference.events import document
from shared.bus.access import declared_acls
from shared.bus.topics import TOPICS, WRITERS, declared
from shared.messages import MESSAGES

VALIDATOR: Final = Path(__file__).parent / "clients/typescript/validate_asyncapi.mjs"
KINDS: Final = {wire: kind for wire, kind in MESSAGES.items() if kind.topic and kind.__module__.startswith("shared.")}


@pytest.fixture(scope="module")
def asyncapi() -> dict[str, Any]:
    return document(SAMPLES)


def test_served_document_is_up_to_date(asyncapi: dict[str, Any]) -> None:
    assert EVENTS.read_text("utf-8") == indented(asyncapi), "run `make reference`"


def test_document_is_valid_for_the_parser_of_asyncapi(tmp_path: Path) -> None:
    broken = {
        "asyncapi": "3.0.0",
        "info": {"title": "Nest", "version": "1"},
        "channels": {"auth.events": {"adress": "auth.events"}},
    }
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    command = ("node", VALIDATOR, EVENTS, tmp_path / "broken.json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or "run `make install-clients`"
    problems = done.stdout.splitlines()
    assert [each for each in problems if each.startswith(str(EVENTS))] == []
    assert any('Property "adress" is not expected to be here' in each for each in problems)


def test_every_topic_is_a_channel_with_its_messages(asyncapi: dict[str, Any]) -> None:
    assert set(asyncapi["channels"]) == {topic.name for topic in declared()}
    for wire, kind in KINDS.items():
        assert wire in asyncapi["channels"][kind.topic]["messages"], wire
    assert all(channel["messages"] for channel in asyncapi["channels"].values())


def test_retention_is_that_of_the_topics(asyncapi: dict[str, Any]) -> None:
    for topic in TOPICS:
        settings = asyncapi["channels"][topic.name]["bindings"]["kafka"]["topicConfiguration"]
        assert settings["retention.ms"] == topic.retention, topic.name
    assert asyncapi["channels"]["auth.events"]["description"].endswith("Records are kept for 7 days.")
    assert asyncapi["channels"]["auth.keys"]["description"].endswith("The newest record of each key is kept forever.")


def test_samples_match_the_schemas(asyncapi: dict[str, Any]) -> None:
    components = asyncapi["components"]
    for wire, kind in KINDS.items():
        message = components["messages"][wire]
        if kind.tombstone:
            continue
        schema = {**message["payload"], "components": components}
        validator = jsonschema_rs.Draft202012Validator(schema)
        (example,) = message["examples"]
        assert [error.message for error in validator.iter_errors(example["payload"])] == [], wire
        for name in list(example["payload"])[:1]:
            assert not validator.is_valid({**example["payload"], name: [["so"]]}), wire


def test_operations_are_the_rights_of_the_processes(asyncapi: dict[str, Any]) -> None:
    actions = {"send": "write", "receive": "read"}
    listed = {
        (each["title"].split()[0], actions[each["action"]], each["channel"]["$ref"].removeprefix("#/channels/"))
        for each in asyncapi["operations"].values()
    }
    granted = {
        (acl.principal.removeprefix("User:"), acl.operation, acl.name)
        for acl in declared_acls()
        if acl.resource == "topic" and acl.operation in ("read", "write")
    }
    assert listed == granted
    for topic, writers in WRITERS.items():
        assert {(writer, "write", topic) for writer in writers} <= listed


def test_secrets_are_marked_as_sealed(asyncapi: dict[str, Any]) -> None:
    schemas = asyncapi["components"]["schemas"]
    sealed = {name for name, each in schemas["AuthenticateUser"]["properties"].items() if each.get("x-sealed")}
    assert sealed == {"code", "code_verifier", "refresh_token"}
    assert "x-sealed" not in schemas["AuthenticateUser"]["properties"]["client_id"]
    assert asyncapi["components"]["messages"]["auth.authenticate-user"]["x-reply-sealed"] is True


def test_descriptions_are_markdown_in_terms_of_json(asyncapi: dict[str, Any]) -> None:
    text = json.dumps(asyncapi)
    assert "``" not in text
    assert [text[found.start() - 40 : found.end()] for found in re.finditer(r"\bNone\b", text)] == []


def test_only_the_dead_letter_message_is_on_dead_letter_topics(asyncapi: dict[str, Any]) -> None:
    dead = {name: channel for name, channel in asyncapi["channels"].items() if name.endswith(".dead")}
    assert len(dead) == sum(topic.consumed for topic in TOPICS)
    assert all(set(channel["messages"]) == {"dead-letter"} for channel in dead.values())
