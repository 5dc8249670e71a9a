"""The client against a running Nest."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from nest_client import (
    AsyncClient,
    AsyncTokenVerifier,
    Client,
    FileStore,
    MemoryStore,
    Retries,
    Tokens,
    TokenVerifier,
    core,
    errors,
)
from nest_client.caller import method_of
from services.embedded.demo import CLIENT_ID
from tests.stack import REDIRECT_URI, Stack


@pytest.fixture
async def client(nest: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(nest.urls[0]) as client:
        yield client


@pytest.fixture
def email() -> str:
    return f"{secrets.token_hex(8)}@example.com"


async def log_in(client: AsyncClient, nest: Stack, email: str) -> Tokens:
    pending = await client.start_login(email, client_id=CLIENT_ID, redirect_uri=REDIRECT_URI)
    mail = await nest.mail(email)
    (digits,) = set(re.findall(r"^[0-9]{6}$", mail.text, re.MULTILINE))
    return await client.finish_login(pending, code=digits)


async def test_person_logs_in_with_the_link(client: AsyncClient, nest: Stack, email: str) -> None:
    session = client.session(MemoryStore())
    pending = await client.start_login(email, client_id=CLIENT_ID, redirect_uri=REDIRECT_URI, locale="de")
    mail = await nest.mail(email)
    link = next(url for url in re.findall(r"https?://\S+", mail.text) if "code=" in url)

    tokens = await session.finish_login(pending, url=link)

    user = await session.get_user(user_id=tokens.user_id)
    assert user["identifiers"][0]["identifier_value"] == email
    assert await session.finish_login(pending, url=link) == replace(tokens, expires_at=session.tokens.expires_at)


async def test_wrong_code_is_an_error_with_the_guesses_left(client: AsyncClient, nest: Stack, email: str) -> None:
    pending = await client.start_login(email, client_id=CLIENT_ID, redirect_uri=REDIRECT_URI)
    mail = await nest.mail(email)
    (digits,) = set(re.findall(r"^[0-9]{6}$", mail.text, re.MULTILINE))

    with pytest.raises(errors.IncorrectCode) as caught:
        await client.finish_login(pending, code=f"{(int(digits) + 1) % 10**6:06}")

    error = caught.value
    assert (error.status, error.meta["guesses_left"], error.docs) == (400, 4, "/reference#error-incorrect_code")
    assert error.message
    assert error.request_id


async def test_sessions_in_two_processes_share_a_file(
    client: AsyncClient, nest: Stack, email: str, tmp_path: Path
) -> None:
    store, other = FileStore(tmp_path / "tokens"), FileStore(tmp_path / "tokens")
    store.save(await log_in(client, nest, email))
    first = store.load()
    assert first

    await asyncio.gather(*(client.session(each).refresh() for each in (store, other, store, other)))

    newest = store.load()
    assert newest
    assert newest.access_token != first.access_token
    bearer = f"bearer {first.access_token}"
    revoked = core.request_of(method_of("get_user"), {"user_id": first.user_id}, authorization=bearer)
    with pytest.raises(errors.Unauthorized) as caught:
        await client.run(core.call(revoked, Retries(within=0)))
    assert caught.value.reasons[0].code == "token_revoked"
    assert (await client.session(store).get_user(user_id=first.user_id))["id"] == first.user_id


async def test_logged_out_session_requires_a_login(client: AsyncClient, nest: Stack, email: str) -> None:
    tokens = await log_in(client, nest, email)
    session, copy = client.session(tokens), client.session(tokens)

    await session.log_out()

    with pytest.raises(errors.LoginRequired):
        await session.get_user(user_id=tokens.user_id)
    with pytest.raises(errors.LoginRequired):
        await copy.refresh()


async def test_verifiers_accept_the_token(client: AsyncClient, nest: Stack, email: str) -> None:
    tokens = await log_in(client, nest, email)
    issuer = nest.environment["NEST_ISSUER"]

    async with AsyncTokenVerifier(issuer, CLIENT_ID, url=nest.urls[0]) as verifier:
        claims = await verifier.verify(tokens.access_token)
    with TokenVerifier(issuer, CLIENT_ID, url=nest.urls[0]) as blocking:
        again = await asyncio.to_thread(blocking.verify, tokens.access_token)

    assert claims == again
    assert (claims.user_id, claims.client_id) == (tokens.user_id, CLIENT_ID)


async def test_blocking_client_calls_with_an_internal_key(nest: Stack) -> None:
    def call() -> list[str]:
        with Client(nest.urls[0], internal_key=nest.internal_key) as client:
            key = secrets.token_hex(16)
            made = [
                client.create_client(name="Mine", redirect_uris=[REDIRECT_URI], idempotency_key=key)["id"]
                for _ in range(2)
            ]
            with pytest.raises(errors.ClientNotFound):
                client.update_client(id="nobody", name="Other")
            return made

    one, again = await asyncio.to_thread(call)
    assert one == again


async def test_anonymous_client_is_refused(client: AsyncClient) -> None:
    with pytest.raises(errors.AccessDenied) as caught:
        await client.list_clients()

    assert isinstance(caught.value, errors.ForbiddenError)


async def test_news_that_have_not_changed_are_not_sent_again(nest: Stack, email: str) -> None:
    statuses: list[int] = []

    async def count(response: httpx.Response) -> None:
        statuses.append(response.status_code)

    async with httpx.AsyncClient(event_hooks={"response": [count]}) as http:
        client = AsyncClient(nest.urls[0], http=http)
        session = client.session(await log_in(client, nest, email))
        statuses.clear()
        news = [await session.list_news_items(client_id=CLIENT_ID) for _ in range(2)]

    assert (statuses, news[0]) == ([200, 304], news[1])


async def test_phone_logs_in_by_the_routes_without_a_version(client: AsyncClient, nest: Stack) -> None:
    nonce = await client.phone_init(phone_number="+41 79 123 45 67")

    assert re.fullmatch(r"[0-9a-f]{32}", nonce)
    with pytest.raises(errors.NestError):
        await client.phone_register(code="x", nonce=nonce, first_name="Ada")
