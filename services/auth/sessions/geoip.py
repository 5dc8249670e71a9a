"""Where in the world is a network? As an operator's database in MaxMind's format says; nobody is asked.

https://maxmind.github.io/MaxMind-DB/ is the format; records are read as GeoIP2 City and Country and those like them lay
them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self

import maxminddb


class UnreadableGeoIpDatabase(ValueError):
    """The file is no database of places."""


@dataclass(frozen=True, slots=True)
class Location:
    """Roughly where.

    Attributes:
        country: ISO 3166-1, two letters; None when it is not known.
        city: by its English name; None when it is not known.
    """

    country: str | None = None
    city: str | None = None


class GeoIp:
    """Tells places of networks.

    Args:
        reader: an open database; None knows no place at all.
    """

    def __init__(self, reader: maxminddb.Reader | None = None) -> None:
        self._reader = reader

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Those of a database; of none without one.

        Raises:
            UnreadableGeoIpDatabase: the file is something else, or can't be read.
        """
        if path is None:
            return cls()
        try:
            return cls(maxminddb.open_database(path))
        except (maxminddb.InvalidDatabaseError, OSError, ValueError) as wrong:
            raise UnreadableGeoIpDatabase(f"{path} is no database of places: {wrong}") from wrong

    def find(self, network: str) -> Location:
        """Where a network is, looked up by its first address: nobody's own address is needed for that."""
        try:
            address = ip_network(network).network_address
        except ValueError:
            # What came without an address is its own network.
            return Location()
        if self._reader is None or (address.version == 6 and self._reader.metadata().ip_version == 4):  # noqa: PLR2004
            return Location()
        record = self._reader.get(address)
        return Location(country=_text(record, "country", "iso_code"), city=_text(record, "city", "names", "en"))


def _text(record: Any, *path: str) -> str | None:
    """What a record says at a place of it; None for anything but a text."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record if isinstance(record, str) else None
