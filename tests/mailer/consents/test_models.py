from datetime import UTC, datetime, timedelta

from services.mailer.consents.models import Consent

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def test_later_choice_keeps_id_and_time_of_the_first() -> None:
    first = Consent.create("user_1", "general", id="mktngconsent_1", source="user", at=NOW)
    later = first.choose("none", source="internal", at=NOW + timedelta(days=1))
    assert (later.id, later.level, later.source) == ("mktngconsent_1", "none", "internal")
    assert (later.created_at, later.updated_at) == (NOW, NOW + timedelta(days=1))
