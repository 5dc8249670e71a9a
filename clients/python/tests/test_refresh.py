"""Refreshes: one at a time among threads, tasks and processes; lost responses; ended sessions."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from fake_nest import FakeNest, refusal
from nest_client import AsyncClient, Client, FileStore, MemoryStore, Retries, Tokens, TokenStore, errors
from nest_client.refresh import refreshed

Stores = Callable[[Tokens], TokenStore]


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path, tokens: Tokens) -> TokenStore:
    if request.param == "memory":
        return MemoryStore(tokens)
    kept = FileStore(tmp_path / "tokens.json")
    kept.save(tokens)
    return kept


def expired(store: TokenStore) -> None:
    now = store.load()
    assert now
    store.save(replace(now, expires_at=time.time()))


def test_expired_token_is_refreshed_before_the_call(client: Client, fake: FakeNest, store: TokenStore) -> None:
    expired(store)

    result = client.session(store).call("get_x", {}, command=False)

    assert result["path"].endswith("/get_x")
    assert [each.url.path.rpartition("/")[2] for each in fake.requests] == ["authenticate_user", "get_x"]
    assert store.load() == replace(client.session(store).tokens, access_token="a1", refresh_token="r1")


def test_refused_token_is_refreshed_and_the_command_repeated_once(
    client: Client, fake: FakeNest, store: TokenStore
) -> None:
    fake.faults = [refusal(401, "unauthorized", reason="token_expired")]

    client.session(store).call("do_x", {}, command=True)

    keys = {each.headers["idempotency-key"] for each in fake.calls("do_x")}
    assert (len(fake.calls("do_x")), len(keys), fake.generation) == (2, 1, 1)


def test_many_threads_refresh_once(client: Client, fake: FakeNest, store: TokenStore) -> None:
    expired(store)
    session = client.session(store)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: session.call("get_x", {}, command=False), range(32)))

    assert (fake.generation, fake.reused, len(fake.calls("authenticate_user"))) == (1, 0, 1)


async def test_many_tasks_refresh_once(fake: FakeNest, store: TokenStore) -> None:
    expired(store)
    async with httpx.AsyncClient(transport=httpx.MockTransport(fake.handle)) as http:
        session = AsyncClient("http://nest.test", http=http).session(store)
        await asyncio.gather(*(session.call("get_x", {}, command=False) for _ in range(32)))

    assert (fake.generation, fake.reused, len(fake.calls("authenticate_user"))) == (1, 0, 1)


def test_newer_tokens_of_another_process_are_taken(client: Client, fake: FakeNest, store: TokenStore) -> None:
    fake.generation = 1
    session = client.session(store)

    used = session.tokens
    store.save(replace(used, access_token="a1", refresh_token="r1"))
    newer = client.run(refreshed(store, used, client.retries))

    assert (newer.access_token, fake.requests) == ("a1", [])


def test_call_is_not_repeated_for_another_person(client: Client, fake: FakeNest, store: TokenStore) -> None:
    used = client.session(store).tokens
    store.save(replace(used, access_token="b0", user_id="user_2"))

    with pytest.raises(errors.LoginRequired):
        client.run(refreshed(store, used, client.retries))

    assert fake.requests == []
    assert client.session(store).tokens.user_id == "user_2"


def test_lost_response_is_fetched_with_the_same_key(client: Client, fake: FakeNest, store: TokenStore) -> None:
    expired(store)
    fake.lost = {1}

    client.session(store).call("get_x", {}, command=False)

    refreshes = fake.calls("authenticate_user")
    assert len({each.headers["idempotency-key"] for each in refreshes}) == 1
    assert (len(refreshes), fake.generation, fake.reused) == (2, 1, 0)


def test_refresh_that_failed_is_continued_with_its_key(client: Client, fake: FakeNest, store: TokenStore) -> None:
    expired(store)
    fake.lost = {1}
    client.retries = Retries(within=0)
    session = client.session(store)

    with pytest.raises(errors.ConnectionFailed):
        session.refresh()
    pending = session.tokens
    session.refresh()

    assert pending.refresh_key == fake.requests[0].headers["idempotency-key"]
    assert fake.requests[1].headers["idempotency-key"] == pending.refresh_key
    assert (session.tokens.refresh_token, session.tokens.refresh_key, fake.reused) == ("r1", None, 0)


async def test_cancelled_refresh_releases_the_lock_and_is_continued(fake: FakeNest, store: TokenStore) -> None:
    expired(store)
    arrived = asyncio.Event()

    async def hang_once(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if not arrived.is_set():
            arrived.set()
            await asyncio.sleep(60)
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(hang_once)) as http:
        session = AsyncClient("http://nest.test", http=http).session(store)
        task = asyncio.create_task(session.refresh())
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.refresh()

    assert len({each.headers["idempotency-key"] for each in fake.requests}) == 1
    assert (session.tokens.refresh_token, fake.reused) == ("r1", 0)


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "token_not_found"), (404, "authorization_not_found"), (409, "token_used"), (410, "token_expired")],
)
def test_ended_session_loses_its_tokens(
    client: Client, fake: FakeNest, store: TokenStore, status: int, code: str
) -> None:
    expired(store)
    fake.faults = [refusal(status, code)]

    with pytest.raises(errors.LoginRequired):
        client.session(store).call("get_x", {}, command=False)

    assert store.load() is None


def test_other_refusal_keeps_the_tokens_and_drops_the_key(client: Client, fake: FakeNest, store: TokenStore) -> None:
    expired(store)
    fake.faults = [refusal(403, "client_disabled")]
    session = client.session(store)

    with pytest.raises(errors.ClientDisabled):
        session.refresh()
    assert (session.tokens.refresh_token, session.tokens.refresh_key) == ("r0", None)

    session.refresh()
    keys = [each.headers["idempotency-key"] for each in fake.requests]
    assert keys[0] != keys[1]


def test_stored_response_with_an_expired_token_is_refreshed_again(
    client: Client, fake: FakeNest, store: TokenStore
) -> None:
    """The app slept after it had lost a response, which Nest returns days later."""
    old = store.load()
    assert old
    fake.generation = 1
    fake.stored["k"] = {**fake.tokens(), "access_token": "expired since"}
    store.save(replace(old, refresh_key="k", expires_at=0))

    result = client.session(store).call("get_x", {}, command=False)

    assert result["path"].endswith("/get_x")
    assert (client.session(store).tokens.refresh_token, fake.reused) == ("r2", 0)


def test_token_that_stays_refused_ends_in_an_error(client: Client, fake: FakeNest, tokens: Tokens) -> None:
    fake.faults = [refusal(401, "unauthorized", reason="invalid_token")]

    answer = fake._answer

    def refuse(request: httpx.Request) -> httpx.Response:
        kept = answer(request)
        return kept if "authenticate" in request.url.path else refusal(401, "unauthorized", reason="invalid_token")

    fake._answer = refuse  # type: ignore[method-assign]

    with pytest.raises(errors.Unauthorized):
        client.session(tokens).call("get_x", {}, command=False)

    assert (len(fake.calls("get_x")), fake.generation) == (3, 2)


def test_logout_ends_the_session_and_removes_the_tokens(client: Client, fake: FakeNest, store: TokenStore) -> None:
    session = client.session(store)
    session.log_out()
    session.log_out()

    (ended,) = fake.requests
    assert json.loads(ended.content) == {"user_id": "user_1", "which": "current"}
    assert store.load() is None


def test_session_fills_in_its_user(client: Client, fake: FakeNest, store: TokenStore) -> None:
    session = client.session(store)
    session.get_user()
    session.get_user(user_id="other")

    assert [json.loads(each.content)["user_id"] for each in fake.requests] == ["user_1", "other"]


async def test_access_token_for_other_servers_is_fresh(client: Client, fake: FakeNest, store: TokenStore) -> None:
    expired(store)
    async with httpx.AsyncClient(transport=httpx.MockTransport(fake.handle)) as http:
        token = await AsyncClient("http://nest.test", http=http).session(store).access_token()

    assert token == client.session(store).access_token() == "a1"


def test_empty_store_requires_a_login(client: Client, fake: FakeNest) -> None:
    with pytest.raises(errors.LoginRequired):
        client.session(MemoryStore()).call("get_x", {}, command=False)

    assert fake.requests == []


def test_lock_that_is_never_released_ends_in_an_error(client: Client, store: TokenStore) -> None:
    expired(store)
    client.retries = Retries(within=0, timeout=0.1)
    lock = store.try_lock()
    assert lock is not None

    with pytest.raises(errors.StoreLocked):
        client.session(store).refresh()
    assert store.try_lock() is None

    lock.release()
    again = store.try_lock()
    assert again is not None
    again.release()


def test_file_of_tokens_is_readable_by_its_owner_only(tmp_path: Path, tokens: Tokens) -> None:
    path = tmp_path / "tokens.json"
    path.touch(mode=0o644)

    FileStore(path).save(tokens)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.json"]
    assert FileStore(path).load() == tokens
    FileStore(path).save(None)
    FileStore(path).save(None)
    assert FileStore(path).load() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"secret": 1}', "null"])
def test_other_file_is_an_error_without_its_content(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)

    with pytest.raises(ValueError, match="no tokens of this client") as caught:
        FileStore(path).load()

    assert "secret" not in str(caught.value)


def test_tokens_do_not_show(tokens: Tokens) -> None:
    secret = replace(tokens, access_token="eyJsecret", refresh_token="01.secret")

    assert "secret" not in repr(secret)


PROCESS = """
import sys
from nest_client import Client, FileStore
with Client(sys.argv[1]) as client:
    session = client.session(FileStore(sys.argv[2]))
    for _ in range(5):
        session.call("get_x", {}, command=False)
        session.refresh()
"""


def test_several_processes_never_reuse_a_refresh_token(fake: FakeNest, tmp_path: Path, tokens: Tokens) -> None:
    store = FileStore(tmp_path / "tokens.json")
    store.save(tokens)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            url = f"http://nest.test{self.path}"
            answer = fake(httpx.Request("POST", url, headers=dict(self.headers), content=content))
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        command = [sys.executable, "-c", PROCESS, f"http://127.0.0.1:{server.server_port}", str(store.path)]
        folder = Path(__file__).parents[1]
        started = [subprocess.Popen(command, cwd=folder) for _ in range(3)]
        codes = [each.wait(60) for each in started]
        server.shutdown()
        thread.join()

    assert codes == [0, 0, 0]
    assert (fake.reused, json.loads(store.path.read_text())["refresh_token"]) == (0, f"r{fake.generation}")
