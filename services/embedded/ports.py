"""Loopback ports of the embedded servers."""

import contextlib
import socket
from pathlib import Path

from shared.listeners import ANY, listen

LOOPBACK = "127.0.0.1"


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
    """Return a free loopback port; another process may take it before its use."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
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
