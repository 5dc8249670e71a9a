from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.auth.app import create
from services.auth.settings import AuthSettings
from services.auth.signing_keys.models import RotationPolicy
from shared.settings import SettingsError

Make = Callable[..., AuthSettings]


def test_outside_production_the_issuer_is_the_embedded_gateway(settings: Make) -> None:
    assert settings().issuer == "http://127.0.0.1:8080"


def test_a_slash_at_the_issuers_end_is_left_out(settings: Make) -> None:
    assert settings(issuer="https://nest.example/").issuer == "https://nest.example"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"environment": "production"}, "NEST_ISSUER: is not set, and in production must be"),
        ({"environment": "production", "issuer": "http://nest.example"}, "NEST_ISSUER: must be https in production"),
        ({"issuer": "nest.example"}, "NEST_ISSUER: write a whole URL"),
        ({"issuer": "https://nest.example/?a=b"}, "NEST_ISSUER: write a whole URL"),
        ({"signing_algorithm": "HS256"}, "NEST_SIGNING_ALGORITHM: "),
        ({"signing_algorithm": "none"}, "NEST_SIGNING_ALGORITHM: "),
        ({"authorization_minutes": 0}, "NEST_AUTHORIZATION_MINUTES: "),
        ({"authorization_minutes": 21}, "NEST_AUTHORIZATION_MINUTES: "),
        ({"places_database": "/nowhere.mmdb"}, "NEST_PLACES_DATABASE: Path does not point to a file"),
        ({"places_database": __file__}, r"NEST_PLACES_DATABASE: .*test_settings\.py is no database of places"),
    ],
)
def test_what_is_missing_or_dangerous_is_named(settings: Make, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(**wrong)


def test_a_link_lives_ten_minutes_by_default(settings: Make) -> None:
    assert settings().authorization_lifetime == timedelta(minutes=10)


def test_auth_is_put_together_from_the_environment(monkeypatch: pytest.MonkeyPatch, settings: Make) -> None:
    for name, value in settings().model_dump(include={"kafka_bootstrap", "mongo_url", "environment"}).items():
        monkeypatch.setenv(f"NEST_{name.upper()}", value)
    monkeypatch.setenv("NEST_SEALING_KEYS", settings().sealing_keys.get_secret_value())
    monkeypatch.setenv("NEST_SIGNING_ALGORITHM", "EdDSA")
    service = create()
    assert service.name == "auth"
    assert service.settings.signing_algorithm == "EdDSA"  # type: ignore[attr-defined]


def test_a_login_without_a_code_is_refused_in_production(settings: Make) -> None:
    assert settings(test_login=True).test_login
    with pytest.raises(SettingsError, match="NEST_TEST_LOGIN: is refused in production"):
        settings(environment="production", issuer="https://nest.example", test_login=True)


def test_texts_go_nowhere_until_the_settings_say_where(settings: Make) -> None:
    assert settings().allowed_text_countries == frozenset()
    assert settings(text_countries="CH, LI").allowed_text_countries == {"CH", "LI"}
    assert settings(text_countries="all").allowed_text_countries is None


@pytest.mark.parametrize("countries", ["Switzerland", "ch", "CH,all", "XX"])
def test_a_country_that_there_is_not_is_refused(settings: Make, countries: str) -> None:
    with pytest.raises(SettingsError, match="NEST_TEXT_COUNTRIES"):
        settings(text_countries=countries)


def test_a_key_is_published_for_longer_than_others_keep_the_public_ones(settings: Make) -> None:
    assert settings(signing_key_lead_seconds=1).rotation.lead == timedelta(seconds=1)
    production = {"environment": "production", "issuer": "https://nest.example"}
    assert settings(**production).rotation == RotationPolicy(
        "ES256", period=timedelta(days=90), lead=timedelta(minutes=15)
    )
    with pytest.raises(SettingsError, match="NEST_SIGNING_KEY_LEAD_SECONDS: must be more than 300 in production"):
        settings(**production, signing_key_lead_seconds=300)


@pytest.mark.parametrize("wrong", [{"signing_key_days": 0}, {"signing_key_lead_seconds": 0}])
def test_keys_that_follow_at_once_or_never_are_refused(settings: Make, wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="NEST_SIGNING_KEY"):
        settings(**wrong)
