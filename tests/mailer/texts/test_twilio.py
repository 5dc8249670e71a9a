import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from pydantic import SecretStr

from services.mailer.deliveries.models import Accepted, Deferred, Rejected
from services.mailer.texts.providers import Text
from services.mailer.texts.twilio import Twilio
from shared.otel_settings import TraceExport
from shared.tracing import Tracing
from tests.mailer.twilio_double import SERVICE, SID, TOKEN, TwilioDouble

NUMBER = "+41791234567"
MakeProvider = Callable[..., Twilio]


def text(order_id: str = "order", **changed: Any) -> Text:
    defaults: dict[str, Any] = {
        "order_id": order_id,
        "to": NUMBER,
        "body": "123456 is your Nest code.\n\n@nest.example #123456",
        "useful_for": timedelta(minutes=10),
        "may_have_been_sent": False,
    }
    return Text(**{**defaults, **changed})


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[TwilioDouble]:
    async with TwilioDouble() as double:
        yield double


@pytest.fixture
def double(server: TwilioDouble) -> TwilioDouble:
    """A double without texts and prepared responses."""
    server.reset()
    return server


@pytest.fixture
async def provider(double: TwilioDouble) -> AsyncIterator[MakeProvider]:
    """Factory of providers that use the double."""
    providers: list[Twilio] = []

    def make(*, token: str = TOKEN, timeout: float = 5.0, api_base: str | None = None) -> Twilio:
        providers.append(Twilio(SID, SecretStr(token), SERVICE, timeout=timeout, api_base=api_base or double.url))
        return providers[-1]

    yield make
    for each in providers:
        await each.close()


async def test_text_is_sent_through_the_messaging_service(double: TwilioDouble, provider: MakeProvider) -> None:
    assert await provider().send(text()) == Accepted(f"SM{0:032}")
    assert double.sent == [{"To": NUMBER, "Body": text().body, "MessagingServiceSid": SERVICE, "ValidityPeriod": "600"}]
    assert double.list_requests == 0


async def test_text_sent_by_this_process_is_not_sent_again(double: TwilioDouble, provider: MakeProvider) -> None:
    twilio = provider()
    first = await twilio.send(text())
    assert await twilio.send(text()) == first
    assert len(double.sent) == 1


async def test_text_sent_by_another_process_is_found_and_not_sent_again(
    double: TwilioDouble, provider: MakeProvider
) -> None:
    await provider().send(text())
    assert await provider().send(text(may_have_been_sent=True)) == Accepted(f"SM{0:032}")
    assert len(double.sent) == 1


async def test_text_whose_response_was_lost_is_found_by_the_retry(double: TwilioDouble, provider: MakeProvider) -> None:
    twilio = provider(timeout=2)
    double.loses_responses = True
    assert isinstance(await twilio.send(text()), Deferred)
    double.loses_responses = False
    assert await twilio.send(text(may_have_been_sent=True)) == Accepted(f"SM{0:032}")
    assert len(double.sent) == 1


async def test_different_code_to_the_same_number_is_sent(double: TwilioDouble, provider: MakeProvider) -> None:
    await provider().send(text())
    await provider().send(text("other", body="654321 is your Nest code.", may_have_been_sent=True))
    assert [form["Body"][:6] for form in double.sent] == ["123456", "654321"]


async def test_text_on_a_later_page_is_found(double: TwilioDouble, provider: MakeProvider) -> None:
    double.page_size = 2
    for n in range(5):
        await provider().send(text(str(n), body=f"{n}23456 is your Nest code."))
    assert await provider().send(text("0", body="023456 is your Nest code.", may_have_been_sent=True)) == Accepted(
        f"SM{0:032}"
    )
    assert len(double.sent) == 5
    assert double.list_requests == 3


async def test_only_the_latest_texts_are_searched(double: TwilioDouble, provider: MakeProvider) -> None:
    double.page_size = 6
    for n in range(30):
        await provider().send(text(str(n), body=f"{n:06} is your Nest code."))
    await provider().send(text("new", body="999999 is your Nest code.", may_have_been_sent=True))
    assert len(double.sent) == 31
    assert double.list_requests == 4


@pytest.mark.parametrize("status", ["failed", "undelivered", "canceled"])
async def test_text_that_was_not_sent_is_sent_again(double: TwilioDouble, provider: MakeProvider, status: str) -> None:
    earlier = {"sid": "SM1", "body": text().body, "status": status}
    double.list_responses.append((200, {"messages": [earlier], "next_page_uri": None}))
    assert await provider().send(text(may_have_been_sent=True)) == Accepted(f"SM{0:032}")


def legacy(status: int, code: Any, message: str) -> tuple[int, Any]:
    return status, {
        "code": code,
        "message": message,
        "more_info": "https://www.twilio.com/docs/errors",
        "status": status,
    }


def problem(status: int, code: int, **members: Any) -> tuple[int, Any]:
    return status, {"type": "https://www.twilio.com/docs/errors", "title": "Bad Request", "status": status} | {
        "code": code,
        **members,
    }


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        # Errors about the text: https://www.twilio.com/docs/api/errors.
        (
            legacy(400, 21211, f"The 'To' number {NUMBER} is not a valid phone number."),
            Rejected("400 21211: The 'To' number <recipient> is not a valid phone number."),
        ),
        (legacy(400, 21610, "unsubscribed recipient"), Rejected("400 21610: unsubscribed recipient")),
        (legacy(422, 21614, "no mobile number"), Rejected("422 21614: no mobile number")),
        (legacy(400, None, "no"), Rejected("400 None: no")),
        # Problem documents (RFC 9457), Twilio's newer format.
        (problem(400, 21211, detail="No."), Rejected("400 21211: No.")),
        (problem(400, 21211), Rejected("400 21211: Bad Request")),
        # Client errors of proxies, and bodies that are not the API's.
        ((400, "<html>"), Rejected("400 400: could not create the text")),
        ((413, []), Rejected("413 413: could not create the text")),
        # Errors about the account or a rate limit.
        *((legacy(status, 20000, f"no, not to {NUMBER}"), Deferred(f"{status} 20000: no, not to <recipient>"))
          for status in (401, 403, 404, 407, 408, 409, 425, 429)),
        (legacy(401, 20003, "Authenticate"), Deferred("401 20003: Authenticate")),
        # Errors of Twilio, and redirects, which are not followed.
        *(((status, "{}"), Deferred(f"{status} {status}: could not create the text"))
          for status in (301, 302, 307, 308, 500, 502, 503, 504)),
        (legacy(503, 20503, "naïve ☂ " + "x" * 400), Deferred(f"503 20503: na?ve ? {'x' * 400}"[:300])),
    ],
)  # fmt: skip
async def test_error_responses_are_classified_by_status(
    double: TwilioDouble, provider: MakeProvider, response: tuple[int, Any], outcome: Deferred | Rejected
) -> None:
    double.responses.append(response)
    assert await provider().send(text()) == outcome
    assert double.sent == []


@pytest.mark.parametrize(
    "body",
    ["<html>", "", "[]", "null", '{"sid": null}', '{"sid": ""}', "{}", "[" * 100_000, '{"sid": "SM1"}' + " " * 300_000],
    ids=["HTML", "empty", "list", "null", "no SID", "empty SID", "no fields", "deep", "long"],
)
async def test_success_that_is_not_the_apis_defers_the_text(
    double: TwilioDouble, provider: MakeProvider, body: str
) -> None:
    double.responses.append((201, body))
    assert isinstance(await provider().send(text()), Deferred)


@pytest.mark.parametrize(
    "page",
    [
        {"messages": None},
        {"messages": ["SM1"]},
        {"messages": [], "next_page_uri": "https://elsewhere.example/2010-04-01/"},
        {"messages": [], "next_page_uri": "//elsewhere.example/"},
        {"messages": [], "next_page_uri": "@elsewhere.example/"},
        {"messages": [], "next_page_uri": 1},
    ],
)
async def test_wrong_page_of_earlier_texts_defers_the_text(
    double: TwilioDouble, provider: MakeProvider, page: dict[str, Any]
) -> None:
    double.list_responses.append((200, page))
    assert isinstance(await provider().send(text(may_have_been_sent=True)), Deferred)
    assert double.sent == []


async def test_endless_pages_of_earlier_texts_are_bounded(double: TwilioDouble, provider: MakeProvider) -> None:
    following = f"/2010-04-01/Accounts/{SID}/Messages.json?To=%2B41791234567&PageSize=20"
    double.list_responses.extend([(200, {"messages": [], "next_page_uri": following})] * 40)
    assert isinstance(await provider().send(text(may_have_been_sent=True)), Accepted)
    assert double.list_requests == 20


async def test_wrong_token_defers_texts(double: TwilioDouble, provider: MakeProvider) -> None:
    assert isinstance(await provider(token="another").send(text()), Deferred)
    assert double.sent == []


async def test_timeout_or_outage_defers_the_text(double: TwilioDouble, provider: MakeProvider) -> None:
    double.responses.append(20.0)
    assert await provider(timeout=0.2).send(text()) == Deferred("no answer within 0.2 s")
    unreachable = provider(api_base="http://127.0.0.1:9")
    assert isinstance(await unreachable.send(text()), Deferred)


async def test_circuit_breaker_opens_after_failures(double: TwilioDouble, provider: MakeProvider) -> None:
    twilio = provider()
    double.responses.extend([(503, "{}")] * 3)
    for n in range(3):
        assert isinstance(await twilio.send(text(str(n))), Deferred)
    assert isinstance(await twilio.send(text("fourth")), Deferred)
    assert double.sent == []


async def test_concurrent_texts_are_all_sent(double: TwilioDouble, provider: MakeProvider) -> None:
    twilio = provider()
    outcomes = await asyncio.gather(*(twilio.send(text(str(n))) for n in range(50)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert len(double.sent) == 50


async def test_logs_contain_neither_number_nor_code(
    double: TwilioDouble, provider: MakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await provider().send(text(may_have_been_sent=True))
    # Under pytest uvicorn, which serves the double, logs requests too.
    logged = " ".join(record.getMessage() for record in caplog.records if not record.name.startswith("uvicorn"))
    assert "79123" not in logged
    assert "123456" not in logged


async def test_validity_period_is_within_twilios_limits(double: TwilioDouble, provider: MakeProvider) -> None:
    await provider().send(text(useful_for=timedelta(days=2)))
    await provider().send(text("short", useful_for=timedelta(milliseconds=5)))
    assert [form["ValidityPeriod"] for form in double.sent] == ["36000", "1"]


async def test_request_has_a_span_without_account_and_number(
    double: TwilioDouble, provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[Any] = []
    monkeypatch.setattr(OTLPSpanExporter, "export", lambda _, batch: exported.extend(batch))
    tracing = Tracing("mailer", TraceExport(exporter="otlp"))
    with tracing.server("POST", version="1.1", scheme="http", server="a", remote=None, trusted=False):
        await provider().send(text(may_have_been_sent=True))
    tracing.stop()
    assert [each.name for each in exported[:2]] == [
        f"{verb} /2010-04-01/Accounts/{{id}}/Messages.json" for verb in ("GET", "POST")
    ]
    assert [each.attributes["http.response.status_code"] for each in exported[:2]] == [200, 201]
    assert double.sent
    whole = "".join(each.to_json() for each in exported)
    assert not [secret for secret in (SID, NUMBER, NUMBER[1:], TOKEN, text().body) if secret in whole]
