"""Audit: records of authentications, refusals, revocations, changes and operators' requests.

Auth records its own messages. Other services report theirs, if they are declared ``audited``, with RecordAuditEntry.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.message import Command, Event, Moment, Part, Query, Reply

Action = Literal[
    "authenticate_user",
    "create_application",
    "create_client",
    "create_news_item",
    "create_trial_and_magic_link",
    "delete_application",
    "delete_owner",
    "dismiss_news_item",
    "end_session",
    "end_stolen_chain",
    "ensure_user",
    "erase_user",
    "export_user",
    "find_user",
    "get_subscription",
    "get_user",
    "get_user_export",
    "import_stripe_account",
    "keep_signing_keys",
    "lift_suppression",
    "list_all_news_items",
    "list_audit_entries",
    "list_clients",
    "list_dead_letters",
    "list_deliveries",
    "list_disputes",
    "list_payments",
    "list_sessions",
    "list_stripe_differences",
    "list_suppressions",
    "log_in",
    "log_in_for_testing",
    "log_in_owner",
    "reconcile_subscriptions",
    "refresh",
    "register_owner",
    "register_phone_user",
    "remove_news_item",
    "replay_dead_letters",
    "replay_stripe_events",
    "resume_stripe_run",
    "revoke_sessions",
    "rotate_signing_keys",
    "send_magic_link",
    "send_phone_code",
    "send_trial_magic_link",
    "set_client_looks",
    "set_marketing_consent",
    "sign_in",
    "sign_in_with_email",
    "sign_up",
    "stop_stripe_run",
    "sweep_stripe_events",
    "update_application_user",
    "update_client",
    "update_news_item",
    "update_owner",
    "verify_phone_code",
]
"""Name of the attempted method or handler. Grants of ``authenticate_user`` are recorded as ``log_in`` and ``refresh``;
``authenticate_user`` itself is a call with an unknown grant type."""
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
    """Other object that the action was about: news item, subscription, Stripe run, export, dead letter."""


class Audited(Event, wire="auth.audited", personal=True):
    """An audit entry was written. The key is the user's ID, if there is one."""

    entry: AuditEntryView


class RecordAuditEntry(Command, wire="auth.record-audit-entry"):
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


class AuditEntriesView(Reply):
    """A page of audit entries."""

    entries: tuple[AuditEntryView, ...]
    """The entries, newest first."""
    next_cursor: str | None
    """``cursor`` of the next page; null on the last one."""


class ListAuditEntries(Query, wire="auth.list-audit-entries", audited=True, reply=AuditEntriesView):
    """List audit entries."""

    user_id: str | None = None
    """Only entries about this user."""
    action: Action | None = None
    """Only entries of this action. Grants of ``authenticate_user`` are recorded as ``log_in`` and ``refresh``."""
    outcome: AuditOutcome | None = None
    """Only entries with this outcome."""
    since: Moment | None = None
    """Only entries of this time or later."""
    until: Moment | None = None
    """Only entries before this time."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    """Maximum number of entries in the page."""
    cursor: str | None = None
    """``next_cursor`` of the previous page."""
