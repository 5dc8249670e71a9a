"""Clients of a Nest, and sessions of a user: blocking and asynchronous. They do the I/O of ``steps``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, Self

import httpx

from nest_client import models
from nest_client.caller import UNSET, Operation, Unset
from nest_client.core import NoResponse, Response, Retries, Send, Steps
from nest_client.login import PendingLogin
from nest_client.methods import AllMethods, AsyncAllMethods, AsyncUserMethods, UserMethods
from nest_client.steps import ClientSteps, SessionSteps
from nest_client.tokens import Tokens, TokenStore

MISTAKES: Final = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors in the request itself, such as an invalid URL, which are not retried."""


def _response(response: httpx.Response, content: bytes) -> Response:
    return Response(response.status_code, {name.lower(): text for name, text in response.headers.items()}, content)


class Client(ClientSteps, AllMethods):
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
        super().__init__(url, internal_key, retries)
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

    def perform(self, operation: Operation, fields: Mapping[str, Any], **options: str | None) -> Any:
        """Call an operation and return its result, or None if it has none."""
        return self.run(self._perform(operation, fields, **options))

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
                request.verb,
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
        self.run(self._start_login(pending, email, device, trial_device, locale))
        return pending

    def finish_login(self, pending: PendingLogin, *, url: str | None = None, code: str | None = None) -> Tokens:
        """Return the tokens of a login, for the URL of the redirect or for the code that the person typed.

        Raises:
            StateMismatch: the URL is not of this login.
            NestError: Nest refused the code. ``IncorrectCode`` has ``guesses_left`` in its ``meta``.
        """
        tokens: Tokens = self.run(self._finish_login(pending, url, code))
        return tokens

    def session(self, store: TokenStore | Tokens) -> Session:
        """Return a session with the tokens of a store, or with tokens that are kept in memory."""
        return Session(self, store)


class Session(SessionSteps, UserMethods):
    """Methods of Nest for one user, with the user's access token, for any number of threads and processes.

    Tokens are refreshed shortly before they expire and when Nest refuses them, by one user of the store at a time. A
    ``user_id`` that is left out is that of the session.

    Raises:
        LoginRequired: by every method, if there are no tokens or Nest has ended the session.
    """

    def __init__(self, client: Client, store: TokenStore | Tokens) -> None:
        super().__init__(client, store)
        self.client = client

    def perform(self, operation: Operation, fields: Mapping[str, Any], **options: str | None) -> Any:
        """Call an operation with the user's token and return its result, or None if it has none."""
        return self.client.run(self._perform(operation, fields, **options))

    def finish_login(self, pending: PendingLogin, *, url: str | None = None, code: str | None = None) -> Tokens:
        """Finish a login as the client's method does, and store its tokens."""
        tokens: Tokens = self.client.run(self._finish_login(pending, url, code))
        return tokens

    def access_token(self) -> str:
        """Return an access token that does not expire within seconds, for calls to your own back end."""
        token: str = self.client.run(self._access_token())
        return token

    def refresh(self) -> Tokens:
        """Get new tokens now, for example to see new features in the claim ``ent``, and return them."""
        tokens: Tokens = self.client.run(self._refresh())
        return tokens

    def log_out(self) -> None:
        """End the session in Nest, and remove its tokens from the store."""
        self.client.run(self._log_out())


class AsyncClient(ClientSteps, AsyncAllMethods):
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
        super().__init__(url, internal_key, retries)
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

    async def perform(self, operation: Operation, fields: Mapping[str, Any], **options: str | None) -> Any:
        """Call an operation and return its result, or None if it has none."""
        return await self.run(self._perform(operation, fields, **options))

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
        request = step.request
        try:
            async with asyncio.timeout(step.timeout):
                response = await self._http.request(
                    request.verb,
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
        await self.run(self._start_login(pending, email, device, trial_device, locale))
        return pending

    async def finish_login(self, pending: PendingLogin, *, url: str | None = None, code: str | None = None) -> Tokens:
        """Return the tokens of a login, as ``Client.finish_login``."""
        tokens: Tokens = await self.run(self._finish_login(pending, url, code))
        return tokens

    def session(self, store: TokenStore | Tokens) -> AsyncSession:
        """Return a session with the tokens of a store, or with tokens that are kept in memory."""
        return AsyncSession(self, store)


class AsyncSession(SessionSteps, AsyncUserMethods):
    """Methods of Nest for one user, with the user's access token, for any number of tasks and processes.

    As ``Session``. The methods of the store run in the event loop, so they should take milliseconds.
    """

    def __init__(self, client: AsyncClient, store: TokenStore | Tokens) -> None:
        super().__init__(client, store)
        self.client = client

    async def perform(self, operation: Operation, fields: Mapping[str, Any], **options: str | None) -> Any:
        """Call an operation with the user's token and return its result, or None if it has none."""
        return await self.client.run(self._perform(operation, fields, **options))

    async def finish_login(self, pending: PendingLogin, *, url: str | None = None, code: str | None = None) -> Tokens:
        """Finish a login as the client's method does, and store its tokens."""
        tokens: Tokens = await self.client.run(self._finish_login(pending, url, code))
        return tokens

    async def access_token(self) -> str:
        """Return an access token that does not expire within seconds, for calls to your own back end."""
        token: str = await self.client.run(self._access_token())
        return token

    async def refresh(self) -> Tokens:
        """Get new tokens now, for example to see new features in the claim ``ent``, and return them."""
        tokens: Tokens = await self.client.run(self._refresh())
        return tokens

    async def log_out(self) -> None:
        """End the session in Nest, and remove its tokens from the store."""
        await self.client.run(self._log_out())
