"""Audit of what operators do, in every service, and of what users order for money.

The operator's internal key gives access to other people's data. Message classes that use it are declared ``audited``:
if such a message comes with the internal key, its service sends auth a ``RecordAuditEntry`` with the outcome, done or
refused. Those that are ``audited_for_users`` are reported for callers with an access token too. That is a message of
the same work: it is committed with the outcome, sent until Kafka acknowledges it, and its ID is derived from the
operator's message, so that auth writes one entry however often it is delivered. A query commits nothing, so its
``RecordAuditEntry`` must be on Kafka before its reply is sent (see ``shared.bus.delivery``).

Auth audits its own commands itself, for every caller: see ``services/auth/audit/recorder.py``.
"""

from __future__ import annotations

from functools import partial

from shared.bus.work import Work
from shared.errors import Refusal
from shared.messages import Message
from shared.messages.auth.audit import NOTE_FIELDS, RecordAuditEntry


def audit_if_declared(message: Message, work: Work) -> None:
    """Send auth the outcome of a message, if its class is ``audited`` for its caller.

    Handlers add what the message concerned, once they know it: ``work.annotate(user_id=…, resource_id=…)``.
    """
    kind, caller = type(message), work.caller.kind
    if (kind.audited and caller == "internal") or (kind.audited_for_users and caller == "user"):
        work.on_outcome(partial(_publish_entry, work, action_of(kind)))


def action_of(kind: type[Message]) -> str:
    """Return the method name of a message class: ``list_payments`` of ``billing.list-payments``."""
    return kind.audited_as or kind.wire.partition(".")[2].replace("-", "_")


def _publish_entry(work: Work, action: str, refusal: Refusal | None) -> None:
    if not work.annotations.keys() <= NOTE_FIELDS:
        raise TypeError(f"the audit has no fields {', '.join(sorted(work.annotations.keys() - NOTE_FIELDS))}")
    refused_as = None if refusal is None else refusal.code
    work.publish(
        RecordAuditEntry(action=action, refused_as=refused_as, at=work.now, message_id=work.id, **work.annotations)
    )
