"""RPC methods: the table of dated versions, methods, their messages and access."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from services.gateway.dispatch import OrderingKey, unordered
from services.gateway.endpoint import Access
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


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC method.

    Attributes:
        message: class of the command or query; None for a deprecated method, which is always refused.
        access: callers that are admitted.
        ordering_key: computes the ordering key of a command.
        user_of_token: with a bearer token the body may be left out; ``user_id`` is then the token's user.
        entity_tag: responses have an ``etag``, and clients may send ``if-none-match``.
        name: as in the URL.
        version: as in the URL.
    """

    message: type[Command | Query] | None
    access: Access
    ordering_key: OrderingKey
    user_of_token: bool = False
    entity_tag: bool = False
    name: str = ""
    version: str = ""


def command(message: type[Command], access: Access, ordering_key: OrderingKey) -> Method:
    """A method that changes something."""
    return Method(message, access, ordering_key)


def query(message: type[Query], access: Access, *, user_of_token: bool = False, entity_tag: bool = False) -> Method:
    """A method that reads. Queries need no order: a client that awaited a command's reply reads its effect."""
    return Method(message, access, unordered, user_of_token, entity_tag)


def deprecated() -> Method:
    """A method that was removed and is always refused."""
    return Method(None, Access.ANYONE, unordered)


def _by_news_item(message: UpdateNewsItem | RemoveNewsItem, _sealer: Sealer) -> str:
    return message.id


def _by_client(message: UpdateClient, _sealer: Sealer) -> str:
    return message.id


def _by_branded_client(message: SetClientLooks, _sealer: Sealer) -> str:
    return message.client_id


def _by_user(message: SetMarketingConsent | RevokeSessions | ExportUser | EraseUser, _sealer: Sealer) -> str:
    return message.user_id


def _by_address(message: LinkRequest, sealer: Sealer) -> str:
    return address_ordering_key(message.identifier_value, sealer)


def _by_grant(command: AuthenticateUser, sealer: Sealer) -> str:
    """Order all redemptions of one authorization code or refresh token."""
    for secret in (command.code, command.refresh_token):
        if secret is not None:
            # The part before the last dot is an ID. It is hashed because a malformed value may be secret as a whole.
            grant = secret.plain.rpartition(".")[0]
            return sealer.fingerprint(b"grant", grant.encode("utf-8", "surrogatepass")) if grant else ""
    return ""


def _by_keyring(_command: RotateSigningKeys, _sealer: Sealer) -> str:
    return KEYRING


def _by_dead_letters(_command: ReplayDeadLetters, _sealer: Sealer) -> str:
    return DEAD_LETTERS


METHODS: Final[dict[str, dict[str, Method]]] = {
    "2020-12-14": {
        "send_magic_link": command(SendMagicLink, Access.ANYONE, _by_address),
        "authenticate_user": command(AuthenticateUser, Access.ANYONE, _by_grant),
        "get_marketing_consent": query(GetMarketingConsent, Access.SELF_OR_INTERNAL),
        "set_marketing_consent": command(SetMarketingConsent, Access.SELF_OR_INTERNAL, _by_user),
        "list_news_items": query(ListNewsItems, Access.ANYONE, entity_tag=True),
        "enrol_alpha_user": deprecated(),
        "get_subscription_status": query(GetSubscriptionHeartbeat, Access.SELF_OR_INTERNAL, user_of_token=True),
    },
    "2021-10-06": {
        "send_magic_link": command(SendMagicLink, Access.ANYONE, _by_address),
        "authenticate_user": command(AuthenticateUser, Access.ANYONE, _by_grant),
        "get_marketing_consent": query(GetMarketingConsent, Access.SELF_OR_INTERNAL),
        "set_marketing_consent": command(SetMarketingConsent, Access.SELF_OR_INTERNAL, _by_user),
        "list_news_items": query(ListNewsItems, Access.ANYONE, entity_tag=True),
        "get_subscription_status": query(GetSubscriptionStatus, Access.SELF_OR_INTERNAL),
        "get_user": query(GetUser, Access.SELF_OR_INTERNAL),
        "create_trial_and_magic_link": command(CreateTrialAndMagicLink, Access.ANYONE, _by_address),
        "list_sessions": query(ListSessions, Access.SELF_OR_INTERNAL),
        "revoke_sessions": command(RevokeSessions, Access.SELF_OR_INTERNAL, _by_user),
        "dismiss_news_item": command(DismissNewsItem, Access.SELF_OR_INTERNAL, _by_user),
        # Methods for operators.
        "get_subscription": query(GetSubscription, Access.INTERNAL),
        "list_signing_keys": query(ListSigningKeys, Access.INTERNAL),
        "rotate_signing_keys": command(RotateSigningKeys, Access.INTERNAL, _by_keyring),
        "list_audit_entries": query(ListAuditEntries, Access.INTERNAL),
        "list_deliveries": query(ListDeliveries, Access.INTERNAL),
        "list_suppressions": query(ListSuppressions, Access.INTERNAL),
        "lift_suppression": command(LiftSuppression, Access.INTERNAL, unordered),
        "list_dead_letters": query(ListDeadLetters, Access.INTERNAL),
        "replay_dead_letters": command(ReplayDeadLetters, Access.INTERNAL, _by_dead_letters),
        "list_payments": query(ListPayments, Access.INTERNAL),
        "list_disputes": query(ListDisputes, Access.INTERNAL),
        "reconcile_subscriptions": command(ReconcileSubscriptions, Access.INTERNAL, unordered),
        "sweep_stripe_events": command(SweepStripeEvents, Access.INTERNAL, unordered),
        "replay_stripe_events": command(ReplayStripeEvents, Access.INTERNAL, unordered),
        "import_stripe_account": command(ImportStripeAccount, Access.INTERNAL, unordered),
        "stop_stripe_run": command(StopStripeRun, Access.INTERNAL, unordered),
        "resume_stripe_run": command(ResumeStripeRun, Access.INTERNAL, unordered),
        "get_stripe_run": query(GetStripeRun, Access.INTERNAL),
        "list_stripe_runs": query(ListStripeRuns, Access.INTERNAL),
        "list_stripe_differences": query(ListStripeDifferences, Access.INTERNAL),
        "create_client": command(CreateClient, Access.INTERNAL, unordered),
        "update_client": command(UpdateClient, Access.INTERNAL, _by_client),
        "find_user": query(FindUser, Access.INTERNAL),
        "export_user": command(ExportUser, Access.INTERNAL, _by_user),
        "erase_user": command(EraseUser, Access.INTERNAL, _by_user),
        "get_user_process": query(GetUserProcess, Access.INTERNAL),
        "get_user_export": query(GetUserExport, Access.INTERNAL),
        "list_clients": query(ListClients, Access.INTERNAL),
        "set_client_looks": command(SetClientLooks, Access.INTERNAL, _by_branded_client),
        "get_client_looks": query(GetClientLooks, Access.INTERNAL),
        "create_news_item": command(CreateNewsItem, Access.INTERNAL, unordered),
        "update_news_item": command(UpdateNewsItem, Access.INTERNAL, _by_news_item),
        "remove_news_item": command(RemoveNewsItem, Access.INTERNAL, _by_news_item),
        "list_all_news_items": query(ListAllNewsItems, Access.INTERNAL),
    },
}
PATHS: Final = {
    f"/{BASE_VERSION}/{version}/{name}": replace(method, name=name, version=version)
    for version, methods in METHODS.items()
    for name, method in methods.items()
}
"""The methods by URL path."""


def unknown_path(path: str) -> UnknownVersion | VersionNotSupported | NotFound:
    """Refusal for a path that is in no table."""
    base, *rest = path.split("/")[1:]
    # Routes without a version are at the root too, so only paths that look versioned are checked for their version.
    if base != BASE_VERSION and (base.isdecimal() or len(rest) == 2):  # noqa: PLR2004 -- /{base}/{version}/{method}
        return UnknownVersion(supported_version=BASE_VERSION)
    if base == BASE_VERSION and rest and rest[0] not in METHODS:
        return VersionNotSupported(versions=sorted(METHODS))
    return NotFound()
