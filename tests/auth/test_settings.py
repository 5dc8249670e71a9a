from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import pytest
from argon2.profiles import RFC_9106_LOW_MEMORY

from services.auth.app import create
from services.auth.rate_limits.models import Limit, LimitName, PersonLimitName, SharedLimitName
from services.auth.settings import AuthSettings
from services.auth.signing_keys.models import RotationPolicy
from shared.settings import SettingsError, load
from tests.production import KAFKA

Make = Callable[..., AuthSettings]
PRODUCTION = {"environment": "production", "issuer": "https://nest.example", **KAFKA}
LIMIT_NAMES = [*get_args(PersonLimitName), *get_args(SharedLimitName)]


def test_default_issuer_is_the_embedded_gateway(settings: Make) -> None:
    assert settings().issuer == "http://127.0.0.1:8080"


def test_slash_at_the_end_of_the_issuer_is_removed(settings: Make) -> None:
    assert settings(issuer="https://nest.example/").issuer == "https://nest.example"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"environment": "production"}, "NEST_ISSUER: is not set, but is required in production"),
        ({"environment": "production", "issuer": "http://nest.example"}, "NEST_ISSUER: must be https in production"),
        ({"issuer": "nest.example"}, "NEST_ISSUER: write a whole URL"),
        ({"issuer": "https://nest.example/?a=b"}, "NEST_ISSUER: write a whole URL"),
        ({"signing_algorithm": "HS256"}, "NEST_SIGNING_ALGORITHM: "),
        ({"signing_algorithm": "none"}, "NEST_SIGNING_ALGORITHM: "),
        ({"access_token_type": "at"}, "NEST_ACCESS_TOKEN_TYPE: "),
        ({"authorization_minutes": 0}, "NEST_AUTHORIZATION_MINUTES: "),
        ({"authorization_minutes": 21}, "NEST_AUTHORIZATION_MINUTES: "),
        ({"places_database": "/nowhere.mmdb"}, "NEST_PLACES_DATABASE: Path does not point to a file"),
        ({"places_database": __file__}, r"NEST_PLACES_DATABASE: .*test_settings\.py is not a GeoIP database"),
    ],
)
def test_missing_or_unsafe_setting_is_named(settings: Make, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(**wrong)


def test_link_expires_after_10_minutes_by_default(settings: Make) -> None:
    assert settings().authorization_minutes == 10


def test_service_is_created_from_the_environment(monkeypatch: pytest.MonkeyPatch, settings: Make) -> None:
    for name, value in settings().model_dump(include={"kafka_bootstrap", "environment"}).items():
        monkeypatch.setenv(f"NEST_{name.upper()}", value)
    monkeypatch.setenv("NEST_MONGO_URL", settings().mongo_url.get_secret_value())
    monkeypatch.setenv("NEST_SEALING_KEYS", settings().sealing_keys.get_secret_value())
    monkeypatch.setenv("NEST_SIGNING_ALGORITHM", "EdDSA")
    service = create()
    assert service.name == "auth"
    assert service.settings.signing_algorithm == "EdDSA"  # type: ignore[attr-defined]


def test_test_login_is_refused_in_production(settings: Make) -> None:
    assert settings(test_login=True).test_login
    with pytest.raises(SettingsError, match="NEST_TEST_LOGIN: is refused in production"):
        settings(environment="production", issuer="https://nest.example", test_login=True)


def test_no_country_is_texted_by_default(settings: Make) -> None:
    assert settings().allowed_text_countries == frozenset()
    assert settings(text_countries="CH, LI").allowed_text_countries == {"CH", "LI"}
    assert settings(text_countries="all").allowed_text_countries is None


@pytest.mark.parametrize("countries", ["Switzerland", "ch", "CH,all", "XX"])
def test_unknown_country_is_refused(settings: Make, countries: str) -> None:
    with pytest.raises(SettingsError, match="NEST_TEXT_COUNTRIES"):
        settings(text_countries=countries)


def test_lead_time_must_exceed_the_cache_time_of_public_keys(settings: Make) -> None:
    assert settings(signing_key_lead_seconds=1).rotation.lead == timedelta(seconds=1)
    assert settings(**PRODUCTION).rotation == RotationPolicy(
        "ES256", period=timedelta(days=90), lead=timedelta(minutes=15)
    )
    with pytest.raises(SettingsError, match="NEST_SIGNING_KEY_LEAD_SECONDS: must be more than 300 in production"):
        settings(**PRODUCTION, signing_key_lead_seconds=300)


@pytest.mark.parametrize("wrong", [{"signing_key_days": 0}, {"signing_key_lead_seconds": 0}])
def test_rotation_without_period_or_lead_time_is_refused(settings: Make, wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="NEST_SIGNING_KEY"):
        settings(**wrong)


def variable(name: LimitName) -> str:
    return f"limit_{name.replace('-', '_')}"


@pytest.mark.parametrize("name", LIMIT_NAMES)
def test_each_limit_has_a_variable(settings: Make, name: LimitName) -> None:
    assert settings(**{variable(name): "7/90s"}).limits[name] == Limit.parse("7/90s")


@pytest.mark.parametrize("name", LIMIT_NAMES)
@pytest.mark.parametrize("wrong", ["", "lots", "5/1w", "1/1m, 2/60s"])
def test_malformed_limit_is_named(settings: Make, name: LimitName, wrong: str) -> None:
    with pytest.raises(SettingsError, match=f"^NEST_{variable(name).upper()}: "):
        settings(**{variable(name): wrong})


def test_limits_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, settings: Make) -> None:
    required = settings().model_dump(include={"kafka_bootstrap", "mongo_url", "environment"})
    monkeypatch.setenv("NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS", "2/1m, 3/1h")
    read = load(AuthSettings, **required, sealing_keys=settings().sealing_keys)
    assert read.limits["magic-links-per-address"] == Limit.parse("2/1m, 3/1h")


def test_default_limits_are_the_documented_ones() -> None:
    defaults = {name: AuthSettings.model_fields[variable(name)].default for name in LIMIT_NAMES}
    assert {
        name: [(rule.count, rule.window.total_seconds()) for rule in limit.rules] for name, limit in defaults.items()
    } == {
        "magic-links-per-address": [(1, 60), (5, 3600), (10, 86_400)],
        "magic-links-per-prefix": [(30, 300)],
        "magic-links-per-client": [(1000, 60), (20_000, 3600)],
        "trials-per-address": [(5, 600), (10, 86_400)],
        "trials-per-prefix": [(10, 3600), (30, 86_400)],
        "trials-per-deployment": [(2000, 86_400)],
        "guesses-per-identifier": [(10, 3600)],
        "typed-codes-per-address": [(10, 3600)],
        "wrong-keys-per-prefix": [(60, 300)],
        "texts-per-number": [(3, 600), (10, 86_400)],
        "texts-per-prefix": [(20, 3600)],
        "texts-per-country": [(500, 3600)],
        "texts-per-deployment": [(1000, 3600)],
        "passwords-per-prefix": [(30, 300)],
        "refusals-per-prefix": [(100, 300)],
        "passwords-per-user": [(10, 900)],
    }


@pytest.mark.parametrize("name", get_args(PersonLimitName))
def test_limit_of_a_person_can_not_be_none_in_production(settings: Make, name: LimitName) -> None:
    others = {variable("magic-links-per-client"): "none", variable("magic-links-per-address"): "1/1m"}
    with pytest.raises(SettingsError, match=f"NEST_{variable(name).upper()}: can't be none in production"):
        settings(**{**PRODUCTION, **others, variable(name): "none"})


@pytest.mark.parametrize("name", get_args(PersonLimitName))
def test_count_of_a_persons_limit_is_at_most_1000(settings: Make, name: LimitName) -> None:
    with pytest.raises(SettingsError, match="a count can be at most 1000"):
        settings(**{variable(name): "1001/1d"})


def test_limits_are_not_lifted_for_loopback_in_production(settings: Make) -> None:
    assert settings(limit_lift_loopback="true").limit_lift_loopback
    assert not settings().limit_lift_loopback
    with pytest.raises(SettingsError, match="NEST_LIMIT_LIFT_LOOPBACK: is refused in production"):
        settings(
            environment="production",
            issuer="https://nest.example",
            limit_magic_links_per_address="1/1m",
            limit_lift_loopback="true",
        )


@pytest.mark.parametrize("count", [0, 11])
def test_guesses_per_code_is_between_1_and_10(settings: Make, count: int) -> None:
    with pytest.raises(SettingsError, match="NEST_GUESSES_PER_CODE: "):
        settings(guesses_per_code=count)


def test_default_password_parameters_are_those_of_rfc_9106(settings: Make) -> None:
    assert settings(**PRODUCTION).password_parameters == RFC_9106_LOW_MEMORY


def test_password_memory_is_in_mib(settings: Make) -> None:
    parameters = settings(**PRODUCTION, password_memory=128, password_passes=4).password_parameters
    assert (parameters.memory_cost, parameters.time_cost) == (128 * 1024, 4)


@pytest.mark.parametrize(
    ("unsafe", "message"),
    [
        ({"password_memory": 63}, "NEST_PASSWORD_MEMORY: must be at least 64 in production"),
        ({"password_passes": 2}, "NEST_PASSWORD_PASSES: must be at least 3 in production"),
        ({"old_clients": True}, "NEST_OLD_CLIENTS: puts passwords into URLs"),
    ],
)
def test_cheap_hashes_and_old_clients_are_refused_in_production(
    settings: Make, unsafe: dict[str, Any], message: str
) -> None:
    settings(**unsafe)
    with pytest.raises(SettingsError, match=message):
        settings(**PRODUCTION, **unsafe)


def test_old_clients_need_a_second_setting_in_production(settings: Make) -> None:
    assert not settings().old_clients
    assert settings(**PRODUCTION, old_clients=True, old_clients_in_production=True).old_clients
    assert not settings(**PRODUCTION, old_clients_in_production=True).old_clients
