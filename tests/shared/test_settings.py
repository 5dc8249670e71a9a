import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import ServiceSettings, SettingsError, load, parse_keys, split_commas
from shared.variables import PREFIX
from tests.production import KAFKA_VARIABLES

SECRET = base64.b64encode(bytes(range(32))).decode()
HEX_SECRET = bytes(range(32)).hex()
REQUIRED = {
    "NEST_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "NEST_MONGO_URL": "mongodb://nest:hunter2@127.0.0.1:27017",
    "NEST_SEALING_KEYS": f"k1:{SECRET}",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [field.upper() for field in ServiceSettings.model_fields]:
        monkeypatch.delenv(PREFIX + name, raising=False)
    for name, value in (REQUIRED | KAFKA_VARIABLES).items():
        monkeypatch.setenv(name, value)


def test_a_service_needs_three_variables_and_a_secure_kafka() -> None:
    settings = load(ServiceSettings)
    assert settings.production
    assert settings.master_keys() == {"k1": bytes(range(32))}
    assert settings.inbox_retention >= timedelta(days=7, hours=24)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match=f"^{name}: is not set$"):
        load(ServiceSettings)


def test_every_missing_variable_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REQUIRED:
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings)
    assert sorted(str(caught.value).splitlines()) == [f"{name}: is not set" for name in sorted(REQUIRED)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NEST_SEALING_KEYS", ""),
        ("NEST_SEALING_KEYS", SECRET),
        ("NEST_SEALING_KEYS", f"k1:{SECRET[:-8]}"),
        ("NEST_SEALING_KEYS", f"k1:{SECRET},k1:{SECRET}"),
        ("NEST_SEALING_KEYS", f"k1:{SECRET}!"),
        ("NEST_SEALING_KEYS", f"{HEX_SECRET}:k1"),
        ("NEST_SEALING_KEYS", f"{HEX_SECRET}:main"),
        ("NEST_TOPIC_PREFIX", "with space"),
        ("NEST_ENVIRONMENT", "Prod-1"),
        ("NEST_DATABASE_PREFIX", "a.b"),
        ("NEST_IN_FLIGHT", "0"),
        ("NEST_INBOX_RETENTION", "PT0S"),
        ("NEST_DRAIN_SECONDS", "-1"),
        ("NEST_HEALTH_PORT", "70000"),
        ("NEST_LOG_LEVEL", "loud"),
    ],
)
def test_an_invalid_value_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        load(ServiceSettings)
    assert SECRET[:-8] not in str(caught.value)
    assert HEX_SECRET not in str(caught.value)


def test_the_first_key_is_the_active_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEST_SEALING_KEYS", f" new:{SECRET}, old:{SECRET}")
    assert list(load(ServiceSettings).master_keys()) == ["new", "old"]


def test_the_representation_of_settings_has_no_secrets() -> None:
    assert SECRET not in repr(load(ServiceSettings))


def test_unknown_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEST_NO_SUCH_SETTING", "1")
    load(ServiceSettings)


@given(st.text(max_size=60))
def test_any_text_is_parsed_as_keys_or_a_value_error(text: str) -> None:
    try:
        keys = parse_keys(text)
    except ValueError:
        return
    assert all(len(key) == 32 for key in keys.values())


def test_text_is_split_at_commas_and_other_values_are_not() -> None:
    assert split_commas(" a, b,,") == ("a", "b")
    assert split_commas(("a, b",)) == ("a, b",)
