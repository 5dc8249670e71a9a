"""Which methods does the RPC API have? Dated version, method, message, and who may call it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from services.gateway.asking import Ordering, unordered
from services.gateway.errors import UnknownVersion, VersionNotSupported
from shared.bus.envelope import address_ordering_key
from shared.errors import NotFound
from shared.messages import Command, Query
from shared.messages.auth.audit import ListAuditEntries
from shared.messages.auth.clients import CreateClient, ListClients, SetClientLooks, UpdateClient
from shared.messages.auth.dead_letters import DEAD_LETTERS, ListDeadLetters, ReplayDeadLetters
from shared.messages.auth.magic_links import CreateTrialAndMagicLink, LinkRequest, SendMagicLink
from shared.messages.auth.sessions import ListSessions, RevokeSessions
from shared.messages.auth.signing_keys import KEYRING, ListSigningKeys, RotateSigningKeys
from shared.messages.auth.tokens import AuthenticateUser
from shared.messages.auth.users import GetUser, SetMarketingConsent
from shared.messages.billing.disputes import ListDisputes
from shared.messages.billing.payments import ListPayments
from shared.messages.billing.runs import (
    GetStripeRun,
    ImportStripeAccount,
    ListStripeDifferences,
    ListStripeRuns,
    ReconcileSubscriptions,
    ReplayStripeEvents,
    ResumeStripeRun,
    StopStripeRun,
    SweepStripeEvents,
)
from shared.messages.billing.subscriptions import GetSubscription, GetSubscriptionHeartbeat, GetSubscriptionStatus
from shared.messages.mailer.branding import GetClientLooks
from shared.messages.mailer.consents import GetMarketingConsent
from shared.messages.mailer.deliveries import ListDeliveries
from shared.messages.mailer.suppressions import LiftSuppression, ListSuppressions
from shared.messages.news import (
    CreateNewsItem,
    DismissNewsItem,
    ListAllNewsItems,
    ListNewsItems,
    RemoveNewsItem,
    UpdateNewsItem,
)
from shared.messages.personal_data import EraseUser, ExportUser, FindUser, GetUserExport, GetUserProcess
from shared.sealing import Sealer

BASE_VERSION: Final = "1"


class Who(Enum):
    """Who may call a method."""

    ANYONE = "anyone"
    SELF_OR_INTERNAL = "self or internal"
    """A bearer whose user is the ``user_id`` asked about, or the internal key."""
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the API.

    Attributes:
        message: what its body becomes; None where it is only kept to say that it is gone.
        who: who may call it.
        ordering: what orders the message among others of one subject; no order for questions.
        user_of_token: a bearer call may leave the body out: the user is the token's.
        tagged: answers carry an ``etag``, and who has the same one already is told so instead.
        name: as in the URL.
        version: as in the URL.
    """

    message: type[Command | Query] | None
    who: Who
    ordering: Ordering
    user_of_token: bool = False
    tagged: bool = False
    name: str = ""
    version: str = ""


def order(message: type[Command], who: Who, ordering: Ordering) -> Method:
    """A method that changes something."""
    return Method(message, who, ordering)


def ask(message: type[Query], who: Who, *, user_of_token: bool = False, tagged: bool = False) -> Method:
    """A method that only reads. It needs no place in an order: a client that awaited a change reads its effect."""
    return Method(message, who, unordered, user_of_token, tagged)


def gone() -> Method:
    """A method of old, always refused as deprecated."""
    return Method(None, Who.ANYONE, unordered)


def _by_news_item(message: UpdateNewsItem | RemoveNewsItem, _sealer: Sealer) -> str:
    return message.id


def _by_client(message: UpdateClient, _sealer: Sealer) -> str:
    return message.id


def _by_client_dressed(message: SetClientLooks, _sealer: Sealer) -> str:
    return message.client_id


def _by_user(message: SetMarketingConsent | RevokeSessions | ExportUser | EraseUser, _sealer: Sealer) -> str:
    return message.user_id


def _by_address(message: LinkRequest, sealer: Sealer) -> str:
    return address_ordering_key(message.identifier_value, sealer)


def _by_grant(command: AuthenticateUser, sealer: Sealer) -> str:
    """Redemptions of one code, or of one refresh token, come one after the other."""
    for secret in (command.code, command.refresh_token):
        if secret is not None:
            # What stands before the last dot is an id; hashed, since a malformed one may be secret altogether.
            grant = secret.plain.rpartition(".")[0]
            return sealer.fingerprint(b"grant", grant.encode("utf-8", "surrogatepass")) if grant else ""
    return ""


def _keyring(_command: RotateSigningKeys, _sealer: Sealer) -> str:
    return KEYRING


def _dead_letters(_command: ReplayDeadLetters, _sealer: Sealer) -> str:
    return DEAD_LETTERS


METHODS: Final[dict[str, dict[str, Method]]] = {
    "2020-12-14": {
        "send_magic_link": order(SendMagicLink, Who.ANYONE, _by_address),
        "authenticate_user": order(AuthenticateUser, Who.ANYONE, _by_grant),
        "get_marketing_consent": ask(GetMarketingConsent, Who.SELF_OR_INTERNAL),
        "set_marketing_consent": order(SetMarketingConsent, Who.SELF_OR_INTERNAL, _by_user),
        "list_news_items": ask(ListNewsItems, Who.ANYONE, tagged=True),
        "enrol_alpha_user": gone(),
        "get_subscription_status": ask(GetSubscriptionHeartbeat, Who.SELF_OR_INTERNAL, user_of_token=True),
    },
    "2021-10-06": {
        "send_magic_link": order(SendMagicLink, Who.ANYONE, _by_address),
        "authenticate_user": order(AuthenticateUser, Who.ANYONE, _by_grant),
        "get_marketing_consent": ask(GetMarketingConsent, Who.SELF_OR_INTERNAL),
        "set_marketing_consent": order(SetMarketingConsent, Who.SELF_OR_INTERNAL, _by_user),
        "list_news_items": ask(ListNewsItems, Who.ANYONE, tagged=True),
        "get_subscription_status": ask(GetSubscriptionStatus, Who.SELF_OR_INTERNAL),
        "get_user": ask(GetUser, Who.SELF_OR_INTERNAL),
        "create_trial_and_magic_link": order(CreateTrialAndMagicLink, Who.ANYONE, _by_address),
        "list_sessions": ask(ListSessions, Who.SELF_OR_INTERNAL),
        "revoke_sessions": order(RevokeSessions, Who.SELF_OR_INTERNAL, _by_user),
        "dismiss_news_item": order(DismissNewsItem, Who.SELF_OR_INTERNAL, _by_user),
        # For operators.
        "get_subscription": ask(GetSubscription, Who.INTERNAL),
        "list_signing_keys": ask(ListSigningKeys, Who.INTERNAL),
        "rotate_signing_keys": order(RotateSigningKeys, Who.INTERNAL, _keyring),
        "list_audit_entries": ask(ListAuditEntries, Who.INTERNAL),
        "list_deliveries": ask(ListDeliveries, Who.INTERNAL),
        "list_suppressions": ask(ListSuppressions, Who.INTERNAL),
        "lift_suppression": order(LiftSuppression, Who.INTERNAL, unordered),
        "list_dead_letters": ask(ListDeadLetters, Who.INTERNAL),
        "replay_dead_letters": order(ReplayDeadLetters, Who.INTERNAL, _dead_letters),
        "list_payments": ask(ListPayments, Who.INTERNAL),
        "list_disputes": ask(ListDisputes, Who.INTERNAL),
        "reconcile_subscriptions": order(ReconcileSubscriptions, Who.INTERNAL, unordered),
        "sweep_stripe_events": order(SweepStripeEvents, Who.INTERNAL, unordered),
        "replay_stripe_events": order(ReplayStripeEvents, Who.INTERNAL, unordered),
        "import_stripe_account": order(ImportStripeAccount, Who.INTERNAL, unordered),
        "stop_stripe_run": order(StopStripeRun, Who.INTERNAL, unordered),
        "resume_stripe_run": order(ResumeStripeRun, Who.INTERNAL, unordered),
        "get_stripe_run": ask(GetStripeRun, Who.INTERNAL),
        "list_stripe_runs": ask(ListStripeRuns, Who.INTERNAL),
        "list_stripe_differences": ask(ListStripeDifferences, Who.INTERNAL),
        "create_client": order(CreateClient, Who.INTERNAL, unordered),
        "update_client": order(UpdateClient, Who.INTERNAL, _by_client),
        "find_user": ask(FindUser, Who.INTERNAL),
        "export_user": order(ExportUser, Who.INTERNAL, _by_user),
        "erase_user": order(EraseUser, Who.INTERNAL, _by_user),
        "get_user_process": ask(GetUserProcess, Who.INTERNAL),
        "get_user_export": ask(GetUserExport, Who.INTERNAL),
        "list_clients": ask(ListClients, Who.INTERNAL),
        "set_client_looks": order(SetClientLooks, Who.INTERNAL, _by_client_dressed),
        "get_client_looks": ask(GetClientLooks, Who.INTERNAL),
        "create_news_item": order(CreateNewsItem, Who.INTERNAL, unordered),
        "update_news_item": order(UpdateNewsItem, Who.INTERNAL, _by_news_item),
        "remove_news_item": order(RemoveNewsItem, Who.INTERNAL, _by_news_item),
        "list_all_news_items": ask(ListAllNewsItems, Who.INTERNAL),
    },
}
PATHS: Final = {
    f"/{BASE_VERSION}/{version}/{name}": replace(method, name=name, version=version)
    for version, methods in METHODS.items()
    for name, method in methods.items()
}
"""The methods by their URL's path, which they know from here on."""


def missing(path: str) -> UnknownVersion | VersionNotSupported | NotFound:
    """Why a path that is not in ``PATHS`` leads nowhere."""
    base, *rest = path.split("/")[1:]
    # Other families of routes live at the root: only what looks like a versioned path is judged as one.
    if base != BASE_VERSION and (base.isdecimal() or len(rest) == 2):  # noqa: PLR2004 -- /{base}/{version}/{method}
        return UnknownVersion(supported_version=BASE_VERSION)
    if base == BASE_VERSION and rest and rest[0] not in METHODS:
        return VersionNotSupported(versions=sorted(METHODS))
    return NotFound()
