import json

import pytest

from shared.bus.envelope import Envelope
from shared.bus.row_encryption import RowEncryption
from shared.messages import ANONYMOUS, Caller
from shared.sealing import CannotUnseal, Sealer

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
ROW_ENCRYPTION = RowEncryption(Sealer({"old": OLD}), "auth")
ADDRESS = "ada@example.com"


def message(wire: str, *, caller: Caller = ANONYMOUS, fingerprint: str = "") -> Envelope:
    body = json.dumps({"reference": "cus_1", "email": ADDRESS}).encode()
    return Envelope(
        id="0" * 32, wire=wire, topic="t", key=ADDRESS, body=body, time=1, caller=caller, fingerprint=fingerprint
    )


PERSONAL, PLAIN = message("auth.ensure-user"), message("auth.user-ensured")


def test_a_personal_message_is_sealed_in_its_row() -> None:
    row = ROW_ENCRYPTION.message_row(PERSONAL)
    assert ADDRESS not in repr(row)
    assert ROW_ENCRYPTION.message_of(row) == Envelope.of_row(PERSONAL.row())


def test_other_messages_are_stored_unencrypted() -> None:
    assert ROW_ENCRYPTION.message_row(PLAIN) == PLAIN.row()
    assert ROW_ENCRYPTION.reply_row(PLAIN, b"{}") == b"{}"


@pytest.mark.parametrize("wire", ["auth.ensure-user", "auth.user-ensured"])
def test_the_callers_ip_address_is_sealed_in_every_row(wire: str) -> None:
    caller = Caller(kind="user", user_id="user_1", token_id="token_1", client_ip="203.0.113.77")
    envelope = message(wire, caller=caller)
    row = ROW_ENCRYPTION.message_row(envelope)
    assert "203.0.113.77" not in repr(row)
    assert row["caller"] == {"kind": "user", "user_id": "user_1", "token_id": "token_1"}
    assert ROW_ENCRYPTION.message_of(row).caller == caller
    # Rows written before IP addresses were sealed are still read.
    assert ROW_ENCRYPTION.message_of(envelope.row()).caller == caller


def test_an_audit_event_is_sealed_in_its_row() -> None:
    row = ROW_ENCRYPTION.message_row(message("auth.audited"))
    assert ADDRESS not in repr(row)


def test_the_reply_to_a_personal_message_is_sealed() -> None:
    stored = ROW_ENCRYPTION.reply_row(PERSONAL, ADDRESS.encode())
    assert ADDRESS not in repr(stored)
    assert ROW_ENCRYPTION.reply_of(stored) == ADDRESS.encode()
    assert ROW_ENCRYPTION.reply_of(ROW_ENCRYPTION.reply_row(PERSONAL, None)) is None


@pytest.mark.parametrize("envelope", [PERSONAL, PLAIN, message("auth.ensure-user", fingerprint="ab" * 32)])
def test_the_content_hash_differs_for_different_content(envelope: Envelope) -> None:
    stored = ROW_ENCRYPTION.content_hash(envelope)
    assert ROW_ENCRYPTION.matches(stored, envelope)
    other = message(envelope.wire, fingerprint=envelope.fingerprint and "cd" * 32)
    other.body += b" "
    assert not ROW_ENCRYPTION.matches(stored, other)


def test_the_content_hash_of_a_personal_message_is_keyed() -> None:
    assert isinstance(ROW_ENCRYPTION.content_hash(PERSONAL), str)
    assert ROW_ENCRYPTION.content_hash(PERSONAL) != RowEncryption(Sealer({"old": NEW}), "auth").content_hash(PERSONAL)


def test_rows_sealed_with_an_older_key_are_read() -> None:
    rotated = RowEncryption(Sealer({"new": NEW, "old": OLD}), "auth")
    assert rotated.message_of(ROW_ENCRYPTION.message_row(PERSONAL)).body == PERSONAL.body
    assert rotated.matches(ROW_ENCRYPTION.content_hash(PERSONAL), PERSONAL)


def test_rows_older_than_the_personal_declaration_are_read() -> None:
    assert ROW_ENCRYPTION.message_of(PERSONAL.row()).body == PERSONAL.body
    assert ROW_ENCRYPTION.matches(ROW_ENCRYPTION.content_hash(message("auth.user-ensured")), PERSONAL)


def test_another_service_can_not_read_the_rows() -> None:
    with pytest.raises(CannotUnseal):
        RowEncryption(Sealer({"old": OLD}), "billing").message_of(ROW_ENCRYPTION.message_row(PERSONAL))
