"""Which loopback port does an embedded server get?"""

import contextlib
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on this port of that address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port whose last connections are in TIME_WAIT is free for them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((host, port))
            return True
    return False


def any_free() -> int:
    """A loopback port that nobody listens on; another process might still take it before its use."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def remembered(file: Path) -> int:
    """The port that `file` names if it is still free, else a new one, which `file` names from now on.

    A replica set's own configuration names its port, so keeping it saves a reconfiguration.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        port = int(file.read_text())
        if 0 < port < 1 << 16 and is_free(port):
            return port
    port = any_free()
    file.write_text(str(port))
    return port
