from typing import Final

from services.auth.handlers import HANDLERS
from services.gateway.endpoint import Access
from services.gateway.methods import METHODS, PATHS
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
    GetClientLooks: "branding is visible to every recipient of the client's mails",
    GetMarketingConsent: "one value for a known user ID; back ends query it before every mail",
    GetStripeRun: "counts without personal data, polled every second during a run",
    GetSubscriptionHeartbeat: "a boolean for a known user ID; back ends query it for every request",
    GetSubscriptionStatus: "a status for a known user ID; back ends query it for every request",
    GetUserProcess: "names of services, polled every second during an export or erasure",
    ListSigningKeys: "public keys",
    ListStripeRuns: "counts without personal data",
}
"""Queries with the internal key that need no audit entry, and the reason."""


def audited(message: type[Message]) -> bool:
    """Whether handling the message creates an audit entry: the bus does it, or auth's decorated handler."""
    return message.audited or hasattr(HANDLERS.get(message), "__wrapped__")


def test_every_method_has_its_path() -> None:
    assert sum(map(len, METHODS.values())) == len(PATHS)
    for path, method in PATHS.items():
        assert path == f"/1/{method.version}/{method.name}"


def test_every_internal_method_is_audited_or_exempt() -> None:
    internal = {method.message for method in PATHS.values() if method.message and method.access is not Access.ANYONE}
    assert len(internal) > 30
    missing = [message.__name__ for message in internal - UNAUDITED.keys() if not audited(message)]
    assert not missing, f"declare these audited, or give the reason in UNAUDITED: {missing}"
    assert internal >= UNAUDITED.keys()


def test_only_unaudited_queries_are_exempt() -> None:
    assert [message.__name__ for message in UNAUDITED if issubclass(message, Command) or audited(message)] == []


def test_audit_action_is_the_method_name() -> None:
    for method in PATHS.values():
        if method.message is not None and method.message.audited:
            assert action_of(method.message) == method.name


def test_message_is_audited_in_one_of_two_ways() -> None:
    assert (audited(CreateClient), CreateClient.audited) == (True, False)
    assert (audited(GetUser), GetUser.audited) == (True, True)
    twice = [message for message, handler in HANDLERS.items() if message.audited and hasattr(handler, "__wrapped__")]
    assert twice == []
