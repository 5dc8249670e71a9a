from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from services.auth.sessions.geoip import GeoIp, Location, UnreadableGeoIpDatabase

BERLIN = {
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "city": {"names": {"en": "Berlin", "de": "Berlin"}},
}
RECORDS: dict[str, Any] = {
    "203.0.113.0/24": BERLIN,
    "2001:db8:1::/48": {"country": {"iso_code": "CH"}},
    "198.51.100.0/24": {"country": "FR", "city": ["Paris"]},
}


def database(folder: Path, *, ip_version: int = 6) -> Path:
    """Write a small GeoIP database, and return its path."""
    writer = MMDBWriter(ip_version=ip_version, ipv4_compatible=ip_version == 6)
    for network, record in RECORDS.items():
        if ip_version == 6 or ":" not in network:
            writer.insert_network(IPSet([network]), record)
    path = folder / "places.mmdb"
    writer.to_db_file(str(path))
    return path


@pytest.mark.parametrize(
    ("network", "location"),
    [
        ("203.0.113.0/24", Location("DE", "Berlin")),
        ("2001:db8:1:2::/64", Location("CH", None)),
        # A record with another structure.
        ("198.51.100.0/24", Location()),
        ("192.0.2.0/24", Location()),
        ("testclient", Location()),
    ],
)
def test_location_is_read_from_the_database(tmp_path: Path, network: str, location: Location) -> None:
    assert GeoIp.open(database(tmp_path)).find(network) == location


def test_ipv4_database_has_no_ipv6_locations(tmp_path: Path) -> None:
    geoip = GeoIp.open(database(tmp_path, ip_version=4))
    assert geoip.find("203.0.113.0/24") == Location("DE", "Berlin")
    assert geoip.find("2001:db8:1:2::/64") == Location()


def test_location_is_unknown_without_a_database() -> None:
    assert GeoIp.open(None).find("203.0.113.0/24") == Location()


def test_other_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "places.mmdb"
    path.write_text("not a database")
    with pytest.raises(UnreadableGeoIpDatabase, match=r"places\.mmdb is not a GeoIP database"):
        GeoIp.open(path)
