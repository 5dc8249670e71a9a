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

from services.mailer.mails.handlers import FAILED
from shared.bus.envelope import encode
from shared.bus.inbox import Inbox
from shared.fault_points import EXIT_CODE
from shared.messages import Caller, Sealed
from shared.messages.mailer.consents import (
    ConsentLevel,
    GetMarketingConsent,
    MarketingConsentChanged,
    RecordMarketingConsent,
)
from shared.messages.mailer.mails import MailHandedOver, SendMail, Template
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import Refused, ServiceHarness

LINK = "https://magic.getbeak.app/?code=authzcode_1." + "ab" * 32 + "&state=a%2Fb"
ORDER = "0123456789abcdef" * 2


def order(
    to: str = "Person@example.com",
    template: Template = "magic-link",
    variables: Mapping[str, Any] | None = None,
    **rest: Any,
) -> SendMail:
    shown = json.dumps(variables if variables is not None else {"link": LINK, "minutes": 10})
    return SendMail(key="person", template=template, to=Sealed.of(to), variables=Sealed.of(shown), **rest)


async def deliveries(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["deliveries"].find().to_list()


async def due(harness: ServiceHarness) -> SendMail:
    """The only order that waits for its time; the time is now."""
    [(at, message)] = await harness.delayed()
    row = await harness.database[Inbox.TIMERS].find_one_and_delete({})
    assert row is not None
    assert row["key"] == "person"
    harness.now = at
    assert isinstance(message, SendMail)
    return message.model_copy(update={"key": row["key"]})


async def test_send_mail_hands_over_what_the_template_says(harness: ServiceHarness, server: SmtpServer) -> None:
    await harness.deliver(order(client_id="client_1"), id=ORDER)
    [arrival] = server.arrivals
    assert (arrival.sender, arrival.recipients) == ("mail@nest.example", ["Person@example.com"])
    message = arrival.message
    assert message["Subject"] == "Sign in to Nest"
    assert message["From"] == "Nëst <mail@nest.example>"
    assert message["To"] == "Person@example.com"
    assert message["Message-ID"] == f"<{ORDER}@nest.example>"
    assert message["Date"].datetime == harness.now.replace(microsecond=0)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert LINK in text.get_content()
    assert f'href="{LINK.replace("&", "&amp;")}"' in html.get_content()


async def test_an_english_mail_goes_out_as_it_is_since_to_encode_it_costs_more_than_all_else(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await harness.deliver(order())
    parts = list(server.arrivals[0].message.iter_parts())
    assert [part["Content-Transfer-Encoding"] for part in parts] == ["7bit", "7bit"]


async def test_send_mail_records_the_delivery_without_the_address(harness: ServiceHarness) -> None:
    await harness.deliver(order(client_id="client_1"), id=ORDER)
    [row] = await deliveries(harness)
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    sealed, hashed = row.pop("recipient"), row.pop("recipientHash")
    assert harness.sealer.unseal("mailer", sealed) == b"Person@example.com"
    assert harness.sealer.matches("recipient", hashed, b"person@example.com")
    assert row.pop("_id").startswith("test_delivery_")
    assert row == {
        "channel": "mail",
        "orderId": ORDER,
        "state": "handed_over",
        "template": "magic-link",
        "clientId": "client_1",
        "locale": None,
        "messageId": f"<{ORDER}@nest.example>",
        "attempts": 1,
        "reason": "250 taken",
        "createdAt": now,
        "updatedAt": now,
        "version": 1,
    }


async def test_send_mail_announces_that_it_was_handed_over(harness: ServiceHarness) -> None:
    await harness.deliver(order())
    [row] = await deliveries(harness)
    [said] = harness.published
    assert isinstance(said, MailHandedOver)
    assert (said.delivery_id, said.template) == (row["_id"], "magic-link")
    assert await harness.delayed() == []


async def test_second_delivery_sends_no_second_mail(harness: ServiceHarness, server: SmtpServer) -> None:
    body = encode(order(), harness.sealer)
    for _ in range(3):
        await harness.deliver(order(), id=ORDER, body=body)
    assert len(server.arrivals) == 1
    assert len(harness.published) == 1


async def test_an_order_that_is_repeated_after_it_was_handed_over_sends_no_second_mail(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await harness.deliver(order(), id=ORDER)
    harness.context.mail_servers._accepted.clear()
    await harness.deliver(order(order_id=ORDER, attempt=2))
    assert len(server.arrivals) == 1
    assert len(await deliveries(harness)) == 1


async def test_a_refusal_for_now_is_ordered_again_and_is_the_same_mail(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    server.refusing("RCPT", "451 4.7.1 greylisted")
    await harness.deliver(order(), id=ORDER)
    [row] = await deliveries(harness)
    assert (row["state"], row["attempts"], row["reason"]) == ("queued", 1, "RCPT: 451 4.7.1 greylisted")
    assert harness.published == []
    began = harness.now
    again = await due(harness)
    assert timedelta(seconds=4) <= harness.now - began <= timedelta(seconds=6)
    assert (again.order_id, again.attempt) == (ORDER, 2)
    server.answers.clear()
    await harness.deliver(again)
    [row] = await deliveries(harness)
    assert (row["state"], row["attempts"], row["version"]) == ("handed_over", 2, 2)
    [arrival] = server.arrivals
    assert arrival.message["Message-ID"] == f"<{ORDER}@nest.example>"
    assert arrival.message["Date"].datetime == began.replace(microsecond=0)
    [said] = harness.published
    assert isinstance(said, MailHandedOver)


async def test_a_repeated_order_carries_no_plain_secret(harness: ServiceHarness, server: SmtpServer) -> None:
    server.refusing("MAIL", "451 later")
    await harness.deliver(order(), id=ORDER)
    [timer] = await harness.database[Inbox.TIMERS].find().to_list()
    rows = [timer, *await deliveries(harness), *await harness.database[Inbox.COLLECTION].find().to_list()]
    assert "example.com" not in str(rows)
    assert "code=" not in str(rows)


async def test_a_mail_is_given_up_after_a_day_of_refusals(harness: ServiceHarness, server: SmtpServer) -> None:
    server.refusing("RCPT", "450 4.2.1 mailbox busy")
    began = harness.now
    await harness.deliver(order(), id=ORDER)
    pauses = []
    while (await deliveries(harness))[0]["state"] == "queued":
        before = harness.now
        again = await due(harness)
        pauses.append((harness.now - before).total_seconds())
        await harness.deliver(again)
    [row] = await deliveries(harness)
    assert (row["state"], row["reason"]) == ("failed", "RCPT: 450 4.2.1 mailbox busy")
    assert timedelta(hours=23) < harness.now - began <= timedelta(days=1)
    assert await harness.delayed() == []
    assert pauses[0] < 6
    assert max(pauses) <= 15 * 60 * 1.2
    assert len(set(pauses)) > len(pauses) / 2
    assert row["attempts"] == len(pauses) + 1
    assert row["attempts"] < 150
    assert server.arrivals == []


async def test_a_final_refusal_fails_at_once(harness: ServiceHarness, server: SmtpServer) -> None:
    server.refusing("RCPT", "550 5.1.1 no such user")
    failed = FAILED.labels("magic-link")._value
    before = failed.get()
    await harness.deliver(order(), id=ORDER)
    [row] = await deliveries(harness)
    assert failed.get() > before
    assert (row["state"], row["attempts"], row["reason"]) == ("failed", 1, "RCPT: 550 5.1.1 no such user")
    assert (harness.published_of(MailHandedOver), await harness.delayed()) == ([], [])
    await harness.deliver(order(order_id=ORDER, attempt=2))
    assert len([said for said in server.commands if said.startswith("RCPT")]) == 1


async def test_a_server_that_is_away_blocks_nothing(harness: ServiceHarness, server: SmtpServer) -> None:
    await server.stop()
    await asyncio.gather(*(harness.deliver(order(f"person{number}@example.com")) for number in range(50)))
    rows = await deliveries(harness)
    assert {row["state"] for row in rows} == {"queued"}
    later = await harness.delayed()
    assert len(later) == 50
    assert len({at for at, _ in later}) > 25


async def test_an_outcome_that_could_not_be_stored_sends_no_second_mail(
    harness: ServiceHarness, server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("no database")

    with monkeypatch.context() as patched:
        patched.setattr(harness.inbox, "commit", fail)
        for _ in range(3):
            with pytest.raises(RuntimeError, match="no database"):
                await harness.deliver(order(), id=ORDER)
    await harness.deliver(order(), id=ORDER)
    assert len(server.arrivals) == 1
    assert [row["state"] for row in await deliveries(harness)] == ["handed_over"]


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
async def test_what_is_no_single_address_fails_and_is_never_said_to_the_server(
    harness: ServiceHarness, server: SmtpServer, address: str
) -> None:
    await harness.deliver(order(address))
    [row] = await deliveries(harness)
    assert row["state"] == "failed"
    assert row["reason"].startswith("unusable address")
    assert (server.arrivals, server.commands) == ([], [])


async def test_an_international_address_is_written_as_servers_read_it(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    await harness.deliver(order("пошта@bücher.example"))
    [arrival] = server.arrivals
    assert arrival.recipients == ["пошта@xn--bcher-kva.example"]
    assert "To: пошта@xn--bcher-kva.example\r\n".encode() in arrival.content


NASTY = "Eve\r\nBcc: all@example.com\r\n\r\n<b>Ünï💥\u202e\u2028\x00" + "x" * 10_000


@pytest.mark.parametrize(
    ("template", "variables"),
    [
        ("welcome", {"name": NASTY}),
        ("dispute", {"dispute_id": NASTY, "amount": NASTY, "reason": NASTY}),
    ],
)
async def test_variables_inject_no_header_no_recipient_and_no_markup(
    harness: ServiceHarness, server: SmtpServer, template: Template, variables: dict[str, str]
) -> None:
    await harness.deliver(order(template=template, variables=variables))
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


async def test_variables_that_a_template_can_not_show_are_a_fault_without_their_values(
    harness: ServiceHarness, server: SmtpServer
) -> None:
    with pytest.raises(Exception, match=r"^magic-link: link: missing$") as fault:
        await harness.deliver(order(variables={"lnk": LINK}))
    assert fault.value.__cause__ is None
    with pytest.raises(Exception, match=r"^magic-link: link: string_pattern_mismatch$"):
        await harness.deliver(order(variables={"link": LINK + "\r\nanother line"}))
    assert server.arrivals == []


MAILS = 3
"""In each round, ordered side by side: the mailer dies over one of them, whatever the others are at. In as many rounds
it dies over each of them."""
ROUNDS = """
import asyncio, os, sys
from functools import partial
from pathlib import Path
from shared import fault_points
from services.mailer.app import open_context
from services.mailer.handlers import HANDLERS
from services.mailer.settings import MailerSettings
from services.mailer.app import INDEXES
from tests.service_harness import ServiceHarness
from tests.mailer.conftest import USUAL
from tests.mailer.mails.test_handlers import MAILS, order

async def carry_out(mongo_url, database, port, number, body):
    settings = MailerSettings(**{**USUAL, "smtp_port": int(port)})
    async with ServiceHarness(
        mongo_url, database, service="mailer", handlers=HANDLERS, indexes=INDEXES,
        open_context=partial(open_context, settings=settings),
    ) as harness:
        orders = (harness.deliver(order(), id=f"{number:016x}{mail:016x}", body=body) for mail in range(MAILS))
        await asyncio.gather(*orders)

def in_a_process_of_its_own(crash, number):
    # Forked, so that a hundred rounds import everything once.
    child = os.fork()
    if child == 0:
        if crash:
            fault_points._point, fault_points._left = "M1", crash
        try:
            asyncio.run(carry_out(*sys.argv[1:4], number, Path(sys.argv[4]).read_bytes()))
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for number in range(int(sys.argv[5])):
    crashed, again = in_a_process_of_its_own(number % MAILS + 1, number), in_a_process_of_its_own(0, number)
    print("codes", crashed, again, flush=True)
"""


@pytest.mark.parametrize("rounds", [MAILS, pytest.param(100, marks=pytest.mark.slow)])
async def test_a_mailer_killed_before_its_mark_sends_one_more_copy_of_the_same_mail(
    harness: ServiceHarness, server: SmtpServer, mongo_url: str, tmp_path: Path, rounds: int
) -> None:
    script, body = tmp_path / "rounds.py", tmp_path / "body.json"
    script.write_text(ROUNDS)
    body.write_bytes(encode(order(), harness.sealer))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), mongo_url, harness.database.name, str(server.port), str(body), str(rounds)),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
    )
    written, _ = await asyncio.wait_for(process.communicate(), 60 + 8 * rounds)
    assert process.returncode == 0
    codes = [line for line in written.splitlines() if line.startswith(b"codes ")]
    assert codes == [b"codes %d 0" % EXIT_CODE] * rounds, written.decode()
    copies = Counter(str(arrival.message["Message-ID"]) for arrival in server.arrivals)
    ordered = {f"<{number:016x}{mail:016x}@nest.example>" for number in range(rounds) for mail in range(MAILS)}
    assert set(copies) == ordered
    assert max(copies.values()) == 2
    rows = await deliveries(harness)
    assert Counter(row["state"] for row in rows) == {"handed_over": rounds * MAILS}


async def record(harness: ServiceHarness, level: ConsentLevel, source: str = "user") -> None:
    await harness.deliver(RecordMarketingConsent(key="user_1", user_id="user_1", level=level, source=source))


async def consents(harness: ServiceHarness) -> list[dict[str, Any]]:
    return await harness.database["marketing_consents"].find().to_list()


async def test_get_marketing_consent_awaits_the_first_choice(harness: ServiceHarness) -> None:
    with pytest.raises(Refused) as refused:
        await harness.deliver(GetMarketingConsent(user_id="user_1"))
    assert (refused.value.kind, refused.value.code) == ("not_found", "awaiting_consent")


async def test_record_marketing_consent_keeps_the_choice_with_its_time_and_source(harness: ServiceHarness) -> None:
    await record(harness, "general", "internal")
    [row] = await consents(harness)
    now = harness.now.replace(microsecond=harness.now.microsecond // 1000 * 1000)
    assert row.pop("_id").startswith("test_mktngconsent_")
    assert row == {
        "userId": "user_1",
        "level": "general",
        "source": "internal",
        "createdAt": now,
        "updatedAt": now,
        "version": 1,
    }
    assert await harness.deliver(GetMarketingConsent(user_id="user_1")) == {"level": "general"}


async def test_a_consent_is_announced_only_when_it_changes(harness: ServiceHarness) -> None:
    levels: list[ConsentLevel] = ["general", "general", "none", "none", "general"]
    for level in levels:
        harness.now += timedelta(minutes=1)
        await record(harness, level)
    assert [said.level for said in harness.published_of(MarketingConsentChanged)] == ["general", "none", "general"]
    [row] = await consents(harness)
    assert row["updatedAt"] - row["createdAt"] == timedelta(minutes=4)


async def test_second_delivery_of_a_consent_changes_nothing(harness: ServiceHarness) -> None:
    command = RecordMarketingConsent(key="user_1", user_id="user_1", level="general", source="user")
    await harness.deliver(command, id=ORDER)
    await record(harness, "none")
    await harness.deliver(command, id=ORDER)
    assert await harness.deliver(GetMarketingConsent(user_id="user_1")) == {"level": "none"}


async def test_consents_set_from_three_places_at_once_end_in_one_row(harness: ServiceHarness) -> None:
    for _ in range(5):
        await asyncio.gather(
            record(harness, "general"), record(harness, "none"), record(harness, "general", "internal")
        )
    [row] = await consents(harness)
    assert row["version"] == 15
    changes = harness.published_of(MarketingConsentChanged)
    assert len(changes) < 15
    assert row["level"] == (await harness.deliver(GetMarketingConsent(user_id="user_1")))["level"]


async def test_every_choice_is_kept_with_who_made_it_where_and_when(harness: ServiceHarness) -> None:
    by_user, by_link = Caller(kind="user", user_id="user_1"), Caller(kind="anonymous")
    began = harness.now
    choices: list[tuple[ConsentLevel, str, Caller]] = [
        ("general", "user", by_user),
        ("general", "user", by_user),
        ("none", "unsubscribe-link", by_link),
    ]
    for level, source, caller in choices:
        harness.now += timedelta(minutes=1)
        command = RecordMarketingConsent(key="user_1", user_id="user_1", level=level, source=source)
        await harness.deliver(command, caller=caller)
    rows = await harness.database["marketing_consent_changes"].find().sort("number").to_list()
    assert [(row["number"], row["level"], row["source"], row["caller"]) for row in rows] == [
        (1, "general", "user", {"kind": "user", "userId": "user_1"}),
        (2, "general", "user", {"kind": "user", "userId": "user_1"}),
        (3, "none", "unsubscribe-link", {"kind": "anonymous", "userId": None}),
    ]
    assert [round((row["createdAt"] - began).total_seconds() / 60) for row in rows] == [1, 2, 3]
    assert len({row["_id"] for row in rows}) == 3


PLACES: list[tuple[ConsentLevel, str]] = [("general", "user"), ("none", "unsubscribe-link"), ("general", "internal")]


@pytest.mark.parametrize("last", range(3))
async def test_of_choices_from_three_places_at_once_all_are_kept_and_the_last_one_stands(
    harness: ServiceHarness, last: int
) -> None:
    for _ in range(3):
        harness.now += timedelta(seconds=1)
        # Side by side: whichever commits second finds that the first one moved what it read, and runs again.
        await asyncio.gather(*(record(harness, level, source) for level, source in PLACES))
    harness.now += timedelta(seconds=1)
    await record(harness, *PLACES[last])
    rows = await harness.database["marketing_consent_changes"].find().sort("number").to_list()
    assert [row["number"] for row in rows] == list(range(1, 11))
    assert Counter((row["level"], row["source"]) for row in rows) == Counter([*PLACES * 3, PLACES[last]])
    times = [row["createdAt"] for row in rows]
    assert times == sorted(times)
    [current] = await consents(harness)
    assert (current["level"], current["source"]) == PLACES[last]
    assert (current["level"], current["source"]) == (rows[-1]["level"], rows[-1]["source"])
    assert current["updatedAt"] == times[-1]
    assert await harness.deliver(GetMarketingConsent(user_id="user_1")) == {"level": PLACES[last][0]}
    # Announced is what changed, each time: read in order the events end where the consent stands.
    announced = [said.level for said in harness.published_of(MarketingConsentChanged)]
    assert announced[-1] == PLACES[last][0]
