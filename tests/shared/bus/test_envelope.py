"""Writing and parsing of envelopes; records of other programs are undecodable."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.envelope import MAX_BODY_BYTES, Envelope, Undecodable, encode
from shared.messages import Caller, Sealed
from shared.messages.mailer.mails import SendMail
from shared.messages.mailer.suppressions import MailBounced
from shared.sealing import Sealer
from shared.tracing import new_traceparent


@dataclass
class Record:
    """A Kafka record."""

    value: bytes | None = b"{}"
    headers: list[tuple[str, bytes | None]] = field(
        default_factory=lambda: [("type", b"x.y"), ("id", b"1"), ("time", b"2")]
    )
    key: bytes | None = None
    topic: str = "x.commands"
    partition: int = 0
    offset: int = 0


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
callers = st.one_of(
    st.just(Caller()),
    st.builds(Caller, kind=st.just("user"), user_id=texts, client_ip=texts),
    st.builds(Caller, kind=st.sampled_from(["anonymous", "internal", "service"]), client_ip=texts),
)
envelopes = st.builds(
    Envelope,
    id=texts,
    wire=texts,
    topic=st.just("x.commands"),
    key=texts,
    body=st.binary(max_size=50),
    time=st.integers(min_value=0, max_value=10**18 - 1),
    caller=callers,
    trace=texts,
    request=texts,
    deadline=st.integers(min_value=0, max_value=10**18 - 1),
    fingerprint=st.binary(max_size=32).map(bytes.hex),
)


@given(envelopes, st.one_of(st.none(), st.integers(min_value=0, max_value=63)))
def test_an_envelope_survives_its_headers(envelope: Envelope, reply_to: int | None) -> None:
    envelope.reply_to = reply_to
    envelope.reply_id = envelope.id
    record = Record(envelope.body, list(envelope.headers()), envelope.key.encode() or None)
    assert Envelope.of(record, "x.commands") == envelope  # type: ignore[arg-type]


def test_the_context_of_an_unrecorded_trace_follows_from_the_request_id() -> None:
    envelope = Envelope(id="1", wire="x.y", topic="x.commands", key="", body=b"{}", time=0, trace=new_traceparent())
    envelope.request = envelope.trace_id
    headers = envelope.headers()
    assert "traceparent" not in dict(headers)
    assert Envelope.of(Record(b"{}", headers), "x.commands").trace == envelope.trace  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "trace", [f"00-{'a' * 32}-{'a' * 16}-01", f"00-{'a' * 32}-{'b' * 16}-00", f"00-{'c' * 32}-{'c' * 16}-00"]
)
def test_the_context_of_another_trace_is_sent(trace: str) -> None:
    envelope = Envelope(id="1", wire="x.y", topic="x.commands", key="", body=b"{}", time=0, trace=trace)
    envelope.request = "a" * 32
    headers = envelope.headers()
    assert dict(headers)["traceparent"].decode() == trace
    assert Envelope.of(Record(b"{}", headers), "x.commands").trace == trace  # type: ignore[arg-type]


@given(envelopes)
def test_an_envelope_survives_its_row(envelope: Envelope) -> None:
    parsed = Envelope.of_row(envelope.row())
    parsed.deadline, parsed.fingerprint = envelope.deadline, envelope.fingerprint
    assert parsed == envelope


def test_a_forwarded_message_takes_the_reply_address_of_its_cause() -> None:
    row = Envelope(id="2", wire="x.z", topic="x.commands", key="", body=b"{}", time=0, forwarded=True).row()
    cause = Envelope(id="1", wire="x.y", topic="x.commands", key="", body=b"{}", time=0)
    cause.reply_to, cause.reply_id, cause.deadline = 5, "1", 99
    parsed = Envelope.of_row(row, cause)
    assert (parsed.reply_to, parsed.reply_id, parsed.deadline) == (5, "1", 99)


def test_other_messages_of_a_row_have_no_reply_address() -> None:
    row = Envelope(id="2", wire="x.z", topic="x.commands", key="", body=b"{}", time=0).row()
    cause = Envelope(id="1", wire="x.y", topic="x.commands", key="", body=b"{}", time=0, reply_to=5, reply_id="1")
    assert Envelope.of_row(row, cause).reply_to is None


header_values = st.one_of(st.none(), st.binary(max_size=30), st.from_regex(r"\A-?[0-9]{1,30}\Z").map(str.encode))
names = st.one_of(
    st.sampled_from(["type", "id", "time", "caller", "deadline", "reply-to", "reply-id", "traceparent", "fingerprint"]),
    st.text(max_size=5),
)


@given(
    st.one_of(st.none(), st.binary(max_size=50)),
    st.lists(st.tuples(names, header_values), max_size=12),
    st.one_of(st.none(), st.binary(max_size=8)),
)
def test_any_record_is_parsed_or_undecodable(
    value: bytes | None, headers: list[tuple[str, bytes | None]], key: bytes | None
) -> None:
    required: list[tuple[str, bytes | None]] = [("type", b"x.y"), ("id", b"1"), ("time", b"2")]
    try:
        Envelope.of(Record(value, required + headers, key), "x.commands")  # type: ignore[arg-type]
    except Undecodable:
        return
    assert value is not None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record(value=None), "body is missing"),
        (Record(value=b"x" * (MAX_BODY_BYTES + 1)), "more than"),
        (Record(key=b"\xff"), "not UTF-8"),
        (Record(headers=[]), "'id' is missing"),
        (Record(headers=[("id", b"1"), ("time", b"2")]), "'type' is missing"),
        (Record(headers=[("type", b"x.y"), ("id", b"\xff"), ("time", b"2")]), "not UTF-8"),
        (Record(headers=[("type", b"x.y"), ("id", None), ("time", b"2")]), "not UTF-8"),
        (Record(headers=[("type", b"x.y"), ("id", b"1"), ("time", b"now")]), "is invalid"),
        (Record(headers=[("type", b"x.y"), ("id", b"1"), ("time", b"9" * 5000)]), "is invalid"),
        (Record(headers=[("type", b"x.y"), ("id", b"1"), ("time", b"1" + b"0" * 400)]), "is invalid"),
        (Record(headers=[("type", b"x.y"), ("id", b"1"), ("time", b"-1")]), "is invalid"),
        (Record(headers=[("type", b"x.y"), ("id", b"1"), ("time", "\u0661".encode())]), "is invalid"),
        (Record(headers=[("type", b"x.y"), ("id", b"1"), ("time", b"2"), ("deadline", b"9" * 20)]), "is invalid"),
        (Record(headers=[("type", b"x.y"), ("id", b"1"), ("time", b"2"), ("caller", b"[]")]), "is invalid"),
        (Record(headers=[("type", b"x.y"), ("id", b"1"), ("time", b"2"), ("fingerprint", b"no hex")]), "is invalid"),
    ],
)
def test_undecodable_names_the_reason(record: Record, reason: str) -> None:
    with pytest.raises(Undecodable, match=reason):
        Envelope.of(record, "x.commands")  # type: ignore[arg-type]


def test_a_body_is_sealed_for_its_receiver_and_omits_the_key() -> None:
    sealer = Sealer({"a": bytes(32)})
    mail = SendMail(key="user_1", template="welcome", to=Sealed.of("a@example.com"), variables=Sealed.of("{}"))
    body = encode(mail, sealer)
    assert b"a@example.com" not in body
    assert b"user_1" not in body
    assert sealer.unseal_secret("mailer", SendMail.model_validate_json(body).to) == "a@example.com"


def test_the_body_of_a_command_omits_fields_with_their_defaults() -> None:
    mail = SendMail(key="k", template="magic-link", to=Sealed("k1.a"), variables=Sealed("k1.b"))
    body = {"template": "magic-link", "to": "k1.a", "variables": "k1.b"}
    assert json.loads(encode(mail, Sealer({"k1": bytes(32)}))) == body


def test_the_body_of_an_event_has_all_fields() -> None:
    event = MailBounced(key="k", delivery_id="d", template="welcome", status=None, at=datetime.now(UTC))
    assert json.loads(encode(event, Sealer({"k1": bytes(32)})))["status"] is None


def test_a_body_above_the_size_limit_is_not_encoded() -> None:
    sealer = Sealer({"a": bytes(32)})
    mail = SendMail(template="welcome", to=Sealed.of("x" * MAX_BODY_BYTES), variables=Sealed.of("{}"))
    with pytest.raises(ValueError, match="more than"):
        encode(mail, sealer)
