"""Loopback ports of the embedded servers."""

import contextlib
import random
from pathlib import Path
from typing import Final

from shared.listeners import ANY, listen

LOOPBACK = "127.0.0.1"
_PORTS: Final = (20_000, 32_000)


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on a port now."""
    with contextlib.suppress(OSError):
        listen(host, port).close()
        return True
    return False


def url(host: str, port: int) -> str:
    """Return the URL of an HTTP server on this machine that listens on a host and port, without a slash at the end."""
    if host in {ANY, "0.0.0.0"}:  # noqa: S104 -- compared, not bound
        return f"http://{LOOPBACK}:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def any_free() -> int:
    """Return a free loopback port below the ephemeral ones.

    The kernel gives ephemeral ports to connections and to servers that ask for any port (32768 to 60999 on Linux), so
    one of those might be taken before its use.
    """
    while True:
        port = random.randrange(*_PORTS)  # noqa: S311 -- not a secret
        if is_free(port):
            return port


def stored(file: Path) -> int:
    """Return the port in a file if it is free, otherwise store a new one.

    A replica set's configuration contains its port, so the same port saves a reconfiguration.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        port = int(file.read_text())
        if 0 < port < 1 << 16 and is_free(port):
            return port
    port = any_free()
    file.write_text(str(port))
    return port
