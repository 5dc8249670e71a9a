"""Checks of DNS records on a DNS server of this test, of mail servers, and of a server with Twilio's responses."""

import asyncio
import base64
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
from aiohttp import web
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from services.embedded import ports
from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.mail import (
    check_mail_records,
    check_mail_servers,
    check_senders,
    check_twilio,
    domain_of,
    sends_to_internet,
)
from tests.mailer.smtp_server import SmtpServer, certificate, server_tls
from tests.mailer.twilio_double import SERVICE, SID, TOKEN
from tests.operator.http_server import Reply, serving

Zone = dict[tuple[str, str], list[str]]
"""Records by name and type."""

GOOD: Zone = {
    ("example.org", "MX"): ["10 mx.example.org."],
    ("example.org", "TXT"): ['"v=spf1 include:_spf.example.net " "-all"', '"something else"'],
    ("s1._domainkey.example.org", "TXT"): ['"v=DKIM1; k=rsa; p=MIIB"'],
    ("_dmarc.example.org", "TXT"): ['"v=DMARC1; p=quarantine"'],
}


class DnsServer(asyncio.DatagramProtocol):
    """A DNS server (RFC 1035) with fixed records."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        texts = self.zone.get((name, question.rdtype.name))
        if texts:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype.name, *texts))
        elif not any(known == name for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def resolving(zone: Zone) -> AsyncIterator[dns.asyncresolver.Resolver]:
    """Yield a resolver whose server has only these records."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: DnsServer(zone), local_addr=("127.0.0.1", 0))
    try:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = transport.get_extra_info("sockname")[1]
        yield resolver
    finally:
        transport.close()


async def check_records(zone: Zone, *selectors: str, domain: str = "example.org") -> list[Finding]:
    async with resolving(zone) as resolver:
        return [finding async for finding in check_mail_records([domain], selectors, resolver)]


def level_of(findings: list[Finding], text: str) -> Level:
    """Return the level of the only finding with this text."""
    (finding,) = [finding for finding in findings if text in finding.says]
    return finding.level


async def test_good_records_are_ok() -> None:
    findings = await check_records(GOOD, "s1")
    assert {finding.level for finding in findings} == {Level.OK}
    assert "example.org: v=spf1 include:_spf.example.net -all" in [finding.says for finding in findings]


async def test_each_missing_record_is_reported() -> None:
    findings = await check_records({}, "s1")
    assert [finding.level.value for finding in findings] == ["warning", "warning", "problem", "warning"]
    assert all(finding.do for finding in findings)


@pytest.mark.parametrize(
    ("name", "texts", "says", "level"),
    [
        ("example.org", ['"v=spf1 +all"'], "anybody", Level.PROBLEM),
        ("example.org", ['"v=spf1 -all"', '"v=spf1 ~all"'], "2 SPF", Level.PROBLEM),
        ("example.org", ['"v=spf1 mx ?all"'], "does not exclude", Level.WARNING),
        ("example.org", ['"v=spf1 redirect=_spf.example.net"'], "redirect", Level.OK),
        ("s1._domainkey.example.org", ['"v=DKIM1; p="'], "revoked", Level.PROBLEM),
        ("s1._domainkey.example.org", ['"nonsense"'], "no DKIM key", Level.PROBLEM),
        ("_dmarc.example.org", ['"v=DMARC1; p=none"', '"v=DMARC1; p=reject"'], "2 DMARC", Level.PROBLEM),
    ],
)
async def test_wrong_record_is_reported(name: str, texts: list[str], says: str, level: Level) -> None:
    findings = await check_records({**GOOD, (name, "TXT"): texts}, "s1")
    assert level_of(findings, says) is level


@pytest.mark.parametrize(("lookups", "level"), [(10, Level.OK), (11, Level.PROBLEM)])
async def test_spf_record_may_need_ten_lookups(lookups: int, level: Level) -> None:
    # Five in the domain's record; the last includes a record with the others.
    own = [*(f"a:h{number}.example.org" for number in range(3)), "mx", "include:_more.example.org"]
    more = [f"include:_{number}.example.org" for number in range(lookups - len(own))]
    zone = {
        **GOOD,
        ("example.org", "TXT"): [f'"v=spf1 {" ".join(own)} -all"'],
        ("_more.example.org", "TXT"): [f'"v=spf1 {" ".join(more[:2])} redirect=_last.example.org"'],
        ("_last.example.org", "TXT"): [f'"v=spf1 {" ".join(more[3:])} ?all"'],
    }
    assert level_of(await check_records(zone, "s1"), "SPF" if level is Level.PROBLEM else "v=spf1") is level


async def test_spf_record_that_includes_itself_ends() -> None:
    loop = {**GOOD, ("example.org", "TXT"): ['"v=spf1 include:example.org -all"']}
    assert level_of(await check_records(loop, "s1"), "lookups") is Level.PROBLEM


async def test_parent_domains_dmarc_record_applies() -> None:
    zone = {**GOOD, ("mail.example.org", "MX"): ["10 mx.example.org."]}
    findings = await check_records(zone, domain="mail.example.org")
    assert level_of(findings, "DMARC1") is Level.OK
    assert level_of(findings, "DKIM was not checked") is Level.WARNING


@pytest.mark.parametrize(
    ("mail_from", "host", "checked"),
    [
        ("Beak <a@getbeak.app>", "smtp.example.net", True),
        ("a@getbeak.app", "127.0.0.1", False),
        ("a@getbeak.app", "localhost", False),
        ("Beak <a@beak.example>", "smtp.example.net", False),
    ],
)
def test_only_senders_with_an_internet_domain_are_checked(mail_from: str, host: str, *, checked: bool) -> None:
    assert sends_to_internet(mail_from, host) is checked
    assert "@" not in domain_of(mail_from)


def settings(**changed: Any) -> Any:
    usual = {
        "smtp_host": "127.0.0.1",
        "smtp_tls": "none",
        "smtp_username": SecretStr("nest"),
        "smtp_password": SecretStr("right"),
        "smtp_ca_file": None,
    }
    return SimpleNamespace(**{**usual, **changed})


async def check_server(mailer: Any) -> Finding:
    (finding,) = [finding async for finding in check_mail_servers(mailer)]
    return finding


async def test_faults_of_mail_servers_are_distinguished(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    good = {"smtp_host": "localhost", "smtp_tls": "required", "smtp_ca_file": pem}
    async with SmtpServer(tls=server_tls(pem), login=("nest", "right")) as server:
        fine, expiring = [each async for each in check_mail_servers(settings(smtp_port=server.port, **good))]
        refused = await check_server(settings(smtp_port=server.port, **good, smtp_password=SecretStr("wrong")))
        untrusted = await check_server(settings(smtp_port=server.port, **{**good, "smtp_ca_file": None}))
    async with SmtpServer() as server:
        unencrypted = await check_server(settings(smtp_port=server.port, smtp_username=None))
        stripped = await check_server(settings(smtp_port=server.port, **good))
    unreachable = await check_server(settings(smtp_port=1))
    assert (fine.level, "accepts the login" in fine.says) == (Level.OK, True), fine
    # The certificate is valid for a day.
    assert (expiring.level, "ends on" in expiring.says) == (Level.WARNING, True), expiring
    assert (refused.level, "refuses the login" in refused.says) == (Level.PROBLEM, True), refused
    assert (untrusted.level, "certificate" in untrusted.says + untrusted.do) == (Level.PROBLEM, True), untrusted
    assert (unencrypted.level, "unencrypted" in unencrypted.says) == (Level.WARNING, True), unencrypted
    assert (stripped.level, "STARTTLS" in stripped.says) == (Level.PROBLEM, True), stripped
    assert unreachable.level is Level.PROBLEM
    assert "wrong" not in refused.says + refused.do


async def test_second_mail_server_is_checked_too() -> None:
    async with SmtpServer() as first, SmtpServer() as second:
        mailer = settings(
            smtp_port=first.port,
            smtp_username=None,
            smtp_second_host="127.0.0.1",
            smtp_second_port=second.port,
            smtp_second_tls="none",
            smtp_second_username=None,
            smtp_second_password=None,
        )
        findings = [each async for each in check_mail_servers(mailer)]
    assert [f"127.0.0.1:{first.port}" in findings[0].says, f"127.0.0.1:{second.port}" in findings[1].says] == [True] * 2
    assert "NEST_SMTP_SECOND_TLS" in findings[1].do


async def test_domain_of_every_sender_is_checked(mongo_url: str, database_prefix: str) -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_url)
    brandings = client[f"{database_prefix}mailer"]["client_looks"]
    try:
        addresses = ("mail@beak.example.org", "help@example.org", "a@nowhere.test", None)
        await brandings.insert_many([{"senderAddress": address} for address in addresses])
        async with resolving({**GOOD, ("beak.example.org", "MX"): ["0 ."]}) as resolver:
            mailer = settings(smtp_host="smtp.example.net", mail_from="Beak <mail@example.org>")
            findings = [each async for each in check_senders(mailer, brandings.database, ["s1"], resolver)]
    finally:
        await client.drop_database(brandings.database.name)
        await client.close()
    assert [each.level for each in findings if "beak.example.org" not in each.says] == [Level.OK] * 4
    assert level_of(findings, "accepts no mail") is Level.PROBLEM
    assert level_of(findings, "beak.example.org has no SPF") is Level.WARNING
    assert not any("nowhere.test" in each.says for each in findings)


async def test_unreachable_dns_is_a_problem() -> None:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.timeout = ["127.0.0.1"], ports.any_free(), 0.2
    resolver.lifetime = 0.4
    (finding, _) = [each async for each in check_mail_records(["example.org"], [], resolver)]
    assert (finding.level, "cannot be looked up" in finding.says) == (Level.PROBLEM, True)


ACCOUNT = f"/2010-04-01/Accounts/{SID}.json"
MESSAGING_SERVICE = f"/v1/Services/{SERVICE}"
NO_NUMBER = {f"{MESSAGING_SERVICE}/PhoneNumbers": Reply({"phone_numbers": []})}


async def check_account(changed: dict[str, Reply] | None = None) -> list[Finding]:
    """Check a Twilio account without faults, or with changed replies."""
    replies = {
        ACCOUNT: Reply({"status": "active"}),
        MESSAGING_SERVICE: Reply({"sid": SERVICE}),
        f"{MESSAGING_SERVICE}/PhoneNumbers": Reply({"phone_numbers": [{"phone_number": "+15005550006"}]}),
    }
    async with serving({**replies, **(changed or {})}) as url:
        mailer = SimpleNamespace(
            twilio_api_base=url,
            twilio_account_sid=SID,
            twilio_auth_token=SecretStr(TOKEN),
            twilio_messaging_service_sid=SERVICE,
        )
        return [each async for each in check_twilio(mailer)]


async def test_twilio_account_with_a_number_or_name_is_ok() -> None:
    findings = await check_account()
    assert [each.level for each in findings] == [Level.OK] * 2
    assert "1 phone numbers" in findings[-1].says
    named = {f"{MESSAGING_SERVICE}/AlphaSenders": Reply({"alpha_senders": [{"alpha_sender": "BEAK"}]})}
    assert (await check_account({**NO_NUMBER, **named}))[-1].level is Level.OK


async def test_twilio_receives_the_accounts_credentials() -> None:
    received: list[str] = []

    def account(request: web.Request) -> dict[str, str]:
        received.append(request.headers["authorization"])
        return {"status": "active"}

    await check_account({ACCOUNT: Reply(account)})
    assert received == ["Basic " + base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({ACCOUNT: Reply({}, 401)}, "refuses the account"),
        ({ACCOUNT: Reply({}, 503)}, "responds 503"),
        ({ACCOUNT: Reply({"status": "suspended"})}, "is suspended"),
        ({MESSAGING_SERVICE: Reply({}, 404)}, "has no messaging service"),
        (NO_NUMBER, "has no sender"),
    ],
)
async def test_fault_of_the_twilio_account_is_a_problem(changed: dict[str, Reply], text: str) -> None:
    last = (await check_account(changed))[-1]
    assert (last.level, text in last.says) == (Level.PROBLEM, True), last
    assert last.do
    assert TOKEN not in last.says + last.do
