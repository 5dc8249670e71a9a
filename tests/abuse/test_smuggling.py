"""Routes with secrets in their paths, written in ways that two readers may read differently.

One request in is at most one handled, nothing is a fault of ours, and whatever stood in a path stands in no log.
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

Twist = Callable[[str, str], bytes]


def plain(verb: str, path: str, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """A request as it should be."""
    head = [f"{verb} {path} {version}", "Host: nest.test", *headers, "Connection: close", "Content-Length: 2", "", "{}"]
    return "\r\n".join(head).encode("latin-1")


TWISTS: Final[dict[str, Twist]] = {
    "as it should be": plain,
    "encoded slash": lambda verb, path: plain(verb, path.replace(SECRET, f"{SECRET}%2F..%2f{SECRET}")),
    "encoded twice": lambda verb, path: plain(verb, path.replace(SECRET, f"{SECRET}%252F%252e%252e")),
    "dot segments": lambda verb, path: plain(verb, f"{path}/../../{SECRET}"),
    "encoded dot segments": lambda verb, path: plain(verb, f"{path}/%2e%2e/%2E%2E/healthz"),
    "dot segments before": lambda verb, path: plain(verb, f"/healthz/..{path}"),
    "two slashes": lambda verb, path: plain(verb, f"/{path}"),
    "slash behind": lambda verb, path: plain(verb, f"{path}/"),
    "backslash": lambda verb, path: plain(verb, path.replace("/", "\\")),
    "semicolon": lambda verb, path: plain(verb, f"{path};x={SECRET}"),
    "query": lambda verb, path: plain(verb, f"{path}?password={SECRET}&token={SECRET}"),
    "fragment": lambda verb, path: plain(verb, f"{path}#{SECRET}"),
    "upper case": lambda verb, path: plain(verb, "/" + path[1:].partition("/")[0].upper() + path[1:].partition("/")[2]),
    "encoded CRLF": lambda verb, path: plain(verb, f"{path}%0d%0aX-Injected:%20{SECRET}"),
    "encoded NUL": lambda verb, path: plain(verb, f"{path}%00"),
    "NUL": lambda verb, path: plain(verb, f"{path}\0"),
    "not UTF-8": lambda verb, path: plain(verb, f"{path}%ff%fe"),
    "a byte above ASCII": lambda verb, path: plain(verb, f"{path}\xe9"),
    "overlong slash": lambda verb, path: plain(verb, f"{path}%c0%af"),
    "half an escape": lambda verb, path: plain(verb, f"{path}%2"),
    "a space within": lambda verb, path: plain(verb, f"{path} {SECRET}"),
    "absolute form": lambda verb, path: plain(verb, f"http://nest.test{path}"),
    "absolute form of another host": lambda verb, path: plain(verb, f"http://{SECRET}.evil.test{path}"),
    "absolute form with a password": lambda verb, path: plain(verb, f"http://user:{SECRET}@nest.test{path}"),
    "authority form": lambda _verb, _path: plain("CONNECT", f"{SECRET}.test:443"),
    "asterisk": lambda _verb, _path: plain("OPTIONS", "*"),
    "two hosts": lambda verb, path: plain(verb, path, f"Host: {SECRET}.evil.test"),
    "a host that is a path": lambda verb, path: plain(verb, path).replace(b"nest.test", SECRET.encode() + b"/x"),
    "another verb": lambda _verb, path: plain("PATCH", path),
    "a verb of no one's": lambda _verb, path: plain(SECRET.upper(), path),
    "HTTP/1.0": lambda verb, path: plain(verb, path, version="HTTP/1.0"),
    "HTTP/9.9": lambda verb, path: plain(verb, path, version="HTTP/9.9"),
    "CL and TE": lambda verb, path: plain(verb, path, "Transfer-Encoding: chunked"),
    "a second request in the body": lambda verb, path: plain(verb, path) + plain(verb, path)[2:],
    "two requests": lambda verb, path: plain(verb, path).replace(b"Connection: close\r\n", b"") + plain(verb, path),
    "a secret as request id": lambda verb, path: plain(verb, path, f"X-Request-Id: {SECRET}\x01"),
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
    "a megabyte": lambda verb, path: plain(verb, path + "/" + SECRET * 50_000),
    "twenty thousand segments": lambda verb, path: plain(verb, path + "/a" * 20_000),
}


async def talk(url: str, request: bytes) -> tuple[list[int], bytes]:
    """Send bytes and read until the connection is closed, as every request asks for."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    received = b""
    try:
        async with asyncio.timeout(20):
            writer.write(request)
            await writer.drain()
            while piece := await reader.read(65536):
                received += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)], received


async def readable(target: Target) -> list[str]:
    """Where the secret stands that was in all these paths."""
    places = target.logs()
    assert all(places.values())
    for record in await target.records():
        whole = (record.key or b"") + (record.value or b"") + b"".join(value for _, value in record.headers)
        places[f"{record.topic}/{record.partition}/{record.offset}"] = whole
    places["documents"] = str(target.documents()).encode()
    places["traces"] = b"".join(target.traces.bodies)
    return [name for name, text in places.items() if SECRET.encode() in text]


@pytest.mark.parametrize("route", PATHS)
async def test_however_a_path_is_written_it_is_one_request_and_no_fault(target: Target, route: str) -> None:
    verb = VERBS.get(route, "GET")
    for name, twist in TWISTS.items():
        request = twist(verb, PATHS[route])
        statuses, received = await talk(target.nest.urls[0], request)
        whole = 2 if name == "two requests" else 1
        assert len(statuses) <= whole, (name, statuses)
        assert all(status < 500 for status in statuses), (name, statuses, received)
        assert SECRET.encode() not in received, name
        assert b"X-Injected" not in received.partition(b"\r\n\r\n")[0], name
    assert not await readable(target)


async def test_one_request_is_at_most_one_order(target: Target) -> None:
    for route, path in PATHS.items():
        verb = VERBS.get(route, "GET")
        for name in ("as it should be", "second request in the body", "absolute form", "two hosts", "CL and TE"):
            twist = next(twist for known, twist in TWISTS.items() if known.endswith(name))
            before = await target.orders("auth.commands")
            statuses, _ = await talk(target.nest.urls[0], twist(verb, path))
            assert await target.orders("auth.commands") - before <= len(statuses) == 1, (route, name, statuses)
