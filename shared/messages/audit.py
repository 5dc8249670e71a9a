"""What auth writes down of every authentication, refusal, revocation and change, and how operators read it."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.message import Event, Moment, Part, Query, Reply

Action = Literal[
    "authenticate_user",
    "create_application",
    "create_client",
    "create_trial_and_magic_link",
    "delete_application",
    "delete_owner",
    "end_session",
    "end_stolen_chain",
    "ensure_user",
    "keep_signing_keys",
    "erase_user",
    "export_user",
    "log_in",
    "log_in_for_testing",
    "log_in_owner",
    "refresh",
    "register_owner",
    "register_phone_user",
    "replay_dead_letters",
    "revoke_sessions",
    "rotate_signing_keys",
    "send_magic_link",
    "send_phone_code",
    "send_trial_magic_link",
    "set_client_looks",
    "sign_in",
    "sign_in_with_email",
    "sign_up",
    "update_application_user",
    "update_client",
    "update_owner",
    "verify_phone_code",
]
"""What somebody tried to do: the method's or the handler's name. ``authenticate_user`` stands for grants that there
are not; the others are ``log_in`` and ``refresh``."""
AuditOutcome = Literal["done", "refused"]


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


class Audited(Event, wire="auth.audited"):
    """An entry was written. ``key`` is the user's id, where there is one."""

    entry: AuditEntryView


class ListAuditEntries(Query, wire="auth.list-audit-entries"):
    """Reply: AuditEntriesView, newest first."""

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


class AuditEntriesView(Reply):
    """A page of the audit."""

    entries: tuple[AuditEntryView, ...]
    next_cursor: str | None
    """What the next page is asked for with; None after the last."""
