"""Equal queries of anonymous callers: combined, as fresh as a query of their own, and independent of each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from services.gateway.errors import ReplyTimeout
from services.gateway.rpc_client import RpcReply
from services.gateway.shared_queries import PAUSE_SECONDS, SharedQueries
from shared.bus.envelope import Envelope
from shared.ids import new_message_id
from tests.gateway.conftest import GatewayStack
from tests.stack import eventually

PATH = "/1/2021-10-06/list_news_items"


class Replies:
    """RPC client that records the messages and replies on demand."""

    def __init__(self) -> None:
        self.sent: list[tuple[Envelope, asyncio.Future[RpcReply]]] = []

    async def call(self, envelope: Envelope) -> RpcReply:
        reply = asyncio.get_running_loop().create_future()
        self.sent.append((envelope, reply))
        return await reply

    def answer(self, number: int, body: bytes) -> None:
        self.sent[number][1].set_result(RpcReply("done", body, replayed=False))


@pytest.fixture
def replies() -> Replies:
    return Replies()


@pytest.fixture
def request_news(replies: Replies) -> Callable[..., asyncio.Task[RpcReply]]:
    queries = SharedQueries(replies)  # type: ignore[arg-type]  # the part of it that is used

    def request(body: bytes = b"{}") -> asyncio.Task[RpcReply]:
        envelope = Envelope(
            id=new_message_id(), wire="news.list-news-items", topic="news.commands", key="", body=body, time=0
        )
        return asyncio.create_task(queries.call(queries.join(envelope)))

    return request


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


Request = Callable[..., asyncio.Task[RpcReply]]


async def test_equal_queries_share_a_message_and_others_do_not(replies: Replies, request_news: Request) -> None:
    waiting = [request_news() for _ in range(10)]
    other = request_news(b'{"locale":"de"}')
    await turns()
    assert [envelope.body for envelope, _ in replies.sent] == [b"{}", b'{"locale":"de"}']
    replies.answer(0, b"[]")
    replies.answer(1, b"[1]")
    assert {(await each).body for each in waiting} == {b"[]"}
    assert (await other).body == b"[1]"


async def test_no_reply_is_older_than_its_request(replies: Replies, request_news: Request) -> None:
    first = request_news()
    await turns()
    later = [request_news() for _ in range(5)]
    await turns()
    assert len(replies.sent) == 1
    replies.answer(0, b"before")
    assert (await first).body == b"before"
    await turns()
    assert len(replies.sent) == 2
    replies.answer(1, b"after")
    assert {(await each).body for each in later} == {b"after"}


async def test_hanging_query_delays_the_next_one_briefly(replies: Replies, request_news: Request) -> None:
    hanging = request_news()
    await turns()
    began, later = time.monotonic(), request_news()
    await eventually(lambda: len(replies.sent) == 2)
    assert PAUSE_SECONDS * 0.9 <= time.monotonic() - began < 10
    replies.answer(1, b"[]")
    assert (await later).body == b"[]"
    replies.answer(0, b"[]")
    await hanging


async def test_disconnected_client_takes_no_reply_from_the_others(replies: Replies, request_news: Request) -> None:
    gone, other = request_news(), request_news()
    await turns()
    gone.cancel()
    await turns()
    replies.answer(0, b"[]")
    assert (await other).body == b"[]"


async def test_failure_is_that_of_all_and_of_no_later_query(replies: Replies, request_news: Request) -> None:
    waiting = [request_news() for _ in range(3)]
    await turns()
    replies.sent[0][1].set_exception(ReplyTimeout())
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in failures] == [ReplyTimeout] * 3
    later = request_news()
    await turns()
    replies.answer(1, b"[]")
    assert (await later).body == b"[]"


async def test_each_user_has_a_query_of_their_own(stack: GatewayStack) -> None:
    release = asyncio.Event()

    async def wait(_: Envelope) -> None:
        await release.wait()

    stack.services.before_reply = wait
    stack.services.replies["news.list-news-items"] = lambda envelope: [envelope.caller.user_id]
    callers = ({}, {}, {}, stack.bearer("user_1"), stack.bearer("user_2"))
    requests = [asyncio.create_task(stack.http.post(PATH, json={"client_id": "c"}, headers=each)) for each in callers]
    await asyncio.sleep(0.3)
    release.set()
    responses = [await each for each in requests]
    assert [each.json() for each in responses] == [[None], [None], [None], ["user_1"], ["user_2"]]
    anonymous = [each for each in stack.services.received if each.caller.user_id is None]
    assert len(stack.services.received) == len(anonymous) + 2
    assert len(anonymous) < 3
