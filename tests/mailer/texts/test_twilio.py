import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from services.mailer.deliveries.models import Accepted, Deferred, Rejected
from services.mailer.texts.providers import Text
from services.mailer.texts.twilio import Twilio
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


@pytest.fixture
async def double() -> AsyncIterator[TwilioDouble]:
    async with TwilioDouble() as double:
        yield double


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
    twilio = provider(timeout=0.3)
    double.loses_responses = True
    assert isinstance(await twilio.send(text()), Deferred)
    double.loses_responses = False
    assert await twilio.send(text(may_have_been_sent=True)) == Accepted(f"SM{0:032}")
    assert len(double.sent) == 1


async def test_different_code_to_the_same_number_is_sent(double: TwilioDouble, provider: MakeProvider) -> None:
    await provider().send(text())
    await provider().send(text("other", body="654321 is your Nest code.", may_have_been_sent=True))
    assert [form["Body"][:6] for form in double.sent] == ["123456", "654321"]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_error_that_is_not_about_the_text_defers_it(
    double: TwilioDouble, provider: MakeProvider, status: int
) -> None:
    double.responses.append((status, {"code": 20000, "message": f"no, not to {NUMBER}", "status": status}))
    outcome = await provider().send(text())
    assert isinstance(outcome, Deferred)
    assert str(status) in outcome.reason
    assert "791234567" not in outcome.reason


async def test_error_about_the_text_rejects_it(double: TwilioDouble, provider: MakeProvider) -> None:
    message = f"The 'To' number {NUMBER} is not a valid phone number."
    double.responses.append((400, {"code": 21211, "message": message, "status": 400}))
    assert await provider().send(text()) == Rejected(
        "400 21211: Unable to create record: The 'To' number <recipient> is not a valid phone number."
    )


async def test_error_in_the_newer_format_is_parsed(double: TwilioDouble, provider: MakeProvider) -> None:
    double.responses.append((400, {"type": "x", "title": "Bad Request", "status": 400, "code": 21211, "detail": "No."}))
    assert await provider().send(text()) == Rejected("400 21211: No.")


async def test_wrong_token_defers_texts(double: TwilioDouble, provider: MakeProvider) -> None:
    assert isinstance(await provider(token="another").send(text()), Deferred)
    assert double.sent == []


async def test_response_that_is_not_json_defers_the_text(double: TwilioDouble, provider: MakeProvider) -> None:
    double.responses.append((201, "<html>"))
    assert isinstance(await provider().send(text()), Deferred)


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


async def test_library_logs_neither_number_nor_code(
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
