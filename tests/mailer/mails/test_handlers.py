import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.mailer.deliveries import models
from shared.bus.envelope import encode
from shared.bus.inbox import Inbox, Outcome
from shared.bus.work import Work
from shared.fault_points import EXIT_CODE
from shared.messages import Sealed
from shared.messages.mailer.mails import LastLogin, MailHandedOver, SendMail, Template
from tests.mailer.smtp_server import SmtpServer
from tests.metrics import increments
from tests.service_harness import ServiceHarness

LINK = "https://magic.getbeak.app/?code=authzcode_1." + "ab" * 32 + "&state=a%2Fb"
ORDER_ID = "0123456789abcdef" * 2


def mail_command(
    to: str = "Person@example.com",
    template: Template = "magic-link",
    variables: Mapping[str, Any] | None = None,
    **rest: Any,
) -> SendMail:
    sealed = Sealed.of(json.dumps(variables if variables is not None else {"link": LINK, "minutes": 10}))
    # As after the question to auth, to which the recipient is unknown.
    rest = {"last_login": LastLogin(), **rest}
    return SendMail(key="person", template=template, to=Sealed.of(to), variables=sealed, **rest)


async def delivery_rows(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["deliveries"].find().to_list()


async def next_retry(harness: ServiceHarness) -> SendMail:
    """The only retry; moves the time forward to it."""
    [(at, message)] = await harness.delayed()
    row = await harness.database[Inbox.TIMERS].find_one_and_delete({})
    assert row is not None
    assert row["key"] == "person"
    harness.now = at
    assert isinstance(message, SendMail)
    return message.model_copy(update={"key": row["key"]})


async def test_mail_has_headers_and_link(harness: ServiceHarness, server: SmtpServer) -> None:
    with increments("nest_deliveries_total") as outcomes, increments("nest_logins_total") as steps:
        await harness.deliver(mail_command(client_id="client_1"), id=ORDER_ID)
    assert outcomes == {("mail", "magic-link", "handed_over"): 1}
    assert steps == {("mail", "mailed"): 1}
    [arrival] = server.arrivals
    assert (arrival.sender, arrival.recipients) == ("mail@nest.example", ["Person@example.com"])
    message = arrival.message
    assert message["Subject"] == "Sign in to Nest"
    assert message["From"] == "Nëst <mail@nest.example>"
    assert message["To"] == "Person@example.com"
    assert message["Message-ID"] == f"<{ORDER_ID}@nest.example>"
    assert message["Date"].datetime == harness.now.replace(microsecond=0)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert LINK in text.get_content()
    assert f'href="{LINK.replace("&", "&amp;")}"' in html.get_content()


async def test_commit_of_a_sent_mail_waits_for_no_other_work(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, urgent = Inbox.commit, []

    async def spy(inbox: Inbox, work: Work, outcome: Outcome) -> None:
        urgent.append(work.urgent)
        await commit(inbox, work, outcome)

    monkeypatch.setattr(Inbox, "commit", spy)
    await harness.deliver(mail_command())
    assert urgent == [True]


async def test_english_mail_is_sent_unencoded(harness: ServiceHarness, server: SmtpServer) -> None:
    # Encoding a mail costs more CPU than all other steps together.
    await harness.deliver(mail_command())
    parts = list(server.arrivals[0].message.iter_parts())
    assert [part["Content-Transfer-Encoding"] for part in parts] == ["7bit", "7bit"]


async def test_delivery_is_stored_without_the_address(harness: ServiceHarness) -> None:
    await harness.deliver(mail_command(client_id="client_1"), id=ORDER_ID)
    [row] = await delivery_rows(harness)
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    sealed, hashed = row.pop("recipient"), row.pop("recipientHash")
    assert harness.sealer.unseal("mailer", sealed) == b"Person@example.com"
    assert harness.sealer.matches("recipient", hashed, b"person@example.com")
    assert row.pop("_id").startswith("test_delivery_")
    assert row == {
        "channel": "mail",
        "orderId": ORDER_ID,
        "state": "handed_over",
        "template": "magic-link",
        "clientId": "client_1",
        "locale": None,
        "messageId": f"<{ORDER_ID}@nest.example>",
        "providerId": None,
        "attempts": 1,
        "unknownOutcomes": 0,
        "reason": "250 taken",
        "branded": False,
        "redeemedAt": None,
        "createdAt": now,
        "updatedAt": now,
        "version": 1,
    }


async def test_handover_is_published(harness: ServiceHarness) -> None:
    await harness.deliver(mail_command())
    [row] = await delivery_rows(harness)
    [event] = harness.published
    assert isinstance(event, MailHandedOver)
    assert (event.delivery_id, event.template) == (row["_id"], "magic-link")
    assert await harness.delayed() == []


async def test_second_delivery_sends_no_second_mail(harness: ServiceHarness, server: SmtpServer) -> None:
    body = encode(mail_command(), harness.sealer)
    for _ in range(3):
        await harness.deliver(mail_command(), id=ORDER_ID, body=body)
    assert len(server.arrivals) == 1
    assert len(harness.published) == 1


async def test_retry_after_the_handover_sends_no_second_mail(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(mail_command(), id=ORDER_ID)
    harness.context.mail_servers._sent.clear()
    await harness.deliver(mail_command(order_id=ORDER_ID, attempt=2))
    assert len(server.arrivals) == 1
    assert len(await delivery_rows(harness)) == 1


async def test_deferred_mail_is_retried_as_the_same_mail(harness: ServiceHarness, server: SmtpServer) -> None:
    server.reply_to("RCPT", "451 4.7.1 greylisted")
    await harness.deliver(mail_command(), id=ORDER_ID)
    [row] = await delivery_rows(harness)
    assert (row["state"], row["attempts"], row["reason"]) == ("queued", 1, "RCPT: 451 4.7.1 greylisted")
    assert harness.published == []
    began = harness.now
    retry = await next_retry(harness)
    assert timedelta(seconds=4) <= harness.now - began <= timedelta(seconds=6)
    assert (retry.order_id, retry.attempt) == (ORDER_ID, 2)
    server.answers.clear()
    await harness.deliver(retry)
    [row] = await delivery_rows(harness)
    assert (row["state"], row["attempts"], row["version"]) == ("handed_over", 2, 2)
    [arrival] = server.arrivals
    assert arrival.message["Message-ID"] == f"<{ORDER_ID}@nest.example>"
    assert arrival.message["Date"].datetime == began.replace(microsecond=0)
    [event] = harness.published
    assert isinstance(event, MailHandedOver)


async def test_delayed_retry_contains_no_plain_secret(harness: ServiceHarness, server: SmtpServer) -> None:
    server.reply_to("MAIL", "451 later")
    await harness.deliver(mail_command(), id=ORDER_ID)
    [timer] = await harness.database[Inbox.TIMERS].find().to_list()
    rows = [timer, *await delivery_rows(harness), *await harness.database[Inbox.COLLECTION].find().to_list()]
    assert "example.com" not in str(rows)
    assert "code=" not in str(rows)


async def test_mail_deferred_for_a_day_fails(
    harness: ServiceHarness, server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer attempts; deliveries/test_models.py checks the real pauses.
    monkeypatch.setattr(models, "FIRST_PAUSE", timedelta(hours=1))
    monkeypatch.setattr(models, "MAX_PAUSE", timedelta(hours=4))
    server.reply_to("RCPT", "450 4.2.1 mailbox busy")
    began = harness.now
    await harness.deliver(mail_command(), id=ORDER_ID)
    attempts = 1
    while (await delivery_rows(harness))[0]["state"] == "queued":
        await harness.deliver(await next_retry(harness))
        attempts += 1
    [row] = await delivery_rows(harness)
    assert (row["state"], row["reason"]) == ("failed", "RCPT: 450 4.2.1 mailbox busy")
    assert row["attempts"] == attempts > 3
    assert timedelta(hours=18) < harness.now - began <= timedelta(days=1)
    assert await harness.delayed() == []
    assert server.arrivals == []


async def test_expired_mail_is_not_sent(harness: ServiceHarness, server: SmtpServer) -> None:
    with increments("nest_deliveries_total") as outcomes:
        await harness.deliver(mail_command(expires_at=harness.now - timedelta(seconds=1)), id=ORDER_ID)
    [row] = await delivery_rows(harness)
    assert (row["state"], row["reason"]) == ("failed", "expired before it could be sent")
    assert outcomes == {("mail", "magic-link", "failed"): 1}
    assert server.arrivals == []


async def test_deferred_mail_is_not_retried_after_its_expiry(harness: ServiceHarness, server: SmtpServer) -> None:
    server.reply_to("RCPT", "450 4.2.1 mailbox busy")
    expires_at = harness.now + timedelta(minutes=1)
    await harness.deliver(mail_command(expires_at=expires_at), id=ORDER_ID)
    while (await delivery_rows(harness))[0]["state"] == "queued":
        retry = await next_retry(harness)
        assert harness.now < expires_at
        await harness.deliver(retry)
    assert (await delivery_rows(harness))[0]["attempts"] > 2
    assert await harness.delayed() == []


async def test_mail_whose_acknowledgement_is_always_lost_has_four_copies(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    server.drop_after_data = True
    began, times = harness.now, []
    await harness.deliver(mail_command(), id=ORDER_ID)
    while (await delivery_rows(harness))[0]["state"] == "queued":
        retry = await next_retry(harness)
        times.append((harness.now - began) / timedelta(minutes=1))
        # The breaker's pauses are seconds of the real clock.
        harness.context.mail_servers._clients[0]._breaker.succeeded()
        await harness.deliver(retry)
    assert times == pytest.approx([1, 11, 131], rel=0.2)
    [row] = await delivery_rows(harness)
    assert (row["state"], row["attempts"], row["unknownOutcomes"]) == ("failed", 4, 4)
    assert {arrival.message["Message-ID"] for arrival in server.arrivals} == {f"<{ORDER_ID}@nest.example>"}
    assert len(server.arrivals) == 4
    assert await harness.delayed() == []


async def test_rejected_mail_fails_at_once(harness: ServiceHarness, server: SmtpServer) -> None:
    server.reply_to("RCPT", "550 5.1.1 no such user")
    with increments("nest_deliveries_total") as outcomes, increments("nest_logins_total") as steps:
        await harness.deliver(mail_command(), id=ORDER_ID)
    [row] = await delivery_rows(harness)
    assert (outcomes, steps) == ({("mail", "magic-link", "failed"): 1}, {})
    assert (row["state"], row["attempts"], row["reason"]) == ("failed", 1, "RCPT: 550 5.1.1 no such user")
    assert (harness.published_of(MailHandedOver), await harness.delayed()) == ([], [])
    await harness.deliver(mail_command(order_id=ORDER_ID, attempt=2))
    assert len([command for command in server.commands if command.startswith("RCPT")]) == 1


async def test_outage_of_the_mail_server_blocks_nothing(harness: ServiceHarness, server: SmtpServer) -> None:
    await server.stop()
    await asyncio.gather(*(harness.deliver(mail_command(f"person{number}@example.com")) for number in range(50)))
    rows = await delivery_rows(harness)
    assert {row["state"] for row in rows} == {"queued"}
    retries = await harness.delayed()
    assert len(retries) == 50
    assert len({at for at, _ in retries}) > 25


async def test_failed_commit_causes_no_second_mail(
    harness: ServiceHarness, server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("no database")

    with monkeypatch.context() as patched:
        patched.setattr(harness.inbox, "commit", fail)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="no database"):
                await harness.deliver(mail_command(), id=ORDER_ID)
    await harness.deliver(mail_command(), id=ORDER_ID)
    assert len(server.arrivals) == 1
    assert [row["state"] for row in await delivery_rows(harness)] == ["handed_over"]


async def test_failed_commit_after_a_lost_answer_causes_no_second_copy(
    harness: ServiceHarness, server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("no database")

    server.drop_after_data = True
    with monkeypatch.context() as patched:
        patched.setattr(harness.inbox, "commit", fail)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="no database"):
                await harness.deliver(mail_command(), id=ORDER_ID)
    await harness.deliver(mail_command(), id=ORDER_ID)
    assert len(server.arrivals) == 1
    [row] = await delivery_rows(harness)
    assert (row["state"], row["unknownOutcomes"]) == ("queued", 1)
    server.drop_after_data = False
    await harness.deliver(await next_retry(harness))
    assert len(server.arrivals) == 2


@pytest.mark.parametrize(
    "address",
    [
        "person@example.com\r\nBcc: all@example.com",
        "person@example.com\nRCPT TO:<all@example.com>",
        "person@example.com\x00",
        "person@example.com, all@example.com",
        "Person <person@example.com>",
        "<person@example.com>",
        '"person\r\n"@example.com',
        "person@example.com> SIZE=1",
        "person@exam ple.com",
        "person",
        "@example.com",
        "",
        "person@" + "x" * 10_000 + ".com",
    ],
)
async def test_invalid_address_fails_and_is_never_sent(
    harness: ServiceHarness, server: SmtpServer, address: str
) -> None:
    await harness.deliver(mail_command(address))
    [row] = await delivery_rows(harness)
    assert row["state"] == "failed"
    assert row["reason"].startswith("unusable address")
    assert (server.arrivals, server.commands) == ([], [])


async def test_international_address_is_normalised(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(mail_command("пошта@bücher.example"))
    [arrival] = server.arrivals
    assert arrival.recipients == ["пошта@xn--bcher-kva.example"]
    assert "To: пошта@xn--bcher-kva.example\r\n".encode() in arrival.content


HOSTILE = "Eve\r\nBcc: all@example.com\r\n\r\n<b>Ünï💥\u202e\u2028\x00" + "x" * 10_000


@pytest.mark.parametrize(
    ("template", "variables"),
    [
        ("welcome", {"name": HOSTILE}),
        ("dispute", {"dispute_id": HOSTILE, "amount": HOSTILE, "reason": HOSTILE}),
    ],
)
async def test_variables_inject_no_header_recipient_or_markup(
    harness: ServiceHarness, server: SmtpServer, template: Template, variables: dict[str, str]
) -> None:
    await harness.deliver(mail_command(template=template, variables=variables))
    [arrival] = server.arrivals
    assert arrival.recipients == ["Person@example.com"]
    message = arrival.message
    assert sorted(message.keys()) == sorted(
        ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "MIME-Version", "Content-Type"]
    )
    html, text = message.get_body(("html",)), message.get_body(("plain",))
    assert html is not None
    assert text is not None
    assert "<b>" not in html.get_content()
    assert "\nBcc:" not in text.get_content()
    assert "Ünï💥" in text.get_content()
    assert len(list(message.iter_parts())) == 2


async def test_error_about_variables_does_not_quote_them(harness: ServiceHarness, server: SmtpServer) -> None:
    with pytest.raises(Exception, match=r"^magic-link: link: missing$") as error:
        await harness.deliver(mail_command(variables={"lnk": LINK}))
    assert error.value.__cause__ is None
    with pytest.raises(Exception, match=r"^magic-link: link: string_pattern_mismatch$"):
        await harness.deliver(mail_command(variables={"link": LINK + "\r\nanother line"}))
    assert server.arrivals == []


CONCURRENT_MAILS = 3
"""Concurrent mails per round. In round n the mailer crashes during mail n modulo this number."""
ROUNDS = """
import asyncio, os, sys
from functools import partial
from pathlib import Path
from shared import fault_points
from services.mailer.settings import MailerSettings
from tests.mailer.conftest import DEFAULT_SETTINGS, mailer_harness
from tests.mailer.mails.test_handlers import CONCURRENT_MAILS, mail_command

async def deliver(mongo_url, database_prefix, port, number, body):
    settings = MailerSettings(**{**DEFAULT_SETTINGS, "smtp_port": int(port)})
    async with mailer_harness(mongo_url, database_prefix, settings) as harness:
        ids = [f"{number:016x}{mail:016x}" for mail in range(CONCURRENT_MAILS)]
        await asyncio.gather(*(harness.deliver(mail_command(), id=id, body=body) for id in ids))

def run_in_child_process(crash, number):
    # Forked, so that all rounds share the imports.
    child = os.fork()
    if child == 0:
        if crash:
            fault_points._point, fault_points._left = "M1", crash
        try:
            asyncio.run(deliver(*sys.argv[1:4], number, Path(sys.argv[4]).read_bytes()))
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for number in range(int(sys.argv[5])):
    crashed = run_in_child_process(number % CONCURRENT_MAILS + 1, number)
    restarted = run_in_child_process(0, number)
    print("codes", crashed, restarted, flush=True)
"""


@pytest.mark.parametrize("rounds", [CONCURRENT_MAILS, pytest.param(100, marks=pytest.mark.slow)])
async def test_crash_before_the_commit_sends_one_copy_of_the_same_mail(
    *, harness: ServiceHarness, server: SmtpServer, mongo_url: str, database_prefix: str, tmp_path: Path, rounds: int
) -> None:
    script, body = tmp_path / "rounds.py", tmp_path / "body.json"
    script.write_text(ROUNDS)
    body.write_bytes(encode(mail_command(), harness.sealer))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), mongo_url, database_prefix, str(server.port), str(body), str(rounds)),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60 + 8 * rounds)
    assert process.returncode == 0
    codes = [line for line in output.splitlines() if line.startswith(b"codes ")]
    assert codes == [b"codes %d 0" % EXIT_CODE] * rounds, output.decode()
    copies = Counter(str(arrival.message["Message-ID"]) for arrival in server.arrivals)
    ordered = {
        f"<{number:016x}{mail:016x}@nest.example>" for number in range(rounds) for mail in range(CONCURRENT_MAILS)
    }
    assert set(copies) == ordered
    assert max(copies.values()) == 2
    rows = await delivery_rows(harness)
    assert Counter(row["state"] for row in rows) == {"handed_over": rounds * CONCURRENT_MAILS}
