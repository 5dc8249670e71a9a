"""Whole stacks, each shared by all end-to-end tests that can use it. A test uses addresses and clients of its own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from tests.mailer.mailchimp_double import KEY, LIST, MailchimpDouble
from tests.stack import ALL_SERVICES, CHEAP_PASSWORDS, RunNest, Stack
from tests.traces import Traces

OPERATOR_ADDRESS = "operator@example.com"
UNNAMED_OPERATOR_ADDRESS = "unnamed-operator@example.com"
_COUNT = itertools.count()


@pytest.fixture(scope="package")
async def nest(run_nest: RunNest) -> AsyncIterator[Stack]:
    """A Nest with two gateways, in this process. Forged tokens get their own answers, however many a test sends."""
    settings = {
        **CHEAP_PASSWORDS,
        "NEST_FAILED_AUTHENTICATIONS_PER_MINUTE": "100000",
        "NEST_OPERATORS": f"ada:{OPERATOR_ADDRESS},{UNNAMED_OPERATOR_ADDRESS}",
    }
    async with run_nest(gateways=2, settings=settings) as stack:
        yield stack


@pytest.fixture(scope="package")
async def traces() -> AsyncIterator[Traces]:
    """The traces that the services of `separate` have sent."""
    traces = Traces()
    async with traces.listening():
        yield traces


@pytest.fixture(scope="package")
async def mailchimp() -> AsyncIterator[MailchimpDouble]:
    """The Mailchimp account of `separate`."""
    async with MailchimpDouble() as double:
        yield double


@pytest.fixture(scope="package")
async def separate(run_nest: RunNest, traces: Traces, mailchimp: MailchimpDouble) -> AsyncIterator[Stack]:
    """A Nest with each service in its own process, which a test may stop, and with all optional features.

    Its logs are debug logs, and its access tokens are signed with EdDSA instead of ES256.
    """
    settings = {
        **CHEAP_PASSWORDS,
        "NEST_LOG_LEVEL": "debug",
        "NEST_OLD_CLIENTS": "true",
        "NEST_SIGNING_ALGORITHM": "EdDSA",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": traces.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "NEST_MAILCHIMP_API_KEY": KEY,
        "NEST_MAILCHIMP_LIST_ID": LIST,
        "NEST_MAILCHIMP_API_BASE": mailchimp.url,
        # The tests are a proxy: their header x-forwarded-for is a person's IP address.
        "NEST_TRUSTED_PROXIES": "127.0.0.1/32",
        "NEST_LIMIT_TEXTS_PER_NUMBER": "1000/1s",
        "NEST_LIMIT_GUESSES_PER_IDENTIFIER": "1000/1s",
        "NEST_LIMIT_TYPED_CODES_PER_ADDRESS": "1000/1s",
    }
    async with run_nest(separate=ALL_SERVICES, settings=settings) as stack:
        yield stack


@pytest.fixture
def email() -> str:
    """An address that no other test uses."""
    return f"ada{next(_COUNT)}@example.com"
