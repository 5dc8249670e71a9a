"""Message contracts: wire names, samples of all published versions, and declared replies and refusals.

``samples/<wire name>.json`` is the body of a published message, one for each class that ever existed. A new class gets
a new file; a file is not changed or removed while such messages may still be on a topic.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from shared.bus.envelope import encode
from shared.bus.topics import TOPICS
from shared.errors import Refusal, Unavailable
from shared.messages import MESSAGES, Command, Event, Message, Part, Query, iso_milliseconds
from shared.messages.auth.checkouts import CreateCheckout
from shared.messages.auth.clients import SetClientLooks
from shared.messages.auth.errors import UserNotFound
from shared.messages.auth.magic_links import CreateTrialAndMagicLink
from shared.messages.auth.users import GetUser, GetUserConsent, SetMarketingConsent, UserCreated, UserView
from shared.messages.auth.webhooks import CreateWebhookEndpoint
from shared.messages.billing.checkout import FinishCheckout, OpenCheckout
from shared.messages.billing.trials import FinishTrial, StartTrial
from shared.messages.mailer.branding import RecordClientLooks
from shared.messages.mailer.consents import GetMarketingConsent, RecordMarketingConsent
from shared.messages.mailer.webhooks import (
    AddWebhookEndpoint,
    ConfirmNewWebhookEndpoint,
    ConfirmWebhookEndpoint,
    UpdateWebhookEndpoint,
)
from shared.messages.message import GATEWAY, Reply
from shared.messages.republishing import RepublishMessages
from shared.sealing import Sealer

Class = TypeVar("Class")
SAMPLES: Final = {path.stem: path for path in sorted((Path(__file__).parent / "samples").glob("*.json"))}
OURS: Final = {wire: cls for wire, cls in MESSAGES.items() if cls.__module__.startswith("shared.messages.")}
"""Message classes of Nest, without those of tests."""
SEALER: Final = Sealer({"k1": bytes(32)})
SERVICES: Final = ("auth", "billing", "mailer", "news")
HANDLERS: Final[list[tuple[type[Message], Any]]] = [
    (message, handler)
    for service in SERVICES
    for message, handler in importlib.import_module(f"services.{service}.app").HANDLERS.items()
]
FORWARDED: Final[dict[type[Message], type[Message]]] = {
    CreateTrialAndMagicLink: StartTrial,
    GetUserConsent: GetMarketingConsent,
    SetClientLooks: RecordClientLooks,
    CreateCheckout: OpenCheckout,
    SetMarketingConsent: RecordMarketingConsent,
    StartTrial: FinishTrial,
    CreateWebhookEndpoint: AddWebhookEndpoint,
    AddWebhookEndpoint: ConfirmNewWebhookEndpoint,
}
"""Messages whose handler forwards them, and the message whose handler replies instead."""
SOMETIMES_FORWARDED: Final[dict[type[Message], type[Message]]] = {
    OpenCheckout: FinishCheckout,
    # The page was paid or closed a moment ago.
    FinishCheckout: OpenCheckout,
    UpdateWebhookEndpoint: ConfirmWebhookEndpoint,
}
"""Messages whose handler replies itself or forwards them."""


def subclasses(parent: type[Class]) -> Iterator[type[Class]]:
    for child in parent.__subclasses__():
        yield child
        yield from subclasses(child)


def names_in_raises(handler: Any) -> list[str]:
    """Names in the ``Raises:`` section of a handler's docstring."""
    section = re.search(r"^Raises:\n((?:    .*\n?)+)", inspect.getdoc(handler) or "", re.MULTILINE)
    entries = re.findall(r"^    (\w+(?:, \w+)*):", section[1], re.MULTILINE) if section else []
    return [name for entry in entries for name in entry.split(", ")]


def with_unknown_fields(value: Any) -> Any:
    """Add a field to every object, except those that may have any fields."""
    if isinstance(value, list):
        return [with_unknown_fields(each) for each in value]
    if isinstance(value, dict):
        fields = {
            name: each if name in {"data", "jwk", "payload"} else with_unknown_fields(each)
            for name, each in value.items()
        }
        return {**fields, "unknown_field": {"a": [1]}}
    return value


def test_every_message_has_a_sample() -> None:
    missing = [wire for wire in OURS if wire not in SAMPLES]
    assert not missing, f"write a published body to tests/shared/samples/<wire name>.json: {missing}"


@pytest.mark.parametrize("wire", SAMPLES)
def test_sample_is_valid(wire: str) -> None:
    assert wire in OURS, "its class is gone: keep the class until no such message can be on a topic"
    OURS[wire].model_validate_json(SAMPLES[wire].read_bytes())


@pytest.mark.parametrize("wire", SAMPLES)
def test_unknown_fields_are_ignored(wire: str) -> None:
    message = OURS[wire].model_validate_json(SAMPLES[wire].read_bytes())
    body = with_unknown_fields(json.loads(SAMPLES[wire].read_text()))
    assert repr(OURS[wire].model_validate_json(json.dumps(body))) == repr(message)


@pytest.mark.parametrize("wire", SAMPLES)
def test_serialization_round_trips(wire: str) -> None:
    cls = OURS[wire]
    message = cls.model_validate_json(SAMPLES[wire].read_bytes())
    body = encode(message, SEALER)
    if not cls.tombstone:
        again = cls.model_validate_json(body)
        assert repr(again) == repr(message)
        assert encode(again, SEALER) == body


def test_defaults_of_commands_and_queries_never_change() -> None:
    """Bodies omit fields with their defaults, also in the objects within them; other releases set their own."""
    parts = {
        getattr(cls, "wire", "") or cls.__name__: cls
        for cls in subclasses(Part)
        if cls.__module__.startswith("shared.messages.") and not issubclass(cls, Event | Reply)
    }
    defaults = {
        f"{part}.{name}": repr(field.default)
        for part, cls in parts.items()
        for name, field in cls.model_fields.items()
        if name != "key" and field.default not in (PydanticUndefined, None)
    }
    published = json.loads((Path(__file__).parent / "defaults.json").read_text())
    of_parts = {name: default for name, default in published.items() if name.rpartition(".")[0] in parts}
    changed = [name for name, default in of_parts.items() if defaults.get(name) != default]
    assert not changed, f"give the new default to a new class with a new wire name: {changed}"
    missing = {name: default for name, default in defaults.items() if name not in published}
    assert not missing, f"a field without a default or with None keeps that; add new ones to defaults.json: {missing}"


def test_wire_names_belong_to_one_class_and_one_service() -> None:
    named = [cls for cls in subclasses(Message) if cls.wire and cls.__module__.startswith("shared.messages.")]
    assert sorted(cls.wire for cls in named) == sorted(OURS)
    for cls in named:
        assert re.fullmatch(r"[a-z]+\.[a-z]+(-[a-z]+)*", cls.wire)
        package = cls.__module__.split(".")[2]
        # Each service has its own part of exports and erasures, and sent messages; billing reads Stripe's events.
        allowed = {"personal_data": set(SERVICES), "republishing": set(SERVICES), "billing": {"billing", "stripe"}}
        assert cls.service in allowed.get(package, {package}), f"{cls.wire} belongs into another module"


def test_every_command_and_query_has_one_handler() -> None:
    handled = [message for message, _ in HANDLERS if issubclass(message, (Command, Query))]
    # The bus handles the commands to republish messages, and the gateway its own queries.
    expected = [
        cls
        for cls in OURS.values()
        if issubclass(cls, (Command, Query)) and not issubclass(cls, RepublishMessages) and cls.service != GATEWAY
    ]
    assert sorted(cls.wire for cls in handled) == sorted(cls.wire for cls in expected)


def test_wire_names_are_class_names() -> None:
    for wire, cls in OURS.items():
        kebab_case = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        if cls.service != "stripe":  # named by Stripe
            assert wire == f"{cls.service}.{kebab_case}"


def test_second_class_with_a_wire_name_is_refused() -> None:
    with pytest.raises(TypeError, match="is taken by GetUser"):

        class GetAnotherUser(Query, wire="auth.get-user"):
            pass


def test_topics_of_all_messages_are_declared() -> None:
    assert {cls.topic for cls in OURS.values() if cls.service != GATEWAY} <= {topic.name for topic in TOPICS}


def test_default_topic_follows_the_kind_of_message() -> None:
    others = {cls.topic for cls in OURS.values() if cls.topic and not re.search(r"\.(commands|events)$", cls.topic)}
    assert others == {
        *("auth.audit", "auth.clients", "auth.keys", "auth.revocations", "auth.service-commands"),
        *("paused-partitions", "republishing", "stripe.webhooks"),
    }
    for cls in OURS.values():
        assert issubclass(cls, Command | Query | Event)
        if cls.topic and cls.topic not in others:
            assert cls.topic == f"{cls.service}.{'events' if issubclass(cls, Event) else 'commands'}"


def test_messages_are_frozen() -> None:
    message = GetUser(user_id="u")
    with pytest.raises(ValidationError, match="frozen"):
        message.user_id = "other"  # type: ignore[misc]


def test_ordering_key_is_not_in_the_body() -> None:
    message = GetUser(user_id="u", key="k")
    assert message.key == "k"
    assert json.loads(message.model_dump_json()) == {"user_id": "u"}


def test_fields_with_secret_names_are_sealed() -> None:
    secret = re.compile(r"password(?!less)|secret|(^|_)code$|code_verifier|refresh_token|access_token|^to$")
    for wire, cls in OURS.items():
        for name, field in cls.model_fields.items():
            if secret.search(name) and not name.endswith("_type"):
                assert "Sealed" in str(field.annotation), f"{wire}: {name} is readable"


def test_times_are_utc_with_milliseconds() -> None:
    body = b'{"user_id": "u", "at": "2026-11-21T07:05:00.123456+01:00"}'
    message = UserCreated.model_validate_json(body)
    assert json.loads(message.model_dump_json())["at"] == "2026-11-21T06:05:00.123Z"
    assert iso_milliseconds(message.at) == "2026-11-21T06:05:00.123Z"


@pytest.mark.parametrize("at", ["0001-01-01T00:03:00+01:00", "9999-12-31T23:59:59-00:01"])
def test_time_that_utc_cannot_represent_is_refused(at: str) -> None:
    with pytest.raises(ValidationError, match="out of range"):
        UserCreated.model_validate_json(json.dumps({"user_id": "u", "at": at}))


@pytest.mark.parametrize("model", [*subclasses(Part)], ids=lambda each: each.__name__)
def test_field_docstrings_are_descriptions(model: type[Part]) -> None:
    """The reference ignores the docstring of a field whose type has a description."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0].body
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            info = model.model_fields.get(ast.unparse(field.target))  # None for a class attribute
            assert info is None or info.description is None, f"{ast.unparse(field.target)} has two descriptions"


def test_contract_is_inherited() -> None:
    class Parent(Command, reply=UserView, refuses=(UserNotFound,), audited=True, personal=True):
        """An abstract base: it has no wire name."""

    class Child(Parent, wire="auth.child", reply_sealed=True):
        pass

    del MESSAGES["auth.child"]
    assert (Child.reply, Child.refuses) == (UserView, (UserNotFound,))
    assert Child.audited
    assert Child.personal
    assert Child.reply_sealed
    assert not Parent.reply_sealed


@pytest.mark.parametrize(("message", "handler"), HANDLERS, ids=lambda each: each.__name__)
def test_handler_returns_the_declared_reply(message: type[Message], handler: Any) -> None:
    returned = get_type_hints(handler)["return"]
    if message in FORWARDED:
        assert returned is type(None)
        assert FORWARDED[message].reply is message.reply
    elif message in SOMETIMES_FORWARDED:
        assert returned == message.reply | None
        assert SOMETIMES_FORWARDED[message].reply is message.reply
    else:
        assert returned is (message.reply or type(None))


@pytest.mark.parametrize(("message", "handler"), HANDLERS, ids=lambda each: each.__name__)
def test_refusals_in_handler_docstring_are_declared(message: type[Message], handler: Any) -> None:
    # Every message can be refused as unavailable; messages do not declare that.
    codes = {cls.__name__: cls.code for cls in subclasses(Refusal) if not issubclass(cls, Unavailable)}
    raised = {codes[name] for name in names_in_raises(handler) if name in codes}
    assert raised <= {refusal.code for refusal in message.refuses}


@pytest.mark.parametrize(
    ("message", "target"), (FORWARDED | SOMETIMES_FORWARDED).items(), ids=lambda each: each.__name__
)
def test_refusals_of_the_forwarding_target_are_declared(message: type[Message], target: type[Message]) -> None:
    assert {refusal.code for refusal in target.refuses} <= {refusal.code for refusal in message.refuses}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda each: each.__name__)
def test_declared_refusals_have_distinct_codes(message: type[Message]) -> None:
    codes = [refusal.code for refusal in message.refuses]
    assert len(codes) == len(set(codes))
