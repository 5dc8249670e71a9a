"""Shared queries: equal queries of anonymous callers that wait at the same time become one message.

Many apps ask the same at once, such as for the news of their version. A reply is as fresh as that to a message of its
own, because the message is sent after every request that it serves has arrived.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from services.gateway.rpc_client import RpcClient, RpcReply
from shared.bus.envelope import Envelope

PAUSE_SECONDS: Final = 0.02
"""Longest wait for the reply to the message before, in seconds. Without a bound, a service that does not reply would
double the timeout of a call."""


@dataclass(slots=True)
class SharedQuery:
    """A query for all requests that arrive before it is sent.

    Attributes:
        envelope: the message, of the first of these requests.
        reply: the reply.
    """

    envelope: Envelope
    reply: asyncio.Task[RpcReply] = field(init=False)


class SharedQueries:
    """Combines equal queries.

    Args:
        rpc_client: sends them.
    """

    def __init__(self, rpc_client: RpcClient) -> None:
        self._rpc_client = rpc_client
        self._unsent: dict[tuple[str, bytes], SharedQuery] = {}
        self._sent: dict[tuple[str, bytes], asyncio.Task[RpcReply]] = {}

    def join(self, envelope: Envelope) -> SharedQuery:
        """Return the query that is sent for a request; it may be that of an earlier one."""
        key = (envelope.wire, envelope.body)
        query = self._unsent.get(key)
        if query is None:
            query = self._unsent[key] = SharedQuery(envelope)
            query.reply = asyncio.create_task(self._send(key, query))
        return query

    async def call(self, query: SharedQuery) -> RpcReply:
        """Return the reply to a query that ``join`` returned; raise as ``RpcClient.call``."""
        # Shielded: if one client disconnects, the others still need the reply.
        return await asyncio.shield(query.reply)

    async def _send(self, key: tuple[str, bytes], query: SharedQuery) -> RpcReply:
        previous = self._sent.get(key)
        if previous is not None:
            # While it is under way, further requests arrive.
            await asyncio.wait([previous], timeout=PAUSE_SECONDS)
        del self._unsent[key]
        self._sent[key] = query.reply
        try:
            return await self._rpc_client.call(query.envelope)
        finally:
            if self._sent.get(key) is query.reply:
                del self._sent[key]
