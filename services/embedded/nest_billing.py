"""What Nest knows about a person's subscriptions, read over HTTP for the billing playground."""

from __future__ import annotations

import time
from typing import Any

import httpx

_TIMEOUT_SECONDS = 3.0
_VERSION = "2026-12-01"
_MAX_KNOWN = 10_000
"""Addresses whose users are remembered."""
_UNKNOWN_SECONDS = 10.0
"""Time until an address without a user is looked up again: each look-up is an entry in the audit log."""


class NestBilling:
    """Nest's view of customers of Stripe.

    Args:
        base_url: URL of the gateway, without a slash at the end.
        internal_key: the operators' key.
    """

    def __init__(self, base_url: str, internal_key: str) -> None:
        self._base_url = base_url
        self._internal_key = internal_key
        self._client: httpx.AsyncClient | None = None
        self._users: dict[str, tuple[str | None, float]] = {}
        """User of each address, and when it was looked up."""

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def state(self, user_id: str | None, email: str | None) -> dict[str, Any] | None:
        """Return the reply of `get_customer_state`; None if Nest knows no such user.

        Args:
            user_id: the user that metadata in Stripe names.
            email: address of the customer, whose user is looked up if there is no `user_id`.

        Raises:
            httpx.HTTPError: Nest is not available.
        """
        found = user_id or await self._user_of(email)
        return None if found is None else await self._call("get_customer_state", {"user_id": found})

    async def _user_of(self, email: str | None) -> str | None:
        if not email:
            return None
        user_id, at = self._users.get(email, (None, -_UNKNOWN_SECONDS))
        if user_id is None and time.monotonic() - at >= _UNKNOWN_SECONDS:
            user = await self._call("find_user", {"identifier_type": "email", "identifier_value": email})
            user_id = None if user is None else str(user["id"])
            if len(self._users) < _MAX_KNOWN:
                self._users[email] = user_id, time.monotonic()
        return user_id

    async def _call(self, method: str, body: dict[str, Any]) -> Any:
        if self._client is None:
            self._client = httpx.AsyncClient(
                base_url=self._base_url,
                headers={"authorization": f"internal {self._internal_key}"},
                timeout=_TIMEOUT_SECONDS,
                trust_env=False,
            )
        response = await self._client.post(f"/1/{_VERSION}/{method}", json=body)
        if response.is_client_error:
            return None
        response.raise_for_status()
        return response.json()
