from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, Final

import pytest

from services.cli import Name
from services.operator.health_check import SERVICES, check, service_of

RUN_AUTH: Final = ["/opt/nest/bin/python", "/opt/nest/bin/nest", "run", "auth", ""]
RUN_GATEWAY: Final = ["/opt/nest/bin/python", "/opt/nest/bin/nest", "run", "gateway", ""]


class Server(HTTPServer):
    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self.server_address[0] != "::")
        super().server_bind()


class Handler(BaseHTTPRequestHandler):
    response: tuple[int, Any] = (200, {"status": "ok"})

    def do_GET(self) -> None:
        status, body = self.response if self.path == "/healthz" else (404, {})
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(host: str, *response: Any) -> Iterator[str]:
    """A server of the health endpoint; yields its port."""
    Handler.response = response or (200, {"status": "ok"})
    with Server(host) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield str(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::", "0.0.0.0"])
def test_a_service_is_found_on_each_address_family(host: str) -> None:
    with serving(host) as port:
        environment = {"NEST_HEALTH_PORT": port, "NEST_HEALTH_HOST": host}
        assert check(RUN_AUTH, environment) == (0, "auth: 200")


def test_a_service_for_every_address_is_found_on_ipv6_alone() -> None:
    with serving("::1") as port:
        assert check(RUN_AUTH, {"NEST_HEALTH_PORT": port, "NEST_HEALTH_HOST": "::"}) == (0, "auth: 200")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ((200, {"status": "ok"}), (0, "auth: 200")),
        (
            (503, {"status": "failing", "reasons": ["Kafka is away", "the clock is wrong"]}),
            (1, "auth: 503 Kafka is away; the clock is wrong"),
        ),
        ((503, b"<html>"), (1, "auth: 503")),
        ((404, {}), (1, "auth: 404")),
        ((204, b""), (1, "auth: 204")),
        ((503, {"reasons": "text"}), (1, "auth: 503")),
        ((503, [1]), (1, "auth: 503")),
    ],
)
def test_only_status_200_is_healthy(response: tuple[int, Any], expected: tuple[int, str]) -> None:
    with serving("127.0.0.1", *response) as port:
        assert check(RUN_AUTH, {"NEST_HEALTH_PORT": port}) == expected


def test_a_service_that_does_not_listen_is_unhealthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, report = check(RUN_AUTH, {"NEST_HEALTH_PORT": str(port), "NEST_HEALTH_HOST": "::"})
    assert code == 1
    assert f"no answer from 127.0.0.1 port {port}" in report
    assert f"no answer from ::1 port {port}" in report


def test_a_server_without_http_is_unhealthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def close_the_connection() -> None:
            server.accept()[0].close()

        Thread(target=close_the_connection).start()
        code, report = check(RUN_AUTH, {"NEST_HEALTH_PORT": str(port)})
    assert (code, "no answer" in report) == (1, True)


def test_the_gateway_without_a_health_port_is_checked_at_the_api() -> None:
    with serving("::") as port:
        assert check(RUN_GATEWAY, {"NEST_PORT": port, "NEST_HOST": "::"}) == (0, "gateway: 200")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "8081x", "²"])
def test_a_port_that_cannot_be_found_is_unhealthy(port: str) -> None:
    code, report = check(RUN_AUTH, {"NEST_HEALTH_PORT": port})
    assert code == 1
    assert report.startswith("NEST_HEALTH_PORT is")


@pytest.mark.parametrize(
    "command",
    [
        ["python", "nest", "topics", "apply", ""],
        ["python", "nest", "stripe", "run"],
        ["python", "nest", "--help"],
        ["python", "nest", "run", "--help"],
        ["sleep", "60"],
        [""],
        [],
    ],
)
def test_commands_that_end_have_nothing_to_check(command: list[str]) -> None:
    assert check(command, {"NEST_HEALTH_PORT": "1"})[0] == 0


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"gateway"}))
def test_services_without_a_health_port_have_nothing_to_check(service: str) -> None:
    code, report = check(["nest", "run", service], {})
    assert (code, "NEST_HEALTH_PORT" in report) == (0, True)


def test_every_service_is_recognised_behind_an_init_process() -> None:
    assert {*Name} == SERVICES
    for name in Name:
        assert (
            service_of(["/sbin/docker-init", "--", "/opt/nest/bin/python", "/opt/nest/bin/nest", "run", name]) == name
        )


def test_the_check_imports_the_standard_library_alone() -> None:
    program = (
        "import sys; before = set(sys.modules); import services.operator.health_check;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert set(ran.stdout.split()) <= {"services", *sys.stdlib_module_names}
