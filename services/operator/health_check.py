"""Health check of a container: ``python -m services.operator.health_check``, the ``HEALTHCHECK`` of the image.

Not a command of `nest`, and with the standard library alone: it starts every few seconds, and an import of typer would
take most of its CPU time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Final

TIMEOUT_SECONDS: Final = 3.0
"""Of one address. A service that answers later is too busy to be healthy."""
MAX_BODY_BYTES: Final = 65_536
MAX_REPORT_CHARACTERS: Final = 2_000
"""Docker stores 4,096 bytes of the output."""
SERVICES: Final = frozenset({"gateway", "auth", "billing", "mailer", "news"})
ANY: Final = {"::": ("127.0.0.1", "::1"), "0.0.0.0": ("127.0.0.1",)}  # noqa: S104 -- no address to listen on
"""Addresses to connect to, by the addresses that stand for every one of this machine."""
_OK: Final = 200


def main() -> int:
    """Check the first process of the container, and return the exit code: 0 if it is healthy, otherwise 1."""
    command = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    code, report = check(command, os.environ)
    sys.stdout.write(f"{report[:MAX_REPORT_CHARACTERS]}\n")
    return code


def check(command: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Check a process by its command line and its environment.

    A service is checked at its health port, the gateway without one at the port of its API. Other services without one,
    and commands that end by themselves, such as ``nest topics apply``, are healthy while they run.

    Returns:
        The exit code, and one line for the operator.
    """
    service = service_of(command)
    if service is None:
        return 0, "nothing to check: this command serves no health port"
    prefix, default = ("NEST_HEALTH", "") if environment.get("NEST_HEALTH_PORT") else ("NEST", "8080")
    if prefix == "NEST" and service != "gateway":
        return 0, f"nothing to check: set NEST_HEALTH_PORT to check {service}"
    host, port = environment.get(f"{prefix}_HOST") or "127.0.0.1", environment.get(f"{prefix}_PORT") or default
    if not port.isdecimal() or not 1 <= int(port) <= 65_535:  # noqa: PLR2004 -- a TCP port
        return 1, f"{prefix}_PORT is {port[:40]!r}: set a fixed port, so that the health check finds it"
    failures = []
    for address in ANY.get(host, (host,)):
        healthy, says = _ask(address, int(port))
        if healthy is not None:
            return (0 if healthy else 1), f"{service}: {says}"
        failures.append(says)
    return 1, f"{service}: {'; '.join(failures)}"


def service_of(command: list[str]) -> str | None:
    """Return the service that ``nest run <service>`` runs; None for another command.

    The words before it differ: the interpreter, or an init process such as tini.
    """
    for run, service in pairwise(command):
        if run == "run" and service in SERVICES:
            return service
    return None


def _ask(address: str, port: int) -> tuple[bool | None, str]:
    """Request ``/healthz`` of an address: whether it is healthy, None if it does not answer, and the reasons."""
    connection = HTTPConnection(address, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        return response.status == _OK, f"{response.status} {_reasons(response.read(MAX_BODY_BYTES))}".strip()
    except (OSError, HTTPException) as failure:
        return None, f"no answer from {address} port {port} ({str(failure) or type(failure).__name__})"
    finally:
        connection.close()


def _reasons(body: bytes) -> str:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    reasons = parsed.get("reasons") if isinstance(parsed, dict) else None
    return "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""


if __name__ == "__main__":
    sys.exit(main())
