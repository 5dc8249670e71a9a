"""The mailer carries texts: a delivery for each, tried again while it is of use; never a fault of who ordered it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.embedded.inbox import Inbox
from shared.bus.envelope import encode
from shared.messages import Sealed
from shared.messages.mailer.texts import SendText, TextHandedOver
from tests.mailer.conftest import MakeSettings, mailer_harness
from tests.mailer.twilio_double import SERVICE, SID, TOKEN, TwilioDouble
from tests.service_harness import ServiceHarness

NUMBER = "+41791234567"
ORDER = "ab" * 16
SAID = "123456 is your Nest code. It works once, for 10 minutes. Do not share it."
HarnessFactory = Callable[..., AbstractAsyncContextManager[ServiceHarness]]


@pytest.fixture
def started_harness(mongo_url: str, database_prefix: str, settings: MakeSettings) -> HarnessFactory:
    """Opens the mailer at a harness, with texts as the given settings say."""

    @asynccontextmanager
    async def started_harness(**changed: Any) -> AsyncIterator[ServiceHarness]:
        async with mailer_harness(mongo_url, database_prefix, settings(**changed)) as harness:
            yield harness

    return started_harness


@pytest.fixture
async def double() -> AsyncIterator[TwilioDouble]:
    async with TwilioDouble() as double:
        yield double


@pytest.fixture
async def harness(started_harness: HarnessFactory, double: TwilioDouble) -> AsyncIterator[ServiceHarness]:
    """The mailer with Twilio's library and a double of Twilio."""
    twilio = {
        "text_provider": "twilio",
        "twilio_account_sid": SID,
        "twilio_auth_token": TOKEN,
        "twilio_messaging_service_sid": SERVICE,
        "twilio_api_base": double.url,
    }
    async with started_harness(**twilio, text_domain="nest.example", text_timeout=2) as harness:
        yield harness


def order(harness: ServiceHarness, **changed: Any) -> SendText:
    variables = {"code": "123456", "minutes": 10}
    usual: dict[str, Any] = {
        "template": "login-code",
        "to": Sealed.of(NUMBER),
        "variables": Sealed.of(json.dumps(variables)),
        "ordered_at": harness.now,
        "expires_at": harness.now + timedelta(minutes=10),
    }
    return SendText(**{**usual, **changed})


async def deliveries(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["deliveries"].find().sort("createdAt").to_list()


async def test_send_text_carries_a_code_with_the_line_that_browsers_read(
    harness: ServiceHarness, double: TwilioDouble
) -> None:
    await harness.deliver(order(harness), id=ORDER)
    [form] = double.sent
    assert form["To"] == NUMBER
    assert form["Body"] == f"{SAID}\n\n@nest.example #123456"
    assert len(form["Body"]) <= 160
    [said] = harness.published
    assert isinstance(said, TextHandedOver)


async def test_send_text_records_the_delivery_without_number_and_code(harness: ServiceHarness) -> None:
    await harness.deliver(order(harness), id=ORDER)
    [row] = await deliveries(harness)
    sealed, hashed = row.pop("recipient"), row.pop("recipientHash")
    assert harness.sealer.unseal("mailer", sealed) == NUMBER.encode()
    assert harness.sealer.matches("recipient", hashed, NUMBER.encode())
    assert row.pop("_id").startswith("test_delivery_")
    assert (row["channel"], row["state"], row["template"], row["messageId"]) == (
        "text",
        "handed_over",
        "login-code",
        ORDER,
    )
    assert row["reason"].startswith("SM")
    assert "123456" not in repr(row)
    assert "79123" not in repr(row)


@pytest.mark.parametrize(
    ("locale", "others", "begins"),
    [
        ("fr", ("de",), "123456 est votre"),
        ("gsw-CH", ("de-CH", "en"), "123456 ist Ihr"),
        ("tlh", ("ja",), "123456 is your"),
        (None, (), "123456 is your"),
    ],
)
async def test_a_text_is_written_in_the_first_language_there_is_of_those_that_its_reader_understands(
    harness: ServiceHarness, double: TwilioDouble, locale: str | None, others: tuple[str, ...], begins: str
) -> None:
    double.answers.append((503, "{}"))
    await harness.deliver(order(harness, locale=locale, other_locales=others), id=ORDER)
    [(at, again)] = await harness.delayed()
    harness.now = at
    await harness.deliver(again)
    [form] = double.sent
    assert form["Body"].startswith(begins)


async def test_second_delivery_of_the_order_sends_no_second_text(harness: ServiceHarness, double: TwilioDouble) -> None:
    body = encode(order(harness), harness.sealer)
    for _ in range(2):
        await harness.deliver(order(harness), id=ORDER, body=body)
    assert len(double.sent) == 1
    assert len(harness.published_of(TextHandedOver)) == 1


async def test_a_provider_that_fails_is_tried_again_after_a_pause(
    harness: ServiceHarness, double: TwilioDouble
) -> None:
    double.answers.append((503, "{}"))
    await harness.deliver(order(harness), id=ORDER)
    [row] = await deliveries(harness)
    assert (row["state"], row["attempts"]) == ("queued", 1)
    [(at, again)] = await harness.delayed()
    assert timedelta(seconds=3) < at - harness.now < timedelta(seconds=7)
    assert isinstance(again, SendText)
    assert (again.order_id, again.attempt) == (ORDER, 2)
    assert again.expires_at == again.ordered_at + timedelta(minutes=10)

    harness.now = at
    await harness.deliver(again)
    [row] = await deliveries(harness)
    assert (row["state"], row["attempts"]) == ("handed_over", 2)
    assert (len(double.sent), double.asked) == (1, 1)


async def test_a_text_that_went_out_although_the_answer_was_lost_goes_out_once(
    harness: ServiceHarness, double: TwilioDouble
) -> None:
    double.loses_answers = True
    await harness.deliver(order(harness), id=ORDER)
    double.loses_answers = False
    [(at, again)] = await harness.delayed()
    harness.now = at
    await harness.deliver(again)
    assert [row["state"] for row in await deliveries(harness)] == ["handed_over"]
    assert len(double.sent) == 1


async def test_an_order_that_comes_late_may_have_been_carried_out_before(
    harness: ServiceHarness, double: TwilioDouble
) -> None:
    """As after a crash between Twilio's answer and the commit."""
    late = order(harness, ordered_at=harness.now - timedelta(seconds=3))
    await harness.deliver(late, id=ORDER)
    assert double.asked == 1


async def test_a_number_that_takes_no_texts_ends_the_delivery(harness: ServiceHarness, double: TwilioDouble) -> None:
    double.answers.append((400, {"code": 21614, "message": f"{NUMBER} is not a mobile number", "status": 400}))
    await harness.deliver(order(harness), id=ORDER)
    [row] = await deliveries(harness)
    assert row["state"] == "failed"
    assert NUMBER not in row["reason"]
    assert await harness.delayed() == []
    assert harness.published == []


async def test_a_text_is_not_tried_beyond_its_use(harness: ServiceHarness, double: TwilioDouble) -> None:
    double.answers.append((503, "{}"))
    await harness.deliver(order(harness, expires_at=harness.now + timedelta(seconds=2)), id=ORDER)
    assert [row["state"] for row in await deliveries(harness)] == ["failed"]
    assert await harness.delayed() == []


async def test_a_text_that_is_of_no_use_any_more_is_not_sent(harness: ServiceHarness, double: TwilioDouble) -> None:
    await harness.deliver(order(harness, expires_at=harness.now), id=ORDER)
    [row] = await deliveries(harness)
    assert (row["state"], row["reason"]) == ("failed", "expired before it could be sent")
    assert double.sent == []


async def test_without_a_provider_a_text_fails_and_says_why(started_harness: HarnessFactory) -> None:
    async with started_harness() as harness:
        await harness.deliver(order(harness), id=ORDER)
        [row] = await deliveries(harness)
    assert (row["state"], row["reason"]) == ("failed", "NEST_TEXT_PROVIDER is none")


async def test_the_console_shows_texts(started_harness: HarnessFactory, capsys: pytest.CaptureFixture[str]) -> None:
    async with started_harness(text_provider="console") as harness:
        await harness.deliver(order(harness), id=ORDER)
    shown = capsys.readouterr().out
    assert f"Text to {NUMBER}:\n{SAID}\n" in shown
    assert "@" not in shown


async def test_the_development_inbox_gets_texts_as_texts(started_harness: HarnessFactory, tmp_path: Path) -> None:
    async with (
        Inbox(tmp_path) as inbox,
        started_harness(text_provider="inbox", smtp_port=inbox.smtp_port, text_domain="localhost") as harness,
    ):
        await harness.deliver(order(harness), id=ORDER)
        [arrival] = inbox.arrivals(NUMBER)
    assert (arrival.kind, arrival.to) == ("text", NUMBER)
    assert arrival.text == f"{SAID}\n\n@localhost #123456"
