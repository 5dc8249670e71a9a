from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.auth.users.models import Identifier, User

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
USER = User(id="user_1", created_at=NOW)


def email(*, verified: bool) -> Identifier:
    return Identifier(
        id="userident_1",
        user_id=USER.id,
        identifier_type="email",
        identifier_value="ana@example.com",
        created_at=NOW,
        updated_at=NOW,
        verified_at=NOW if verified else None,
    )


def test_email_is_verified_from_verification_to_removal() -> None:
    unverified = email(verified=False)
    assert not unverified.is_verified_email
    later = NOW + timedelta(days=1)
    verified = unverified.verify(at=later)
    assert (verified.verified_at, verified.updated_at, verified.created_at) == (later, later, NOW)
    assert verified.is_verified_email
    assert not replace(verified, removed_at=later).is_verified_email
    assert not replace(verified, identifier_type="phone").is_verified_email


def test_first_identifier_can_be_verified_at_once() -> None:
    assert email(verified=True).verified_at == NOW
