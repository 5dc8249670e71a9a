"""Whose dead letter is it? Theirs alone who are named in it, however they are."""

import json

import pytest

from services.auth.dead_letters.erasure import is_about
from shared.dead_letters.records import DeadLetter
from shared.personal_data.subjects import DataSubject
from shared.sealing import Sealer

SEALER = Sealer({"k1": bytes(32)})
ANN = DataSubject("user_0001", emails=("ann@example.com",), phones=("+4915112345678",))


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
def test_what_names_a_person_is_about_them(value: bytes) -> None:
    assert is_about(letter(value), ANN, SEALER)


def test_what_is_sealed_for_the_service_names_somebody_too() -> None:
    sealed = json.dumps({"recipient": SEALER.seal("mailer", b"ann@example.com")}).encode()
    assert is_about(letter(sealed, headers=(("type", b"mailer.send-mail"),)), ANN, SEALER)


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
def test_what_names_somebody_else_is_not(text: str) -> None:
    assert not is_about(letter(json.dumps({"said": text}).encode(), key=text.encode()), ANN, SEALER)


def test_a_key_and_a_header_name_somebody_too() -> None:
    assert is_about(letter(b"{}", key=b"user_0001"), ANN, SEALER)
    assert is_about(letter(b"{}", headers=(("caller-user", b"user_0001"),)), ANN, SEALER)
