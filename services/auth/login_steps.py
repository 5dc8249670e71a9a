"""Metrics of logins by method and step, without anybody's identity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Literal, TypeVar

from services.auth.context import Auth
from shared.bus.work import Work
from shared.errors import Refusal
from shared.metrics import LOGINS, LOGINS_REFUSED, labelled

Order = TypeVar("Order")
Reply = TypeVar("Reply")
Handler = Callable[[Order, Work, Auth], Awaitable[Reply]]


def login_step(
    method: Literal["mail", "phone", "password"], step: Literal["asked", "redeemed"]
) -> Callable[[Handler[Order, Reply]], Handler[Order, Reply]]:
    """Decorate a handler so that its outcome is counted: in ``nest_logins_total``, or as a refusal with its code."""

    def decorate(handler: Handler[Order, Reply]) -> Handler[Order, Reply]:
        @wraps(handler)
        async def wrapper(order: Order, work: Work, auth: Auth) -> Reply:
            try:
                reply = await handler(order, work, auth)
            except Refusal as refusal:
                LOGINS_REFUSED.labels(method, step, refusal.code).inc()
                raise
            work.count(labelled(LOGINS, method, step))
            return reply

        return wrapper

    return decorate
