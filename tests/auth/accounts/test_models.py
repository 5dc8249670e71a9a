"""Owners, applications and their users."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.auth.accounts.models import Application, Owner, a_year_after, account_email, uuid_text
from services.auth.application_users.models import ApplicationUser
from shared.messages.auth.errors import (
    ApplicationEnded,
    ApplicationUserEnded,
    ApplicationUserNotActive,
    FieldRefused,
    InvalidToken,
    NotLoggedIn,
    PasswordRequired,
)

AT = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
A_YEAR_LATER = datetime(2027, 11, 21, 6, 5, tzinfo=UTC)
ID = "17ac43a8-f3b9-40be-a3b4-9eaca99b529a"
OWNER = Owner.register(
    id=ID, firstname="Ada", lastname="Lovelace", email="ada@example.com", password_hash="a hash", at=AT
)
APPLICATION = Application.create(id=ID, owner_id=OWNER.id, name="An app", passwordless=False, at=AT)
USER = ApplicationUser.sign_up(
    APPLICATION, id="a user", username="jbond", email="j.bond@example.com", password_hash="a hash", at=AT
)


def test_no_password_hash_is_shown_by_chance() -> None:
    assert "a hash" not in f"{OWNER!r}{USER!r}"


def test_a_deletion_token_is_good_for_its_owner_for_a_day() -> None:
    claims = OWNER.deletion_claims(id="t", at=AT)
    assert claims["exp"] - claims["iat"] == 24 * 3600
    OWNER.must_permit_deletion(claims)
    with pytest.raises(InvalidToken):
        replace(OWNER, id="another").must_permit_deletion(claims)


def test_another_password_ends_deletion_tokens_of_the_same_second() -> None:
    before = OWNER.deletion_claims(id="t", at=AT)
    changed = OWNER.change_password("another hash", at=AT)
    with pytest.raises(InvalidToken):
        changed.must_permit_deletion(before)
    changed.must_permit_deletion(changed.deletion_claims(id="t", at=AT))


def test_other_names_and_today_s_parameters_leave_deletion_tokens_alone() -> None:
    claims = OWNER.deletion_claims(id="t", at=AT)
    OWNER.update(firstname="A", lastname="L", email="a@example.com", at=AT).must_permit_deletion(claims)
    OWNER.hash_again("a costlier hash").must_permit_deletion(claims)


def test_an_application_has_the_key_of_its_id() -> None:
    assert APPLICATION.api_key == "2YP47A5-YEWM1FG-MET9XB1-N6DN56N"


def test_an_application_lasts_a_year() -> None:
    APPLICATION.must_be_current(at=A_YEAR_LATER - timedelta(milliseconds=1))
    with pytest.raises(ApplicationEnded):
        APPLICATION.must_be_current(at=A_YEAR_LATER)


def test_a_year_after_a_leap_day_is_the_first_of_march() -> None:
    assert a_year_after(datetime(2028, 2, 29, 12, tzinfo=UTC)) == datetime(2029, 3, 1, 12, tzinfo=UTC)


def test_two_ids_are_enough_only_where_the_application_was_made_for_it() -> None:
    replace(APPLICATION, passwordless=True).must_be_passwordless()
    with pytest.raises(PasswordRequired):
        APPLICATION.must_be_passwordless()


def test_a_user_is_let_in_for_a_year_while_active() -> None:
    USER.must_be_allowed_in(at=A_YEAR_LATER - timedelta(milliseconds=1))
    with pytest.raises(ApplicationUserEnded):
        USER.must_be_allowed_in(at=A_YEAR_LATER)
    with pytest.raises(ApplicationUserNotActive):
        replace(USER, active=False).must_be_allowed_in(at=AT)


def test_a_token_is_for_one_user_of_one_application_for_a_day() -> None:
    claims = USER.token_claims(id="t", at=AT)
    assert (claims["sub"], claims["aud"], claims["exp"] - claims["iat"]) == (USER.id, APPLICATION.id, 24 * 3600)
    USER.must_be_logged_in(APPLICATION, claims, at=AT)
    for wrong in ({"sub": "another"}, {"aud": "another"}, {"gen": 2}, {"gen": None}, {"gen": "1"}):
        with pytest.raises(NotLoggedIn):
            USER.must_be_logged_in(APPLICATION, {**claims, **wrong}, at=AT)


def test_a_token_is_good_only_while_its_user_may_log_in() -> None:
    claims = USER.token_claims(id="t", at=AT)
    for user, application in (
        (replace(USER, active=False), APPLICATION),
        (replace(USER, ends_at=AT), APPLICATION),
        (USER, replace(APPLICATION, ends_at=AT)),
    ):
        with pytest.raises(NotLoggedIn):
            user.must_be_logged_in(application, claims, at=AT)


def test_another_password_and_a_deactivation_end_tokens_of_the_same_second() -> None:
    claims = USER.token_claims(id="t", at=AT)
    silenced = USER.update(username=None, email=None, active=False, at=AT)
    for changed in (
        USER.change_password("another", at=AT),
        # Active again or not: what was out when it was deactivated stays ended.
        silenced.update(username=None, email=None, active=True, at=AT),
    ):
        with pytest.raises(NotLoggedIn):
            changed.must_be_logged_in(APPLICATION, claims, at=AT)


def test_what_is_not_given_stays_and_so_do_tokens() -> None:
    later = AT + timedelta(hours=1)
    changed = USER.update(username="M", email=None, active=True, at=later)
    assert changed == replace(USER, username="M", updated_at=later)


@pytest.mark.parametrize("text", ["", "ada", "ada@", "a b@example.com", '{"$gt": ""}', "ada@example.com\n"])
def test_what_is_no_address_is_refused_by_the_field_s_name(text: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        account_email(text, test_domains=True)
    assert refused.value.meta["errors"][0]["path"] == "email"


def test_an_address_is_kept_in_one_form() -> None:
    assert account_email("Ada@EXAMPLE.com", test_domains=False) == "ada@example.com"


@pytest.mark.parametrize("text", ["", ID[:-1], ID + "0", ID.replace("-", ""), f"{{{ID}}}", f"{ID}\n", '{"$gt": ""}'])
def test_what_is_no_uuid_is_refused_by_the_field_s_name(text: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        uuid_text(text, "owneruuid")
    assert refused.value.meta["errors"] == [{"path": "owneruuid", "message": "not a UUID"}]


def test_a_uuid_may_be_written_in_capitals() -> None:
    assert uuid_text(ID.upper(), "uuid") == ID
