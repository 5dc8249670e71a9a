from pathlib import Path
from typing import Any

import pytest

from shared.settings import SettingsError
from tests.mailer.conftest import MakeSettings


def test_missing_variables_are_named(settings: MakeSettings) -> None:
    with pytest.raises(SettingsError) as error:
        settings(smtp_host=None, mail_from=None, mail_product_name=None, mail_support_address=None)
    assert str(error.value).splitlines() == [
        "NEST_SMTP_HOST: is not set",
        "NEST_MAIL_FROM: is not set",
        "NEST_MAIL_PRODUCT_NAME: is not set",
        "NEST_MAIL_SUPPORT_ADDRESS: is not set",
    ]


def test_starttls_is_required_by_default(settings: MakeSettings) -> None:
    loaded = settings(smtp_tls=None)
    assert (loaded.smtp_tls, loaded.smtp_port) == ("required", 587)


@pytest.mark.parametrize("environment", ["production", None])
def test_unencrypted_smtp_is_refused_in_production(settings: MakeSettings, environment: str | None) -> None:
    with pytest.raises(SettingsError, match="NEST_SMTP_TLS: none is refused in production"):
        settings(environment=environment, smtp_tls="none")


def test_user_name_without_password_is_refused(settings: MakeSettings) -> None:
    with pytest.raises(SettingsError, match="NEST_SMTP_USERNAME and NEST_SMTP_PASSWORD"):
        settings(smtp_username="nest")
    assert "secret" not in repr(settings(smtp_username="nest", smtp_password="secret"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mail_from", "Nest"),
        ("mail_from", "Nest <mail@nest.example>\r\nBcc: all@example.com"),
        ("mail_from", "Nest, Inc <mail@nest.example>"),
        ("mail_from", "пошта@nest.example"),
        ("mail_product_name", "Ne\nst"),
        ("mail_product_name", ""),
        ("mail_support_address", "help"),
        ("mail_accent_colour", "red;background:url(x)"),
        ("mail_logo_url", "javascript:alert(1)"),
        ("smtp_tls", "optional"),
        ("smtp_port", 0),
        ("smtp_timeout", 21),
        ("smtp_second_tls", "optional"),
        ("issuer", "nest.example"),
        ("issuer", "https://nest.example/"),
        ("smtp_connections", 0),
        ("smtp_ca_file", Path("/nowhere/ca.pem")),
    ],
)
def test_invalid_value_prevents_the_start(settings: MakeSettings, field: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"^NEST_{field.upper()}: "):
        settings(**{field: value})


@pytest.mark.parametrize("provider", ["inbox", "console"])
def test_development_text_provider_is_refused_in_production(settings: MakeSettings, provider: str) -> None:
    with pytest.raises(SettingsError, match=rf"NEST_TEXT_PROVIDER: {provider} is refused in production"):
        settings(environment="production", smtp_tls="required", text_provider=provider)


def test_twilio_requires_a_complete_account(settings: MakeSettings) -> None:
    with pytest.raises(SettingsError) as error:
        settings(text_provider="twilio", twilio_account_sid="AC" + "0" * 32, twilio_auth_token="")
    reason = "is required, because NEST_TEXT_PROVIDER is twilio"
    assert str(error.value).splitlines() == [
        f"NEST_TWILIO_AUTH_TOKEN: {reason}",
        f"NEST_TWILIO_MESSAGING_SERVICE_SID: {reason}",
    ]


def test_twilio_double_is_refused_in_production(settings: MakeSettings) -> None:
    with pytest.raises(SettingsError, match="NEST_TWILIO_API_BASE: is refused in production"):
        settings(environment="production", smtp_tls="required", twilio_api_base="http://127.0.0.1:1")


@pytest.mark.parametrize("domain", ["https://nest.example", "nest.example/", "nest.example #1", "nest example", "-"])
def test_text_domain_must_be_a_host_name(settings: MakeSettings, domain: str) -> None:
    with pytest.raises(SettingsError, match="NEST_TEXT_DOMAIN"):
        settings(text_domain=domain)


def test_second_server_is_optional(settings: MakeSettings) -> None:
    assert settings(smtp_second_host="", smtp_second_password="").smtp_second_host is None
    loaded = settings(smtp_second_host="relay.example", smtp_second_username="nest", smtp_second_password="secret")
    assert (loaded.smtp_second_host, loaded.smtp_second_port, loaded.smtp_second_tls) == (
        "relay.example",
        587,
        "required",
    )
    assert "secret" not in repr(loaded)


def test_incomplete_second_server_is_refused(settings: MakeSettings) -> None:
    with pytest.raises(SettingsError, match="NEST_SMTP_SECOND_USERNAME and NEST_SMTP_SECOND_PASSWORD"):
        settings(smtp_second_host="relay.example", smtp_second_username="nest")
    with pytest.raises(SettingsError, match="requires NEST_SMTP_SECOND_HOST"):
        settings(smtp_second_username="nest", smtp_second_password="secret")
    with pytest.raises(SettingsError, match="NEST_SMTP_SECOND_TLS: none is refused in production"):
        settings(environment="production", smtp_tls="required", smtp_second_tls="none")


def test_issuer_must_use_https_in_production(settings: MakeSettings) -> None:
    with pytest.raises(SettingsError, match="NEST_ISSUER: must be an https URL in production"):
        settings(environment="production", smtp_tls="required", issuer="http://nest.example")


def test_tagged_return_path_must_fit_a_local_part(settings: MakeSettings) -> None:
    assert settings(mail_return_path_tags=True).mail_return_path_tags
    with pytest.raises(SettingsError, match="NEST_MAIL_RETURN_PATH_TAGS"):
        settings(mail_return_path_tags=True, mail_from="a-rather-long-name-of-one-mailbox@nest.example")
