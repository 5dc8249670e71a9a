"""Whoever calls with the internal key leaves an entry in the audit, but for reading what is about no person."""

from typing import Final

from services.auth.handlers import HANDLERS
from services.gateway.endpoint import Access
from services.gateway.methods import PATHS
from shared.audit import action_of
from shared.messages import Command, Message
from shared.messages.auth.clients import CreateClient
from shared.messages.auth.signing_keys import ListSigningKeys
from shared.messages.auth.users import GetUser
from shared.messages.billing.runs import GetStripeRun, ListStripeRuns
from shared.messages.billing.subscriptions import GetSubscriptionHeartbeat, GetSubscriptionStatus
from shared.messages.mailer.branding import GetClientLooks
from shared.messages.mailer.consents import GetMarketingConsent
from shared.messages.personal_data import GetUserProcess

UNAUDITED: Final[dict[type[Message], str]] = {
    GetClientLooks: "how the mails of an app look is seen by everybody who gets one",
    GetMarketingConsent: "one word, of somebody whom one knows already; back ends ask before they write to people",
    GetStripeRun: "counts, asked every second by who watches a run",
    GetSubscriptionHeartbeat: "yes or no, asked by back ends at every request",
    GetSubscriptionStatus: "whether somebody may use what was paid for, asked by back ends at every request",
    GetUserProcess: "which services are done, asked every second by who waits for them",
    ListSigningKeys: "the public halves, which anybody may read",
    ListStripeRuns: "counts",
}
"""What may be asked with the internal key without an entry, and why."""


def recorded(message: type[Message]) -> bool:
    """Whether what comes of it ends in the audit: auth writes down its own orders, the rest is told to it."""
    return message.audited or hasattr(HANDLERS.get(message), "__wrapped__")


def test_every_method_of_the_internal_key_is_audited_or_harmless_to_read() -> None:
    asked = {method.message for method in PATHS.values() if method.message and method.access is not Access.ANYONE}
    assert len(asked) > 30
    forgotten = [kind.__name__ for kind in asked - UNAUDITED.keys() if not recorded(kind)]
    assert not forgotten, f"declare it audited, or say in UNAUDITED why nobody need know who read it: {forgotten}"
    assert asked >= UNAUDITED.keys()


def test_only_reading_may_be_harmless() -> None:
    assert [kind.__name__ for kind in UNAUDITED if issubclass(kind, Command) or recorded(kind)] == []


def test_an_entry_names_the_method_as_it_was_called() -> None:
    for method in PATHS.values():
        if method.message is not None and method.message.audited:
            assert action_of(method.message) == method.name


def test_a_message_is_recorded_in_one_way() -> None:
    assert (recorded(CreateClient), CreateClient.audited) == (True, False)
    assert (recorded(GetUser), GetUser.audited) == (True, True)
    twice = [kind for kind, handler in HANDLERS.items() if kind.audited and hasattr(handler, "__wrapped__")]
    assert twice == []
