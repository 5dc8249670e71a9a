"""Email addresses: their normal form, and the ordering key of messages about one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from email_validator import EmailNotValidError, validate_email

from shared.messages.auth.errors import InvalidEmail
from shared.messages.types import trimmed_address
from shared.sealing import Sealer

PLAIN_LOCAL_PART: Final = re.compile(r"[A-Za-z0-9_+-]{1,31}(?:\.[A-Za-z0-9_+-]{1,31})?")
"""Local parts that are valid in any address: a subset of the dot-atom of RFC 5322, within RFC 5321's 64 characters."""
MAX_ADDRESS_LENGTH: Final = 254
"""RFC 5321 section 4.5.3.1.3: 256 octets with the angle brackets."""
MAX_WRITTEN_LENGTH: Final = 64 + 1 + 253
"""Longest text that is parsed: local part and domain have at most this many characters in any spelling (RFC 5321
section 4.5.3.1). Bounds the time of the parser."""


def normal_email(text: str, *, test_domains: bool) -> str:
    """Return the normal form of an email address: ASCII, in lower case.

    All comparisons, documents and mails use this form, never the text that was typed. So a person who follows a link
    has proven control of exactly the address that identifies the account. Spellings that mean one mailbox everywhere in
    practice (case, an international domain and its punycode, white space around the address) become one account.
    Spellings that may be two mailboxes (dots, ``+tags``, letters outside ASCII) stay different. The local part must be
    ASCII, since few mail servers accept anything else (RFC 6531), and a dot-atom: ``taro.@example.com``, which some
    mobile carriers assigned, has no form that all mail servers accept (RFC 5321 section 4.1.2). ``.test`` domains
    (RFC 6761) are valid only if ``test_domains``, never in production.

    Raises:
        InvalidEmail: the text is not the address of a mailbox. DNS is not queried.
    """
    text = trimmed_address(text)
    if len(text) > MAX_WRITTEN_LENGTH:
        raise InvalidEmail
    local, _, domain = text.partition("@")
    if PLAIN_LOCAL_PART.fullmatch(local):
        # Full validation of the same few domains would cost as much as the rest of the request, so it is cached.
        plain = f"{local.lower()}@{_normal_domain(domain, test_domains=test_domains)}"
        if len(plain) <= MAX_ADDRESS_LENGTH:
            return plain
    return _validated(text, test_domains=test_domains)


def comparable(text: str) -> str:
    """Return the form in which two typed addresses are compared: the normal form.

    For a text that is no address, such as a phone number, it is the trimmed text in lower case.
    """
    try:
        # Domains under .test are valid in some deployments only. Where they are, the normal form is the same.
        return normal_email(text, test_domains=True)
    except InvalidEmail:
        return trimmed_address(text).lower()


def address_ordering_key(address: str, sealer: Sealer) -> str:
    """Return the ordering key of an email address, 64 hex characters; all its spellings have the same key.

    The key is computed from the normal form, by which rate limits count: if two spellings had two keys, their messages
    would be handled at the same time, and a limit would be decided on counts that miss each other. A text that is no
    address is refused by its handler; its key is that of the trimmed text in lower case.

    It is a keyed hash, so that readers of Kafka can't find the address by trying addresses. Services that send messages
    of one type about an address must all use this key. It changes with the active sealing key.
    """
    return sealer.fingerprint(b"e-mail address", comparable(address).encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=4_096)
def _normal_domain(domain: str, *, test_domains: bool) -> str:
    return _validated(f"a@{domain}", test_domains=test_domains).partition("@")[2]


def _validated(text: str, *, test_domains: bool) -> str:
    try:
        valid = validate_email(
            text,
            allow_smtputf8=False,
            allow_quoted_local=False,
            check_deliverability=False,
            strict=True,
            test_environment=test_domains,
        )
    except EmailNotValidError as invalid:
        raise InvalidEmail from invalid
    if valid.ascii_email is None:
        raise InvalidEmail
    return valid.ascii_email.lower()
