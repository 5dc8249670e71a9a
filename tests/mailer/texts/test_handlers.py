import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.embedded.mail_inbox import Inbox
from shared.bus.envelope import encode
from shared.messages import Sealed
from shared.messages.mailer.texts import SendText, TextHandedOver
from tests.mailer.conftest import MakeSettings, mailer_harness
from tests.mailer.twilio_double import SERVICE, SID, TOKEN, TwilioDouble
from tests.readable import contains
from tests.service_harness import ServiceHarness

NUMBER = "+41791234567"
ORDER_ID = "ab" * 16
CODE_TEXT = "123456 is your Nest code. It works once, for 10 minutes. Do not share it."
HarnessFactory = Callable[..., AbstractAsyncContextManager[ServiceHarness]]


@pytest.fixture
def start_harness(mongo_url: str, database_prefix: str, settings: MakeSettings) -> HarnessFactory:
    """Factory of harnesses of the mailer with these settings."""

    @asynccontextmanager
    async def start(**changed: Any) -> AsyncIterator[ServiceHarness]:
        async with mailer_harness(mongo_url, database_prefix, settings(**changed)) as harness:
            yield harness

    return start


@pytest.fixture
async def double() -> AsyncIterator[TwilioDouble]:
    async with TwilioDouble() as double:
        yield double


@pytest.fixture
async def harness(start_harness: HarnessFactory, double: TwilioDouble) -> AsyncIterator[ServiceHarness]:
    """A harness of the mailer that sends texts to a double of Twilio."""
    twilio = {
        "text_provider": "twilio",
        "twilio_account_sid": SID,
        "twilio_auth_token": TOKEN,
        "twilio_messaging_service_sid": SERVICE,
        "twilio_api_base": double.url,
    }
    async with start_harness(**twilio, text_domain="nest.example", text_timeout=10) as harness:
        yield harness


def text_command(harness: ServiceHarness, **changed: Any) -> SendText:
    variables = {"code": "123456", "minutes": 10}
    defaults: dict[str, Any] = {
        "template": "login-code",
        "to": Sealed.of(NUMBER),
        "variables": Sealed.of(json.dumps(variables)),
        "ordered_at": harness.now,
        "expires_at": harness.now + timedelta(minutes=10),
    }
    return SendText(**{**defaults, **changed})


async def delivery_rows(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["deliveries"].find().sort("createdAt").to_list()


async def test_text_contains_code_and_autofill_line(harness: ServiceHarness, double: TwilioDouble) -> None:
    await harness.deliver(text_command(harness), id=ORDER_ID)
    [form] = double.sent
    assert form["To"] == NUMBER
    assert form["Body"] == f"{CODE_TEXT}\n\n@nest.example #123456"
    assert len(form["Body"]) <= 160
    [event] = harness.published
    assert isinstance(event, TextHandedOver)


async def test_delivery_is_stored_without_number_and_code(harness: ServiceHarness) -> None:
    await harness.deliver(text_command(harness), id=ORDER_ID)
    [row] = await delivery_rows(harness)
    sealed, hashed = row.pop("recipient"), row.pop("recipientHash")
    assert harness.sealer.unseal("mailer", sealed) == NUMBER.encode()
    assert harness.sealer.matches("recipient", hashed, NUMBER.encode())
    assert row.pop("_id").startswith("test_delivery_")
    assert (row["channel"], row["state"], row["template"], row["messageId"]) == (
        "text",
        "handed_over",
        "login-code",
        ORDER_ID,
    )
    assert row["reason"].startswith("SM")
    assert not [secret for secret in ("123456", NUMBER, NUMBER[1:], NUMBER[3:]) if contains(repr(row), secret)]


@pytest.mark.parametrize(
    ("locale", "others", "beginning"),
    [
        ("fr", ("de",), "123456 est votre"),
        ("gsw-CH", ("de-CH", "en"), "123456 ist Ihr"),
        ("tlh", ("ja",), "123456 is your"),
        (None, (), "123456 is your"),
    ],
)
async def test_retry_is_written_in_the_best_requested_language(
    harness: ServiceHarness, double: TwilioDouble, locale: str | None, others: tuple[str, ...], beginning: str
) -> None:
    double.responses.append((503, "{}"))
    await harness.deliver(text_command(harness, locale=locale, other_locales=others), id=ORDER_ID)
    [(at, retry)] = await harness.delayed()
    harness.now = at
    await harness.deliver(retry)
    [form] = double.sent
    assert form["Body"].startswith(beginning)


async def test_second_delivery_sends_no_second_text(harness: ServiceHarness, double: TwilioDouble) -> None:
    body = encode(text_command(harness), harness.sealer)
    for _ in range(2):
        await harness.deliver(text_command(harness), id=ORDER_ID, body=body)
    assert len(double.sent) == 1
    assert len(harness.published_of(TextHandedOver)) == 1


async def test_failed_attempt_is_retried_after_a_pause(harness: ServiceHarness, double: TwilioDouble) -> None:
    double.responses.append((503, "{}"))
    await harness.deliver(text_command(harness), id=ORDER_ID)
    [row] = await delivery_rows(harness)
    assert (row["state"], row["attempts"]) == ("queued", 1)
    [(at, retry)] = await harness.delayed()
    assert timedelta(seconds=3) < at - harness.now < timedelta(seconds=7)
    assert isinstance(retry, SendText)
    assert (retry.order_id, retry.attempt) == (ORDER_ID, 2)
    assert retry.expires_at == retry.ordered_at + timedelta(minutes=10)

    harness.now = at
    await harness.deliver(retry)
    [row] = await delivery_rows(harness)
    assert (row["state"], row["attempts"]) == ("handed_over", 2)
    assert (len(double.sent), double.list_requests) == (1, 1)


async def test_lost_response_causes_no_second_text(harness: ServiceHarness, double: TwilioDouble) -> None:
    double.loses_responses = True
    await harness.deliver(text_command(harness), id=ORDER_ID)
    double.loses_responses = False
    [(at, retry)] = await harness.delayed()
    harness.now = at
    await harness.deliver(retry)
    assert [row["state"] for row in await delivery_rows(harness)] == ["handed_over"]
    assert len(double.sent) == 1


async def test_late_order_is_first_searched_at_twilio(harness: ServiceHarness, double: TwilioDouble) -> None:
    # A process may have crashed between Twilio's response and the commit.
    late = text_command(harness, ordered_at=harness.now - timedelta(seconds=3))
    await harness.deliver(late, id=ORDER_ID)
    assert double.list_requests == 1


async def test_number_that_accepts_no_texts_fails_the_delivery(harness: ServiceHarness, double: TwilioDouble) -> None:
    double.responses.append((400, {"code": 21614, "message": f"{NUMBER} is not a mobile number", "status": 400}))
    await harness.deliver(text_command(harness), id=ORDER_ID)
    [row] = await delivery_rows(harness)
    assert row["state"] == "failed"
    assert NUMBER not in row["reason"]
    assert await harness.delayed() == []
    assert harness.published == []


async def test_text_is_not_retried_after_its_expiry(harness: ServiceHarness, double: TwilioDouble) -> None:
    double.responses.append((503, "{}"))
    await harness.deliver(text_command(harness, expires_at=harness.now + timedelta(seconds=2)), id=ORDER_ID)
    assert [row["state"] for row in await delivery_rows(harness)] == ["failed"]
    assert await harness.delayed() == []


async def test_expired_text_is_not_sent(harness: ServiceHarness, double: TwilioDouble) -> None:
    await harness.deliver(text_command(harness, expires_at=harness.now), id=ORDER_ID)
    [row] = await delivery_rows(harness)
    assert (row["state"], row["reason"]) == ("failed", "expired before it could be sent")
    assert double.sent == []


async def test_text_without_a_provider_fails_with_a_reason(start_harness: HarnessFactory) -> None:
    async with start_harness() as harness:
        await harness.deliver(text_command(harness), id=ORDER_ID)
        [row] = await delivery_rows(harness)
    assert (row["state"], row["reason"]) == ("failed", "NEST_TEXT_PROVIDER is none")


async def test_console_provider_prints_texts(start_harness: HarnessFactory, capsys: pytest.CaptureFixture[str]) -> None:
    async with start_harness(text_provider="console") as harness:
        await harness.deliver(text_command(harness), id=ORDER_ID)
    output = capsys.readouterr().out
    assert f"Text to {NUMBER}:\n{CODE_TEXT}\n" in output
    assert "@" not in output


async def test_development_inbox_shows_texts(start_harness: HarnessFactory, tmp_path: Path) -> None:
    async with (
        Inbox(tmp_path) as inbox,
        start_harness(text_provider="inbox", smtp_port=inbox.smtp_port, text_domain="localhost") as harness,
    ):
        await harness.deliver(text_command(harness), id=ORDER_ID)
        [arrival] = inbox.arrivals(NUMBER)
    assert (arrival.kind, arrival.to) == ("text", NUMBER)
    assert arrival.text == f"{CODE_TEXT}\n\n@localhost #123456"
