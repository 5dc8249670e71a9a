"""Audit entries: who tried what, when, from where, and with which outcome. They contain no secrets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shared.ids import derived_message_id
from shared.messages.auth.audit import AuditEntryView, AuditOutcome


def pseudonym(kind: Literal["owner", "application", "application user"], uuid: str) -> str:
    """Name in the audit for something whose ID is a secret: always the same, and not reversible.

    The UUID of an application is its API key in another notation, and the UUID of an owner authorizes changes to the
    owner. UUIDs have 122 random bits, so a plain hash does not reveal them.
    """
    return f"{kind.replace(' ', '-')}_{derived_message_id('audit', kind, uuid)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry of the audit; never changed.

    It names people by ID only. So all entries about a person are found by the ID, and are anonymous after an erasure.

    Attributes:
        action: an ``Action``, or one that a newer service knows.
        code: code of the refusal; None if the action was done.
        caller: kind of the caller, as verified by the gateway.
        caller_user_id: user of the caller's bearer token.
        user_id: user that the action was about, if known.
        session_id: login that the action was about: ID of the authorization or phone code that it began with.
        identifier_id: identifier that was added, verified or removed.
        message_id: ID of the message that ordered the action.
        resource_id: ID of another subject: a news item, subscription, run, export or dead letter. None in documents
            that are older than the field.
    """

    id: str
    at: datetime
    action: str
    outcome: AuditOutcome
    code: str | None
    caller: Literal["anonymous", "user", "internal", "service"]
    caller_user_id: str | None
    user_id: str | None
    client_id: str | None
    session_id: str | None
    identifier_id: str | None
    client_ip: str | None
    message_id: str
    resource_id: str | None = None

    def view(self) -> AuditEntryView:
        """The entry as published and as shown to operators."""
        return AuditEntryView(
            id=self.id,
            at=self.at,
            action=self.action,
            outcome=self.outcome,
            code=self.code,
            caller=self.caller,
            caller_user_id=self.caller_user_id,
            user_id=self.user_id,
            client_id=self.client_id,
            session_id=self.session_id,
            identifier_id=self.identifier_id,
            client_ip=self.client_ip,
            message_id=self.message_id,
            resource_id=self.resource_id,
        )
