"""SMTP sink for benchmarks: accepts every mail at little cost, so that the measurement pays for Nest's side only.

It implements the part of RFC 5321 that a pipelining client needs and writes each mail to a file as a JSON line with
``to``, ``content`` and ``at``: when the mail was complete, in seconds of this machine's monotonic clock.

``python -m tests.bench.mail_sink FILE`` runs it in a process of its own, so that its CPU time can be told apart. It
prints its port and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TextIO, cast

import uvloop

_END = b"\r\n.\r\n"


class MailSink:
    """The SMTP server, as an async context manager.

    Attributes:
        port: its TCP port on loopback.
    """

    def __init__(self, file: Path) -> None:
        self._path = file
        self.port = 0

    async def __aenter__(self) -> Self:
        self._file = self._path.open("w")
        self._server = await asyncio.get_running_loop().create_server(lambda: _Session(self._file), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._file.close()


class _Session(asyncio.Protocol):
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._buffer = b""
        self._in_data = False
        self._to = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the greeting."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        """Reply to every complete command and every complete mail."""
        self._buffer += data
        replies = []
        while (reply := self._next()) is not None:
            replies.append(reply)
        self._transport.write(b"".join(replies))
        self._file.flush()

    def _next(self) -> bytes | None:
        if self._in_data:
            content, end, rest = self._buffer.partition(_END)
            if not end:
                return None
            self._buffer, self._in_data = rest, False
            mail = {"to": self._to, "content": content.decode("latin-1"), "at": time.monotonic()}
            self._file.write(json.dumps(mail) + "\n")
            return b"250 accepted\r\n"
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return None
        self._buffer = rest
        return self._command(line)

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return b"250-sink\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n"
        if verb == b"RCPT":
            self._to = line.partition(b"<")[2].partition(b">")[0].decode()
        if verb == b"DATA":
            self._in_data = True
            return b"354 send the mail\r\n"
        if verb == b"QUIT":
            return b"221 bye\r\n"
        return b"250 ok\r\n"


@asynccontextmanager
async def separate_sink(file: Path) -> AsyncIterator[tuple[int, int]]:
    """Run a sink in a process of its own; yields its port and process ID."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.mail_sink", str(file)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline()), process.pid
    finally:
        process.stdin.close()
        await process.wait()


async def main(file: Path) -> None:
    """Run a sink until standard input ends."""
    async with MailSink(file) as sink:
        sys.stdout.write(f"{sink.port}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
