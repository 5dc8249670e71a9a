"""Listening TCP sockets, on IPv4 and IPv6."""

from __future__ import annotations

import errno
import socket
from typing import Final

BACKLOG: Final = 2048
ANY: Final = "::"
"""Every address of this machine, of both families."""


class CannotListen(OSError):
    """The port is in use, or the address is not one of this machine. The text names the setting."""


def listen(host: str, port: int, *, settings: str = "NEST") -> socket.socket:
    """Return a listening socket, which the caller closes.

    Args:
        host: an address of this machine; ``0.0.0.0`` for every IPv4 address; ``::`` for every address of both families,
            and only of IPv4 on a machine without IPv6.
        port: 0 for any free one.
        settings: the common beginning of the two settings, such as ``NEST_HEALTH`` of ``NEST_HEALTH_HOST``.

    Raises:
        CannotListen: the port is in use, or the address is not one of this machine.
    """
    try:
        return _listen_on(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"{settings}_PORT: port {port} at {host} is in use by another process"
        elif error.errno == errno.EACCES:
            reason = f"{settings}_PORT: this user may not listen on port {port}"
        else:
            reason = f"{settings}_HOST: can't listen at {host}: {error.strerror}"
    raise CannotListen(reason)


def _listen_on(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return _listen(family, host, port)
    except OSError as error:
        # The kernel was started with ipv6.disable=1.
        if host != ANY or error.errno != errno.EAFNOSUPPORT:
            raise
    return _listen(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 -- the address is a setting


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    # asyncio disables Nagle's algorithm only for sockets with an explicit protocol, which ``socket.create_server`` does
    # not set. Otherwise a response of two writes waits 40 ms for the peer's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
