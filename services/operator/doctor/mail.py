"""Checks of mails and texts: mail servers, DNS records of the senders' domains, and Twilio."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from email.utils import parseaddr
from typing import Any, Final

import dns.asyncresolver
import dns.exception
import dns.resolver
from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException
from pymongo.errors import PyMongoError

from services.mailer.branding.store import ClientBrandings
from services.operator.doctor.findings import Finding, ok, problem, warning
from services.operator.doctor.http import OK, Response, certificate_expiry, certificate_findings, get
from shared.mongo import Database
from shared.networks import is_loopback_host

SMTP_SECONDS: Final = 8.0
DNS_SECONDS: Final = 12.0
"""Timeout of all queries about a domain; some depend on others."""
RESERVED_DOMAINS: Final = (".example", ".test", ".invalid", ".localhost")
"""Top-level domains for tests (RFC 2606)."""
MAX_SPF_LOOKUPS: Final = 10
"""Receivers reject SPF records that need more (RFC 7208 section 4.6.4)."""
SPF_LOOKUPS: Final = ("include:", "redirect=", "exists:", "a:", "a/", "mx:", "mx/", "ptr:")
"""Beginnings of SPF terms that need a lookup; so do the whole terms ``a``, ``mx`` and ``ptr``."""
TWILIO: Final = "https://api.twilio.com"
TWILIO_MESSAGING: Final = "https://messaging.twilio.com"
"""API of Messaging Services (https://www.twilio.com/docs/messaging/api/service-resource)."""
TWILIO_SENDERS: Final = {"PhoneNumbers": "phone_numbers", "AlphaSenders": "alpha_senders", "ShortCodes": "short_codes"}


async def check_mail_servers(settings: Any) -> AsyncIterator[Finding]:
    """Check that each mail server is reachable, encrypts and accepts the login. No mail is sent."""
    servers = [name for name in ("smtp", "smtp_second") if getattr(settings, f"{name}_host", None) is not None]
    for findings in await asyncio.gather(*(_check_mail_server(settings, name) for name in servers)):
        for finding in findings:
            yield finding


async def _check_mail_server(settings: Any, prefix: str) -> list[Finding]:
    host, port, tls, username, password = (
        getattr(settings, f"{prefix}_{name}") for name in ("host", "port", "tls", "username", "password")
    )
    server, variable = f"{host}:{port}", f"NEST_{prefix.upper()}"
    client = SMTP(
        hostname=host,
        port=port,
        use_tls=tls == "implicit",
        # As in the mailer: explicit, so that it never falls back to plain text.
        start_tls=tls == "required",
        tls_context=None if tls == "none" else ssl.create_default_context(cafile=settings.smtp_ca_file),
        timeout=SMTP_SECONDS,
    )
    try:
        await client.connect()
        expiry = certificate_expiry(client.transport)
        if username is not None:
            # A single method: servers count failed logins and delay their responses.
            log_in = client.auth_plain if "plain" in client.supported_auth_methods else client.login
            await log_in(username.get_secret_value(), password.get_secret_value())
        await client.quit()
    except SMTPAuthenticationError as refused:
        return [problem(f"{server} refuses the login ({refused.code})", f"check {variable}_USERNAME and _PASSWORD")]
    except ssl.SSLError as error:
        remedy = f"use a certificate for {host}, or set NEST_SMTP_CA_FILE to its CA"
        return [problem(f"{server}: {error.reason}", remedy)]
    except (SMTPException, OSError, TimeoutError) as failure:
        reason = (str(failure) or type(failure).__name__).splitlines()[0]
        # An untrusted certificate may appear as a closed connection.
        trust = "" if tls == "none" else f", and that its certificate is for {host}"
        return [problem(f"{server}: {reason}", f"check {variable}_HOST, _PORT and _TLS, the network{trust}")]
    finally:
        client.close()
    if tls == "none":
        return [
            warning(
                f"{server} responds; the connection is unencrypted",
                f"set {variable}_TLS to required",
                embedded=f"the inbox responds at {server}; on one machine it needs no encryption",
            )
        ]
    login = "" if username is None else ", and accepts the login"
    return [ok(f"{server} responds, encrypts{login}"), *certificate_findings(server, expiry)]


async def check_senders(
    settings: Any,
    database: Database | None,
    selectors: Sequence[str],
    resolver: dns.asyncresolver.Resolver | None = None,
) -> AsyncIterator[Finding]:
    """Check the domains of all senders: the settings', and the clients' in the mailer's database.

    Nothing is checked while mails stay on this machine.
    """
    senders = [settings.mail_from]
    try:
        if database is not None:
            senders += await database[ClientBrandings.COLLECTION].distinct("senderAddress")
    except PyMongoError as failure:
        # Another check reports the fault of MongoDB.
        yield warning(
            f"the senders of clients could not be read ({type(failure).__name__})",
            "run nest doctor again once MongoDB responds",
        )
    domains = {domain_of(sender) for sender in senders if sender and sends_to_internet(sender, settings.smtp_host)}
    if domains:
        async for finding in check_mail_records(sorted(domains), selectors, resolver):
            yield finding


def sends_to_internet(mail_from: str, smtp_host: str) -> bool:
    """Whether mails of this sender leave the machine, to receivers that look its domain up."""
    return not is_loopback_host(smtp_host) and not f".{domain_of(mail_from)}".endswith(RESERVED_DOMAINS)


def domain_of(mail_from: str) -> str:
    """Return the domain of ``Product <mail@example.com>``."""
    return parseaddr(mail_from)[1].rpartition("@")[2].lower()


async def check_mail_records(
    domains: Iterable[str], selectors: Sequence[str], resolver: dns.asyncresolver.Resolver | None = None
) -> AsyncIterator[Finding]:
    """Check the MX, SPF (RFC 7208), DKIM (RFC 6376) and DMARC (RFC 7489) records of senders' domains.

    DKIM is checked with the selectors of the mail provider. The resolver is the machine's own by default.
    """
    if resolver is None:
        resolver = dns.asyncresolver.Resolver()
        resolver.lifetime = DNS_SECONDS / 2
    records = _Records(resolver)
    for findings in await asyncio.gather(*(_check_domain(records, domain, selectors) for domain in domains)):
        for finding in findings:
            yield finding
    if not selectors:
        yield warning("DKIM was not checked", "give your provider's selector: nest doctor --dkim-selector NAME")


class _Records:
    """DNS records; a name that does not exist has none.

    All methods raise dns.exception.DNSException if DNS does not respond.
    """

    def __init__(self, resolver: dns.asyncresolver.Resolver) -> None:
        self._resolver = resolver

    async def find(self, name: str, kind: str) -> list[Any]:
        try:
            return list(await self._resolver.resolve(name, kind))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []

    async def texts(self, name: str, prefix: str) -> list[str]:
        """Return the TXT records with a prefix, the strings of each joined."""
        texts = [b"".join(record.strings).decode("utf-8", "replace") for record in await self.find(name, "TXT")]
        return [text for text in texts if text.lower().startswith(prefix)]

    async def dmarc(self, domain: str) -> list[str]:
        """Return the DMARC records of the domain, or else of the nearest parent that has any."""
        labels = domain.split(".")
        for start in range(len(labels) - 1):
            texts = await self.texts("_dmarc." + ".".join(labels[start:]), "v=dmarc1")
            if texts:
                return texts
        return []

    async def spf_lookups(self, domain: str) -> int:
        """Count the lookups that the SPF record of a domain causes, up to one more than allowed."""
        count, unread = 0, [domain]
        while unread and count <= MAX_SPF_LOOKUPS:
            records = await self.texts(unread.pop(), "v=spf1")
            for term in records[0].lower().split()[1:] if records else []:
                mechanism = term.lstrip("+-~?")
                if mechanism not in ("a", "mx", "ptr") and not mechanism.startswith(SPF_LOOKUPS):
                    continue
                count += 1
                # The value of a macro depends on the mail.
                if mechanism.startswith(("include:", "redirect=")) and "%" not in mechanism:
                    unread.append(re.split("[:=]", mechanism, maxsplit=1)[1])
        return count


async def _check_domain(records: _Records, domain: str, selectors: Sequence[str]) -> list[Finding]:
    try:
        async with asyncio.timeout(DNS_SECONDS):
            mx, spf, spf_lookups, dmarc, *dkim = await asyncio.gather(
                records.find(domain, "MX"),
                records.texts(domain, "v=spf1"),
                records.spf_lookups(domain),
                records.dmarc(domain),
                *(records.texts(f"{selector}._domainkey.{domain}", "") for selector in selectors),
            )
    except (dns.exception.DNSException, OSError, TimeoutError) as failure:
        reason = (str(failure) or "timeout").splitlines()[0]
        return [problem(f"{domain} cannot be looked up ({reason})", "check that DNS works on this machine")]
    return [
        _mx(domain, mx),
        _spf(domain, spf, spf_lookups),
        *(_dkim(f"{selector}._domainkey.{domain}", texts) for selector, texts in zip(selectors, dkim, strict=True)),
        _dmarc(domain, dmarc),
    ]


def _mx(domain: str, servers: list[Any]) -> Finding:
    if not servers:
        return warning(f"{domain} has no MX record: bounces and replies are lost", "publish one")
    # A single "." means that the domain accepts no mail (RFC 7505).
    if all(server.exchange.to_text() == "." for server in servers):
        return problem(f"{domain} accepts no mail (null MX), so its mails are refused", "publish a real MX record")
    return ok(f"{domain} accepts mail (MX)")


def _spf(domain: str, records: list[str], lookups: int) -> Finding:
    if not records:
        return warning(f"{domain} has no SPF record", "publish the record of your mail provider (TXT v=spf1 …)")
    if len(records) > 1:
        return problem(f"{domain} has {len(records)} SPF records, so none is valid", "merge them")
    terms = records[0].lower().split()
    if terms[-1] in ("+all", "all"):
        return problem(f"{domain}: SPF allows anybody to send ({terms[-1]})", "end it with ~all or -all")
    if terms[-1] not in ("~all", "-all") and not any(term.startswith("redirect=") for term in terms):
        return warning(f"{domain}: SPF does not exclude other senders", "end it with ~all or -all")
    if lookups > MAX_SPF_LOOKUPS:
        return problem(
            f"{domain}: SPF needs more than {MAX_SPF_LOOKUPS} lookups, so it is invalid",
            "remove the includes of providers that you no longer use",
        )
    return ok(f"{domain}: {records[0]}")


def _dkim(name: str, records: list[str]) -> Finding:
    tags = [dict(part.strip().split("=", 1) for part in record.split(";") if "=" in part) for record in records]
    if any("".join(tag.get("p", "").split()) for tag in tags):
        return ok(f"{name} has a DKIM key")
    if any("p" in tag for tag in tags):
        return problem(f"{name}: the DKIM key is revoked (p= is empty)", "publish the new key of your mail provider")
    return problem(f"{name} has no DKIM key", "publish the key of your mail provider, or check the selector")


def _dmarc(domain: str, records: list[str]) -> Finding:
    if not records:
        return warning(
            f"{domain} has no DMARC record, which large providers require", "publish _dmarc TXT v=DMARC1; p=none"
        )
    if len(records) > 1:
        return problem(f"{domain} has {len(records)} DMARC records, so none is valid", "keep one")
    return ok(f"{domain}: {records[0]}")


async def check_twilio(settings: Any) -> AsyncIterator[Finding]:
    """Check that Twilio accepts the account, and that the messaging service has a sender."""
    account = await _get_twilio(settings, TWILIO, f"/2010-04-01/Accounts/{settings.twilio_account_sid}.json")
    if account.status in (401, 403):
        yield problem(
            f"refuses the account ({account.status})", "check NEST_TWILIO_ACCOUNT_SID and NEST_TWILIO_AUTH_TOKEN"
        )
        return
    if account.status != OK:
        yield problem(f"responds {account.status} about the account", "see status.twilio.com, and try again")
        return
    if account.body.get("status", "active") != "active":
        yield problem(f"the account is {account.body['status']}", "see Twilio's console")
        return
    yield ok("accepts the account")
    yield await _check_messaging_service(settings)


async def _check_messaging_service(settings: Any) -> Finding:
    sid = settings.twilio_messaging_service_sid
    service = await _get_twilio(settings, TWILIO_MESSAGING, f"/v1/Services/{sid}")
    if service.status != OK:
        return problem(
            f"has no messaging service {sid} ({service.status})",
            "check NEST_TWILIO_MESSAGING_SERVICE_SID: it must belong to this account",
        )
    for path, field in TWILIO_SENDERS.items():
        senders = await _get_twilio(settings, TWILIO_MESSAGING, f"/v1/Services/{sid}/{path}")
        if senders.body.get(field):
            return ok(f"the messaging service {sid} has {len(senders.body[field])} {field.replace('_', ' ')}")
    return problem(f"the messaging service {sid} has no sender", "add a number or a name to it in Twilio's console")


async def _get_twilio(settings: Any, base: str, path: str) -> Response:
    login = f"{settings.twilio_account_sid}:{settings.twilio_auth_token.get_secret_value()}"
    headers = {"authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    return await get(f"{settings.twilio_api_base or base}{path}", headers=headers)
