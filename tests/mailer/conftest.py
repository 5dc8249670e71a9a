"""Mail server, Mailchimp double and service harness of the mailer."""

import base64
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.mailer.app import INDEXES, open_context
from services.mailer.handlers import HANDLERS
from services.mailer.settings import MailerSettings
from shared.settings import load
from tests.mailer.mailchimp_double import KEY, LIST, MailchimpDouble
from tests.mailer.smtp_server import SmtpServer, certificate
from tests.service_harness import ServiceHarness

DEFAULT_SETTINGS = {
    "kafka_bootstrap": "127.0.0.1:9092",
    "mongo_url": "mongodb://nest:hunter2@127.0.0.1:27017",
    "sealing_keys": "test:" + base64.b64encode(bytes(range(32))).decode(),
    "environment": "test",
    "issuer": "https://nest.example",
    "smtp_host": "127.0.0.1",
    "smtp_tls": "none",
    "mail_from": "Nëst <mail@nest.example>",
    "mail_product_name": "Nest",
    "mail_support_address": "help@nest.example",
}
MakeSettings = Callable[..., MailerSettings]


def mailer_harness(mongo_url: str, database_prefix: str, settings: MailerSettings) -> ServiceHarness:
    """A harness of the mailer with these settings."""
    return ServiceHarness(
        mongo_url,
        f"{database_prefix}mailer",
        service="mailer",
        handlers=HANDLERS,
        indexes=INDEXES,
        open_context=partial(open_context, settings=settings),
    )


@pytest.fixture
def database_prefix(emptied_database: Callable[[str], str]) -> str:
    """Prefix of the names of an empty database."""
    return emptied_database("mailer").removesuffix("mailer")


@pytest.fixture
def settings() -> MakeSettings:
    """Factory of valid settings with some values changed; None unsets one."""

    def make(**changed: Any) -> MailerSettings:
        values = {name: value for name, value in {**DEFAULT_SETTINGS, **changed}.items() if value is not None}
        return load(MailerSettings, **values)

    return make


@pytest.fixture
async def server() -> AsyncIterator[SmtpServer]:
    """A mail server without TLS and login."""
    async with SmtpServer(pipelining=True) as server:
        yield server


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for ``localhost``."""
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
async def harness(
    mongo_url: str, database_prefix: str, settings: MakeSettings, server: SmtpServer
) -> AsyncIterator[ServiceHarness]:
    """A harness of the mailer."""
    loaded = settings(smtp_port=server.port, smtp_timeout=10, smtp_connections=2)
    async with mailer_harness(mongo_url, database_prefix, loaded) as harness:
        yield harness


@pytest.fixture
async def double() -> AsyncIterator[MailchimpDouble]:
    """A double of Mailchimp."""
    async with MailchimpDouble() as double:
        yield double


@pytest.fixture
def mailchimp_settings(settings: MakeSettings, double: MailchimpDouble) -> MailerSettings:
    """Settings of a mailer that syncs consents to the double."""
    return settings(mailchimp_api_key=KEY, mailchimp_list_id=LIST, mailchimp_api_base=double.url, mailchimp_timeout=3)
