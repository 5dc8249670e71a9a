"""What the doctor says of a sender's DNS records, asked of a DNS server of this test's own, and of mail servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from services.embedded import ports
from services.operator.doctor.findings import Check, Finding, Level, found, ok
from services.operator.doctor.mail import domain_of, lives_in_the_world, look_at_mail_records, look_at_mail_servers
from services.operator.doctor.senders import look_at_senders
from tests.mailer.smtp_server import SmtpServer, certificate, server_tls

GOOD = {
    ("example.org", "MX"): ["10 mx.example.org."],
    ("example.org", "TXT"): ['"v=spf1 include:_spf.example.net " "-all"', '"something else"'],
    ("s1._domainkey.example.org", "TXT"): ['"v=DKIM1; k=rsa; p=MIIB"'],
    ("_dmarc.example.org", "TXT"): ['"v=DMARC1; p=quarantine"'],
}


class Names(asyncio.DatagramProtocol):
    """A DNS server (RFC 1035) with a few records."""

    def __init__(self, records: dict[tuple[str, str], list[str]]) -> None:
        self.records = records

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        asked = dns.message.from_wire(data)
        answer = dns.message.make_response(asked)
        question = asked.question[0]
        name = question.name.to_text(omit_final_dot=True)
        texts = self.records.get((name, question.rdtype.name))
        if texts:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype.name, *texts))
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), addr)


async def seen(
    records: dict[tuple[str, str], list[str]], *selectors: str, domain: str = "example.org"
) -> list[Finding]:
    """What the doctor says when DNS says this."""
    async with answering(records) as resolver:
        return [finding async for finding in look_at_mail_records([domain], selectors, resolver)]


@asynccontextmanager
async def answering(records: dict[tuple[str, str], list[str]]) -> AsyncIterator[dns.asyncresolver.Resolver]:
    """Asks a DNS server that knows these records and no others."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Names(records), local_addr=("127.0.0.1", 0))
    try:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = transport.get_extra_info("sockname")[1]
        yield resolver
    finally:
        transport.close()


def worst(findings: list[Finding], word: str) -> tuple[Level, str]:
    (about,) = [finding for finding in findings if word in finding.says]
    return about.level, about.says


async def test_good_records_are_well() -> None:
    findings = await seen(GOOD, "s1")
    assert {finding.level for finding in findings} == {Level.OK}
    assert "example.org: v=spf1 include:_spf.example.net -all" in [finding.says for finding in findings]


async def test_a_domain_without_records_is_told_all_it_lacks() -> None:
    findings = await seen({}, "s1")
    assert [finding.level.value for finding in findings] == ["warning", "warning", "problem", "warning"]
    assert all(finding.do for finding in findings)


@pytest.mark.parametrize(
    ("place", "texts", "word", "level"),
    [
        ("example.org", ['"v=spf1 +all"'], "anybody", Level.PROBLEM),
        ("example.org", ['"v=spf1 -all"', '"v=spf1 ~all"'], "2 SPF", Level.PROBLEM),
        ("example.org", ['"v=spf1 mx ?all"'], "does not say", Level.WARNING),
        ("example.org", ['"v=spf1 redirect=_spf.example.net"'], "redirect", Level.OK),
        ("s1._domainkey.example.org", ['"v=DKIM1; p="'], "revoked", Level.PROBLEM),
        ("s1._domainkey.example.org", ['"nonsense"'], "no DKIM key", Level.PROBLEM),
        ("_dmarc.example.org", ['"v=DMARC1; p=none"', '"v=DMARC1; p=reject"'], "2 DMARC", Level.PROBLEM),
    ],
)
async def test_a_wrong_record_is_named(place: str, texts: list[str], word: str, level: Level) -> None:
    findings = await seen({**GOOD, (place, "TXT"): texts}, "s1")
    assert worst(findings, word)[0] is level


@pytest.mark.parametrize(("includes", "level"), [(10, Level.OK), (11, Level.PROBLEM)])
async def test_a_record_that_leads_to_too_many_others_counts_for_none(includes: int, level: Level) -> None:
    # Five of the domain's own, of which the last leads on to one of five or six.
    own = [*(f"a:h{number}.example.org" for number in range(3)), "mx", "include:_more.example.org"]
    more = [f"include:_{number}.example.org" for number in range(includes - len(own))]
    records = {
        **GOOD,
        ("example.org", "TXT"): [f'"v=spf1 {" ".join(own)} -all"'],
        ("_more.example.org", "TXT"): [f'"v=spf1 {" ".join(more[:2])} redirect=_last.example.org"'],
        ("_last.example.org", "TXT"): [f'"v=spf1 {" ".join(more[3:])} ?all"'],
    }
    assert worst(await seen(records, "s1"), "SPF" if level is Level.PROBLEM else "v=spf1")[0] is level


async def test_a_record_that_includes_itself_is_not_followed_for_ever() -> None:
    looped = {**GOOD, ("example.org", "TXT"): ['"v=spf1 include:example.org -all"']}
    assert worst(await seen(looped, "s1"), "look-ups")[0] is Level.PROBLEM


async def test_the_domain_above_speaks_for_those_under_it() -> None:
    findings = await seen({**GOOD, ("mail.example.org", "MX"): ["10 mx.example.org."]}, domain="mail.example.org")
    assert worst(findings, "DMARC1")[0] is Level.OK
    assert worst(findings, "DKIM was not looked at")[0] is Level.WARNING


@pytest.mark.parametrize(
    ("mail_from", "host", "lives"),
    [
        ("Beak <a@getbeak.app>", "smtp.example.net", True),
        ("a@getbeak.app", "127.0.0.1", False),
        ("a@getbeak.app", "localhost", False),
        ("Beak <a@beak.example>", "smtp.example.net", False),
    ],
)
def test_only_a_sender_in_the_world_is_looked_up(mail_from: str, host: str, *, lives: bool) -> None:
    assert lives_in_the_world(mail_from, host) is lives
    assert "@" not in domain_of(mail_from)


def settings(**changed: Any) -> Any:
    usual = {
        "smtp_host": "127.0.0.1",
        "smtp_tls": "none",
        "smtp_username": "nest",
        "smtp_password": SecretStr("right"),
        "smtp_ca_file": None,
    }
    return SimpleNamespace(**{**usual, **changed})


async def only(given: Any) -> Finding:
    (finding,) = [finding async for finding in look_at_mail_servers(given)]
    return finding


async def test_mail_servers_that_refuse_strip_tls_or_are_not_there_are_told_apart(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    good = {"smtp_host": "localhost", "smtp_tls": "required", "smtp_ca_file": pem}
    async with SmtpServer(tls=server_tls(pem), login=("nest", "right")) as server:
        well, soon = [each async for each in look_at_mail_servers(settings(smtp_port=server.port, **good))]
        refused = await only(settings(smtp_port=server.port, **good, smtp_password=SecretStr("wrong")))
        unknown = await only(settings(smtp_port=server.port, **{**good, "smtp_ca_file": None}))
    async with SmtpServer() as server:
        open_to_all = await only(settings(smtp_port=server.port, smtp_username=None))
        stripped = await only(settings(smtp_port=server.port, **good))
    away = await only(settings(smtp_port=1))
    assert (well.level, "takes the login" in well.says) == (Level.OK, True), well
    # That certificate is made for a day.
    assert (soon.level, "ends on" in soon.says) == (Level.WARNING, True), soon
    assert (refused.level, "refuses the login" in refused.says) == (Level.PROBLEM, True), refused
    assert (unknown.level, "certificate" in unknown.says + unknown.do) == (Level.PROBLEM, True), unknown
    assert (open_to_all.level, "unencrypted" in open_to_all.says) == (Level.WARNING, True), open_to_all
    assert (stripped.level, "STARTTLS" in stripped.says) == (Level.PROBLEM, True), stripped
    assert away.level is Level.PROBLEM
    assert "wrong" not in refused.says + refused.do


async def test_both_servers_are_looked_at() -> None:
    async with SmtpServer() as first, SmtpServer() as second:
        plain = {"smtp_second_host": "127.0.0.1", "smtp_second_tls": "none", "smtp_second_username": None}
        given = settings(
            smtp_port=first.port,
            smtp_username=None,
            smtp_second_port=second.port,
            smtp_second_password=None,
            **plain,
        )
        findings = [each async for each in look_at_mail_servers(given)]
    assert [
        f"127.0.0.1:{server.port}" in each.says for server, each in zip((first, second), findings, strict=True)
    ] == [
        True,
        True,
    ]
    assert "NEST_SMTP_SECOND_TLS" in findings[1].do


async def test_every_domain_that_mails_come_from_is_looked_up(mongo_url: str, database_prefix: str) -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_url)
    looks = client[f"{database_prefix}mailer"]["client_looks"]
    try:
        addresses = ("mail@beak.example.org", "help@example.org", "a@nowhere.test", None)
        await looks.insert_many([{"senderAddress": address} for address in addresses])
        async with answering({**GOOD, ("beak.example.org", "MX"): ["0 ."]}) as resolver:
            given = settings(smtp_host="smtp.example.net", mail_from="Beak <mail@example.org>")
            seen = [each async for each in look_at_senders(given, looks.database, ["s1"], resolver)]
    finally:
        await client.drop_database(looks.database.name)
        await client.close()
    assert [each.level for each in seen if "beak.example.org" not in each.says] == [Level.OK] * 4
    assert worst(seen, "takes no mail")[0] is Level.PROBLEM
    assert worst(seen, "beak.example.org has no SPF")[0] is Level.WARNING
    assert not any("nowhere.test" in each.says for each in seen)


async def test_a_dns_that_does_not_answer_is_said_to_be_the_problem() -> None:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.timeout = ["127.0.0.1"], ports.any_free(), 0.2
    resolver.lifetime = 0.4
    (told, _) = [each async for each in look_at_mail_records(["example.org"], [], resolver)]
    assert (told.level, "can't be looked up" in told.says) == (Level.PROBLEM, True)


async def test_a_look_that_fails_or_hangs_hides_no_other_and_keeps_what_it_found() -> None:
    async def fails() -> AsyncIterator[Finding]:
        yield ok("a", "seen before")
        raise OSError("no route")

    async def hangs() -> AsyncIterator[Finding]:
        await asyncio.sleep(60)
        yield ok("b", "never")

    async def well() -> AsyncIterator[Finding]:
        yield ok("c", "well")

    findings = await found([Check("a", fails), Check("b", hangs), Check("c", well)], within=0.2)
    assert [(finding.area, finding.level.value) for finding in findings] == [
        ("a", "ok"),
        ("a", "problem"),
        ("b", "problem"),
        ("c", "ok"),
    ]
    assert "no route" in findings[1].says


async def test_a_person_is_told_what_is_still_looked_at() -> None:
    gate = asyncio.Event()

    async def waits() -> AsyncIterator[Finding]:
        await gate.wait()
        yield ok("a", "well")

    async def well() -> AsyncIterator[Finding]:
        gate.set()
        yield ok("b", "well")

    told: list[list[str]] = []
    await found([Check("a", waits), Check("b", well)], tell=lambda under_way: told.append(list(under_way)))
    assert told == [["a", "b"], ["a"], []]
