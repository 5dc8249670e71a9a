"""Calls with the tokens of a store, and their refresh: one at a time among all users of the store.

Nest accepts a used refresh token again only while its successor is unused; any other reuse ends the session as stolen.
So a refresh holds the lock of the store, and a caller that waited for it uses the newer tokens. Its idempotency key is
stored before the request is sent: after a lost response, a cancellation or a crash the next refresh repeats the same
request, and gets the same response.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from nest_client.caller import UNSET, Operation, method_of
from nest_client.core import RETRIED, EntityTags, Pause, Retries, Steps, call, new_key, request_of
from nest_client.errors import LoginRequired, NestError, StoreLocked, Unauthorized
from nest_client.tokens import TokenLock, Tokens, TokenStore

REDEEM: Final = method_of("authenticate_user", command=True)
EARLY_SECONDS: Final = 10.0
"""How long before its expiry an access token is refreshed, so that it does not expire on the way."""
ENDED: Final = {
    "authorization_not_found",
    "malformed_refresh_token",
    "token_expired",
    "token_not_found",
    "token_used",
}
"""Refusals after which only a new login helps."""
REFRESHES: Final = 2
"""Refreshes of one call. The first one may return a stored response, whose access token has expired since."""


def current(store: TokenStore) -> Tokens:
    """Return the tokens of a store.

    Raises:
        LoginRequired: the store is empty.
    """
    tokens = store.load()
    if tokens is None:
        raise LoginRequired("There are no tokens: log in.")
    return tokens


def locked(store: TokenStore, retries: Retries) -> Steps:
    """Wait for the lock of a store, and return it. Whoever holds it may be refreshing, within the bounds of a call.

    Raises:
        StoreLocked: the lock was not released in time.
    """
    ends_at = time.monotonic() + retries.within + retries.timeout
    while True:
        lock = store.try_lock()
        if lock is not None:
            return lock
        if time.monotonic() >= ends_at:
            raise StoreLocked("The lock of the token store was not released.")
        yield Pause(random.uniform(0.01, 0.03))  # noqa: S311 -- spreads the waiting threads


def refreshed(store: TokenStore, used: Tokens, retries: Retries) -> Steps:
    """Return newer tokens than ``used``: those that somebody else has stored by now, or those of a refresh.

    Raises:
        LoginRequired: the session has ended. Its tokens are removed from the store.
        NestError: Nest refused the refresh for another reason. The tokens stay in the store.
        ConnectionFailed: no response arrived. The next refresh repeats the request with the same key.
    """
    lock: TokenLock = yield from locked(store, retries)
    try:
        tokens = current(store)
        if tokens.user_id != used.user_id:
            raise LoginRequired("Another person has logged in since: the call is not repeated for that person.")
        if tokens.access_token != used.access_token:
            return tokens
        if tokens.refresh_key is None:
            tokens = replace(tokens, refresh_key=new_key())
            store.save(tokens)
        body = {
            "client_id": tokens.client_id,
            "grant_type": "refresh_token",
            "refresh_token": tokens.refresh_token,
        }
        key = tokens.refresh_key
        request = request_of(REDEEM, body, authorization=None, idempotency_key=key)
        try:
            newer = Tokens.of((yield from call(request, retries)))
        except NestError as error:
            if error.code in ENDED:
                store.save(None)
                raise LoginRequired("The session has ended: log in again.") from error
            if error.status not in RETRIED:
                # Nest stores this refusal under the key, which would return it after its cause is gone.
                store.save(replace(tokens, refresh_key=None))
            raise
        store.save(newer)
        return newer
    finally:
        lock.release()


def stored(store: TokenStore, tokens: Tokens | None, retries: Retries) -> Steps:
    """Replace the tokens of a store; None removes them."""
    lock: TokenLock = yield from locked(store, retries)
    try:
        store.save(tokens)
    finally:
        lock.release()


def fresh(store: TokenStore, retries: Retries) -> Steps:
    """Return tokens that do not expire on the way."""
    tokens = current(store)
    return (yield from refreshed(store, tokens, retries)) if tokens.expire_within(EARLY_SECONDS) else tokens


def call_with_tokens(
    store: TokenStore,
    operation: Operation,
    fields: Mapping[str, Any],
    *,
    retries: Retries,
    tags: EntityTags,
    idempotency_key: str | None = None,
) -> Steps:
    """Call an operation with the access token of a store. A token that is refused is refreshed, and the call repeated.

    The repeat has the same idempotency key, and the same user's access token: it is one command for Nest. A required
    ``user_id`` that is left out is that of the tokens.
    """
    key = (idempotency_key or new_key()) if operation.command else None
    tokens: Tokens = yield from fresh(store, retries)
    if operation.of_user and fields.get("user_id", UNSET) is UNSET:
        fields = {**fields, "user_id": tokens.user_id}
    for left in reversed(range(REFRESHES + 1)):
        bearer, caller = f"bearer {tokens.access_token}", tokens.user_id
        request = request_of(operation, fields, authorization=bearer, idempotency_key=key, caller=caller)
        try:
            return (yield from call(request, retries, tags))
        except Unauthorized:
            if not left:
                raise
        tokens = yield from refreshed(store, tokens, retries)
    raise AssertionError  # The last turn returns or raises.
