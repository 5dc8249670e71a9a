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
from tests.desk import Desk
from tests.mailer.conftest import MakeSettings, mailer_desk
from tests.mailer.twilio_double import SERVICE, SID, TOKEN, TwilioDouble

NUMBER = "+41791234567"
ORDER = "ab" * 16
SAID = "123456 is your Nest code. It works once, for 10 minutes. Give it to nobody."
AtDesk = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
def at_desk(mongo_url: str, database_prefix: str, settings: MakeSettings) -> AtDesk:
    """Opens the mailer at a desk, with texts as the given settings say."""

    @asynccontextmanager
    async def at_desk(**changed: Any) -> AsyncIterator[Desk]:
        async with mailer_desk(mongo_url, database_prefix, settings(**changed)) as desk:
            yield desk

    return at_desk


@pytest.fixture
async def double() -> AsyncIterator[TwilioDouble]:
    async with TwilioDouble() as double:
        yield double


@pytest.fixture
async def desk(at_desk: AtDesk, double: TwilioDouble) -> AsyncIterator[Desk]:
    """The mailer with Twilio's library and a double of Twilio."""
    twilio = {
        "text_provider": "twilio",
        "twilio_account_sid": SID,
        "twilio_auth_token": TOKEN,
        "twilio_messaging_service_sid": SERVICE,
        "twilio_api_base": double.url,
    }
    async with at_desk(**twilio, text_domain="nest.example", text_timeout=2) as desk:
        yield desk


def order(desk: Desk, **changed: Any) -> SendText:
    variables = {"code": "123456", "minutes": 10}
    usual: dict[str, Any] = {
        "template": "login-code",
        "to": Sealed.of(NUMBER),
        "variables": Sealed.of(json.dumps(variables)),
        "ordered_at": desk.now,
        "expires_at": desk.now + timedelta(minutes=10),
    }
    return SendText(**{**usual, **changed})


async def deliveries(desk: Desk) -> list[dict[str, Any]]:
    return await desk.database["deliveries"].find().sort("createdAt").to_list()


async def test_send_text_carries_a_code_with_the_line_that_browsers_read(desk: Desk, double: TwilioDouble) -> None:
    await desk.perform(order(desk), id=ORDER)
    [form] = double.sent
    assert form["To"] == NUMBER
    assert form["Body"] == f"{SAID}\n\n@nest.example #123456"
    assert len(form["Body"]) <= 160
    [said] = desk.published
    assert isinstance(said, TextHandedOver)


async def test_send_text_records_the_delivery_without_number_and_code(desk: Desk) -> None:
    await desk.perform(order(desk), id=ORDER)
    [row] = await deliveries(desk)
    sealed, hashed = row.pop("recipient"), row.pop("recipientHash")
    assert desk.sealer.open("mailer", sealed) == NUMBER.encode()
    assert desk.sealer.matches("recipient", hashed, NUMBER.encode())
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
    desk: Desk, double: TwilioDouble, locale: str | None, others: tuple[str, ...], begins: str
) -> None:
    double.answers.append((503, "{}"))
    await desk.perform(order(desk, locale=locale, other_locales=others), id=ORDER)
    [(at, again)] = await desk.later()
    desk.now = at
    await desk.perform(again)
    [form] = double.sent
    assert form["Body"].startswith(begins)


async def test_second_delivery_of_the_order_sends_no_second_text(desk: Desk, double: TwilioDouble) -> None:
    body = encode(order(desk), desk.sealer)
    for _ in range(2):
        await desk.perform(order(desk), id=ORDER, body=body)
    assert len(double.sent) == 1
    assert len(desk.said(TextHandedOver)) == 1


async def test_a_provider_that_fails_is_tried_again_after_a_pause(desk: Desk, double: TwilioDouble) -> None:
    double.answers.append((503, "{}"))
    await desk.perform(order(desk), id=ORDER)
    [row] = await deliveries(desk)
    assert (row["state"], row["attempts"]) == ("queued", 1)
    [(at, again)] = await desk.later()
    assert timedelta(seconds=3) < at - desk.now < timedelta(seconds=7)
    assert isinstance(again, SendText)
    assert (again.order_id, again.attempt) == (ORDER, 2)
    assert again.expires_at == again.ordered_at + timedelta(minutes=10)

    desk.now = at
    await desk.perform(again)
    [row] = await deliveries(desk)
    assert (row["state"], row["attempts"]) == ("handed_over", 2)
    assert (len(double.sent), double.asked) == (1, 1)


async def test_a_text_that_went_out_although_the_answer_was_lost_goes_out_once(
    desk: Desk, double: TwilioDouble
) -> None:
    double.loses_answers = True
    await desk.perform(order(desk), id=ORDER)
    double.loses_answers = False
    [(at, again)] = await desk.later()
    desk.now = at
    await desk.perform(again)
    assert [row["state"] for row in await deliveries(desk)] == ["handed_over"]
    assert len(double.sent) == 1


async def test_an_order_that_comes_late_may_have_been_carried_out_before(desk: Desk, double: TwilioDouble) -> None:
    """As after a crash between Twilio's answer and the commit."""
    late = order(desk, ordered_at=desk.now - timedelta(seconds=3))
    await desk.perform(late, id=ORDER)
    assert double.asked == 1


async def test_a_number_that_takes_no_texts_ends_the_delivery(desk: Desk, double: TwilioDouble) -> None:
    double.answers.append((400, {"code": 21614, "message": f"{NUMBER} is not a mobile number", "status": 400}))
    await desk.perform(order(desk), id=ORDER)
    [row] = await deliveries(desk)
    assert row["state"] == "failed"
    assert NUMBER not in row["reason"]
    assert await desk.later() == []
    assert desk.published == []


async def test_a_text_is_not_tried_beyond_its_use(desk: Desk, double: TwilioDouble) -> None:
    double.answers.append((503, "{}"))
    await desk.perform(order(desk, expires_at=desk.now + timedelta(seconds=2)), id=ORDER)
    assert [row["state"] for row in await deliveries(desk)] == ["failed"]
    assert await desk.later() == []


async def test_a_text_that_is_of_no_use_any_more_is_not_sent(desk: Desk, double: TwilioDouble) -> None:
    await desk.perform(order(desk, expires_at=desk.now), id=ORDER)
    [row] = await deliveries(desk)
    assert (row["state"], row["reason"]) == ("failed", "what it says holds no longer")
    assert double.sent == []


async def test_without_a_provider_a_text_fails_and_says_why(at_desk: AtDesk) -> None:
    async with at_desk() as desk:
        await desk.perform(order(desk), id=ORDER)
        [row] = await deliveries(desk)
    assert (row["state"], row["reason"]) == ("failed", "NEST_TEXT_PROVIDER is none")


async def test_the_console_shows_texts(at_desk: AtDesk, capsys: pytest.CaptureFixture[str]) -> None:
    async with at_desk(text_provider="console") as desk:
        await desk.perform(order(desk), id=ORDER)
    shown = capsys.readouterr().out
    assert f"Text to {NUMBER}:\n{SAID}\n" in shown
    assert "@" not in shown


async def test_the_development_inbox_gets_texts_as_texts(at_desk: AtDesk, tmp_path: Path) -> None:
    async with (
        Inbox(tmp_path) as inbox,
        at_desk(text_provider="inbox", smtp_port=inbox.smtp_port, text_domain="localhost") as desk,
    ):
        await desk.perform(order(desk), id=ORDER)
        [arrival] = inbox.arrivals(NUMBER)
    assert (arrival.kind, arrival.to) == ("text", NUMBER)
    assert arrival.text == f"{SAID}\n\n@localhost #123456"
