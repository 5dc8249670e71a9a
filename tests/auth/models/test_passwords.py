import pytest

from services.auth.models.passwords import PasswordRule, normal
from shared.messages.auth.errors import FieldRefused

RULE = PasswordRule(frozenset({"password", "bond007"}), old_clients=False)
OLD = PasswordRule(RULE.known, old_clients=True)


@pytest.mark.parametrize("password", ["8 is few", "x" * 255, "пароль-это-он", "  spaces "])
def test_eight_to_255_characters_of_any_kind_are_taken(password: str) -> None:
    RULE.judge(normal(password))


@pytest.mark.parametrize("password", ["", "seven77", "bond007", "pässwö"])
def test_fewer_than_eight_are_refused(password: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        RULE.judge(normal(password))
    assert refused.value.code == "validation_failed"
    assert refused.value.meta["errors"] == [{"path": "password", "message": "at least 8 characters"}]


@pytest.mark.parametrize("password", ["password", "PassWord", "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44"])
def test_a_known_password_is_refused_however_it_is_written(password: str) -> None:
    for rule in (RULE, OLD):
        with pytest.raises(FieldRefused):
            rule.judge(normal(password))


@pytest.mark.parametrize("password", ["bond007", "sixsix"])
def test_old_clients_may_choose_six_and_seven_characters(password: str) -> None:
    OLD.judge(normal(password))


def test_five_are_too_few_for_old_clients_too() -> None:
    with pytest.raises(FieldRefused):
        OLD.judge("fifth")


def test_what_two_keyboards_write_differently_is_the_same() -> None:
    assert normal("e\u0301galite\u0301") == normal("\u00e9galit\u00e9")


@pytest.mark.parametrize("password", ["x" * 256, "x" * 1_000_000, "\ufdfa" * 200])
def test_more_than_255_characters_are_refused_also_in_the_form_that_counts(password: str) -> None:
    with pytest.raises(FieldRefused):
        normal(password)


def test_a_refusal_does_not_say_what_the_password_was() -> None:
    with pytest.raises(FieldRefused) as refused:
        RULE.judge("password")
    assert "'password'" not in str(refused.value.body()["meta"]["errors"][0]["message"])
