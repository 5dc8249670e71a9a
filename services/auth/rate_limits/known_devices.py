"""Known devices: recognition of a person by a device or network from which they have logged in before.

A known device has a quota of its own in the rate limits, so strangers can't use it up.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.auth.rate_limits.models import KnownDevices
from services.auth.rate_limits.store import KnownDevicesStore
from shared.bus.work import Work
from shared.messages.auth.magic_links import Device
from shared.networks import prefix


def device_ids(device: Device | None) -> tuple[str, ...]:
    """Device IDs of the device that a request names: its fingerprint and its beak ID, where present."""
    if device is None:
        return ()
    named = {"fingerprint": device.fingerprint, "beak-id": device.beak_id}
    return tuple(f"{kind}:{value}" for kind, value in named.items() if value is not None)


def network_ids(ip: str | None) -> tuple[str, ...]:
    """Device IDs of a request that names no device: the network of the caller's IP address, if known."""
    return (f"network:{prefix(ip)}",) if ip else ()


@dataclass(frozen=True, slots=True)
class DeviceRecognition:
    """Keyed hashes of the device IDs of a request, and the known devices of its subject."""

    known: KnownDevices
    hashes: tuple[str, ...]
    store: KnownDevicesStore

    @property
    def is_known(self) -> bool:
        """Whether one of the request's devices is known."""
        return not set(self.hashes).isdisjoint(self.known.hashes)

    def remember(self, work: Work) -> None:
        """Add the request's devices to the known ones; call it after a successful login.

        Writes nothing if all of them are known.
        """
        if not set(self.hashes) <= set(self.known.hashes):
            self.store.put(self.known.with_hashes(self.hashes), work)
