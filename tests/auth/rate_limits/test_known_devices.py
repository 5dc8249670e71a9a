from services.auth.rate_limits.known_devices import device_ids, network_ids
from shared.messages.auth.magic_links import Device

IP = "203.0.113.9"
NEIGHBOUR = "203.0.113.77"


def test_device_ids_are_the_fingerprint_and_the_beak_id() -> None:
    assert device_ids(None) == ()
    assert device_ids(Device(platform="mac")) == ()
    assert device_ids(Device(fingerprint="a", beak_id="b")) == ("fingerprint:a", "beak-id:b")


def test_network_id_is_the_prefix_of_the_ip_address() -> None:
    assert network_ids(IP) == network_ids(NEIGHBOUR) == ("network:203.0.113.0/24",)
    assert network_ids(None) == ()
