"""Replies and refusals that the messages declare, compared with the handlers of all services."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any, Final, get_type_hints

import pytest

from shared.errors import Refusal, Unavailable
from shared.messages import MESSAGES, Message
from shared.messages.auth.clients import SetClientLooks
from shared.messages.auth.magic_links import CreateTrialAndMagicLink
from shared.messages.auth.users import SetMarketingConsent
from shared.messages.billing.trials import FinishTrial, StartTrial
from shared.messages.mailer.branding import RecordClientLooks
from shared.messages.mailer.consents import RecordMarketingConsent

HANDLERS: Final[list[tuple[type[Message], Any]]] = [
    (message, handler)
    for service in ("auth", "billing", "mailer", "news")
    for message, handler in importlib.import_module(f"services.{service}.app").HANDLERS.items()
]
FORWARDED: Final[dict[type[Message], type[Message]]] = {
    CreateTrialAndMagicLink: StartTrial,
    SetClientLooks: RecordClientLooks,
    SetMarketingConsent: RecordMarketingConsent,
    StartTrial: FinishTrial,
}
"""Messages whose handler forwards them, and the message whose handler replies in its place."""


def below(kind: type[Refusal]) -> Iterator[type[Refusal]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def raised(handler: Any) -> list[str]:
    """Names in the ``Raises:`` section of a handler's docstring."""
    section = re.search(r"^Raises:\n((?:    .*\n?)+)", inspect.getdoc(handler) or "", re.MULTILINE)
    entries = re.findall(r"^    (\w+(?:, \w+)*):", section[1], re.MULTILINE) if section else []
    return [name for entry in entries for name in entry.split(", ")]


@pytest.mark.parametrize(("message", "handler"), HANDLERS, ids=lambda each: each.__name__)
def test_handler_returns_the_declared_reply(message: type[Message], handler: Any) -> None:
    returned = get_type_hints(handler)["return"]
    if message in FORWARDED:
        assert returned is type(None)
        assert FORWARDED[message].reply is message.reply
    else:
        assert returned is (message.reply or type(None))


@pytest.mark.parametrize(("message", "handler"), HANDLERS, ids=lambda each: each.__name__)
def test_refusals_in_handler_docstring_are_declared(message: type[Message], handler: Any) -> None:
    # Any message can be refused as unavailable; messages do not repeat it.
    refusals = {kind.__name__: kind.code for kind in below(Refusal) if not issubclass(kind, Unavailable)}
    named = {refusals[name] for name in raised(handler) if name in refusals}
    assert named <= {refusal.code for refusal in message.refuses}


@pytest.mark.parametrize(("message", "target"), FORWARDED.items(), ids=lambda each: each.__name__)
def test_refusals_of_the_forwarding_target_are_declared(message: type[Message], target: type[Message]) -> None:
    assert {refusal.code for refusal in target.refuses} <= {refusal.code for refusal in message.refuses}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda each: each.__name__)
def test_declared_refusals_have_distinct_codes(message: type[Message]) -> None:
    codes = [refusal.code for refusal in message.refuses]
    assert len(codes) == len(set(codes))
