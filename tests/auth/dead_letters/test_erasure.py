"""Recognition of dead letters about a person."""

import json

import pytest

from services.auth.dead_letters.erasure import is_about
from shared.dead_letters.records import DeadLetter
from shared.personal_data.subjects import DataSubject
from shared.sealing import Sealer

SEALER = Sealer({"k1": bytes(32)})
SUBJECT = DataSubject("user_0001", emails=("ann@example.com",), phones=("+4915112345678",))


def letter(value: bytes, *, key: bytes = b"", headers: tuple[tuple[str, bytes], ...] = ()) -> DeadLetter:
    return DeadLetter(
        topic="mailer.commands",
        offset=0,
        dedup_key="0" * 32,
        reason="failing",
        detail="",
        trace="",
        attempts=1,
        group="mailer",
        written_at=None,
        source=None,
        key=key,
        value=value,
        headers=headers,
    )


@pytest.mark.parametrize(
    "value",
    [
        b'{"email": "ann@example.com"}',
        b'{"email": "Ann@Example.COM"}',
        b'{"email": "\\u0061nn@example.com"}',
        b"not JSON, of ann@example.com.",
        b'{"to": "Ann <ann@example.com>"}',
        b'{"number": "+4915112345678"}',
        b'{"deep": [{"user_0001": 1}]}',
    ],
)
def test_letter_with_an_identifier_is_about_its_person(value: bytes) -> None:
    assert is_about(letter(value), SUBJECT, SEALER)


def test_letter_with_a_sealed_identifier_is_about_its_person() -> None:
    sealed = json.dumps({"recipient": SEALER.seal("mailer", b"ann@example.com")}).encode()
    assert is_about(letter(sealed, headers=(("type", b"mailer.send-mail"),)), SUBJECT, SEALER)


@pytest.mark.parametrize(
    "text",
    [
        "joann@example.com",
        "jo.ann@example.com",
        "jo-ann@example.com",
        "jo+ann@example.com",
        "ann@example.com.au",
        "ann@example.community",
        "ann@example.com-pany.de",
        "+49151123456789",
        "user_00012",
        "dev_user_0001",
        "someone else",
    ],
)
def test_letter_with_a_similar_identifier_is_not_about_the_person(text: str) -> None:
    assert not is_about(letter(json.dumps({"field": text}).encode(), key=text.encode()), SUBJECT, SEALER)


def test_identifiers_in_key_and_headers_are_recognized() -> None:
    assert is_about(letter(b"{}", key=b"user_0001"), SUBJECT, SEALER)
    assert is_about(letter(b"{}", headers=(("caller-user", b"user_0001"),)), SUBJECT, SEALER)
