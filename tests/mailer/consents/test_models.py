from datetime import UTC, datetime, timedelta

from services.mailer.consents.models import AudienceMember, Consent, next_attempt
from services.mailer.deliveries.models import AccountRefused, Deferred

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def test_later_choice_keeps_id_and_time_of_the_first() -> None:
    first = Consent.create("user_1", "general", id="mktngconsent_1", source="user", at=NOW)
    later = first.choose("none", source="internal", at=NOW + timedelta(days=1))
    assert (later.id, later.level, later.source) == ("mktngconsent_1", "none", "internal")
    assert (later.created_at, later.updated_at) == (NOW, NOW + timedelta(days=1))


def test_sync_is_retried_for_a_week_with_pauses_of_at_most_two_hours() -> None:
    consent = Consent.create("user_1", "general", id="mktngconsent_1", source="user", at=NOW)
    member, at, pauses = AudienceMember.create(consent, at=NOW), NOW, []
    while True:
        member = member.after(Deferred("503"), consent, ordered_at=NOW, at=at)
        if member.state != "waiting":
            break
        pauses.append(next_attempt("user_1", member.attempts, at=at) - at)
        at += pauses[-1]
    assert member.state == "given_up"
    assert timedelta(days=7) <= at - NOW <= timedelta(days=7, hours=3)
    assert timedelta(seconds=8) <= pauses[0] <= timedelta(seconds=12)
    assert max(pauses) <= timedelta(hours=2) * 1.2
    assert member.attempts == len(pauses) + 1 < 110


def test_sync_waits_for_an_operator_while_the_account_is_refused() -> None:
    consent = Consent.create("user_1", "general", id="mktngconsent_1", source="user", at=NOW)
    member = AudienceMember.create(consent, at=NOW)
    later = NOW + timedelta(days=90)
    assert member.after(AccountRefused("403 Forbidden"), consent, ordered_at=NOW, at=later).state == "waiting"
