"""Request smuggling: ambiguous requests to routes with secrets in their paths.

One request becomes at most one message, no response is a 5xx, and no secret from a path is readable in a log.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import Final

import pytest

from tests.abuse.conftest import Target

SECRET: Final = "hunter2" + secrets.token_hex(6)
PATHS: Final = {
    "password": f"/appowner/emailpassword/eve@example.com/{SECRET}",
    "token": f"/users/islogged/{SECRET}",
    "uuid": f"/appowner/uuid/{SECRET}",
    "code": f"/register/{SECRET}/{SECRET}",
}
VERBS: Final = {"code": "POST"}

H2C: Final = ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__", "Upgrade: h2c")
Variant = Callable[[str, str], bytes]


def plain(verb: str, path: str, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """A valid request."""
    head = [f"{verb} {path} {version}", "Host: nest.test", *headers, "Connection: close", "Content-Length: 2", "", "{}"]
    return "\r\n".join(head).encode("latin-1")


VARIANTS: Final[dict[str, Variant]] = {
    "valid": plain,
    "encoded slash": lambda verb, path: plain(verb, path.replace(SECRET, f"{SECRET}%2F..%2f{SECRET}")),
    "double-encoded slash": lambda verb, path: plain(verb, path.replace(SECRET, f"{SECRET}%252F%252e%252e")),
    "dot segments": lambda verb, path: plain(verb, f"{path}/../../{SECRET}"),
    "encoded dot segments": lambda verb, path: plain(verb, f"{path}/%2e%2e/%2E%2E/healthz"),
    "leading dot segments": lambda verb, path: plain(verb, f"/healthz/..{path}"),
    "leading double slash": lambda verb, path: plain(verb, f"/{path}"),
    "trailing slash": lambda verb, path: plain(verb, f"{path}/"),
    "backslash": lambda verb, path: plain(verb, path.replace("/", "\\")),
    "semicolon": lambda verb, path: plain(verb, f"{path};x={SECRET}"),
    "query": lambda verb, path: plain(verb, f"{path}?password={SECRET}&token={SECRET}"),
    "fragment": lambda verb, path: plain(verb, f"{path}#{SECRET}"),
    "upper case": lambda verb, path: plain(verb, "/" + path[1:].partition("/")[0].upper() + path[1:].partition("/")[2]),
    "encoded CRLF": lambda verb, path: plain(verb, f"{path}%0d%0aX-Injected:%20{SECRET}"),
    "encoded NUL": lambda verb, path: plain(verb, f"{path}%00"),
    "NUL": lambda verb, path: plain(verb, f"{path}\0"),
    "not UTF-8": lambda verb, path: plain(verb, f"{path}%ff%fe"),
    "not ASCII": lambda verb, path: plain(verb, f"{path}\xe9"),
    "overlong slash": lambda verb, path: plain(verb, f"{path}%c0%af"),
    "incomplete percent-encoding": lambda verb, path: plain(verb, f"{path}%2"),
    "space": lambda verb, path: plain(verb, f"{path} {SECRET}"),
    "absolute form": lambda verb, path: plain(verb, f"http://nest.test{path}"),
    "absolute form of another host": lambda verb, path: plain(verb, f"http://{SECRET}.evil.test{path}"),
    "absolute form with a password": lambda verb, path: plain(verb, f"http://user:{SECRET}@nest.test{path}"),
    "authority form": lambda _verb, _path: plain("CONNECT", f"{SECRET}.test:443"),
    "asterisk": lambda _verb, _path: plain("OPTIONS", "*"),
    "two hosts": lambda verb, path: plain(verb, path, f"Host: {SECRET}.evil.test"),
    "host with a path": lambda verb, path: plain(verb, path).replace(b"nest.test", SECRET.encode() + b"/x"),
    "other method": lambda _verb, path: plain("PATCH", path),
    "unknown method": lambda _verb, path: plain(SECRET.upper(), path),
    "HTTP/1.0": lambda verb, path: plain(verb, path, version="HTTP/1.0"),
    "HTTP/9.9": lambda verb, path: plain(verb, path, version="HTTP/9.9"),
    "CL and TE": lambda verb, path: plain(verb, path, "Transfer-Encoding: chunked"),
    "second request in the body": lambda verb, path: plain(verb, path) + plain(verb, path)[2:],
    "upgrade to h2c": lambda verb, path: plain(verb, path, *H2C),
    "second request in the body of an upgrade": lambda verb, path: plain(verb, path, *H2C) + plain(verb, path)[2:],
    "HTTP/2 after an upgrade": lambda verb, path: plain(verb, path, *H2C) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CL and TE with an upgrade": lambda verb, path: plain(verb, path, *H2C, "Transfer-Encoding: chunked"),
    "upgrade to WebSocket": lambda verb, path: plain(verb, path, "Connection: Upgrade", "Upgrade: websocket"),
    "two requests": lambda verb, path: plain(verb, path).replace(b"Connection: close\r\n", b"") + plain(verb, path),
    "secret as request ID": lambda verb, path: plain(verb, path, f"X-Request-Id: {SECRET}\x01"),
    "spoofed headers": lambda verb, path: plain(
        verb,
        path,
        f"Nest-Caller: {SECRET}",
        f"Reply-To: {SECRET}",
        f"Caller: {SECRET}",
        f"X-User-Id: {SECRET}",
        f"X-Forwarded-For: {SECRET}",
        f"X-Original-Url: /{SECRET}",
        f"X-Http-Method-Override: {SECRET}",
        f"Fingerprint: {SECRET}",
        f"Deadline: {SECRET}",
        f"Traceparent: 00-{SECRET}",
        f"Authorization: bearer {SECRET}",
        f"Idempotency-Key: {SECRET}\t",
    ),
    "one megabyte": lambda verb, path: plain(verb, path + "/" + SECRET * 50_000),
    "20,000 segments": lambda verb, path: plain(verb, path + "/a" * 20_000),
}


async def talk(url: str, request: bytes) -> tuple[list[int], bytes]:
    """Send bytes, and read until the server closes the connection, as all requests demand."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    received = b""
    try:
        async with asyncio.timeout(20):
            writer.write(request)
            await writer.drain()
            while chunk := await reader.read(65536):
                received += chunk
    except ConnectionError:
        pass
    finally:
        writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)], received


async def places_of_secret(target: Target) -> list[str]:
    """Logs, records, documents and traces that contain the secret."""
    places = target.logs()
    assert all(places.values())
    for record in await target.records():
        content = (record.key or b"") + (record.value or b"") + b"".join(value for _, value in record.headers)
        places[f"{record.topic}/{record.partition}/{record.offset}"] = content
    places["documents"] = str(target.documents()).encode()
    places["traces"] = b"".join(target.traces.bodies)
    return [name for name, text in places.items() if SECRET.encode() in text]


@pytest.mark.parametrize("route", PATHS)
async def test_every_variant_is_one_request_below_500_and_leaks_no_secret(target: Target, route: str) -> None:
    verb = VERBS.get(route, "GET")
    for name, variant in VARIANTS.items():
        request = variant(verb, PATHS[route])
        statuses, received = await talk(target.nest.urls[0], request)
        requests = 2 if name == "two requests" else 1
        assert len(statuses) <= requests, (name, statuses)
        assert all(status < 500 for status in statuses), (name, statuses, received)
        assert SECRET.encode() not in received, name
        assert b"X-Injected" not in received.partition(b"\r\n\r\n")[0], name
    assert not await places_of_secret(target)


async def test_one_request_becomes_at_most_one_message(target: Target) -> None:
    for route, path in PATHS.items():
        verb = VERBS.get(route, "GET")
        for name in (
            *("valid", "second request in the body", "absolute form", "two hosts", "CL and TE"),
            *("upgrade to h2c", "second request in the body of an upgrade", "CL and TE with an upgrade"),
        ):
            before = await target.record_count("auth.commands")
            statuses, _ = await talk(target.nest.urls[0], VARIANTS[name](verb, path))
            assert await target.record_count("auth.commands") - before <= len(statuses) == 1, (route, name, statuses)
