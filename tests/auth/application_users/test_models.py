from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.auth.accounts.models import Application
from services.auth.application_users.models import ApplicationUser
from shared.messages.auth.errors import ApplicationUserEnded, ApplicationUserNotActive, NotLoggedIn

AT = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
A_YEAR_LATER = datetime(2027, 11, 21, 6, 5, tzinfo=UTC)
APPLICATION = Application(
    id="an application",
    owner_id="an owner",
    name="An app",
    passwordless=False,
    created_at=AT,
    ends_at=A_YEAR_LATER,
)
USER = ApplicationUser(
    id="a user",
    application_id=APPLICATION.id,
    username="jbond",
    email="j.bond@example.com",
    password_hash="a hash",
    created_at=AT,
    updated_at=AT,
    ends_at=A_YEAR_LATER,
)


def test_repr_contains_no_password_hash() -> None:
    assert "a hash" not in repr(USER)


def test_active_user_may_log_in_until_the_end() -> None:
    USER.must_be_allowed_in(at=A_YEAR_LATER - timedelta(milliseconds=1))
    with pytest.raises(ApplicationUserEnded):
        USER.must_be_allowed_in(at=A_YEAR_LATER)
    with pytest.raises(ApplicationUserNotActive):
        replace(USER, active=False).must_be_allowed_in(at=AT)


def test_token_is_valid_for_one_user_of_one_application() -> None:
    claims = USER.token_claims(id="t", at=AT)
    assert (claims["sub"], claims["aud"], claims["exp"] - claims["iat"]) == (USER.id, APPLICATION.id, 24 * 3600)
    assert claims["id"] == USER.id
    USER.must_be_logged_in(APPLICATION, claims, at=AT)
    for wrong in ({"sub": "another"}, {"aud": "another"}, {"gen": 2}, {"gen": None}, {"gen": "1"}):
        with pytest.raises(NotLoggedIn):
            USER.must_be_logged_in(APPLICATION, {**claims, **wrong}, at=AT)


def test_token_is_valid_only_while_its_user_may_log_in() -> None:
    claims = USER.token_claims(id="t", at=AT)
    for user, application in (
        (replace(USER, active=False), APPLICATION),
        (replace(USER, ends_at=AT), APPLICATION),
        (USER, replace(APPLICATION, ends_at=AT)),
    ):
        with pytest.raises(NotLoggedIn):
            user.must_be_logged_in(application, claims, at=AT)


def test_new_password_or_deactivation_ends_tokens_of_the_same_second() -> None:
    claims = USER.token_claims(id="t", at=AT)
    deactivated = USER.update(username=None, email=None, active=False, at=AT)
    for changed in (
        USER.change_password("another", at=AT),
        # Tokens from before the deactivation stay invalid after a reactivation.
        deactivated.update(username=None, email=None, active=True, at=AT),
    ):
        with pytest.raises(NotLoggedIn):
            changed.must_be_logged_in(APPLICATION, claims, at=AT)


def test_update_changes_only_given_properties() -> None:
    later = AT + timedelta(hours=1)
    changed = USER.update(username="M", email=None, active=True, at=later)
    assert changed == replace(USER, username="M", updated_at=later)
