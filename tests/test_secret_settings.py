"""Secrets in settings: none in representations, errors and tracebacks of any service, and all refusals at once."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, cast, get_args

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.traceback import Traceback

from services.embedded.in_process import run_in_process
from services.embedded.machine import Machine
from services.embedded.stripe import StripeUse
from services.gateway.app import Gateway
from services.news.app import create as create_news
from services.news.settings import NewsSettings
from shared import service, startup
from shared.mongo import connect
from shared.mongo_urls import InvalidMongoUrl
from shared.otel_settings import TraceExport
from shared.settings import BusSettings, SettingsError, load, load_all
from shared.tracing import Tracing
from tests.backing import Backing
from tests.deploy.environments import SETTINGS, STAND_INS

MARKER: Final = "hunter2"
MARKED_KEY: Final = base64.b64encode(MARKER.encode().ljust(32, b"!")).decode()
SECRETS: Final[dict[str, str]] = {
    "internal_keys": f"ops:{MARKER}-7f4e1c02b9a86d35e0c17b94d2f6a358",
    "kafka_password": f"{MARKER}-of-kafka",
    "mail_webhook_secrets": f"{MARKER}-of-the-mail-webhook",
    "mailchimp_api_key": f"{MARKER}01234567-us21",
    "mongo_url": f"mongodb://nest:{MARKER}@mongo.test/?replicaSet=rs0",
    "otel_exporter_otlp_endpoint": f"https://nest:{MARKER}@traces.test",
    "otel_exporter_otlp_headers": f"authorization=Bearer%20{MARKER}",
    "otel_exporter_otlp_traces_headers": f"authorization=Bearer%20{MARKER}",
    "otlp_endpoint": f"https://nest:{MARKER}@traces.test/v1/traces",
    "sealing_keys": f"k1:{MARKED_KEY}",
    "smtp_password": f"{MARKER}-of-smtp",
    "smtp_second_password": f"{MARKER}-of-smtp",
    "smtp_second_username": f"{MARKER}-token",
    "smtp_username": f"{MARKER}-token",
    "stripe_api_key": f"sk_test_{MARKER}",
    "stripe_webhook_secrets": f"whsec_{MARKER}0123456789",
    "twilio_auth_token": f"{MARKER}-of-twilio",
}
"""A valid value of every secret setting that contains the marker."""
OTHERS: Final = {
    "NEST_KAFKA_BOOTSTRAP": "kafka.test:9092",
    "NEST_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "NEST_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "NEST_KAFKA_USER": "nest",
    "NEST_ISSUER": "https://api.example.com",
    "NEST_STRIPE_LIVEMODE": "false",
    "NEST_SMTP_HOST": "smtp.example.com",
    "NEST_SMTP_SECOND_HOST": "smtp.example.com",
    "NEST_MAILCHIMP_LIST_ID": "list",
    **{name: value for name, value in STAND_INS.items() if name.startswith(("NEST_MAIL_", "NEST_STRIPE_"))},
}
ALONE: Final = {"kafka_key_password", "otel_exporter_otlp_traces_endpoint"}
"""Secrets that are refused without a file that they open, or beside the earlier variable of the same setting."""
SOUNDS_SECRET: Final = re.compile(
    r"secret|password|passphrase|token|credential|key|dsn|username|mongo|otlp|_auth_|sasl"
)
PUBLIC: Final = {
    "access_token_type": "the header `typ`",
}
"""Text settings whose names sound secret, and what they are instead."""


def secret(field: FieldInfo) -> bool:
    """Whether a setting is hidden in representations."""
    return "SecretStr" in str(field.annotation)


def is_text(annotation: Any) -> bool:
    """Whether a value of a type may be plain text."""
    return annotation is str or any(map(is_text, get_args(annotation)))


def variable_of(name: str) -> str:
    """The variable of a setting; those of OpenTelemetry have its own names."""
    return name.upper() if name.startswith("otel_") else f"NEST_{name.upper()}"


FIELDS: Final = [(kind, name, field) for kind in SETTINGS.values() for name, field in kind.model_fields.items()]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which every secret setting has the marker."""
    for name, value in {**OTHERS, **{variable_of(name): value for name, value in SECRETS.items()}}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def representations(failure: BaseException) -> Iterator[str]:
    """What logs and tools may show of an exception: texts, and tracebacks with the variables of all frames."""
    yield str(failure)
    yield repr(failure)
    yield "".join(traceback.format_exception(failure))
    whole = traceback.TracebackException.from_exception(failure, capture_locals=True)
    yield from whole.format(chain=True)
    pending: list[traceback.TracebackException | None] = [whole]
    while pending:
        each = pending.pop()
        if each is not None:
            # Python does not print a suppressed context; other tools do.
            yield from ("".join(each.stack.format()), str(each))
            pending += [each.__cause__, each.__context__]
    console = Console(record=True, quiet=True, width=200)
    console.print(Traceback.from_exception(type(failure), failure, failure.__traceback__, show_locals=True))
    yield console.export_text()


def failure_of(act: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- the kind is asserted by the callers
        act()
    failure = caught.value
    # Without the frames of this test, which know the secrets.
    assert failure.__traceback__ is not None
    return failure.with_traceback(failure.__traceback__.tb_next.tb_next if failure.__traceback__.tb_next else None)


@pytest.mark.parametrize("kind", SETTINGS.values(), ids=list(SETTINGS))
def test_no_representation_of_settings_has_a_secret(environment: pytest.MonkeyPatch, kind: type[BusSettings]) -> None:
    loaded = load(kind)
    marked = {name for name, field in kind.model_fields.items() if secret(field) and getattr(loaded, name)}
    assert marked == set(SECRETS) & set(kind.model_fields)
    shown = [
        repr(loaded),
        str(loaded),
        repr(loaded.model_dump()),
        loaded.model_dump_json(),
        f"{loaded}",
    ]
    assert not [text for text in shown if MARKER in text or MARKED_KEY in text]


@pytest.mark.parametrize(("kind", "name", "field"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in FIELDS])
def test_setting_that_sounds_secret_is_hidden(kind: type[BusSettings], name: str, field: FieldInfo) -> None:
    if SOUNDS_SECRET.search(name) and name not in PUBLIC and is_text(field.annotation):
        pytest.fail(f"{kind.__name__}.{name} may be a secret: make it SecretStr, or add it to PUBLIC with the reason")
    if secret(field):
        assert name in {*SECRETS, *ALONE}, f"add a marked value of {name} to SECRETS"


@pytest.mark.parametrize("kind", SETTINGS.values(), ids=list(SETTINGS))
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NEST_ENVIRONMENT", f"{MARKER}!"),
        ("NEST_LOG_LEVEL", MARKER),
        ("NEST_SEALING_KEYS", f"k1:{MARKED_KEY},k1:{MARKED_KEY}"),
        ("NEST_SEALING_KEYS", f"k1:{MARKED_KEY}{MARKED_KEY}"),
        ("NEST_SEALING_KEYS", f"k1:{MARKER}"),
        ("NEST_SEALING_KEYS", MARKER),
        ("NEST_MONGO_URL", f"mongodb://nest:{MARKER}"),
        ("NEST_MONGO_URL", f"mongodb://nest:{MARKER}/@mongo.test"),
        ("NEST_MONGO_URL", f"mongodb://nest:{MARKER}%@mongo.test"),
        ("NEST_MONGO_URL", f"mongodb://nest:{MARKER}@mongo.test:port"),
        ("NEST_MONGO_URL", f"mongodb://nest:{MARKER}@mongo.test/?w=1"),
        ("NEST_MONGO_URL", f"mongodb://nest:{MARKER}@mongo.test/?tlsCAFile=/nowhere"),
        ("NEST_MONGO_URL", f"https://nest:{MARKER}@mongo.test/"),
        ("NEST_INTERNAL_KEYS", MARKER),
        ("NEST_INTERNAL_KEYS", f"ops:{MARKER}"),
        ("NEST_INTERNAL_KEYS", f"{MARKER}:short"),
        ("NEST_INTERNAL_KEYS", f"{MARKER.upper()}:{MARKER}"),
        ("NEST_STRIPE_WEBHOOK_SECRETS", MARKER),
        ("NEST_MAIL_WEBHOOK_SECRETS", MARKER),
        ("NEST_STRIPE_API_KEY", MARKER),
        ("NEST_STRIPE_API_KEY", f"sk_live_{MARKER}"),
        ("NEST_STRIPE_PORTAL_RETURN_URL", f"https://nest:{MARKER}@example.com/"),
        ("NEST_STRIPE_API_BASE", f"https://nest:{MARKER}@example.com"),
        ("NEST_MAILCHIMP_API_KEY", MARKER),
        ("NEST_MAILCHIMP_API_BASE", f"https://nest:{MARKER}@example.com"),
        ("NEST_TWILIO_API_BASE", f"https://nest:{MARKER}@example.com"),
        ("NEST_MAIL_LOGO_URL", f"https://nest:{MARKER}@example.com/logo.png"),
        ("NEST_ISSUER", f"https://nest:{MARKER}@api.example.com"),
        ("NEST_CORS_ORIGINS", f"https://nest:{MARKER}@app.example.com"),
        ("NEST_TRUSTED_PROXIES", MARKER),
        ("NEST_LOG_LEVELS", f"{MARKER}=debug"),
        ("NEST_OTLP_ENDPOINT", f"{MARKER}@traces.test"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"ftp://nest:{MARKER}@traces.test"),
        ("OTEL_EXPORTER_OTLP_HEADERS", MARKER),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"{MARKER} x=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"x={MARKER}%0a"),
        ("OTEL_RESOURCE_ATTRIBUTES", MARKER),
        ("OTEL_TRACES_SAMPLER_ARG", MARKER),
    ],
)
def test_no_refused_start_shows_a_secret(
    environment: pytest.MonkeyPatch, kind: type[BusSettings], name: str, value: str
) -> None:
    environment.setenv(name, value)
    if name.removeprefix("NEST_").lower() not in kind.model_fields:
        return
    failure = failure_of(lambda: load(kind))
    assert isinstance(failure, SettingsError)
    assert str(failure).startswith(f"{name}: ")
    if name not in {"NEST_ENVIRONMENT", "NEST_TRUSTED_PROXIES"}:
        assert not [text for text in representations(failure) if MARKER in text or MARKED_KEY in text]


@pytest.mark.parametrize("kind", SETTINGS.values(), ids=list(SETTINGS))
def test_no_refused_argument_shows_a_secret(kind: type[BusSettings]) -> None:
    arguments = {**SECRETS, "log_level": "loud"}
    for construct in (kind, partial(load, kind)):
        failure = failure_of(partial(construct, **arguments))
        assert isinstance(failure, SettingsError)
        assert not [text for text in representations(failure) if MARKER in text or MARKED_KEY in text]


async def failure_of_start(start: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- the kind is asserted by the callers
        async with start:
            pass
    failure = caught.value
    assert failure.__traceback__ is not None
    return failure.with_traceback(failure.__traceback__.tb_next)


async def test_failed_start_shows_no_secret(environment: pytest.MonkeyPatch, backing: Backing) -> None:
    """MongoDB refuses the password, then is away; Kafka is away."""
    environment.setattr(startup, "START_SECONDS", 0)
    environment.setenv("NEST_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    refusing = backing.mongo_url.replace("mongodb://", f"mongodb://nest:{MARKER}@")
    away = f"mongodb://nest:{MARKER}@127.0.0.1:9/?replicaSet=rs0"
    environment.setenv("NEST_MONGO_URL", refusing)
    failure = await failure_of_start(create_news())
    assert str(failure) == "NEST_MONGO_URL: MongoDB refuses its user name, password or certificate"
    failures = [failure]
    environment.setenv("NEST_MONGO_URL", away)
    failures.append(await failure_of_start(create_news()))
    failures.append(await failure_of_start(Gateway(load(SETTINGS["gateway"]))))
    for failure in failures:
        assert not [text for text in representations(failure) if MARKER in text or MARKED_KEY in text]


def test_refusal_of_the_driver_shows_no_secret() -> None:
    url = SecretStr(f"mongodb://nest:{MARKER}@mongo.test/?authMechanism=MONGODB-X509&tls=true")
    failure = failure_of(partial(connect, url, application="test"))
    assert isinstance(failure, InvalidMongoUrl)
    assert not [text for text in representations(failure) if MARKER in text]


def test_url_of_traces_is_hidden_in_a_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    url, headers = SecretStr(f"https://nest:{MARKER}@traces.test"), SecretStr(f"authorization={MARKER}")
    export = TraceExport(exporter="otlp", endpoint=url, headers=headers)
    monkeypatch.setattr("shared.trace_provider.BatchSpanProcessor", None)
    failure = failure_of(lambda: Tracing("auth", export))
    assert not [text for text in representations(failure) if MARKER in text]


def test_all_wrong_settings_of_a_service_are_reported_at_once(environment: pytest.MonkeyPatch) -> None:
    wrong = {
        "NEST_MONGO_URL": "mongodb://mongo.test",
        "NEST_SMTP_TLS": "none",
        "NEST_SMTP_PASSWORD": None,
        "NEST_SMTP_SECOND_HOST": "",
        "NEST_ISSUER": "http://api.example.com",
        "NEST_MAIL_RETURN_PATH_TAGS": "true",
        "NEST_MAIL_FROM": f"{'a' * 40}@example.com",
        "NEST_TEXT_PROVIDER": "twilio",
        "NEST_TWILIO_AUTH_TOKEN": "",
        "NEST_MAILCHIMP_LIST_ID": None,
    }
    for name, value in wrong.items():
        environment.delenv(name, raising=False) if value is None else environment.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load(SETTINGS["mailer"])
    names = [line.partition(": ")[0] for line in str(refused.value).splitlines()]
    assert names == [
        "NEST_MONGO_URL",
        "NEST_SMTP_TLS",
        "NEST_SMTP_PASSWORD",
        "NEST_SMTP_SECOND_USERNAME",
        "NEST_ISSUER",
        "NEST_MAIL_FROM",
        "NEST_TWILIO_ACCOUNT_SID",
        "NEST_TWILIO_AUTH_TOKEN",
        "NEST_TWILIO_MESSAGING_SERVICE_SID",
        "NEST_MAILCHIMP_LIST_ID",
    ]


def test_all_wrong_settings_of_a_process_are_reported_at_once(environment: pytest.MonkeyPatch) -> None:
    wrong = {
        "NEST_INTERNAL_KEYS": "short",
        "NEST_STRIPE_WEBHOOK_SECRETS": "whsec_1",
        "NEST_MAIL_WEBHOOK_SECRETS": "short",
        "NEST_CORS_ORIGINS": "http://app.example.com",
        "NEST_TRUSTED_PROXIES": "0.0.0.0/0",
        "NEST_MONGO_URL": "mongodb://mongo.test/?replicaSet=rs0",
        "NEST_ISSUER": "http://api.example.com",
        "NEST_STRIPE_PORTAL_RETURN_URL": "http://example.com/account",
        "NEST_SMTP_TLS": "none",
    }
    for name, value in wrong.items():
        environment.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_all(SETTINGS.values())
    lines = str(refused.value).splitlines()
    assert {line.partition(": ")[0] for line in lines} == set(wrong)
    assert len(set(lines)) == len(lines)


def test_process_with_weak_settings_names_all_of_them_and_exits(environment: pytest.MonkeyPatch) -> None:
    """EX_CONFIG of sysexits.h."""
    environment.setenv("NEST_INTERNAL_KEYS", MARKER)
    environment.setenv("NEST_STRIPE_WEBHOOK_SECRETS", MARKER)
    environment.setenv("NEST_CORS_ORIGINS", f"http://nest:{MARKER}@app.example.com")
    environment.setenv("NEST_TRUSTED_PROXIES", "0.0.0.0/0,::/0")
    ran = subprocess.run(
        [sys.executable, "-m", "services.cli", "run", "gateway"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == service.SETTINGS_EXIT_CODE
    for name in ("INTERNAL_KEYS", "STRIPE_WEBHOOK_SECRETS", "CORS_ORIGINS", "TRUSTED_PROXIES"):
        assert f"\nNEST_{name}: " in ran.stderr
    assert MARKER not in ran.stderr + ran.stdout


async def test_all_services_in_one_process_refuse_weak_settings_at_once(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = {"NEST_INTERNAL_KEYS": "short", "NEST_MONGO_URL": "mongodb://mongo.test", "NEST_SMTP_TLS": "none"}
    for name in wrong:
        # Restored afterwards: the start adds the machine's settings to the environment.
        environment.setenv(name, "")
    machine = Machine(tmp_path, "http://127.0.0.1:8080", cast("Any", None), StripeUse({}, "", None), "short", wrong)
    with pytest.raises(SettingsError) as refused:
        async with run_in_process(machine):
            pass
    assert {line.partition(": ")[0] for line in str(refused.value).splitlines()} == set(wrong)


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("mongodb://nest:secret@mongo.test/", True),
        ("mongodb+srv://nest:secret@mongo.test/", True),
        ("mongodb://nest:s%40cret@mongo.test/?authSource=admin", True),
        ("mongodb://mongo.test/?authMechanism=MONGODB-X509&tls=true", True),
        ("mongodb://CN=nest@mongo.test/?authMechanism=MONGODB-X509&tls=true", True),
        ("mongodb://mongo.test/?authMechanism=MONGODB-AWS", True),
        ("mongodb://mongo.test/?authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:k8s", True),
        ("mongodb://mongo.test/", False),
        ("mongodb+srv://mongo.test/", False),
        ("mongodb://mongo.test/?tls=true&replicaSet=rs0", False),
        ("mongodb://nest@mongo.test/", False),
        ("mongodb://nest:@mongo.test/", False),
        ("mongodb://nest@mongo.test/?authMechanism=SCRAM-SHA-256", False),
        ("mongodb://mongo.test/?authSource=admin", False),
    ],
)
def test_mongodb_needs_credentials_in_production(environment: pytest.MonkeyPatch, url: str, *, accepted: bool) -> None:
    """MongoDB manual, Connection Strings and Authentication."""
    environment.setenv("NEST_MONGO_URL", url)
    if accepted:
        load(NewsSettings)
        return
    with pytest.raises(SettingsError, match=r"^NEST_MONGO_URL: has no credentials"):
        load(NewsSettings)
    environment.setenv("NEST_ENVIRONMENT", "dev")
    load(NewsSettings)
