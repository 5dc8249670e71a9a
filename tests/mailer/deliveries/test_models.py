from datetime import UTC, datetime, timedelta

from services.mailer.deliveries.models import Accepted, Deferred, Delivery, Rejected

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def new_delivery(order_id: str = "order") -> Delivery:
    return Delivery(
        id="delivery_1",
        order_id=order_id,
        template="welcome",
        client_id=None,
        recipient="sealed",
        recipient_hash="hashed",
        message_id=f"<{order_id}@nest.example>",
        created_at=NOW,
        updated_at=NOW,
    )


def test_accepted_mail_is_handed_over() -> None:
    ordered = new_delivery()
    assert not ordered.finished
    accepted = ordered.after(Accepted("250 ok"), at=NOW)
    assert (accepted.state, accepted.reason, accepted.attempts, accepted.finished) == ("handed_over", "250 ok", 1, True)


def test_rejected_mail_fails() -> None:
    failed = new_delivery().after(Rejected("550 no"), at=NOW)
    assert (failed.state, failed.reason, failed.finished) == ("failed", "550 no", True)


def test_deferred_mail_stays_queued_for_a_day() -> None:
    deferred = new_delivery().after(Deferred("451 later"), at=NOW + timedelta(hours=23))
    assert (deferred.state, deferred.reason, deferred.finished) == ("queued", "451 later", False)


def test_deferred_mail_fails_if_its_next_attempt_is_after_a_day() -> None:
    assert new_delivery().after(Deferred("451 later"), at=NOW + timedelta(days=1)).state == "failed"


def test_pauses_double_up_to_15_minutes() -> None:
    delivery, seconds = new_delivery(), []
    for _ in range(12):
        delivery = delivery.after(Deferred("451"), at=NOW)
        seconds.append((delivery.next_attempt() - NOW).total_seconds())
    for number, pause in enumerate(seconds):
        expected = min(5 * 2**number, 900)
        assert 0.8 * expected <= pause <= 1.2 * expected


def test_lost_answers_slow_the_attempts_and_the_fourth_ends_them() -> None:
    delivery, minutes = new_delivery(), [1, 10, 120]
    for pause in minutes:
        # A known failure in between does not make them faster again.
        delivery = delivery.after(Deferred("DATA: connection lost", unknown=True), at=NOW).after(
            Deferred("451"), at=NOW
        )
        assert delivery.state == "queued"
        assert 0.8 * pause <= (delivery.next_attempt() - NOW) / timedelta(minutes=1) <= 1.2 * pause
    delivery = delivery.after(Deferred("DATA: connection lost", unknown=True), at=NOW)
    assert (delivery.state, delivery.reason) == ("failed", "DATA: connection lost")


def test_jitter_is_deterministic_and_differs_between_mails() -> None:
    times = [new_delivery(str(number)).after(Deferred("451"), at=NOW).next_attempt() for number in range(20)]
    assert times == [new_delivery(str(number)).after(Deferred("451"), at=NOW).next_attempt() for number in range(20)]
    assert len(set(times)) > 10


def test_mail_is_retried_for_a_day() -> None:
    delivery, at, pauses = new_delivery().after(Deferred("451"), at=NOW), NOW, []
    while delivery.state == "queued":
        pauses.append(delivery.next_attempt() - at)
        at += pauses[-1]
        delivery = delivery.after(Deferred("451"), at=at)
    assert delivery.state == "failed"
    assert timedelta(hours=23) < at - NOW <= timedelta(days=1)
    assert len(set(pauses)) > len(pauses) / 2
    assert delivery.attempts == len(pauses) + 1 < 150
