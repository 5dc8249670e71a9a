"""What auth writes down of every authentication, refusal, revocation and change, and of all that operators order.

What it does not see itself it is told by RecordAuditEntry: of each message that is declared ``audited``.
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
"""What somebody tried to do: the method's or the handler's name. ``authenticate_user`` stands for grants that there
are not; the others are ``log_in`` and ``refresh``."""
AuditOutcome = Literal["done", "refused"]
NOTE_FIELDS: Final = frozenset({"user_id", "client_id", "session_id", "identifier_id", "resource_id"})
"""What handlers find out about their message: ids that their service has made or looked up, never what was typed."""


class AuditEntryView(Part):
    """Who tried what, when, from where, and what came of it. Never a secret, an address or a number."""

    id: str
    at: Moment
    action: str
    outcome: AuditOutcome
    code: str | None
    """Why it was refused."""
    caller: Literal["anonymous", "user", "internal", "service"]
    caller_user_id: str | None
    """The user of the bearer token."""
    user_id: str | None
    """Whom it was about, where that came to light."""
    client_id: str | None
    session_id: str | None
    """The login it was about: the id of the authorization or the phone code that it began with, as of its order."""
    identifier_id: str | None
    """The identifier that was added, verified or removed."""
    client_ip: str | None
    message_id: str
    """As in the services' logs and traces."""
    resource_id: str | None = None
    """What else it was about: the news item, the subscription, the run over a Stripe account, the export, …"""


class Audited(Event, wire="auth.audited", personal=True):
    """An entry was written. ``key`` is the user's id, where there is one."""

    entry: AuditEntryView


class RecordAuditEntry(Command, wire="auth.record-audit-entry"):
    """Keep what came of something that another service, or a question to auth, was asked.

    Who asked and from where travels beside it, as with every message that follows from another.
    """

    action: str
    """An ``Action``; a text, since a service may be newer than auth."""
    refused_as: str | None
    """The code of the refusal; None when it was done."""
    at: Moment
    """When it was handled."""
    message_id: str
    """Of what was asked."""
    user_id: str | None = None
    client_id: str | None = None
    session_id: str | None = None
    identifier_id: str | None = None
    resource_id: str | None = None


class AuditEntriesView(Reply):
    """A page of the audit."""

    entries: tuple[AuditEntryView, ...]
    next_cursor: str | None
    """What the next page is asked for with; None after the last."""


class ListAuditEntries(Query, wire="auth.list-audit-entries", audited=True, reply=AuditEntriesView):
    """What was done to whom, by whom."""

    user_id: str | None = None
    """Only what was about this user."""
    action: Action | None = None
    outcome: AuditOutcome | None = None
    since: Moment | None = None
    """Not before."""
    until: Moment | None = None
    """Before."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: str | None = None
    """``next_cursor`` of the page before."""
