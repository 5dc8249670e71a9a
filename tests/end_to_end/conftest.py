"""One whole Nest with two gateways for all end-to-end tests of a worker; each test uses people of its own."""

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from tests.mailer.mailchimp_double import KEY, LIST, MailchimpDouble
from tests.stack import Stack, running_stack
from tests.traces import Traces

_COUNT = itertools.count()


@pytest.fixture(scope="session")
async def nest(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """A running Nest."""
    prefix = unique()
    async with running_stack(
        tmp_path_factory.mktemp("nest"),
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        gateways=2,
    ) as stack:
        yield stack


@dataclass(frozen=True)
class Away:
    """A Nest whose services can be stopped, and all that they write.

    Attributes:
        nest: each of its services is a process of its own that logs all it can.
        traces: what they have sent as traces.
        mailchimp: what they tell of consents.
    """

    nest: Stack
    traces: Traces
    mailchimp: MailchimpDouble


@pytest.fixture(scope="session")
async def away(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Away]:
    """A Nest whose services can be stopped."""
    prefix, traces = unique(), Traces()
    async with (
        traces.listening(),
        MailchimpDouble() as mailchimp,
        running_stack(
            tmp_path_factory.mktemp("away"),
            kafka_bootstrap=kafka_bootstrap,
            mongo_url=mongo_url,
            topic_prefix=f"{prefix}.",
            database_prefix=prefix,
            separate=("gateway", "auth", "billing", "mailer", "news"),
            settings={
                "NEST_LOG_LEVEL": "debug",
                "NEST_OTLP_ENDPOINT": traces.url,
                "NEST_MAILCHIMP_API_KEY": KEY,
                "NEST_MAILCHIMP_LIST_ID": LIST,
                "NEST_MAILCHIMP_API_BASE": mailchimp.url,
                # What stands before the gateway here says where people come from.
                "NEST_TRUSTED_PROXIES": "127.0.0.1/32",
                "NEST_LIMIT_TEXTS_PER_NUMBER": "1000/1s",
                "NEST_LIMIT_GUESSES_PER_IDENTIFIER": "1000/1s",
            },
        ) as nest,
    ):
        yield Away(nest, traces, mailchimp)


@pytest.fixture
def email() -> str:
    """An address that nobody else has."""
    return f"ada{next(_COUNT)}@example.com"
