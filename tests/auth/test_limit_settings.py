from collections.abc import Callable
from typing import Any, get_args

import pytest

from services.auth.limit_settings import LimitSettings
from services.auth.rate_limits.models import Limit, LimitName, PersonLimitName, SharedLimitName
from services.auth.settings import AuthSettings
from shared.settings import SettingsError, load

Make = Callable[..., AuthSettings]
NAMES = [*get_args(PersonLimitName), *get_args(SharedLimitName)]


def variable(name: LimitName) -> str:
    return f"limit_{name.replace('-', '_')}"


@pytest.mark.parametrize("name", NAMES)
def test_each_limit_is_a_variable(settings: Make, name: LimitName) -> None:
    assert settings(**{variable(name): "7/90s"}).limits[name] == Limit.parse("7/90s")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", ["", "lots", "5/1w", "1/1m, 2/60s"])
def test_one_that_is_written_wrongly_is_named(settings: Make, name: LimitName, wrong: str) -> None:
    with pytest.raises(SettingsError, match=f"^NEST_{variable(name).upper()}: "):
        settings(**{variable(name): wrong})


def test_they_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, settings: Make) -> None:
    given = settings().model_dump(include={"kafka_bootstrap", "mongo_url", "environment"})
    monkeypatch.setenv("NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS", "2/1m, 3/1h")
    read = load(LimitSettings, **given, sealing_keys=settings().sealing_keys)
    assert read.limits["magic-links-per-address"] == Limit.parse("2/1m, 3/1h")


def test_by_default_they_are_those_that_are_documented() -> None:
    defaults = {name: LimitSettings.model_fields[variable(name)].default for name in NAMES}
    assert {
        name: [(rule.count, rule.within.total_seconds()) for rule in limit.rules] for name, limit in defaults.items()
    } == {
        "magic-links-per-address": [(1, 60), (5, 3600), (10, 86_400)],
        "magic-links-per-prefix": [(30, 300)],
        "magic-links-per-client": [(1000, 60), (20_000, 3600)],
        "trials-per-address": [(5, 600), (10, 86_400)],
        "guesses-per-identifier": [(10, 3600)],
        "wrong-keys-per-prefix": [(60, 300)],
        "texts-per-number": [(3, 600), (10, 86_400)],
        "texts-per-prefix": [(20, 3600)],
        "passwords-per-user": [(10, 900)],
    }


@pytest.mark.parametrize("name", get_args(PersonLimitName))
def test_what_guards_a_person_can_not_be_lifted_in_production(settings: Make, name: LimitName) -> None:
    production: dict[str, Any] = {"environment": "production", "issuer": "https://nest.example"}
    usual = {variable("magic-links-per-client"): "none", variable("magic-links-per-address"): "1/1m"}
    with pytest.raises(SettingsError, match=f"NEST_{variable(name).upper()}: can't be none in production"):
        settings(**{**production, **usual, variable(name): "none"})


@pytest.mark.parametrize("name", get_args(PersonLimitName))
def test_of_one_person_a_thousand_uses_are_remembered_at_most(settings: Make, name: LimitName) -> None:
    with pytest.raises(SettingsError, match="at most 1000"):
        settings(**{variable(name): "1001/1d"})


def test_loopback_is_not_lifted_in_production(settings: Make) -> None:
    assert settings(limit_lift_loopback="true").limit_lift_loopback
    assert not settings().limit_lift_loopback
    with pytest.raises(SettingsError, match="NEST_LIMIT_LIFT_LOOPBACK: must be false in production"):
        settings(
            environment="production",
            issuer="https://nest.example",
            limit_magic_links_per_address="1/1m",
            limit_lift_loopback="true",
        )


@pytest.mark.parametrize("count", [0, 11])
def test_so_many_guesses_at_a_code_are_not_allowed(settings: Make, count: int) -> None:
    with pytest.raises(SettingsError, match="NEST_GUESSES_PER_CODE: "):
        settings(guesses_per_code=count)
