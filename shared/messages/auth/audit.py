"""Audit: records of authentications, refusals, revocations, changes and operators' requests.

Auth records its own messages. Other services report theirs, if they are declared ``audited``, with RecordAuditEntry.
"""

from typing import Final, Literal

from pydantic import Field

from shared.errors import InvalidCursor
from shared.messages.message import SERVICE_COMMANDS, Command, Event, OperatorList, Part, Reply
from shared.messages.types import AnyId, Cursor, CursorText, Limit, Many, Moment, NextCursor, Since, Until

_Login = Literal["authenticate_user", "log_in", "log_in_for_testing", "refresh", "register_phone_user"]
_LoginCode = Literal[
    "resend_magic_link", "send_magic_link", "send_phone_code", "send_trial_magic_link", "verify_phone_code"
]
_Session = Literal["end_session", "end_stolen_chain", "list_sessions", "revoke_sessions"]
_Owner = Literal["delete_owner", "forgot_owner_password", "log_in_owner", "register_owner", "update_owner"]
_Application = Literal["create_application", "delete_application", "update_application"]
_AccountLink = Literal["forgot_password", "reset_password", "send_verification", "verify_address"]
_Caller = Literal["authenticate_access_token", "authenticate_internal_key"]
_ApplicationUser = Literal["sign_in", "sign_in_with_email", "sign_up", "update_application_user"]
_User = Literal["ensure_user", "erase_user", "export_user", "find_user", "get_user", "get_user_export", "list_users"]
_Client = Literal["create_client", "list_clients", "set_client_looks", "update_client"]
_SigningKey = Literal["keep_signing_keys", "rotate_signing_keys"]
_Record = Literal["refused_orders", "list_audit_entries", "list_rate_limits"]
_DeadLetter = Literal["list_dead_letters", "replay_dead_letters", "resume_partition"]
_Subscription = Literal["create_checkout", "create_trial_and_magic_link", "get_subscription", "report_usage"]
_Payment = Literal["list_billing_history", "list_disputes", "list_invoices", "list_payments", "list_stripe_events"]
_Plan = Literal["cancel_subscription", "change_plan", "resume_subscription"]
_StripeRun = Literal["import_stripe_account", "reconcile_subscriptions", "replay_stripe_events", "sweep_stripe_events"]
_StripeRunControl = Literal["list_stripe_differences", "reconcile_user", "resume_stripe_run", "stop_stripe_run"]
_Mail = Literal["lift_suppression", "list_deliveries", "list_suppressions", "set_marketing_consent"]
_Webhook = Literal["list_webhook_deliveries", "list_webhook_endpoints", "replay_webhooks", "send_test_webhook"]
_WebhookEndpoint = Literal[
    "create_webhook_endpoint", "delete_webhook_endpoint", "roll_webhook_secret", "update_webhook_endpoint"
]
_News = Literal["create_news_item", "dismiss_news_item", "list_all_news_items", "remove_news_item", "update_news_item"]
Action = Literal[
    _Login,
    _LoginCode,
    _Session,
    _Owner,
    _Application,
    _AccountLink,
    _ApplicationUser,
    _Caller,
    _User,
    _Client,
    _SigningKey,
    _Record,
    _DeadLetter,
    _Subscription,
    _Payment,
    _Plan,
    _StripeRun,
    _StripeRunControl,
    _Mail,
    _News,
    _Webhook,
    _WebhookEndpoint,
]
"""Name of the attempted method or handler. Grants of ``authenticate_user`` are recorded as ``log_in`` and ``refresh``;
``authenticate_user`` itself is a call with an unknown grant type. ``authenticate_access_token`` and
``authenticate_internal_key`` are requests that a gateway refused, because auth did not sign the token or the key is
wrong. ``refused_orders`` are anonymous calls over the limit of refusals of their network."""
AuditOutcome = Literal["done", "refused"]
NOTE_FIELDS: Final = frozenset({"user_id", "client_id", "session_id", "identifier_id", "resource_id"})
"""Fields that handlers may fill with ``work.note``: IDs that Nest created or looked up, never values from requests."""


class AuditEntryView(Part):
    """An audit entry. It contains no secrets, addresses or phone numbers."""

    id: str
    """ID of the entry."""
    at: Moment
    """When the request was handled."""
    action: str
    """Attempted action, for example ``log_in``."""
    outcome: AuditOutcome
    """``done``, or ``refused`` with a ``code``."""
    code: str | None
    """Error code of a refusal."""
    caller: Literal["anonymous", "user", "internal", "service"]
    """Kind of caller: no credentials, an access token, an internal key, or Nest itself."""
    caller_user_id: str | None
    """User of the request's access token."""
    key_name: str | None = None
    """Name of the internal key in `NEST_INTERNAL_KEYS`; `default` for a key without a name."""
    user_id: str | None
    """User, owner or application user that the action was about, if known."""
    client_id: str | None
    """Client or application that the action was about, if known."""
    session_id: str | None
    """Session that the action was about. Available from the request of the magic link or phone code on."""
    identifier_id: str | None
    """Identifier that was added, verified or removed."""
    client_ip: str | None
    """IP address of the caller."""
    message_id: str
    """ID of the message, as in logs and traces."""
    resource_id: str | None = None
    """Other object that the action was about: news item, subscription, Stripe run, export, dead letter, partition."""
    count: int = 1
    """Number of requests: more than 1 for failed authentications, of which a gateway reports those of one network
    together, and for ``refused_orders``, those of a minute from the network that is ``client_ip``."""


class Audited(Event, wire="auth.audited", topic="auth.audit", personal=True):
    """An audit entry was written. The key is the user's ID, if there is one."""

    entry: AuditEntryView


class RecordAuditEntry(Command, wire="auth.record-audit-entry", topic=SERVICE_COMMANDS):
    """Record the outcome of a message that another service handled, or of a query to auth.

    Caller and IP address are those of the recorded message, which its context carries.
    """

    action: str
    """An ``Action``, or one that only a newer service knows."""
    refused_as: str | None
    """Code of the refusal; None if the message was handled."""
    at: Moment
    """When the message was handled."""
    message_id: str
    """ID of the recorded message."""
    user_id: str | None = None
    client_id: str | None = None
    session_id: str | None = None
    identifier_id: str | None = None
    resource_id: str | None = None
    count: int = Field(default=1, ge=1)
    """Number of requests."""
    network: str | None = None
    """Instead of caller and IP address: the network of anonymous callers, empty if there are too many."""


class AuditEntriesView(Reply):
    """A page of audit entries."""

    entries: Many[AuditEntryView]
    """The entries, newest first."""
    next_cursor: NextCursor


class ListAuditEntries(
    OperatorList, wire="auth.list-audit-entries", audited=True, reply=AuditEntriesView, refuses=(InvalidCursor,)
):
    """List audit entries."""

    user_id: AnyId | None = None
    """Only entries about this user."""
    action: Action | None = None
    """Only entries of this action. Grants of ``authenticate_user`` are recorded as ``log_in`` and ``refresh``."""
    outcome: AuditOutcome | None = None
    """Only entries with this outcome."""
    since: Since = None
    until: Until = None
    limit: Limit = 100
    cursor: Cursor[CursorText] = None
