"""RPC methods: the table of dated versions, methods, their messages and access, and an endpoint for each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from services.gateway.endpoint import (
    Access,
    Dispatcher,
    MessageEndpoint,
    OrderingKey,
    Parsed,
    by_field,
    json_body,
    unordered,
)
from services.gateway.errors import Deprecated
from services.gateway.portal import PortalLinks
from services.gateway.requests import HttpRequest, parse_object, validated
from services.gateway.responses import HttpResponse, entity_tag, if_none_match
from services.gateway.versions import BASE_VERSION, VERSIONS
from shared.email_addresses import address_ordering_key
from shared.messages import Caller, Command, Query
from shared.messages.auth.audit import ListAuditEntries
from shared.messages.auth.checkouts import CreateCheckout
from shared.messages.auth.clients import CreateClient, ListClients, SetClientLooks, UpdateClient
from shared.messages.auth.dead_letters import DEAD_LETTERS, ListDeadLetters, ReplayDeadLetters
from shared.messages.auth.magic_links import (
    CreateTrialAndMagicLink,
    LinkRequest,
    OrderTrialMagicLink,
    ResendMagicLink,
    SendMagicLink,
    SendMagicLinkAndCode,
)
from shared.messages.auth.partitions import ListPausedPartitions, ResumePartition
from shared.messages.auth.rate_limits import ListRateLimits
from shared.messages.auth.sessions import ListSessions, RevokeSessions
from shared.messages.auth.signing_keys import KEYRING, ListSigningKeys, RotateSigningKeys
from shared.messages.auth.tokens import AuthenticateUser, RedeemGrant
from shared.messages.auth.users import GetUser, GetUserConsent, ListUsers, SetMarketingConsent
from shared.messages.auth.webhooks import CreateWebhookEndpoint
from shared.messages.billing.customer_state import GetCustomerState
from shared.messages.billing.disputes import ListDisputes
from shared.messages.billing.history import ListBillingHistory, ListStripeEvents
from shared.messages.billing.invoices import ListInvoices
from shared.messages.billing.payments import ListPayments
from shared.messages.billing.plan_changes import CancelSubscription, ChangePlan, PreviewPlanChange, WithdrawCancellation
from shared.messages.billing.plans import ListPlans
from shared.messages.billing.runs import (
    GetStripeRun,
    GetStripeRunProgress,
    ImportStripeAccount,
    ListStripeDifferences,
    ListStripeRuns,
    ReconcileSubscriptions,
    ReplayStripeEvents,
    ResumeStripeRun,
    StopStripeRun,
    SweepStripeEvents,
)
from shared.messages.billing.subscriptions import (
    GetSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionState,
    GetSubscriptionStatus,
    ReconcileUser,
)
from shared.messages.billing.usage import ReportUsage
from shared.messages.gateway import GetSystemState
from shared.messages.mailer.branding import GetClientLooks, PreviewMail
from shared.messages.mailer.deliveries import ListDeliveries
from shared.messages.mailer.suppressions import LiftSuppression, ListSuppressions
from shared.messages.mailer.webhooks import (
    DeleteWebhookEndpoint,
    ListWebhookDeliveries,
    ListWebhookEndpoints,
    ReplayWebhooks,
    RollWebhookSecret,
    SendTestWebhook,
    UpdateWebhookEndpoint,
)
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


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC method.

    Attributes:
        message: class of the command or query; None for a deprecated method, which is always refused.
        access: callers that are admitted.
        ordering_key: computes the ordering key of a command. Queries need none: a client that has the reply to a
            command reads its effect.
        credential_in_body: bearer tokens and unknown schemes in the ``authorization`` header are ignored.
        user_of_token: with a bearer token ``user_id`` or the whole body may be left out; the user is then the token's.
        portal_link: the gateway puts a link to the customer portal into responses that have none.
        links: the gateway replaces the placeholders of links in responses (``shared.messages.billing.links``).
        entity_tag: responses have an ``etag``, and clients may send ``if-none-match``.
        name: as in the URL.
        version: as in the URL.
    """

    message: type[Command | Query] | None
    access: Access
    ordering_key: OrderingKey = unordered
    credential_in_body: bool = False
    user_of_token: bool = False
    portal_link: bool = False
    links: bool = False
    entity_tag: bool = False
    name: str = ""
    version: str = ""


def _by_address(message: LinkRequest, sealer: Sealer) -> str:
    return address_ordering_key(message.identifier_value, sealer)


def _by_grant(command: AuthenticateUser, sealer: Sealer) -> str:
    """Order all redemptions of one authorization code or refresh token, and all guesses at one typed code."""
    code = None if command.code is None else command.code.plain
    if isinstance(command, RedeemGrant) and code and "." not in code and command.code_verifier is not None:
        return sealer.fingerprint(b"verifier", command.code_verifier.plain.encode())
    for secret in (command.code, command.refresh_token):
        if secret is not None:
            # The part before the last dot is an ID. It is hashed because a malformed value may be secret as a whole.
            grant = secret.plain.rpartition(".")[0]
            return sealer.fingerprint(b"grant", grant.encode()) if grant else ""
    return ""


Methods = dict[str, Method]
"""Methods by name."""


def _after(predecessor: Methods, *, removed: Collection[str] = (), **changed: Method) -> Methods:
    """The methods of a version: those of its predecessor, without the removed ones, with the changed and new ones."""
    return {name: method for name, method in predecessor.items() if name not in removed} | changed


def _order(message: type[Command | Query]) -> Method:
    """A method about a subscription of a user, whose orders are handled one after another."""
    return Method(message, Access.SELF_OR_INTERNAL, by_field("user_id"), user_of_token=True, links=True)


_2020_12_14: Final[Methods] = {
    "send_magic_link": Method(SendMagicLink, Access.ANYONE, _by_address, credential_in_body=True),
    "authenticate_user": Method(AuthenticateUser, Access.ANYONE, _by_grant, credential_in_body=True),
    "get_marketing_consent": Method(GetUserConsent, Access.SELF_OR_INTERNAL),
    "set_marketing_consent": Method(SetMarketingConsent, Access.SELF_OR_INTERNAL, by_field("user_id")),
    "list_news_items": Method(ListNewsItems, Access.ANYONE, entity_tag=True),
    "enrol_alpha_user": Method(None, Access.ANYONE),
    "get_subscription_status": Method(GetSubscriptionHeartbeat, Access.SELF_OR_INTERNAL, user_of_token=True),
}
_2021_10_06: Final = _after(
    _2020_12_14,
    removed={"enrol_alpha_user"},
    get_subscription_status=Method(GetSubscriptionStatus, Access.SELF_OR_INTERNAL, portal_link=True),
    get_user=Method(GetUser, Access.SELF_OR_INTERNAL),
    create_trial_and_magic_link=Method(CreateTrialAndMagicLink, Access.ANYONE, _by_address, credential_in_body=True),
    list_sessions=Method(ListSessions, Access.SELF_OR_INTERNAL),
    revoke_sessions=Method(RevokeSessions, Access.SELF_OR_INTERNAL, by_field("user_id")),
    dismiss_news_item=Method(DismissNewsItem, Access.SELF_OR_INTERNAL, by_field("user_id")),
    # Methods for operators.
    get_subscription=Method(GetSubscription, Access.INTERNAL),
    list_signing_keys=Method(ListSigningKeys, Access.INTERNAL),
    rotate_signing_keys=Method(RotateSigningKeys, Access.INTERNAL, lambda *_: KEYRING),
    list_audit_entries=Method(ListAuditEntries, Access.INTERNAL),
    list_deliveries=Method(ListDeliveries, Access.INTERNAL),
    list_suppressions=Method(ListSuppressions, Access.INTERNAL),
    lift_suppression=Method(LiftSuppression, Access.INTERNAL),
    list_dead_letters=Method(ListDeadLetters, Access.INTERNAL),
    replay_dead_letters=Method(ReplayDeadLetters, Access.INTERNAL, lambda *_: DEAD_LETTERS),
    list_payments=Method(ListPayments, Access.INTERNAL),
    list_disputes=Method(ListDisputes, Access.INTERNAL),
    reconcile_subscriptions=Method(ReconcileSubscriptions, Access.INTERNAL),
    sweep_stripe_events=Method(SweepStripeEvents, Access.INTERNAL),
    replay_stripe_events=Method(ReplayStripeEvents, Access.INTERNAL),
    import_stripe_account=Method(ImportStripeAccount, Access.INTERNAL),
    stop_stripe_run=Method(StopStripeRun, Access.INTERNAL),
    resume_stripe_run=Method(ResumeStripeRun, Access.INTERNAL),
    get_stripe_run=Method(GetStripeRun, Access.INTERNAL),
    list_stripe_runs=Method(ListStripeRuns, Access.INTERNAL),
    list_stripe_differences=Method(ListStripeDifferences, Access.INTERNAL),
    create_client=Method(CreateClient, Access.INTERNAL),
    update_client=Method(UpdateClient, Access.INTERNAL, by_field("id")),
    find_user=Method(FindUser, Access.INTERNAL),
    export_user=Method(ExportUser, Access.INTERNAL, by_field("user_id")),
    erase_user=Method(EraseUser, Access.INTERNAL, by_field("user_id")),
    get_user_process=Method(GetUserProcess, Access.INTERNAL),
    get_user_export=Method(GetUserExport, Access.INTERNAL),
    list_clients=Method(ListClients, Access.INTERNAL),
    set_client_looks=Method(SetClientLooks, Access.INTERNAL, by_field("client_id")),
    get_client_looks=Method(GetClientLooks, Access.INTERNAL),
    create_news_item=Method(CreateNewsItem, Access.INTERNAL),
    update_news_item=Method(UpdateNewsItem, Access.INTERNAL, by_field("id")),
    remove_news_item=Method(RemoveNewsItem, Access.INTERNAL, by_field("id")),
    list_all_news_items=Method(ListAllNewsItems, Access.INTERNAL),
)
_2026_12_01: Final = _after(
    _2021_10_06,
    send_magic_link=Method(SendMagicLinkAndCode, Access.ANYONE, _by_address, credential_in_body=True),
    authenticate_user=Method(RedeemGrant, Access.ANYONE, _by_grant, credential_in_body=True),
    get_stripe_run=Method(GetStripeRunProgress, Access.INTERNAL),
    create_checkout=Method(CreateCheckout, Access.SELF_OR_INTERNAL, by_field("user_id"), user_of_token=True),
    list_paused_partitions=Method(ListPausedPartitions, Access.INTERNAL),
    # Without an order: a repeat gets another partition of auth's commands, if the first one is paused itself.
    resume_partition=Method(ResumePartition, Access.INTERNAL),
    list_rate_limits=Method(ListRateLimits, Access.INTERNAL),
    get_system_state=Method(GetSystemState, Access.INTERNAL),
    preview_mail=Method(PreviewMail, Access.INTERNAL),
    list_billing_history=Method(ListBillingHistory, Access.INTERNAL),
    list_stripe_events=Method(ListStripeEvents, Access.INTERNAL),
    list_users=Method(ListUsers, Access.INTERNAL),
    resend_magic_link=Method(ResendMagicLink, Access.INTERNAL, by_field("user_id")),
    reconcile_user=Method(ReconcileUser, Access.INTERNAL, by_field("user_id")),
    create_trial_and_magic_link=Method(OrderTrialMagicLink, Access.ANYONE, _by_address, credential_in_body=True),
    preview_plan_change=Method(PreviewPlanChange, Access.SELF_OR_INTERNAL, user_of_token=True),
    change_plan=_order(ChangePlan),
    cancel_subscription=_order(CancelSubscription),
    resume_subscription=_order(WithdrawCancellation),
    get_customer_state=Method(GetCustomerState, Access.SELF_OR_INTERNAL, user_of_token=True, links=True),
    get_subscription_status=Method(GetSubscriptionState, Access.SELF_OR_INTERNAL, user_of_token=True, links=True),
    list_invoices=Method(ListInvoices, Access.SELF_OR_INTERNAL, user_of_token=True, links=True),
    report_usage=Method(ReportUsage, Access.INTERNAL),
    list_plans=Method(ListPlans, Access.ANYONE, entity_tag=True),
    create_webhook_endpoint=Method(CreateWebhookEndpoint, Access.INTERNAL, lambda command, _: command.client_id or ""),
    update_webhook_endpoint=Method(UpdateWebhookEndpoint, Access.INTERNAL, by_field("id")),
    delete_webhook_endpoint=Method(DeleteWebhookEndpoint, Access.INTERNAL, by_field("id")),
    list_webhook_endpoints=Method(ListWebhookEndpoints, Access.INTERNAL),
    roll_webhook_secret=Method(RollWebhookSecret, Access.INTERNAL, by_field("id")),
    list_webhook_deliveries=Method(ListWebhookDeliveries, Access.INTERNAL),
    replay_webhooks=Method(ReplayWebhooks, Access.INTERNAL, by_field("endpoint_id")),
    send_test_webhook=Method(SendTestWebhook, Access.INTERNAL),
)
METHODS: Final[dict[str, Methods]] = dict(
    zip((version.date for version in VERSIONS), (_2020_12_14, _2021_10_06, _2026_12_01), strict=True)
)
"""The methods by version. Published versions are frozen: their methods keep their fields and their access."""
PATHS: Final = {
    f"/{BASE_VERSION}/{version}/{name}": replace(method, name=name, version=version)
    for version, methods in METHODS.items()
    for name, method in methods.items()
}
"""The methods by URL path."""
TOPICS: Final = {
    path.encode(): method.message.topic for path, method in PATHS.items() if method.message and method.message.topic
}
"""Topics of the methods' messages by request target."""


def endpoints(dispatcher: Dispatcher, portal_links: PortalLinks) -> dict[str, MessageEndpoint]:
    """The endpoints by path."""
    return {path: _endpoint(method, dispatcher, portal_links) for path, method in PATHS.items()}


def _endpoint(method: Method, dispatcher: Dispatcher, portal_links: PortalLinks) -> MessageEndpoint:
    message, operation = method.message, (method.version, method.name)
    if message is None:
        return MessageEndpoint(
            operation, dispatcher=dispatcher, parse=_refuse_deprecated, verb="POST", body_limit=None, topic=None
        )

    def parse_for_user(request: HttpRequest, body: bytes, caller: Caller) -> Parsed:
        if caller.user_id is None:
            return parse_body(request, body, caller)
        fields = {"user_id": caller.user_id, **(parse_object(body) if body else {})}
        return validated(message, fields), fields

    parse_body = json_body(message)
    return MessageEndpoint(
        operation,
        dispatcher=dispatcher,
        parse=parse_for_user if method.user_of_token else parse_body,
        access=method.access,
        credential_in_body=method.credential_in_body,
        ordering_key=method.ordering_key,
        complete=portal_links.add if method.portal_link else portal_links.complete if method.links else None,
        render=_with_entity_tag if method.entity_tag else None,
        verb="POST",
        topic=message.topic or None,
    )


def _refuse_deprecated(_request: HttpRequest, _body: bytes, _caller: Caller) -> Parsed:
    raise Deprecated


def _with_entity_tag(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Add an ``etag``; 304 if the client already has this content."""
    if response.status != HTTPStatus.OK:
        return response
    tag = entity_tag(response.body)
    headers = (*response.headers, (b"etag", tag), (b"cache-control", b"private, no-cache"))
    if tag in if_none_match(request):
        return HttpResponse(304, headers=headers)
    return HttpResponse(200, response.body, headers)
