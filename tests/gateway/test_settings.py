from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.gateway.settings import GatewaySettings, has_low_variety, plain
from shared.settings import SettingsError, load
from tests.production import KAFKA_VARIABLES

REQUIRED = {
    "NEST_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "NEST_SEALING_KEYS": "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "NEST_ISSUER": "https://api.example.com",
    "NEST_STRIPE_WEBHOOK_SECRETS": "whsec_0123456789",
    "NEST_STRIPE_LIVEMODE": "true",
}


KEY = "7f4e1c02b9a86d35e0c17b94d2f6a358"
OTHER_KEY = "c3d90be1475f82a6901d3c7ae46b285f"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A production environment with the required settings only."""
    for name, value in (REQUIRED | KAFKA_VARIABLES).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_required_settings_are_sufficient(environment: pytest.MonkeyPatch) -> None:
    settings = load(GatewaySettings)
    assert settings.internal_keys == ()
    assert plain(settings.stripe_webhook_secrets) == ("whsec_0123456789",)


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


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("short", "at least 32 characters"),
        (KEY[:-1], "at least 32 characters"),
        (f"ops:{KEY[:-1]}", "at least 32 characters"),
        (f"{KEY},ops:short", "at least 32 characters"),
        ("ops:", "at least 32 characters"),
        ("a" * 32, "must be random"),
        ("a" * 31 + "b", "must be random"),
        ("ab" * 20, "must be random"),
        ("0123456789abcdef" * 2, "must be random"),
        ("0123456789abcdefghijklmnopqrstuv", "must be random"),
        ("zyxwvutsrqponmlkjihgfedcba987654", "must be random"),
        ("password" * 4, "must be random"),
        ("password1password2password3password4", "must be random"),
        ("changeme-changeme-changeme-changeme", "must be random"),
        ("1234567890" * 4, "must be random"),
        (f"ops:{'secret' * 6}", "must be random"),
        (f"Ops:{KEY}", "write name:key"),
        (f"an operator:{KEY}", "write name:key"),
        (f":{KEY}", "write name:key"),
        (f"{'n' * 33}:{KEY}", "write name:key"),
        (f"{KEY},ops:{KEY}", "a key occurs twice"),
    ],
)
def test_weak_internal_keys_are_refused_in_production(environment: pytest.MonkeyPatch, keys: str, reason: str) -> None:
    environment.setenv("NEST_INTERNAL_KEYS", keys)
    with pytest.raises(SettingsError, match=f"^NEST_INTERNAL_KEYS: .*{reason}") as refused:
        load(GatewaySettings)
    assert not any(part in str(refused.value) for part in keys.split(",") if len(part) > 3)


@given(st.binary(min_size=16, max_size=48), st.sampled_from([bytes.hex, lambda raw: b64encode(raw).decode()]))
def test_random_keys_have_variety(seed: bytes, encode: Callable[[bytes], str]) -> None:
    raw = hashlib.shake_256(seed).digest(max(24, len(seed)))
    assert not has_low_variety(encode(raw))


def test_keys_of_16_characters_are_accepted_outside_of_production(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NEST_ENVIRONMENT", "dev")
    environment.setenv("NEST_INTERNAL_KEYS", "ops:aaaaaaaaaaaaaaaa")
    environment.setenv("NEST_STRIPE_WEBHOOK_SECRETS", "whsec_1")
    load(GatewaySettings)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("NEST_STRIPE_WEBHOOK_SECRETS", "whsec_123456789", "at least 16 characters"),
        ("NEST_STRIPE_WEBHOOK_SECRETS", "whsec_0123456789,whsec_1", "at least 16 characters"),
        ("NEST_MAIL_WEBHOOK_SECRETS", "0123456789abcde", "at least 16 characters"),
        ("NEST_CORS_ORIGINS", "http://app.example.com", "must be https"),
        ("NEST_CORS_ORIGINS", "https://app.example.com,http://192.168.0.2:3000", "must be https"),
        ("NEST_CORS_ORIGINS", "http://localhost.example.com", "must be https"),
        ("NEST_CORS_ORIGINS", "http://127.0.0.1.example.com", "must be https"),
        ("NEST_CORS_ORIGINS", "http://notlocalhost", "must be https"),
        ("NEST_CORS_ORIGINS", "http://[2001:db8::1]", "must be https"),
        ("NEST_TRUSTED_PROXIES", "0.0.0.0/0", "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", "::/0", "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", "10.0.0.0/8,0.0.0.0/0", "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", "0.0.0.0/1,128.0.0.0/1", "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", "0.0.0.0/1", "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", ",".join(f"{number}.0.0.0/8" for number in range(256)), "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", "::/1,8000::/1", "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", "2000::/3", "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", "::ffff:0:0/96", "covers so many addresses"),
        ("NEST_TRUSTED_PROXIES", "::ffff:0:0/97,::ffff:128.0.0.0/97", "covers so many addresses"),
    ],
)
def test_dangerous_setting_is_refused_in_production_only(
    environment: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: .*{reason}"):
        load(GatewaySettings)
    environment.setenv("NEST_ENVIRONMENT", "dev")
    if name != "NEST_MAIL_WEBHOOK_SECRETS":
        load(GatewaySettings)


@pytest.mark.parametrize(
    "value",
    [
        "10.0.0.0/8",
        "172.16.0.0/12,192.168.0.0/16",
        "127.0.0.0/8",
        "fc00::/7",
        "::1/128",
        "::ffff:10.0.0.0/104",
        "fe80::/10",
    ],
)
def test_private_networks_are_accepted_as_proxies(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("NEST_TRUSTED_PROXIES", value)
    assert load(GatewaySettings).trusted_proxies


@pytest.mark.parametrize(
    "value",
    [
        "http://localhost:3000",
        "http://127.0.0.1:5173",
        "http://[::1]:3000",
        "http://tauri.localhost",
        "http://127.1.2.3",
    ],
)
def test_loopback_origins_may_have_http_in_production(environment: pytest.MonkeyPatch, value: str) -> None:
    """RFC 8252 section 7.3, RFC 6761 section 6.3."""
    environment.setenv("NEST_CORS_ORIGINS", value)
    assert load(GatewaySettings).cors_origins == (value,)


def test_password_in_an_origin_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NEST_CORS_ORIGINS", "https://nest:hunter2@app.example.com")
    with pytest.raises(SettingsError) as refused:
        load(GatewaySettings)
    assert "hunter2" not in str(refused.value)


def test_invalid_secret_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NEST_INTERNAL_KEYS", "hunter2")
    with pytest.raises(SettingsError) as refused:
        load(GatewaySettings)
    assert "hunter2" not in str(refused.value)


def test_lists_are_separated_by_commas(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NEST_INTERNAL_KEYS", f"ops:{KEY}, {OTHER_KEY}")
    environment.setenv("NEST_STRIPE_WEBHOOK_SECRETS", "whsec_0123456789,whsec_9876543210")
    environment.setenv("NEST_CORS_ORIGINS", "https://a.example, http://localhost:3000")
    environment.setenv("NEST_TRUSTED_PROXIES", "10.0.0.0/8,::1/128")
    settings = load(GatewaySettings)
    assert plain(settings.internal_keys) == (f"ops:{KEY}", OTHER_KEY)
    assert plain(settings.stripe_webhook_secrets) == ("whsec_0123456789", "whsec_9876543210")
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.com:443", "https://app.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("https://my_machine:3000", "https://my_machine:3000"),
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


def test_old_clients_need_a_second_setting_in_production(environment: pytest.MonkeyPatch) -> None:
    assert not load(GatewaySettings).old_clients
    assert load(GatewaySettings, environment="dev", old_clients=True).old_clients
    assert load(GatewaySettings, old_clients=True, old_clients_in_production=True).old_clients


def test_old_clients_are_logged_as_a_warning(environment: pytest.MonkeyPatch) -> None:
    with capture_logs() as logs:
        load(GatewaySettings).warn_of_old_clients()
        assert logs == []
        load(GatewaySettings, environment="test", old_clients=True).warn_of_old_clients()
        load(GatewaySettings, environment="dev", old_clients=True).warn_of_old_clients()
    assert [entry["log_level"] for entry in logs] == ["warning", "info"]
    assert {entry["event"] for entry in logs} == {"old clients are served"}
