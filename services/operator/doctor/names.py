"""What does DNS say of a name? A name that is not there has no records."""

from __future__ import annotations

from typing import Any, Final

import dns.asyncresolver
import dns.resolver

RECORDS: Final = "mail records"
"""The area of what is found."""


class Names:
    """Asks DNS.

    Args:
        resolver: whom.
    """

    def __init__(self, resolver: dns.asyncresolver.Resolver) -> None:
        self._resolver = resolver

    async def of(self, name: str, kind: str) -> list[Any]:
        """The records of a name.

        Raises:
            dns.exception.DNSException: nobody answers.
        """
        try:
            return list(await self._resolver.resolve(name, kind))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []

    async def texts(self, name: str, beginning: str) -> list[str]:
        """The texts of a name that begin so; a text in pieces is one."""
        found = [b"".join(record.strings).decode("utf-8", "replace") for record in await self.of(name, "TXT")]
        return [text for text in found if text.lower().startswith(beginning)]
