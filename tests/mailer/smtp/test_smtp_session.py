import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.mailer.smtp.smtp_session import ConnectionLost, Reply, SmtpSession

Script = Callable[[bytes], bytes | None]
"""Returns the reply to a line; None closes the connection."""
SENDER, RECIPIENT = "a@nest.example", "b@example.com"
CONTENT = b"Subject: Hello\r\n\r\n.one\r\n..two\r\n"


class ScriptedServer(asyncio.Protocol):
    """Server that replies to lines by a script, and records each read and the contents of mails."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.reads: list[bytes] = []
        self.contents: list[bytes] = []
        self._rest = b""
        self._content: bytes | None = None
        self.closed = False

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.reads.append(data)
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if self._content is not None and line != b".":
                self._content += line + b"\r\n"
                continue
            if self._content is not None:
                self.contents.append(self._content)
                self._content = None
            reply = self.script(line)
            if reply is None:
                self.transport.abort()
                return
            if line == b"DATA" and reply.startswith(b"354"):
                self._content = b""
            self.transport.write(reply)


def accept(line: bytes) -> bytes:
    return b"354 go on\r\n" if line == b"DATA" else b"250 ok\r\n"


@asynccontextmanager
async def connected(script: Script, *, pipelining: bool) -> AsyncIterator[tuple[SmtpSession, ScriptedServer]]:
    scripted = ScriptedServer(script)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: scripted, "127.0.0.1", 0)
    async with listener, asyncio.timeout(30):
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.sockets[0].getsockname())
        session = SmtpSession(transport, pipelining=pipelining, smtputf8=True)
        try:
            yield session, scripted
        finally:
            session.abort()
            scripted.transport.abort()
            await asyncio.sleep(0)


with_and_without_pipelining = pytest.mark.parametrize("pipelining", [False, True])


@with_and_without_pipelining
async def test_mail_is_sent_dot_stuffed(pipelining: bool) -> None:  # noqa: FBT001
    async with connected(accept, pipelining=pipelining) as (session, server):
        assert await session.send(SENDER, RECIPIENT, CONTENT) == Reply(250, "ok")
        assert (session.stage, session.content_sent, session.ready) == ("DATA", True, True)
        assert server.contents == [b"Subject: Hello\r\n\r\n..one\r\n...two\r\n"]
        received = b"".join(server.reads)
        assert received.startswith(b"MAIL FROM:<a@nest.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")


async def test_dot_at_the_beginning_of_the_content_is_stuffed() -> None:
    async with connected(accept, pipelining=True) as (session, server):
        await session.send(SENDER, RECIPIENT, b".\r\nmore\r\n")
        assert server.contents == [b"..\r\nmore\r\n"]


async def test_pipelined_commands_are_sent_at_once() -> None:
    async with connected(accept, pipelining=True) as (session, server):
        await session.send(SENDER, RECIPIENT, CONTENT)
        assert len(server.reads) == 2


@with_and_without_pipelining
async def test_multiline_reply_in_fragments_is_one_reply(pipelining: bool) -> None:  # noqa: FBT001
    reply = b"250-first\r\n250-\r\n250 last\r\n"

    def reply_in_fragments(line: bytes) -> bytes:
        if not line.startswith(b"MAIL"):
            return accept(line)
        for position in range(len(reply) - 1):
            server.transport.write(reply[position : position + 1])
        return reply[-1:]

    async with connected(reply_in_fragments, pipelining=pipelining) as (session, server):
        assert (await session.send(SENDER, RECIPIENT, CONTENT)).code == 250


@with_and_without_pipelining
@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
async def test_rejected_mail_is_reset_before_the_next_one(pipelining: bool, stage: str) -> None:  # noqa: FBT001
    rejections = iter([b"550-no\r\n550 never\r\n"])

    def reject_once(line: bytes) -> bytes:
        return next(rejections, accept(line)) if line.startswith(stage.encode()) else accept(line)

    async with connected(reject_once, pipelining=pipelining) as (session, server):
        assert await session.send(SENDER, RECIPIENT, CONTENT) == Reply(550, "no never")
        assert (session.stage, session.content_sent) == (stage, False)
        if session.ready:
            assert (await session.send(SENDER, "c@example.com", CONTENT)).code == 250
            assert b"RSET\r\nMAIL" in b"".join(server.reads)
            assert len(server.contents) == 1
        else:
            # The server accepted DATA without a recipient and waits for content, which it must not receive.
            assert pipelining
            assert stage != "DATA"


@with_and_without_pipelining
async def test_rejection_is_returned_if_the_server_then_disconnects(pipelining: bool) -> None:  # noqa: FBT001
    def reject_and_close(line: bytes) -> bytes | None:
        if line.startswith(b"RCPT"):
            server.transport.write(b"550 no such user\r\n")
            server.transport.close()
            return b""
        return accept(line)

    async with connected(reject_and_close, pipelining=pipelining) as (session, server):
        assert (await session.send(SENDER, RECIPIENT, CONTENT)).code == 550


@with_and_without_pipelining
@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 200 OK\r\n", b"\xff\xfe\r\n", b"2\r\n", b"250_no\r\n", b"x" * 40_000, b"250-x\r\n" * 40_000]
)
async def test_invalid_or_endless_reply_ends_the_session(pipelining: bool, reply: bytes) -> None:  # noqa: FBT001
    async with connected(lambda _line: reply, pipelining=pipelining) as (session, _):
        with pytest.raises(ConnectionLost, match=r"is not SMTP|exceeds 32768 bytes"):
            await session.send(SENDER, RECIPIENT, CONTENT)
        assert not session.ready


@with_and_without_pipelining
@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL", b"250 ok\r\n250 ok\r\n"),
        ("MAIL", b"354 go on\r\n"),
        ("RCPT", b"250 ok\r\n250 ok\r\n"),
        ("RCPT", b"354 go on\r\n"),
        ("DATA", b"250 ok\r\n"),
        ("DATA", b"251 ok\r\n"),
        ("DATA", b"250 ok\r\n354 go on\r\n"),
        ("DATA", b"354 go on\r\n354 go on\r\n"),
        ("DATA", b"354 go on\r\n250 ok\r\n"),
        ("DATA", b"354 go on\r\n250-"),
        ("DATA", b"154 go on\r\n"),
        ("DATA", b"654 go on\r\n"),
    ],
)
async def test_reply_that_was_not_due_ends_the_session_without_content(
    *, pipelining: bool, command: str, reply: bytes
) -> None:
    def reply_strangely(line: bytes) -> bytes:
        return reply if line.startswith(command.encode()) else accept(line)

    async with connected(reply_strangely, pipelining=pipelining) as (session, server):
        with pytest.raises(ConnectionLost):
            await session.send(SENDER, RECIPIENT, CONTENT)
        assert (session.content_sent, session.ready) == (False, False)
        assert server.contents == []


@with_and_without_pipelining
@pytest.mark.parametrize("code", [200, 250, 251, 252, 299])
async def test_any_2yz_after_the_content_accepts_the_mail(*, pipelining: bool, code: int) -> None:
    """RFC 5321 section 4.2: a client decides by the first digit of codes that it does not know."""
    async with connected(lambda line: b"%d ok\r\n" % code if line == b"." else accept(line), pipelining=pipelining) as (
        session,
        _,
    ):
        reply = await session.send(SENDER, RECIPIENT, CONTENT)
        assert (reply.code, reply.completed, session.content_sent, session.ready) == (code, True, True, True)


@with_and_without_pipelining
async def test_second_reply_to_the_content_ends_the_session(*, pipelining: bool) -> None:
    async with connected(
        lambda line: b"250 ok\r\n250 ok\r\n" if line == b"." else accept(line), pipelining=pipelining
    ) as (session, server):
        assert (await session.send(SENDER, RECIPIENT, CONTENT)).completed
        assert not session.ready
        with pytest.raises(ConnectionLost):
            await session.send(SENDER, "c@example.com", CONTENT)
        assert len(server.contents) == 1


@with_and_without_pipelining
async def test_second_354_after_the_content_leaves_the_outcome_open(*, pipelining: bool) -> None:
    async with connected(lambda line: b"354 go on\r\n" if line == b"." else accept(line), pipelining=pipelining) as (
        session,
        _,
    ):
        with pytest.raises(ConnectionLost, match="unexpected reply to the content: 354"):
            await session.send(SENDER, RECIPIENT, CONTENT)
        assert (session.content_sent, session.ready) == (True, False)


@with_and_without_pipelining
async def test_disconnect_before_the_content_means_not_accepted(pipelining: bool) -> None:  # noqa: FBT001
    async with connected(lambda line: None if line == b"DATA" else accept(line), pipelining=pipelining) as (session, _):
        with pytest.raises(ConnectionLost):
            await session.send(SENDER, RECIPIENT, CONTENT)
        assert (session.stage, session.content_sent, session.ready) == ("DATA", False, False)


@with_and_without_pipelining
async def test_disconnect_after_the_content_may_mean_accepted(pipelining: bool) -> None:  # noqa: FBT001
    async with connected(lambda line: None if line == b"." else accept(line), pipelining=pipelining) as (session, _):
        with pytest.raises(ConnectionLost):
            await session.send(SENDER, RECIPIENT, CONTENT)
        assert (session.stage, session.content_sent) == ("DATA", True)


class ClosedTransport(asyncio.Transport):
    """Closed connection, as with uvloop: a write raises an error. So may a second close."""

    def is_closing(self) -> bool:
        return True

    def write(self, _data: object) -> None:
        raise RuntimeError("unable to perform operation on a closed transport")

    def set_protocol(self, _protocol: asyncio.BaseProtocol) -> None:
        pass

    def close(self) -> None:
        raise AssertionError("closed twice")


async def test_quit_on_a_closed_connection_raises_connection_lost() -> None:
    with pytest.raises(ConnectionLost):
        await SmtpSession(ClosedTransport(), pipelining=True, smtputf8=True).quit()


@pytest.mark.parametrize("stray", [b"421 idle for too long\r\n", b"250 ok\r\n", b"2"])
async def test_reply_while_idle_closes_the_connection(stray: bytes) -> None:
    async with connected(accept, pipelining=True) as (session, server):
        await session.send(SENDER, RECIPIENT, CONTENT)
        server.transport.write(stray)
        while not server.closed:  # noqa: ASYNC110 -- the state of a connection
            await asyncio.sleep(0.01)
        assert not session.ready
