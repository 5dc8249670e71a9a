"""Steps of the calls of clients and sessions, without I/O. The blocking and the asynchronous client do them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from nest_client import core, models, refresh
from nest_client.caller import UNSET, Operation, Unset, method_of
from nest_client.core import EntityTags, Retries, Steps
from nest_client.errors import LoginRequired
from nest_client.login import PendingLogin
from nest_client.tokens import MemoryStore, Tokens, TokenStore

REVOKE: Final = method_of("revoke_sessions", command=True, of_user=True)


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("`url` is the address of a Nest, such as `https://nest.example.com`.")
    return url.rstrip("/")


class ClientSteps:
    """Settings of a client, and the steps of its calls without I/O."""

    def __init__(self, url: str, internal_key: str | None, retries: Retries | None) -> None:
        self.url = _base(url)
        self.retries = retries or Retries()
        self.tags = EntityTags()
        self._authorization = None if internal_key is None else f"internal {internal_key}"

    def _perform(
        self,
        operation: Operation,
        fields: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        token: str | None = None,
    ) -> Steps:
        credential = self._authorization if token is None else f"bearer {token}"
        request = core.request_of(operation, fields, authorization=credential, idempotency_key=idempotency_key)
        return core.call(request, self.retries, self.tags)

    def _start_login(
        self,
        pending: PendingLogin,
        email: str,
        device: models.Device | None,
        trial_device: models.TrialDevice | None,
        locale: str | Unset | None,
    ) -> Steps:
        if device is not None and trial_device is not None:
            raise ValueError("Give either `device` or `trial_device`.")
        method = "send_magic_link" if trial_device is None else "create_trial_and_magic_link"
        fields = {**pending.order(email), "device": trial_device or device or UNSET, "locale": locale}
        yield from self._perform(method_of(method, command=True), fields)
        return pending

    def _finish_login(self, pending: PendingLogin, url: str | None, code: str | None) -> Steps:
        fields = pending.redemption(url=url, code=code)
        view = yield from self._perform(refresh.REDEEM, fields, idempotency_key=pending.key_of(fields["code"]))
        return Tokens.of(view)


class SessionSteps:
    """Store of a session, and the steps of its calls without I/O."""

    def __init__(self, client: ClientSteps, store: TokenStore | Tokens) -> None:
        self._client = client
        self.store: TokenStore = MemoryStore(store) if isinstance(store, Tokens) else store

    @property
    def tokens(self) -> Tokens:
        """The present tokens, as they are stored."""
        return refresh.current(self.store)

    def _perform(self, operation: Operation, fields: Mapping[str, Any], *, idempotency_key: str | None = None) -> Steps:
        retries, tags = self._client.retries, self._client.tags
        return refresh.call_with_tokens(
            self.store, operation, fields, retries=retries, tags=tags, idempotency_key=idempotency_key
        )

    def _access_token(self) -> Steps:
        tokens: Tokens = yield from refresh.fresh(self.store, self._client.retries)
        return tokens.access_token

    def _finish_login(self, pending: PendingLogin, url: str | None, code: str | None) -> Steps:
        tokens = yield from self._client._finish_login(pending, url, code)  # noqa: SLF001 -- of this module
        yield from refresh.stored(self.store, tokens, self._client.retries)
        return tokens

    def _refresh(self) -> Steps:
        return refresh.refreshed(self.store, self.tokens, self._client.retries)

    def _log_out(self) -> Steps:
        try:
            yield from self._perform(REVOKE, {"which": "current"})
        except LoginRequired:
            return
        yield from refresh.stored(self.store, None, self._client.retries)
