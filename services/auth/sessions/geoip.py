"""GeoIP: country and city of a network, from a local database file; no external service is called.

The file has MaxMind's format (https://maxmind.github.io/MaxMind-DB/), with records as in GeoIP2 City and Country.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self

import maxminddb


class UnreadableGeoIpDatabase(ValueError):
    """The file is not a GeoIP database."""


@dataclass(frozen=True, slots=True)
class Location:
    """Country (ISO 3166-1 code of two letters) and city (English name) of a network; None if unknown."""

    country: str | None = None
    city: str | None = None


class GeoIp:
    """Finds locations of networks; without a database, all are unknown."""

    def __init__(self, reader: maxminddb.Reader | None = None) -> None:
        self._reader = reader

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Open a database file; None for no database.

        Raises:
            UnreadableGeoIpDatabase: the file can't be read, or has another format.
        """
        if path is None:
            return cls()
        try:
            return cls(maxminddb.open_database(path))
        except (maxminddb.InvalidDatabaseError, OSError, ValueError) as error:
            raise UnreadableGeoIpDatabase(f"{path} is not a GeoIP database: {error}") from error

    def find(self, network: str) -> Location:
        """Location of a network, found by its first address."""
        try:
            address = ip_network(network).network_address
        except ValueError:
            # Callers without an IP address have a network that is not one.
            return Location()
        if self._reader is None or (address.version == 6 and self._reader.metadata().ip_version == 4):  # noqa: PLR2004
            return Location()
        record = self._reader.get(address)
        return Location(country=_text(record, "country", "iso_code"), city=_text(record, "city", "names", "en"))


def _text(record: Any, *path: str) -> str | None:
    """The text at a path in a record; None if there is no text."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record if isinstance(record, str) else None
