"""A Nest as the client sees it: refresh tokens that work once, stored responses, and faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Answer = httpx.Response | Exception


def refusal(status: int, code: str, *, reason: str = "", **meta: Any) -> httpx.Response:
    body: dict[str, Any] = {
        "code": code,
        "message": "Do this.",
        "docs": f"/reference#error-{code}",
        "meta": {"request_id": "r1", **meta},
    }
    if reason:
        body["reasons"] = [{"code": reason, "message": "Do that.", "docs": f"/reference#error-{reason}"}]
    headers = {"retry-after": str(meta["retry_after"])} if "retry_after" in meta else {}
    return httpx.Response(status, json=body, headers=headers)


@dataclass
class FakeNest:
    """Answers calls, first with the ``faults`` and then as Nest does.

    A fault is an answer in place of Nest's; ``lost`` has the numbers of calls that take effect without
    an answer.
    """

    faults: list[Answer] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    requests: list[httpx.Request] = field(default_factory=list)
    generation: int = 0
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    lifetime: int = 3600
    on_refresh: Callable[[], None] = lambda: None
    lock: Any = field(default_factory=threading.Lock)
    reused: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            self.requests.append(request)
            number = len(self.requests)
            if self.faults:
                fault = self.faults.pop(0)
                if isinstance(fault, Exception):
                    raise fault
                return fault
        answer = self._answer(request)
        if number in self.lost:
            raise httpx.ReadTimeout("The answer is lost.")
        return answer

    async def handle(self, request: httpx.Request) -> httpx.Response:
        return self(request)

    def tokens(self) -> dict[str, Any]:
        return {
            "access_token": f"a{self.generation}",
            "token_type": "bearer",
            "expires_in": self.lifetime,
            "expires_at": "2026-11-21T07:05:00.000Z",
            "refresh_token": f"r{self.generation}",
            "user_id": "user_1",
            "client_id": "client_1",
        }

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content or "null")
        if request.url.path.endswith("/authenticate_user"):
            self.on_refresh()
            time.sleep(0.02)  # a window for races
            with self.lock:
                key = request.headers["idempotency-key"]
                if key not in self.stored:
                    if body.get("refresh_token") not in {f"r{self.generation}", None}:
                        self.reused += 1
                        return refusal(409, "token_used")
                    self.generation += 1
                    self.stored[key] = self.tokens()
                return httpx.Response(200, json=self.stored[key])
        bearer = request.headers.get("authorization", "")
        if bearer not in {"", "bearer owner", f"bearer a{self.generation}"}:
            return refusal(401, "unauthorized", reason="token_revoked")
        if request.url.path.endswith("/list_plans"):
            tag = {"etag": '"plans-1"'}
            known = request.headers.get("if-none-match") == tag["etag"]
            return httpx.Response(304, headers=tag) if known else httpx.Response(200, json={"plans": []}, headers=tag)
        return httpx.Response(200, json={"path": request.url.path, "body": body})

    def calls(self, method: str) -> list[httpx.Request]:
        return [each for each in self.requests if each.url.path.endswith(f"/{method}")]
