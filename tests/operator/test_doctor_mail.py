"""What the doctor says of a sender's DNS records, asked of a DNS server of this test's own, and of mail servers."""

import asyncio
from collections.abc import AsyncIterator
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

from services.operator.doctor_findings import Check, Finding, Level, found, ok
from services.operator.doctor_mail import domain_of, lives_in_the_world, look_at_mail_records, look_at_mail_servers
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
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Names(records), local_addr=("127.0.0.1", 0))
    try:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = transport.get_extra_info("sockname")[1]
        return [finding async for finding in look_at_mail_records(domain, selectors, resolver)]
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
        well = await only(settings(smtp_port=server.port, **good))
        refused = await only(settings(smtp_port=server.port, **good, smtp_password=SecretStr("wrong")))
        unknown = await only(settings(smtp_port=server.port, **{**good, "smtp_ca_file": None}))
    async with SmtpServer() as server:
        open_to_all = await only(settings(smtp_port=server.port, smtp_username=None))
        stripped = await only(settings(smtp_port=server.port, **good))
    away = await only(settings(smtp_port=1))
    assert (well.level, "takes the login" in well.says) == (Level.OK, True), well
    assert (refused.level, "refuses the login" in refused.says) == (Level.PROBLEM, True), refused
    assert (unknown.level, "certificate" in unknown.says + unknown.do) == (Level.PROBLEM, True), unknown
    assert (open_to_all.level, "unencrypted" in open_to_all.says) == (Level.WARNING, True), open_to_all
    assert (stripped.level, "STARTTLS" in stripped.says) == (Level.PROBLEM, True), stripped
    assert away.level is Level.PROBLEM
    assert "wrong" not in refused.says + refused.do


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
