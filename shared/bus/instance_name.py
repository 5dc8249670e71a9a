"""Instance names, which distinguish the processes of a service.

A restarted process has the name of the one that it replaces. Kafka then gives it the partitions of that one at once
(static membership, KIP-345), instead of waiting for the session timeout and moving every partition of the group.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import socket
import sys
from typing import Final

MAX_HOST_CHARACTERS: Final = 200
"""Kafka allows 249 characters for a name."""
_NOT_ALLOWED: Final = re.compile(r"[^a-zA-Z0-9._-]")


class InstanceName:
    """A name that no other running process of this machine has in the same consumer group.

    It is the host name and the lowest free number, such as ``auth-7d9f8-1``. The name is free again when the process
    ends, however it ends: an abstract Unix socket holds it, which the kernel closes. Two containers or machines with
    the same host name have the same names, and then need a name of their own in ``NEST_INSTANCE``. Where there are no
    abstract sockets (macOS), the process ID takes the place of the number, and a restarted process has a new name.

    Args:
        group: the consumer group, with the address of its Kafka.
        configured: the value of ``NEST_INSTANCE``; used as it is, unless it is empty.
    """

    def __init__(self, group: str, configured: str = "") -> None:
        self._holder: socket.socket | None = None
        self.text = configured or self._claim(hashlib.sha256(group.encode()).hexdigest()[:32])

    def release(self) -> None:
        """Free the name for another process."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def _claim(self, scope: str) -> str:
        host = _NOT_ALLOWED.sub("-", socket.gethostname())[:MAX_HOST_CHARACTERS] or "nest"
        if sys.platform != "linux":
            return f"{host}-{os.getpid()}"
        for number in itertools.count(1):
            holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                holder.bind(f"\0nest {scope} {number}")
            except OSError as taken:
                holder.close()
                if taken.errno != errno.EADDRINUSE:
                    raise
            else:
                self._holder = holder
                return f"{host}-{number}"
        raise AssertionError
