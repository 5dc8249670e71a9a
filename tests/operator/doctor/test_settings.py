"""Which services belong to an environment, and which credentials it has."""

import os
from collections.abc import Mapping

import pytest

from services.operator.doctor.access import kafka_access, mongo_access
from services.operator.doctor.checks import check_everything
from services.operator.doctor.findings import Level
from services.operator.doctor.settings import LoadedSettings

KEY = f"k1:{'A' * 43}="
URL = "mongodb://nest:hunter2@mongo.test/?replicaSet=rs0"
SHARED = {
    "NEST_ENVIRONMENT": "staging",
    "NEST_KAFKA_BOOTSTRAP": "kafka:9092",
    "NEST_ISSUER": "https://nest.test",
    "NEST_STRIPE_LIVEMODE": "false",
    "NEST_STRIPE_TRIAL_PRICE": "price_1",
    "NEST_STRIPE_PORTAL_RETURN_URL": "https://example.com/account",
    "NEST_SMTP_HOST": "smtp.test",
    "NEST_SMTP_USERNAME": "nest",
    "NEST_MAIL_FROM": "Example <mail@example.com>",
    "NEST_MAIL_PRODUCT_NAME": "Example",
    "NEST_MAIL_SUPPORT_ADDRESS": "support@example.com",
}
"""The ConfigMap: no secrets."""
SASL = {"NEST_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "NEST_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}
GATEWAY = {"NEST_SEALING_KEYS": KEY, "NEST_STRIPE_WEBHOOK_SECRETS": "whsec_of_one_single_test"}
BILLING = {"NEST_SEALING_KEYS": KEY, "NEST_MONGO_URL": URL, "NEST_STRIPE_API_KEY": "sk_test_1"}
MAILER = {"NEST_SEALING_KEYS": KEY, "NEST_MONGO_URL": URL, "NEST_SMTP_PASSWORD": "a password"}
ALL = {**GATEWAY, **BILLING, **MAILER}
NAMES = {"gateway", "auth", "billing", "mailer", "news"}


def login(process: str) -> dict[str, str]:
    """The Kafka user of a process."""
    return {**SASL, "NEST_KAFKA_USER": process, f"NEST_{process.upper()}_KAFKA_PASSWORD": "a password"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith(("NEST_", "KUBERNETES_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


def enter(environment: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "required", "would_start", "wrong"),
    [
        # Pods, without and with a Kafka user of their own.
        (GATEWAY, (), {"gateway"}, {}),
        ({"NEST_SEALING_KEYS": KEY, "NEST_MONGO_URL": URL}, (), {"auth", "news"}, {}),
        (BILLING, (), {"auth", "billing", "news"}, {}),
        (MAILER, (), {"auth", "mailer", "news"}, {}),
        (GATEWAY | login("gateway"), (), {"gateway"}, {}),
        (BILLING | login("billing"), (), {"billing"}, {}),
        # All services in one environment.
        (ALL, (), NAMES, {}),
        # An operator: no service would start.
        (login("operator"), (), set(), {}),
        # A service that belongs here by a variable of its own, or by --service, lacks a variable.
        (
            {"NEST_SEALING_KEYS": KEY, "NEST_BILLING_MONGO_URL": URL},
            (),
            set(),
            {"billing": ["NEST_STRIPE_API_KEY: is not set"]},
        ),
        (GATEWAY, ["auth"], {"gateway"}, {"auth": ["NEST_MONGO_URL: is not set"]}),
        # A wrong value is a problem, whether or not the service belongs here.
        (GATEWAY | {"NEST_SMTP_PORT": "0"}, (), {"gateway"}, {"mailer": ["NEST_SMTP_PORT: "]}),
        (
            BILLING | {"NEST_STRIPE_API_KEY": "no"},
            (),
            {"auth", "news"},
            {"billing": ["NEST_STRIPE_API_KEY: must begin"]},
        ),
    ],
)
def test_services_of_an_environment(
    environment: pytest.MonkeyPatch,
    variables: dict[str, str],
    required: list[str],
    would_start: set[str],
    wrong: dict[str, list[str]],
) -> None:
    enter(environment, SHARED | variables)
    loaded = LoadedSettings(required)
    assert set(loaded.settings) == would_start
    assert set(loaded.errors) == set(wrong)
    for service, beginnings in wrong.items():
        lines = loaded.errors[service]
        assert len(lines) == len(beginnings)
        assert all(line.startswith(text) for line, text in zip(lines, beginnings, strict=True))
    assert {*loaded.settings, *loaded.errors, *loaded.absent} == NAMES


@pytest.mark.parametrize(
    ("variables", "user"),
    [
        (login("operator") | login("billing") | {"NEST_OPERATOR_KAFKA_USER": "operator"}, "operator"),
        (login("billing"), "billing"),
        (login("news"), "news"),
        ({}, None),
    ],
)
def test_kafka_user_is_the_operators_else_the_services(
    environment: pytest.MonkeyPatch, variables: dict[str, str], user: str | None
) -> None:
    enter(environment, SHARED | variables)
    access = kafka_access()
    assert access.connection is not None
    assert access.connection.user == user


@pytest.mark.parametrize(
    ("variables", "missing", "wrong"),
    [
        (SASL, "NEST_KAFKA_PASSWORD: is not set", ""),
        (login("billing") | {"NEST_KAFKA_SASL_MECHANISM": "MD5"}, "", "NEST_KAFKA_SASL_MECHANISM: Input should be"),
    ],
)
def test_kafka_without_credentials_is_skipped_and_with_wrong_ones_a_problem(
    environment: pytest.MonkeyPatch, variables: dict[str, str], missing: str, wrong: str
) -> None:
    enter(environment, SHARED | variables)
    access = kafka_access()
    assert access.connection is None
    assert any(line.startswith(missing) for line in access.missing) is bool(missing)
    assert any(line.startswith(wrong) for line in access.wrong) is bool(wrong)


@pytest.mark.parametrize(
    ("variables", "databases", "required"),
    [
        ({}, [], set()),
        ({"NEST_MONGO_URL": URL}, ["auth", "billing", "mailer", "news"], set()),
        ({"NEST_MONGO_URL": URL, "NEST_NEWS_MONGO_URL": URL}, ["auth", "billing", "mailer", "news"], {"news"}),
        ({"NEST_NEWS_MONGO_URL": URL}, ["news"], {"news"}),
        # The services share an environment, so their user must read all databases.
        (ALL, ["auth", "billing", "mailer", "news"], {"auth", "billing", "mailer", "news"}),
        (BILLING, ["auth", "billing", "mailer", "news"], set()),
        (BILLING | login("billing"), ["auth", "billing", "mailer", "news"], {"billing"}),
    ],
)
def test_databases_of_an_environment(
    environment: pytest.MonkeyPatch, variables: dict[str, str], databases: list[str], required: set[str]
) -> None:
    enter(environment, SHARED | variables)
    access = mongo_access(LoadedSettings())
    assert list(access.databases) == databases
    assert access.required == required


async def test_skipped_checks_name_what_is_missing(environment: pytest.MonkeyPatch) -> None:
    """A laptop with the settings of the cluster and no secret."""
    enter(environment, SHARED | SASL | {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "NEST_ISSUER": "http://127.0.0.1:1"})
    findings = await check_everything(services_known=True, selectors=(), replication=None, report=None)
    assert {finding.level for finding in findings} == {Level.SKIPPED}
    by_area: dict[str, str] = {}
    for finding in findings:
        assert finding.do
        by_area[finding.area] = f"{by_area.get(finding.area, '')} {finding.says}"
    for area, reason in {
        "settings": "billing has another environment: NEST_",
        "gateway": "http://127.0.0.1:1 is not checked: no response here",
        "kafka": "NEST_KAFKA_PASSWORD: is not set",
        "mongodb": "the database of auth is not checked: NEST_MONGO_URL is not set",
        "stripe": "billing would not start",
        "mail server": "mailer would not start",
    }.items():
        assert reason in by_area[area]
