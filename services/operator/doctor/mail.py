"""Do mails get out, and are they believed to be ours? The mail servers, and the records of the sender's domain."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from email.utils import parseaddr
from ipaddress import ip_address
from typing import Any, Final

import dns.asyncresolver
import dns.exception
import dns.resolver
from aiosmtplib import SMTP, SMTPAuthenticationError, SMTPException

from services.operator.doctor.findings import Finding, ok, problem, warning
from services.operator.doctor.http import certificate, expiry
from services.operator.doctor.names import RECORDS, Names
from services.operator.doctor.spf import count_lookups, sender_policy

SERVER: Final = "mail server"
SMTP_SECONDS: Final = 8.0
DNS_SECONDS: Final = 12.0
"""For all questions about a domain: some of them follow from others."""
LIVES_IN_TESTS: Final = (".example", ".test", ".invalid", ".localhost")
"""Names that RFC 2606 keeps from the world."""


async def look_at_mail_servers(settings: Any) -> AsyncIterator[Finding]:
    """Whether each mail server can be reached, encrypts, and takes our login; no mail is sent.

    Args:
        settings: the mailer's.
    """
    servers = [which for which in ("smtp", "smtp_second") if getattr(settings, f"{which}_host", None) is not None]
    for findings in await asyncio.gather(*(_mail_server(settings, which) for which in servers)):
        for finding in findings:
            yield finding


async def _mail_server(settings: Any, which: str) -> list[Finding]:
    host, port, tls = (getattr(settings, f"{which}_{part}") for part in ("host", "port", "tls"))
    username, password = (getattr(settings, f"{which}_{part}") for part in ("username", "password"))
    name, variable = f"{host}:{port}", f"NEST_{which.upper()}"
    encryption = None if tls == "none" else ssl.create_default_context(cafile=settings.smtp_ca_file)
    client = SMTP(
        hostname=host,
        port=port,
        use_tls=tls == "implicit",
        # As the mailer does: said outright, so that nothing goes on in plain text.
        start_tls=tls == "required",
        tls_context=encryption,
        timeout=SMTP_SECONDS,
    )
    try:
        await client.connect()
        until = expiry(client.transport)
        if username is not None:
            # One way of saying it: servers count refusals, and grow slow.
            log_in = client.auth_plain if "plain" in client.supported_auth_methods else client.login
            await log_in(username, password.get_secret_value())
        await client.quit()
    except SMTPAuthenticationError as refused:
        return [
            problem(SERVER, f"{name} refuses the login ({refused.code})", f"check {variable}_USERNAME and _PASSWORD")
        ]
    except ssl.SSLError as wrong:
        trust = f"its certificate must bear {host}, or be in NEST_SMTP_CA_FILE"
        return [problem(SERVER, f"{name}: {wrong.reason}", trust)]
    except (SMTPException, OSError, TimeoutError) as failure:
        said = (str(failure) or type(failure).__name__).splitlines()[0]
        # Whoever does not take a certificate hears of it as of a silence.
        trust = "" if tls == "none" else f", and that its certificate bears {host}"
        return [problem(SERVER, f"{name}: {said}", f"check {variable}_HOST, _PORT and _TLS, the way there{trust}")]
    finally:
        client.close()
    if tls == "none":
        return [warning(SERVER, f"{name} answers; mails go there unencrypted", f"set {variable}_TLS to required")]
    well = ok(SERVER, f"{name} answers, encrypted{'' if username is None else ', and takes the login'}")
    return [well, *certificate(SERVER, name, until)]


def lives_in_the_world(mail_from: str, smtp_host: str) -> bool:
    """Whether mails from there leave this machine, to people whose servers look the sender up."""
    domain = domain_of(mail_from)
    try:
        here = ip_address(smtp_host).is_loopback
    except ValueError:
        here = smtp_host == "localhost"
    return not here and not f".{domain}".endswith(LIVES_IN_TESTS)


def domain_of(mail_from: str) -> str:
    """The domain of ``Product <mail@example.com>``."""
    return parseaddr(mail_from)[1].rpartition("@")[2].lower()


async def look_at_mail_records(
    domains: Iterable[str], selectors: Sequence[str], resolver: dns.asyncresolver.Resolver | None = None
) -> AsyncIterator[Finding]:
    """The senders' domains in DNS: MX, SPF (RFC 7208), DKIM (RFC 6376) and DMARC (RFC 7489).

    Args:
        domains: of the senders.
        selectors: under which the mail provider has published DKIM keys.
        resolver: whom to ask; the machine's own by default.
    """
    names = Names(resolver or _own_resolver())
    for findings in await asyncio.gather(*(_mail_records(names, domain, selectors) for domain in domains)):
        for finding in findings:
            yield finding
    if not selectors:
        yield warning(
            RECORDS, "DKIM was not looked at", "give your provider's selector: nest doctor --dkim-selector NAME"
        )


def _own_resolver() -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver()
    resolver.lifetime = DNS_SECONDS / 2
    return resolver


async def _mail_records(names: Names, domain: str, selectors: Sequence[str]) -> list[Finding]:
    try:
        async with asyncio.timeout(DNS_SECONDS):
            servers, policies, lookups, guards, *keys = await asyncio.gather(
                names.of(domain, "MX"),
                names.texts(domain, "v=spf1"),
                count_lookups(names, domain),
                _dmarc_records(names, domain),
                *(names.texts(f"{selector}._domainkey.{domain}", "") for selector in selectors),
            )
    except (dns.exception.DNSException, OSError, TimeoutError) as failure:
        said = (str(failure) or "no answer in time").splitlines()[0]
        return [problem(RECORDS, f"{domain} can't be looked up ({said})", "see that DNS works on this machine")]
    told = [_dkim(domain, selector, records) for selector, records in zip(selectors, keys, strict=True)]
    return [_mx(domain, servers), sender_policy(domain, policies, lookups), *told, _dmarc(domain, guards)]


def _mx(domain: str, servers: list[Any]) -> Finding:
    if not servers:
        return warning(RECORDS, f"{domain} has no MX: what comes back to the sender is lost", "publish one")
    # RFC 7505: a root that stands alone.
    if all(server.exchange.to_text() == "." for server in servers):
        return problem(RECORDS, f"{domain} says that it takes no mail: its mails are refused", "publish a real MX")
    return ok(RECORDS, f"{domain} takes mail (MX)")


def _dkim(domain: str, selector: str, records: list[str]) -> Finding:
    name = f"{selector}._domainkey.{domain}"
    tags = [dict(part.strip().split("=", 1) for part in record.split(";") if "=" in part) for record in records]
    if any("".join(tag.get("p", "").split()) for tag in tags):
        return ok(RECORDS, f"{name} has a DKIM key")
    if any("p" in tag for tag in tags):
        return problem(
            RECORDS, f"{name}: the DKIM key is revoked (p= is empty)", "publish the new key of your mail provider"
        )
    return problem(RECORDS, f"{name} has no DKIM key", "publish what your mail provider names, or check the selector")


async def _dmarc_records(names: Names, domain: str) -> list[str]:
    """Of the domain, or else of the one that it belongs to."""
    labels = domain.split(".")
    for start in range(len(labels) - 1):
        found = await names.texts("_dmarc." + ".".join(labels[start:]), "v=dmarc1")
        if found:
            return found
    return []


def _dmarc(domain: str, records: list[str]) -> Finding:
    if not records:
        return warning(
            RECORDS, f"{domain} has no DMARC record: large providers want one", "begin with _dmarc TXT v=DMARC1; p=none"
        )
    if len(records) > 1:
        return problem(RECORDS, f"{domain} has {len(records)} DMARC records, so none counts", "keep one")
    return ok(RECORDS, f"{domain}: {records[0]}")
