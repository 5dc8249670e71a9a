"""What remains of what an operator has ordered or asked? An entry in the audit, whichever service did it.

Whoever comes with the internal key may change and read what is other people's, so that it can be told afterwards: a
message class is declared ``audited``, and what comes of it, done or refused and why, is told to auth, which keeps the
audit. That is one more message of the work: it commits with the order's outcome and leaves until Kafka has it, under an
id that is made from the order's, so auth writes one entry however often it comes. A question commits nothing; what it
leaves must be on Kafka before its answer goes (see ``shared.bus.delivery``).

Auth writes of its own orders by itself, whoever gives them: see ``services/auth/audit/recorder.py``.
"""

from __future__ import annotations

from functools import partial

from shared.bus.work import Work
from shared.errors import Refusal
from shared.messages import Message
from shared.messages.auth.audit import NOTE_FIELDS, RecordAuditEntry


def watch(message: Message, work: Work) -> None:
    """Have auth told what comes of a message, if it is declared ``audited`` and came with the internal key.

    Whom and what it was about, the handler finds out on its way, and says so: ``work.note(user_id=…, resource_id=…)``.
    """
    if type(message).audited and work.caller.kind == "internal":
        work.record(partial(_tell, work, action_of(type(message))))


def action_of(kind: type[Message]) -> str:
    """The name of a message's method: ``list_payments`` of ``billing.list-payments``."""
    return kind.wire.partition(".")[2].replace("-", "_")


def _tell(work: Work, action: str, refusal: Refusal | None) -> None:
    if not work.notes.keys() <= NOTE_FIELDS:
        raise TypeError(f"the audit keeps no {', '.join(sorted(work.notes.keys() - NOTE_FIELDS))}")
    work.publish(
        RecordAuditEntry(
            action=action,
            refused_as=None if refusal is None else refusal.code,
            at=work.now,
            message_id=work.id,
            **work.notes,
        )
    )
