"""The contracts: one wire name a class, and whatever was ever published can still be read.

``samples/<wire name>.json`` holds a body as it was published, one for every class that ever was. A new class gets a new
file; a file is never changed or removed while messages like it may still be on a topic.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shared.bus.topics import TOPICS
from shared.messages import MESSAGES, Command, Event, Message, Query, iso_milliseconds

SAMPLES = {path.stem: path for path in sorted((Path(__file__).parent / "samples").glob("*.json"))}
OURS = {wire: kind for wire, kind in MESSAGES.items() if kind.__module__.startswith("shared.messages.")}
SEALER = {"seal": lambda plain: f"k1.sealed-{len(plain)}"}


def every_class(parent: type[Message] = Message) -> list[type[Message]]:
    return [each for child in parent.__subclasses__() for each in (child, *every_class(child))]


def test_every_message_has_a_sample() -> None:
    missing = [wire for wire in OURS if wire not in SAMPLES]
    assert not missing, f"write a body as it is published to tests/shared/samples/<wire name>.json: {missing}"


@pytest.mark.parametrize("wire", SAMPLES)
def test_every_message_ever_published_can_still_be_read(wire: str) -> None:
    assert wire in OURS, "its class is gone: keep it until no message like it can be on a topic, then remove the sample"
    OURS[wire].model_validate_json(SAMPLES[wire].read_bytes())


@pytest.mark.parametrize("wire", SAMPLES)
def test_readers_ignore_fields_they_do_not_know(wire: str) -> None:
    body = json.loads(SAMPLES[wire].read_text())
    known = OURS[wire].model_validate_json(SAMPLES[wire].read_bytes())
    later = OURS[wire].model_validate_json(json.dumps(with_more(body)))
    assert repr(later) == repr(known)


def with_more(value: Any) -> Any:
    """The same with a field more in every object, but where any field is meant to be kept."""
    if isinstance(value, list):
        return [with_more(each) for each in value]
    if isinstance(value, dict):
        kept = {name: each if name in {"data", "jwk", "payload"} else with_more(each) for name, each in value.items()}
        return {**kept, "from_the_future": {"a": [1]}}
    return value


@pytest.mark.parametrize("wire", SAMPLES)
def test_a_message_is_written_as_it_is_read(wire: str) -> None:
    kind = OURS[wire]
    message = kind.model_validate_json(SAMPLES[wire].read_bytes())
    written = message.__pydantic_serializer__.to_json(message, context=SEALER)
    again = kind.model_validate_json(written)
    assert again.__pydantic_serializer__.to_json(again, context=SEALER) == written


def test_every_wire_name_belongs_to_one_class_and_one_service() -> None:
    named = [kind for kind in every_class() if kind.wire and kind.__module__.startswith("shared.messages.")]
    assert sorted(kind.wire for kind in named) == sorted(OURS)
    for kind in named:
        assert re.fullmatch(r"[a-z]+\.[a-z]+(-[a-z]+)*", kind.wire)
        package = kind.__module__.split(".")[2]
        # Every service has its own part of an export and of an erasure; Stripe's events are read by billing.
        allowed = {"personal_data": {"auth", "billing", "mailer", "news"}, "billing": {"billing", "stripe"}}
        assert kind.service in allowed.get(package, {package}), f"{kind.wire} belongs to another module"


def test_a_wire_name_is_its_class_name() -> None:
    for wire, kind in OURS.items():
        spelled = re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
        if kind.service != "stripe":  # there it is Stripe's word for what it sends
            assert wire == f"{kind.service}.{spelled}"


def test_a_taken_wire_name_is_refused() -> None:
    with pytest.raises(TypeError, match="is taken by GetUser"):

        class GetAnotherUser(Query, wire="auth.get-user"):
            pass


def test_every_topic_of_a_message_is_declared() -> None:
    assert {kind.topic for kind in OURS.values()} <= {topic.name for topic in TOPICS}


def test_orders_and_questions_go_to_commands_and_facts_to_events_unless_they_say_otherwise() -> None:
    own = {topic for topic in (kind.topic for kind in OURS.values()) if not re.search(r"\.(commands|events)$", topic)}
    assert own == {"auth.clients", "auth.keys", "auth.revocations", "stripe.webhooks"}
    for kind in OURS.values():
        assert issubclass(kind, Command | Query | Event)
        if kind.topic not in own:
            assert kind.topic == f"{kind.service}.{'events' if issubclass(kind, Event) else 'commands'}"


def test_messages_are_frozen() -> None:
    message = OURS["auth.get-user"].model_validate({"user_id": "u"})
    with pytest.raises(ValidationError, match="frozen"):
        message.user_id = "other"  # type: ignore[attr-defined]


def test_a_key_orders_a_message_and_is_not_in_its_body() -> None:
    message = OURS["auth.get-user"].model_validate({"user_id": "u", "key": "k"})
    assert message.key == "k"
    assert json.loads(message.model_dump_json()) == {"user_id": "u"}


def test_a_secret_is_recognised_by_its_type_in_whatever_carries_one() -> None:
    """Names that say secret must have the type that keeps it."""
    telling = re.compile(r"password(?!less)|secret|(^|_)code$|code_verifier|refresh_token|access_token|^to$")
    for wire, kind in OURS.items():
        for name, field in kind.model_fields.items():
            if telling.search(name) and not name.endswith("_type"):
                assert "Sealed" in str(field.annotation), f"{wire}: {name} is readable"


def test_times_are_utc_with_milliseconds() -> None:
    message = OURS["auth.user-created"].model_validate_json(
        b'{"user_id": "u", "at": "2026-11-21T07:05:00.123456+01:00"}'
    )
    assert json.loads(message.model_dump_json())["at"] == "2026-11-21T06:05:00.123Z"
    assert iso_milliseconds(message.at) == "2026-11-21T06:05:00.123Z"  # type: ignore[attr-defined]
