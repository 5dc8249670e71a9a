"""What is written down of what somebody tried? Who, what, when, from where, and what came of it; never a secret."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from shared.ids import derived_message_id
from shared.messages.auth.audit import AuditEntryView, AuditOutcome


def pseudonym(kind: Literal["owner", "application", "application user"], uuid: str) -> str:
    """How the audit names somebody whose id opens doors: always the same, and no way leads back from it.

    An application's UUID is its API key, written otherwise, and an owner's lets whoever knows it change the owner. They
    have 122 random bits, so a plain hash tells nothing about them.
    """
    return f"{kind.replace(' ', '-')}_{derived_message_id('audit', kind, uuid)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line of the audit; never changed.

    It names people by their ids alone, so that all that is known of one is found by the id, and means nothing once the
    person is erased.

    Attributes:
        action: what was tried; an ``Action``, or one that a newer service knows.
        code: why it was refused; None when it was done.
        caller: who asked, as the gateway verified it; ``caller_user_id`` is the user of the bearer token.
        user_id: whom it was about; None where that did not come to light.
        session_id: the login it was about, by the id of the authorization or the phone code that it began with.
        identifier_id: which identifier it added, verified or removed.
        message_id: of the message that asked for it.
        resource_id: what else it was about: a news item, a subscription, a run, an export, a dead letter.
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
    resource_id: str | None

    def view(self) -> AuditEntryView:
        """The same, as it is announced and as operators read it."""
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
