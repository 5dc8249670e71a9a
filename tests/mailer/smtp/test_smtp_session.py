import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.mailer.smtp.smtp_session import ConnectionLost, Reply, SmtpSession

Script = Callable[[bytes], bytes | None]
"""Given a line, what to answer; None hangs up."""
CONTENT = b"Subject: Hello\r\n\r\n.one\r\n..two\r\n"


class Server(asyncio.Protocol):
    """Answers lines by a script, and notes what came: whole reads, and the mails' contents."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.reads: list[bytes] = []
        self.contents: list[bytes] = []
        self._rest = b""
        self._content: bytes | None = None

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
            answer = self.script(line)
            if answer is None:
                self.transport.abort()
                return
            if line == b"DATA" and answer.startswith(b"354"):
                self._content = b""
            self.transport.write(answer)


def good(line: bytes) -> bytes:
    return b"354 go on\r\n" if line == b"DATA" else b"250 ok\r\n"


@asynccontextmanager
async def dialogue(script: Script, *, pipelining: bool) -> AsyncIterator[tuple[SmtpSession, Server]]:
    far = Server(script)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: far, "127.0.0.1", 0)
    async with server, asyncio.timeout(5):
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        near = SmtpSession(transport, pipelining=pipelining, smtputf8=True)
        try:
            yield near, far
        finally:
            near.abort()
            far.transport.abort()
            await asyncio.sleep(0)


both = pytest.mark.parametrize("pipelining", [False, True])


@both
async def test_a_mail_is_said_with_its_dots_doubled(pipelining: bool) -> None:  # noqa: FBT001
    async with dialogue(good, pipelining=pipelining) as (near, far):
        assert await near.send("a@nest.example", "b@example.com", CONTENT) == Reply(250, "ok")
        assert (near.stage, near.content_sent, near.ready) == ("DATA", True, True)
        assert far.contents == [b"Subject: Hello\r\n\r\n..one\r\n...two\r\n"]
        said = b"".join(far.reads)
        assert said.startswith(b"MAIL FROM:<a@nest.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")


async def test_pipelined_commands_come_in_one_piece() -> None:
    async with dialogue(good, pipelining=True) as (near, far):
        await near.send("a@nest.example", "b@example.com", CONTENT)
        assert len(far.reads) == 2


@both
async def test_answers_of_many_lines_in_any_pieces_are_one_answer(pipelining: bool) -> None:  # noqa: FBT001
    answers = b"250-first\r\n250-\r\n250 last\r\n"

    def in_pieces(line: bytes) -> bytes:
        if not line.startswith(b"MAIL"):
            return good(line)
        for at in range(len(answers) - 1):
            far.transport.write(answers[at : at + 1])
        return answers[-1:]

    async with dialogue(in_pieces, pipelining=pipelining) as (near, far):
        assert (await near.send("a@nest.example", "b@example.com", CONTENT)).code == 250


@both
@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA"])
async def test_after_a_refusal_the_next_mail_begins_anew(pipelining: bool, stage: str) -> None:  # noqa: FBT001
    refusals = iter([b"550-no\r\n550 never\r\n"])

    def refuse_once(line: bytes) -> bytes:
        return next(refusals, good(line)) if line.startswith(stage.encode()) else good(line)

    async with dialogue(refuse_once, pipelining=pipelining) as (near, far):
        assert await near.send("a@nest.example", "b@example.com", CONTENT) == Reply(550, "no never")
        assert (near.stage, near.content_sent) == (stage, False)
        if near.ready:
            assert (await near.send("a@nest.example", "c@example.com", CONTENT)).code == 250
            assert b"RSET\r\nMAIL" in b"".join(far.reads)
            assert len(far.contents) == 1
        else:
            # It took DATA for nobody, and waits for a content that it must not get.
            assert pipelining
            assert stage != "DATA"


@both
async def test_a_refusal_counts_although_the_server_hangs_up_after_it(pipelining: bool) -> None:  # noqa: FBT001
    def refuse(line: bytes) -> bytes | None:
        if line.startswith(b"RCPT"):
            far.transport.write(b"550 no such user\r\n")
            far.transport.close()
            return b""
        return good(line)

    async with dialogue(refuse, pipelining=pipelining) as (near, far):
        assert (await near.send("a@nest.example", "b@example.com", CONTENT)).code == 550


@both
@pytest.mark.parametrize(
    "nonsense", [b"HTTP/1.1 200 OK\r\n", b"\xff\xfe\r\n", b"2\r\n", b"250_no\r\n", b"x" * 40_000, b"250-x\r\n" * 40_000]
)
async def test_a_server_that_speaks_no_smtp_is_left(pipelining: bool, nonsense: bytes) -> None:  # noqa: FBT001
    async with dialogue(lambda _line: nonsense, pipelining=pipelining) as (near, _):
        with pytest.raises(ConnectionLost, match=r"is not SMTP|exceeds 32768 bytes"):
            await near.send("a@nest.example", "b@example.com", CONTENT)
        assert not near.ready


@both
async def test_a_connection_lost_before_the_content_has_not_taken_the_mail(pipelining: bool) -> None:  # noqa: FBT001
    async with dialogue(lambda line: None if line == b"DATA" else good(line), pipelining=pipelining) as (near, _):
        with pytest.raises(ConnectionLost):
            await near.send("a@nest.example", "b@example.com", CONTENT)
        assert (near.stage, near.content_sent, near.ready) == ("DATA", False, False)


@both
async def test_a_connection_lost_after_the_content_may_have_taken_the_mail(pipelining: bool) -> None:  # noqa: FBT001
    async with dialogue(lambda line: None if line == b"." else good(line), pipelining=pipelining) as (near, _):
        with pytest.raises(ConnectionLost):
            await near.send("a@nest.example", "b@example.com", CONTENT)
        assert (near.stage, near.content_sent) == ("DATA", True)


class Gone(asyncio.Transport):
    """A connection that is gone, as uvloop has them: writing to it is an error."""

    def is_closing(self) -> bool:
        return True

    def write(self, _data: object) -> None:
        raise RuntimeError("unable to perform operation on a closed transport")

    def set_protocol(self, _protocol: asyncio.BaseProtocol) -> None:
        pass

    def close(self) -> None:
        pass


async def test_taking_leave_of_a_server_that_is_gone_says_so() -> None:
    with pytest.raises(ConnectionLost):
        await SmtpSession(Gone(), pipelining=True, smtputf8=True).quit()


async def test_a_server_that_says_something_unasked_gets_no_more_mails() -> None:
    async with dialogue(good, pipelining=True) as (near, far):
        await near.send("a@nest.example", "b@example.com", CONTENT)
        far.transport.write(b"421 idle for too long\r\n")
        while near.ready:  # noqa: ASYNC110 -- the state of a connection
            await asyncio.sleep(0.01)


async def test_a_dot_at_the_very_beginning_is_doubled_too() -> None:
    async with dialogue(good, pipelining=True) as (near, far):
        await near.send("a@nest.example", "b@example.com", b".\r\nmore\r\n")
        assert far.contents == [b"..\r\nmore\r\n"]
