from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mailer.consents.models import Consent
from services.mailer.deliveries.models import Accepted, Deferred, Delivery, Rejected
from services.mailer.mails.addresses import UnusableAddress, usable_address

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def delivery(order_id: str = "order") -> Delivery:
    return Delivery.create(
        channel="mail",
        id="delivery_1",
        order_id=order_id,
        template="welcome",
        client_id=None,
        recipient="sealed",
        recipient_hash="hashed",
        message_id=f"<{order_id}@nest.example>",
        at=NOW,
    )


def test_a_mail_is_queued_until_the_server_has_taken_it() -> None:
    ordered = delivery()
    assert not ordered.finished
    taken = ordered.after(Accepted("250 ok"), at=NOW)
    assert (taken.state, taken.reason, taken.attempts, taken.finished) == ("handed_over", "250 ok", 1, True)


def test_a_final_no_settles_a_mail() -> None:
    failed = delivery().after(Rejected("550 no"), at=NOW)
    assert (failed.state, failed.reason, failed.finished) == ("failed", "550 no", True)


def test_a_mail_put_off_stays_queued_within_a_day() -> None:
    put_off = delivery().after(Deferred("451 later"), at=NOW + timedelta(hours=23))
    assert (put_off.state, put_off.reason, put_off.finished) == ("queued", "451 later", False)


def test_a_mail_whose_next_try_would_come_after_a_day_has_failed() -> None:
    assert delivery().after(Deferred("451 later"), at=NOW + timedelta(days=1)).state == "failed"


def test_pauses_grow_to_a_quarter_of_an_hour() -> None:
    tried, seconds = delivery(), []
    for _ in range(12):
        tried = tried.after(Deferred("451"), at=NOW)
        seconds.append((tried.next_attempt() - NOW).total_seconds())
    for number, pause in enumerate(seconds):
        expected = min(5 * 2**number, 900)
        assert 0.8 * expected <= pause <= 1.2 * expected


def test_the_same_try_leads_to_the_same_time_and_other_mails_to_others() -> None:
    put_off = [delivery(str(number)).after(Deferred("451"), at=NOW).next_attempt() for number in range(20)]
    assert put_off == [delivery(str(number)).after(Deferred("451"), at=NOW).next_attempt() for number in range(20)]
    assert len(set(put_off)) > 10


def test_the_next_choice_keeps_the_first_time() -> None:
    first = Consent.create("user_1", "general", id="mktngconsent_1", source="user", at=NOW)
    later = first.choose("none", source="internal", at=NOW + timedelta(days=1))
    assert (later.id, later.level, later.source) == ("mktngconsent_1", "none", "internal")
    assert (later.created_at, later.updated_at) == (NOW, NOW + timedelta(days=1))


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("Person+tag@Example.com", "Person+tag@example.com"),
        ("o'brien@example.co.uk", "o'brien@example.co.uk"),
        ("person@bücher.example", "person@xn--bcher-kva.example"),
        ("пошта@example.com", "пошта@example.com"),
        ("a@b.local", "a@b.local"),
        ("person@beak.test", "person@beak.test"),
    ],
)
def test_an_address_is_read_as_servers_read_it(address: str, usable: str) -> None:
    assert usable_address(address) == usable


@given(st.text())
def test_whatever_is_usable_has_nothing_in_it_that_could_end_it(text: str) -> None:
    for address in (text, f"{text}@example.com", f"person@{text}", f"person@example.com{text}"):
        try:
            usable = usable_address(address)
        except UnusableAddress:
            continue
        else:
            assert not set(usable) & set(' \t\r\n\0<>,;:\\"()[]')
            assert usable.count("@") == 1
