from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.auth.accounts.account_mails import shown_name
from services.auth.accounts.models import Application, Owner, a_year_after, account_email, upgraded_id, uuid_text
from shared.messages.auth.errors import ApplicationEnded, FieldRefused, NotLoggedIn, PasswordRequired

AT = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
A_YEAR_LATER = datetime(2027, 11, 21, 6, 5, tzinfo=UTC)
ID = "17ac43a8-f3b9-40be-a3b4-9eaca99b529a"
OWNER = Owner(
    id=ID,
    first_name="Ada",
    last_name="Lovelace",
    email="ada@example.com",
    password_hash="a hash",
    created_at=AT,
    updated_at=AT,
)
APPLICATION = Application(
    id=ID, owner_id=OWNER.id, name="An app", passwordless=False, created_at=AT, ends_at=A_YEAR_LATER
)


def test_repr_contains_no_password_hash() -> None:
    assert "a hash" not in repr(OWNER)


def test_deletion_token_belongs_to_one_owner_and_does_not_expire() -> None:
    assert OWNER.deletion_claims == {"sub": ID, "aud": "owners", "gen": 1}
    assert replace(OWNER, id="another").deletion_claims != OWNER.deletion_claims


def test_only_a_new_password_invalidates_deletion_tokens() -> None:
    claims = OWNER.deletion_claims
    assert OWNER.update(first_name="A", last_name="L", email="a@example.com", at=AT).deletion_claims == claims
    assert replace(OWNER, password_hash="a costlier hash").deletion_claims == claims
    assert OWNER.change_password("another hash", at=AT).deletion_claims != claims


def test_upgraded_id_is_a_uuid_that_reveals_no_key() -> None:
    assert upgraded_id(ID) == str(UUID(upgraded_id(ID))) != ID
    assert upgraded_id(ID) == upgraded_id(ID)


def test_owner_token_is_valid_for_one_owner_until_the_password_changes() -> None:
    claims = OWNER.token_claims(id="t", at=AT)
    assert (claims["sub"], claims["aud"], claims["exp"] - claims["iat"]) == (ID, "owners", 3600)
    OWNER.must_be_logged_in(claims)
    for other in (replace(OWNER, id="another"), OWNER.change_password("another hash", at=AT)):
        with pytest.raises(NotLoggedIn):
            other.must_be_logged_in(claims)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Clocks & Co", "Clocks & Co"),
        ("Añil 2", "Añil 2"),
        ("http://evil.example/?a=b", "http evil example a b"),
        ("evil.example", "evil example"),
        ("a@b.c", "a b c"),
        ("<b>bold</b>", "b bold b"),
        ("Hi\nVisit\u202e me", "Hi Visit me"),
        ("x" * 255, "x" * 60),
        ("://", None),
        ("_", None),
    ],
)
def test_shown_name_of_an_application_contains_no_link(name: str, shown: str | None) -> None:
    assert shown_name(name) == shown


def test_application_ends_at_its_end() -> None:
    APPLICATION.must_be_current(at=A_YEAR_LATER - timedelta(milliseconds=1))
    with pytest.raises(ApplicationEnded):
        APPLICATION.must_be_current(at=A_YEAR_LATER)


def test_year_after_a_leap_day_is_1_march() -> None:
    assert a_year_after(AT) == A_YEAR_LATER
    assert a_year_after(datetime(2028, 2, 29, 12, tzinfo=UTC)) == datetime(2029, 3, 1, 12, tzinfo=UTC)


def test_passwordless_login_needs_a_passwordless_application() -> None:
    replace(APPLICATION, passwordless=True).must_be_passwordless()
    with pytest.raises(PasswordRequired):
        APPLICATION.must_be_passwordless()


@pytest.mark.parametrize("text", ["", "ada", "ada@", "a b@example.com", '{"$gt": ""}', "ada@exa\tmple.com"])
def test_invalid_address_is_refused_with_the_field_name(text: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        account_email(text, test_domains=True)
    assert refused.value.meta["errors"][0]["path"] == "email"


@pytest.mark.parametrize("text", ["Ada@EXAMPLE.com", " ada@example.com\n"])
def test_address_has_a_normal_form(text: str) -> None:
    assert account_email(text, test_domains=False) == "ada@example.com"


@pytest.mark.parametrize("text", ["", ID[:-1], ID + "0", ID.replace("-", ""), f"{{{ID}}}", f"{ID}\n", '{"$gt": ""}'])
def test_invalid_uuid_is_refused_with_the_field_name(text: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        uuid_text(text, "owneruuid")
    assert refused.value.meta["errors"] == [{"path": "owneruuid", "message": "not a UUID"}]


def test_upper_case_uuid_is_accepted() -> None:
    assert uuid_text(ID.upper(), "uuid") == ID
