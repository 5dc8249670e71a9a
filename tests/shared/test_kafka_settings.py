from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from services.news.settings import NewsSettings
from shared.bus.kafka_connection import TokenFile
from shared.kafka_settings import KafkaSettings
from shared.settings import BusSettings, SettingsError, load
from tests.certificates import Authority
from tests.production import KAFKA

KEYS = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
SCRAM = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "user": "news", "password": "hunter2"}
TLS = {"security_protocol": "SSL"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("NEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NEST_KAFKA_BOOTSTRAP", "kafka:9092")
    monkeypatch.setenv("NEST_SEALING_KEYS", KEYS)
    monkeypatch.setenv("NEST_MONGO_URL", "mongodb://mongo.test/?replicaSet=rs0")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Paths by name: certificates and keys in several states, and files that are none."""
    authority = Authority(tmp_path)
    news, other = authority.issue("news"), authority.issue("other")
    encrypted = authority.issue("encrypted", password="sesame")
    written = {"text": "not a certificate", "empty": "", "token": "eyJ.a.token\n", "spaces": "two tokens"}
    for name, content in written.items():
        (tmp_path / name).write_text(content)
    found = {
        "ca": authority.ca_file,
        "crt": news.certificate,
        "key": news.key,
        "pem": news.both,
        "other-key": other.key,
        "encrypted-crt": encrypted.certificate,
        "encrypted-key": encrypted.key,
        "missing": tmp_path / "missing",
        "folder": tmp_path,
        **{name: tmp_path / name for name in written},
    }
    return {name: str(path) for name, path in found.items()}


def read(given: dict[str, str], files: dict[str, str]) -> KafkaSettings:
    """Load settings from fields without ``kafka_``; those of files name an entry of ``files``."""
    named = {name: files[value] if name.endswith("_file") else value for name, value in given.items()}
    return load(KafkaSettings, **{f"kafka_{name}": value for name, value in named.items()})


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, {"security_protocol": "PLAINTEXT"}),
        (SCRAM, {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "news", "sasl_plain_password": "hunter2"}),
        ({**SCRAM, "sasl_mechanism": "SCRAM-SHA-256"}, {"sasl_mechanism": "SCRAM-SHA-256"}),
        ({**SCRAM, "sasl_mechanism": "PLAIN"}, {"sasl_mechanism": "PLAIN"}),
        ({**SCRAM, "security_protocol": "SASL_PLAINTEXT"}, {"security_protocol": "SASL_PLAINTEXT"}),
        ({**SCRAM, "ca_file": "ca"}, {"security_protocol": "SASL_SSL"}),
        ({**SCRAM, "ca_file": "ca", "certificate_file": "crt", "key_file": "key"}, {"security_protocol": "SASL_SSL"}),
        ({**TLS, "certificate_file": "pem"}, {"security_protocol": "SSL"}),
        ({**TLS, "certificate_file": "encrypted-crt", "key_file": "encrypted-key", "key_password": "sesame"}, {}),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "token_file": "token"},
            {"sasl_mechanism": "OAUTHBEARER"},
        ),
    ],
)
def test_settings_become_the_arguments_of_every_client(
    given: dict[str, str], options: dict[str, Any], files: dict[str, str]
) -> None:
    found = read(given, files).kafka.options
    assert found["bootstrap_servers"] == "kafka:9092"
    assert options.items() <= found.items()
    assert ("ssl_context" in found) == given.get("security_protocol", "").endswith("SSL")
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"security_protocol": "SASL"}, "NEST_KAFKA_SECURITY_PROTOCOL: "),
        ({"security_protocol": "sasl_ssl"}, "NEST_KAFKA_SECURITY_PROTOCOL: "),
        ({"security_protocol": "SASL_SSL"}, "NEST_KAFKA_SASL_MECHANISM: is not set"),
        ({"sasl_mechanism": "PLAIN"}, "NEST_KAFKA_SASL_MECHANISM: needs NEST_KAFKA_SECURITY_PROTOCOL SASL_SSL"),
        ({**TLS, "sasl_mechanism": "PLAIN"}, "NEST_KAFKA_SASL_MECHANISM: needs NEST_KAFKA_SECURITY_PROTOCOL SASL_SSL"),
        ({**SCRAM, "sasl_mechanism": "GSSAPI"}, "NEST_KAFKA_SASL_MECHANISM: "),
        ({**SCRAM, "user": ""}, "NEST_KAFKA_USER: is not set"),
        ({**SCRAM, "password": ""}, "NEST_KAFKA_PASSWORD: is not set"),
        ({"user": "news"}, "NEST_KAFKA_USER: has no effect"),
        ({"password": "hunter2"}, "NEST_KAFKA_PASSWORD: has no effect"),
        ({**SCRAM, "token_file": "token"}, "NEST_KAFKA_TOKEN_FILE: has no effect"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "NEST_KAFKA_TOKEN_FILE: is not set"),
        ({**SCRAM, "sasl_mechanism": "OAUTHBEARER", "token_file": "token"}, "NEST_KAFKA_USER: has no effect"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "token_file": "spaces"},
            "NEST_KAFKA_TOKEN_FILE: ",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "token_file": "missing"},
            "NEST_KAFKA_TOKEN_FILE: ",
        ),
        ({"ca_file": "ca"}, "NEST_KAFKA_CA_FILE: needs NEST_KAFKA_SECURITY_PROTOCOL SASL_SSL or SSL"),
        ({**SCRAM, "ca_file": "missing"}, "NEST_KAFKA_CA_FILE: "),
        ({**SCRAM, "ca_file": "folder"}, "NEST_KAFKA_CA_FILE: "),
        ({**SCRAM, "ca_file": "text"}, "NEST_KAFKA_CA_FILE: "),
        ({**SCRAM, "ca_file": "empty"}, "NEST_KAFKA_CA_FILE: "),
        ({"certificate_file": "pem"}, "NEST_KAFKA_CERTIFICATE_FILE: needs NEST_KAFKA_SECURITY_PROTOCOL"),
        ({**TLS, "certificate_file": "missing"}, "NEST_KAFKA_CERTIFICATE_FILE: "),
        ({**TLS, "key_file": "key"}, "NEST_KAFKA_KEY_FILE: needs NEST_KAFKA_CERTIFICATE_FILE"),
        ({**TLS, "certificate_file": "crt", "key_file": "missing"}, "NEST_KAFKA_KEY_FILE: "),
        (
            {**TLS, "certificate_file": "crt"},
            "NEST_KAFKA_KEY_FILE: is not set",
        ),
        (
            {**TLS, "certificate_file": "crt", "key_file": "text"},
            "NEST_KAFKA_KEY_FILE: the file contains no",
        ),
        (
            {**TLS, "certificate_file": "crt", "key_file": "other-key"},
            "NEST_KAFKA_KEY_FILE: the file has the key of another",
        ),
        (
            {**TLS, "certificate_file": "encrypted-crt", "key_file": "encrypted-key"},
            "NEST_KAFKA_KEY_FILE: the key in the file is encrypted, and NEST_KAFKA_KEY_PASSWORD is not set",
        ),
        (
            {**TLS, "certificate_file": "encrypted-crt", "key_file": "encrypted-key", "key_password": "hunter2"},
            "NEST_KAFKA_KEY_FILE: the file contains no private key that NEST_KAFKA_KEY_PASSWORD opens",
        ),
        (
            {**TLS, "certificate_file": "pem", "key_password": "hunter2"},
            "NEST_KAFKA_KEY_FILE: is not set, and the key in NEST_KAFKA_CERTIFICATE_FILE is not encrypted",
        ),
        ({**TLS, "key_password": "hunter2"}, "NEST_KAFKA_KEY_PASSWORD: needs NEST_KAFKA_CERTIFICATE_FILE"),
    ],
)
def test_a_combination_without_a_meaning_is_refused_by_name(
    given: dict[str, str], line: str, files: dict[str, str]
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(given, files)
    assert any(each.startswith(line) for each in str(refused.value).splitlines()), refused.value
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ["SECURITY_PROTOCOL"]),
        ({"security_protocol": "PLAINTEXT"}, ["SECURITY_PROTOCOL"]),
        ({**SCRAM, "security_protocol": "SASL_PLAINTEXT"}, ["SECURITY_PROTOCOL"]),
        (TLS, ["CERTIFICATE_FILE"]),
        ({**TLS, "certificate_file": "pem"}, []),
        (SCRAM, []),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "token_file": "token"}, []),
    ],
)
def test_production_refuses_kafka_without_encryption_or_authentication(
    given: dict[str, str], names: list[str], files: dict[str, str]
) -> None:
    named = {f"kafka_{name}": files[value] if name.endswith("_file") else value for name, value in given.items()}
    assert load(BusSettings, environment="staging", **named)
    assert load(BusSettings, kafka_insecure_in_production="true", **named)
    if not names:
        assert load(BusSettings, **named).production
        return
    with pytest.raises(SettingsError) as refused:
        load(BusSettings, **named)
    lines = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"NEST_KAFKA_{name}" for name in names]
    assert "NEST_KAFKA_INSECURE_IN_PRODUCTION" in lines[0]


def test_all_wrong_settings_are_reported_at_once(files: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as refused:
        read({**SCRAM, "user": "", "password": "", "ca_file": "text", "key_file": "key"}, files)
    names = {line.partition(":")[0] for line in str(refused.value).splitlines()}
    assert names == {f"NEST_KAFKA_{name}" for name in ("USER", "PASSWORD", "CA_FILE", "KEY_FILE")}


def test_a_password_is_in_no_representation(files: dict[str, str]) -> None:
    settings = read(SCRAM, files)
    for shown in (repr(settings), repr(settings.kafka), str(settings.kafka), repr(settings.kafka.options)):
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("variables", "password", "url"),
    [
        ({"NEST_KAFKA_PASSWORD": "common"}, "common", "common.test"),
        ({"NEST_KAFKA_PASSWORD_FILE": "common"}, "common", "common.test"),
        ({"NEST_KAFKA_PASSWORD": "common", "NEST_NEWS_KAFKA_PASSWORD": "own"}, "own", "common.test"),
        ({"NEST_KAFKA_PASSWORD": "common", "NEST_NEWS_KAFKA_PASSWORD_FILE": "own"}, "own", "common.test"),
        ({"NEST_KAFKA_PASSWORD_FILE": "common", "NEST_NEWS_KAFKA_PASSWORD": "own"}, "own", "common.test"),
        ({"NEST_KAFKA_PASSWORD": "own", "NEST_AUTH_KAFKA_PASSWORD": "of auth"}, "own", "common.test"),
        ({"NEST_KAFKA_PASSWORD": "own", "NEST_NEWS_MONGO_URL": "mongodb://own.test/"}, "own", "own.test"),
        ({"NEST_KAFKA_PASSWORD": "own", "NEST_NEWS_MONGO_URL_FILE": "mongodb://own.test/"}, "own", "own.test"),
    ],
)
def test_a_service_may_have_credentials_of_its_own_and_in_files(
    variables: dict[str, str], password: str, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEST_MONGO_URL", "mongodb://common.test/")
    for name, value in variables.items():
        if name.endswith("_FILE"):
            (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setenv(name, str(tmp_path / name) if name.endswith("_FILE") else value)
    without_password = {name: value for name, value in KAFKA.items() if name != "kafka_password"}
    settings = load(NewsSettings, environment="staging", **without_password)
    assert settings.kafka.options["sasl_plain_password"] == password
    assert url in str(getattr(settings.mongo_url, "get_secret_value", lambda: settings.mongo_url)())


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"NEST_KAFKA_PASSWORD_FILE": "/missing"}, "NEST_KAFKA_PASSWORD_FILE: /missing can't be read"),
        ({"NEST_KAFKA_PASSWORD_FILE": os.devnull}, f"NEST_KAFKA_PASSWORD_FILE: {os.devnull} is empty"),
        ({"NEST_KAFKA_PASSWORD_FILE": "/dev/zero"}, "NEST_KAFKA_PASSWORD_FILE: /dev/zero has more than"),
        (
            {"NEST_KAFKA_PASSWORD": "hunter2", "NEST_KAFKA_PASSWORD_FILE": os.devnull},
            "NEST_KAFKA_PASSWORD: is set, and NEST_KAFKA_PASSWORD_FILE too",
        ),
        ({"NEST_NEWS_MONGO_URL": "mongodb://a.test/?w=1", "NEST_KAFKA_PASSWORD": "x"}, "NEST_NEWS_MONGO_URL: "),
    ],
)
def test_the_variable_that_a_wrong_value_comes_from_is_named(
    variables: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load(NewsSettings, **{name: value for name, value in KAFKA.items() if name != "kafka_password"})
    assert str(refused.value).startswith(line)
    assert "hunter2" not in str(refused.value)


async def test_a_token_file_is_read_for_every_connection(tmp_path: Path) -> None:
    file = tmp_path / "token"
    provider = TokenFile(file)
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        assert await provider.token() == token
