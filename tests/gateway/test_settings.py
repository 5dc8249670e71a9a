from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from services.gateway.settings import GatewaySettings, plain
from shared.settings import SettingsError, load

REQUIRED = {
    "NEST_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "NEST_SEALING_KEYS": "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "NEST_ISSUER": "https://api.example.com",
    "NEST_STRIPE_WEBHOOK_SECRETS": "whsec_1",
    "NEST_STRIPE_LIVEMODE": "true",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A production environment with the required settings only."""
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_required_settings_are_sufficient(environment: pytest.MonkeyPatch) -> None:
    settings = load(GatewaySettings)
    assert settings.internal_keys == ()
    assert plain(settings.stripe_webhook_secrets) == ("whsec_1",)


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_setting_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(SettingsError, match=f"{name}: is not set"):
        load(GatewaySettings)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("NEST_STRIPE_WEBHOOK_SECRETS", "", "at least 1 item"),
        ("NEST_STRIPE_WEBHOOK_SECRETS", " , ", "at least 1 item"),
        ("NEST_INTERNAL_KEYS", "short", "each needs at least 16 characters"),
        ("NEST_INTERNAL_KEYS", "long-enough-to-be-one,short", "each needs at least 16 characters"),
        ("NEST_MAIL_WEBHOOK_SECRETS", "short", "each needs at least 16 characters"),
        ("NEST_CORS_ORIGINS", "*", "is not an origin"),
        ("NEST_CORS_ORIGINS", "https://app.example.com/", "is not an origin"),
        ("NEST_CORS_ORIGINS", "app.example.com", "is not an origin"),
        ("NEST_CORS_ORIGINS", "null", "is not an origin"),
        ("NEST_CORS_ORIGINS", "capacitor:localhost", "is not an origin"),
        ("NEST_CORS_ORIGINS", "capacitor://localhost/", "is not an origin"),
        ("NEST_CORS_ORIGINS", "app://local host", "is not an origin"),
        ("NEST_CORS_ORIGINS", "https://", "is not an origin"),
        ("NEST_CORS_ORIGINS", "https://*.example.com", "is not an origin"),
        ("NEST_CORS_ORIGINS", "https://user@example.com", "is not an origin"),
        ("NEST_TRUSTED_PROXIES", "10.0.0.1/8", "has host bits set"),
        ("NEST_TRUSTED_PROXIES", "everybody", ""),
        ("NEST_ISSUER", "http://api.example.com", "must be an https URL in production"),
        ("NEST_ISSUER", "https://api.example.com/", "without a trailing slash"),
        ("NEST_ISSUER", "api.example.com", "must be the URL"),
        ("NEST_PORT", "70000", ""),
        ("NEST_REPLY_SECONDS", "0", ""),
        ("NEST_TEST_LOGIN", "true", "is refused in production"),
        ("NEST_OLD_CLIENTS", "true", "NEST_OLD_CLIENTS_IN_PRODUCTION"),
    ],
)
def test_invalid_setting_is_named_with_the_reason(
    environment: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load(GatewaySettings)
    assert f"{name}" in str(refused.value)
    assert reason in str(refused.value)


def test_invalid_secret_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NEST_INTERNAL_KEYS", "hunter2")
    with pytest.raises(SettingsError) as refused:
        load(GatewaySettings)
    assert "hunter2" not in str(refused.value)


def test_lists_are_separated_by_commas(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NEST_INTERNAL_KEYS", "one-long-internal-key, another-internal-key")
    environment.setenv("NEST_STRIPE_WEBHOOK_SECRETS", "whsec_1,whsec_2")
    environment.setenv("NEST_CORS_ORIGINS", "https://a.example, http://localhost:3000")
    environment.setenv("NEST_TRUSTED_PROXIES", "10.0.0.0/8,::1/128")
    settings = load(GatewaySettings)
    assert plain(settings.internal_keys) == ("one-long-internal-key", "another-internal-key")
    assert plain(settings.stripe_webhook_secrets) == ("whsec_1", "whsec_2")
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.com:443", "https://app.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://my_machine:3000", "http://my_machine:3000"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://tauri.localhost", "http://tauri.localhost"),
        ("tauri://localhost", "tauri://localhost"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost", "ionic://localhost"),
        ("app://-", "app://-"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("com.example.app://localhost:80", "com.example.app://localhost:80"),
        ("chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai", "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai"),
        (
            "moz-extension://5a1ee8a5-ac29-4fc9-99c0-2b0a1a6f1d3e",
            "moz-extension://5a1ee8a5-ac29-4fc9-99c0-2b0a1a6f1d3e",
        ),
        ("file://", "file://"),
    ],
)
def test_origins_are_stored_as_browsers_send_them(environment: pytest.MonkeyPatch, written: str, sent: str) -> None:
    """RFC 6454 section 6.2."""
    environment.setenv("NEST_CORS_ORIGINS", written)
    assert load(GatewaySettings).cors_origins == (sent,)


def test_secrets_are_hidden_in_repr(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NEST_INTERNAL_KEYS", "one-long-internal-key")
    text = repr(load(GatewaySettings))
    assert "one-long" not in text
    assert "whsec" not in text


def test_old_clients_need_a_second_setting_in_production(environment: pytest.MonkeyPatch) -> None:
    assert not load(GatewaySettings).old_clients
    assert load(GatewaySettings, environment="dev", old_clients=True).old_clients
    assert load(GatewaySettings, old_clients=True, old_clients_in_production=True).old_clients


def test_old_clients_are_logged_as_a_warning(environment: pytest.MonkeyPatch) -> None:
    with capture_logs() as logs:
        load(GatewaySettings).warn_of_old_clients()
        assert logs == []
        load(GatewaySettings, environment="dev", old_clients=True).warn_of_old_clients()
    [entry] = logs
    assert entry["log_level"] == "warning"
    assert "old clients" in entry["event"]
