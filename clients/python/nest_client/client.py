"""Clients of a Nest, and sessions of a user: blocking and asynchronous. They do the I/O of ``core`` and ``refresh``."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx

from nest_client import core, models, refresh
from nest_client.core import NoResponse, Request, Response, Retries, Send, Steps
from nest_client.errors import LoginRequired
from nest_client.login import PendingLogin
from nest_client.methods import AsyncMethods, Methods
from nest_client.tokens import MemoryStore, Tokens, TokenStore
from nest_client.unset import UNSET, Unset

MISTAKES: Final = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors in the request itself, such as an invalid URL, which are not retried."""


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("`url` is the address of a Nest, such as `https://nest.example.com`.")
    return url.rstrip("/")


def _authorization(internal_key: str | None) -> str | None:
    return None if internal_key is None else f"internal {internal_key}"


def _response(response: httpx.Response, content: bytes) -> Response:
    return Response(response.status_code, {name.lower(): text for name, text in response.headers.items()}, content)


class Client(Methods):
    """Blocking client of a Nest, for any number of threads.

    Its methods are those of Nest. They raise ``nest_client.errors.NestError`` and ``ConnectionFailed``, and repeat what
    may be repeated within the bounds of ``retries``.

    Args:
        url: Address of the Nest, such as ``https://nest.example.com``.
        internal_key: Secret of back ends and operators; without it the caller is anonymous.
        retries: Bounds of one call.
        http: HTTP client with settings of your own, such as proxies. The caller closes it.
    """

    def __init__(
        self,
        url: str,
        *,
        internal_key: str | None = None,
        retries: Retries | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self.url = _base(url)
        self.retries = retries or Retries()
        self._authorization = _authorization(internal_key)
        self._http = http or httpx.Client()
        self._owns_http = http is None

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, body: dict[str, Any], *, command: bool, idempotency_key: str | None = None) -> Any:
        """Call a method by its name and return its result, or None if it has none."""
        request = core.request_of(
            method, body, authorization=self._authorization, command=command, idempotency_key=idempotency_key
        )
        return self.run(core.call(request, self.retries))

    def run(self, steps: Steps) -> Any:
        """Do the steps of a call and return its result."""
        outcome: Response | NoResponse | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Send):
                    outcome = self._send(step)
                else:
                    time.sleep(step.seconds)
                    outcome = None
        except StopIteration as end:
            return end.value
        finally:
            steps.close()  # releases the lock of a token store if a step was interrupted

    def _send(self, step: Send) -> Response | NoResponse:
        request, ends_at = step.request, time.monotonic() + step.timeout
        content = bytearray()
        try:
            with self._http.stream(
                "POST",
                self.url + request.path,
                content=request.content,
                headers=dict(request.headers),
                timeout=step.timeout,
                follow_redirects=False,
            ) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if time.monotonic() > ends_at:
                        return NoResponse(httpx.ReadTimeout("The response took too long."))
                return _response(response, bytes(content))
        except MISTAKES:
            raise
        except httpx.RequestError as error:
            return NoResponse(error)

    def start_login(
        self,
        email: str,
        *,
        client_id: str,
        redirect_uri: str,
        device: models.Device | None = None,
        trial_device: models.TrialDevice | None = None,
        locale: str | Unset | None = UNSET,
    ) -> PendingLogin:
        """Mail a magic link and a typed code to an address, and return what finishes the login.

        Args:
            email: The person's address.
            client_id: ID of the client.
            redirect_uri: Target of the link, one of the client's redirect URIs.
            device: The person's device.
            trial_device: The person's device, to start a trial with the login (``create_trial_and_magic_link``).
            locale: Language of the mail (RFC 5646).
        """
        pending = PendingLogin.new(client_id, redirect_uri)
        method, body = _order(pending, email, device=device, trial_device=trial_device, locale=locale)
        self.call(method, body, command=True)
        return pending

    def finish_login(self, pending: PendingLogin, *, url: str | None = None, code: str | None = None) -> Tokens:
        """Return the tokens of a login, for the URL of the redirect or for the code that the person typed.

        Raises:
            StateMismatch: the URL is not of this login.
            NestError: Nest refused the code. ``IncorrectCode`` has ``guesses_left`` in its ``meta``.
        """
        body = pending.redemption(url=url, code=code)
        key = pending.key_of(body["code"])
        return Tokens.of(self.call("authenticate_user", body, command=True, idempotency_key=key))

    def session(self, store: TokenStore | Tokens) -> Session:
        """Return a session with the tokens of a store, or with tokens that are kept in memory."""
        return Session(self, store)


class Session(Methods):
    """Methods of Nest for one user, with the user's access token, for any number of threads and processes.

    Tokens are refreshed shortly before they expire and when Nest refuses them, by one user of the store at a time.

    Raises:
        LoginRequired: by every method, if there are no tokens or Nest has ended the session.
    """

    def __init__(self, client: Client, store: TokenStore | Tokens) -> None:
        self.client = client
        self.store: TokenStore = MemoryStore(store) if isinstance(store, Tokens) else store

    @property
    def tokens(self) -> Tokens:
        """The present tokens, as they are stored."""
        return refresh.current(self.store)

    def call(self, method: str, body: dict[str, Any], *, command: bool, idempotency_key: str | None = None) -> Any:
        """Call a method by its name and return its result, or None if it has none."""
        retries = self.client.retries
        steps = refresh.call_with_tokens(
            self.store, method, body, retries=retries, command=command, idempotency_key=idempotency_key
        )
        return self.client.run(steps)

    def finish_login(self, pending: PendingLogin, *, url: str | None = None, code: str | None = None) -> Tokens:
        """Finish a login as the client's method does, and store its tokens."""
        tokens = self.client.finish_login(pending, url=url, code=code)
        self.client.run(refresh.stored(self.store, tokens, self.client.retries))
        return tokens

    def refresh(self) -> Tokens:
        """Get new tokens now, for example to see new features in the claim ``ent``, and return them."""
        tokens: Tokens = self.client.run(refresh.refreshed(self.store, self.tokens, self.client.retries))
        return tokens

    def log_out(self) -> None:
        """End the session in Nest, and remove its tokens from the store."""
        try:
            self.revoke_sessions(user_id=self.tokens.user_id, which="current")
        except LoginRequired:
            return
        self.client.run(refresh.stored(self.store, None, self.client.retries))


class AsyncClient(AsyncMethods):
    """Asynchronous client of a Nest, for any number of tasks of one event loop. As ``Client``.

    Args:
        url: Address of the Nest, such as ``https://nest.example.com``.
        internal_key: Secret of back ends and operators; without it the caller is anonymous.
        retries: Bounds of one call.
        http: HTTP client with settings of your own, such as proxies. The caller closes it.
    """

    def __init__(
        self,
        url: str,
        *,
        internal_key: str | None = None,
        retries: Retries | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self.url = _base(url)
        self.retries = retries or Retries()
        self._authorization = _authorization(internal_key)
        self._http = http or httpx.AsyncClient()
        self._owns_http = http is None

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def call(
        self, method: str, body: dict[str, Any], *, command: bool, idempotency_key: str | None = None
    ) -> Any:
        """Call a method by its name and return its result, or None if it has none."""
        request = core.request_of(
            method, body, authorization=self._authorization, command=command, idempotency_key=idempotency_key
        )
        return await self.run(core.call(request, self.retries))

    async def run(self, steps: Steps) -> Any:
        """Do the steps of a call and return its result."""
        outcome: Response | NoResponse | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Send):
                    outcome = await self._send(step)
                else:
                    await asyncio.sleep(step.seconds)
                    outcome = None
        except StopIteration as end:
            return end.value
        finally:
            steps.close()  # releases the lock of a token store if the task was cancelled

    async def _send(self, step: Send) -> Response | NoResponse:
        request: Request = step.request
        try:
            async with asyncio.timeout(step.timeout):
                response = await self._http.post(
                    self.url + request.path,
                    content=request.content,
                    headers=dict(request.headers),
                    timeout=step.timeout,
                    follow_redirects=False,
                )
        except MISTAKES:
            raise
        except (httpx.RequestError, TimeoutError) as error:
            return NoResponse(error)
        return _response(response, response.content)

    async def start_login(
        self,
        email: str,
        *,
        client_id: str,
        redirect_uri: str,
        device: models.Device | None = None,
        trial_device: models.TrialDevice | None = None,
        locale: str | Unset | None = UNSET,
    ) -> PendingLogin:
        """Mail a magic link and a typed code to an address, as ``Client.start_login``."""
        pending = PendingLogin.new(client_id, redirect_uri)
        method, body = _order(pending, email, device=device, trial_device=trial_device, locale=locale)
        await self.call(method, body, command=True)
        return pending

    async def finish_login(self, pending: PendingLogin, *, url: str | None = None, code: str | None = None) -> Tokens:
        """Return the tokens of a login, as ``Client.finish_login``."""
        body = pending.redemption(url=url, code=code)
        key = pending.key_of(body["code"])
        return Tokens.of(await self.call("authenticate_user", body, command=True, idempotency_key=key))

    def session(self, store: TokenStore | Tokens) -> AsyncSession:
        """Return a session with the tokens of a store, or with tokens that are kept in memory."""
        return AsyncSession(self, store)


class AsyncSession(AsyncMethods):
    """Methods of Nest for one user, with the user's access token, for any number of tasks and processes.

    As ``Session``. The methods of the store run in the event loop, so they should take milliseconds.
    """

    def __init__(self, client: AsyncClient, store: TokenStore | Tokens) -> None:
        self.client = client
        self.store: TokenStore = MemoryStore(store) if isinstance(store, Tokens) else store

    @property
    def tokens(self) -> Tokens:
        """The present tokens, as they are stored."""
        return refresh.current(self.store)

    async def call(
        self, method: str, body: dict[str, Any], *, command: bool, idempotency_key: str | None = None
    ) -> Any:
        """Call a method by its name and return its result, or None if it has none."""
        retries = self.client.retries
        steps = refresh.call_with_tokens(
            self.store, method, body, retries=retries, command=command, idempotency_key=idempotency_key
        )
        return await self.client.run(steps)

    async def finish_login(self, pending: PendingLogin, *, url: str | None = None, code: str | None = None) -> Tokens:
        """Finish a login as the client's method does, and store its tokens."""
        tokens = await self.client.finish_login(pending, url=url, code=code)
        await self.client.run(refresh.stored(self.store, tokens, self.client.retries))
        return tokens

    async def refresh(self) -> Tokens:
        """Get new tokens now, for example to see new features in the claim ``ent``, and return them."""
        tokens: Tokens = await self.client.run(refresh.refreshed(self.store, self.tokens, self.client.retries))
        return tokens

    async def log_out(self) -> None:
        """End the session in Nest, and remove its tokens from the store."""
        try:
            await self.revoke_sessions(user_id=self.tokens.user_id, which="current")
        except LoginRequired:
            return
        await self.client.run(refresh.stored(self.store, None, self.client.retries))


def _order(
    pending: PendingLogin,
    email: str,
    *,
    device: models.Device | None,
    trial_device: models.TrialDevice | None,
    locale: str | Unset | None,
) -> tuple[str, dict[str, Any]]:
    """Return the method that orders the mail of a login, and its fields."""
    if device is not None and trial_device is not None:
        raise ValueError("Give either `device` or `trial_device`.")
    method = "send_magic_link" if trial_device is None else "create_trial_and_magic_link"
    body = {**pending.order(email), "device": trial_device or device or UNSET, "locale": locale}
    return method, body
