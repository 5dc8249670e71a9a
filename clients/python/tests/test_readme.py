"""The samples of the README, run against a Nest."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from services.embedded.demo import CLIENT_ID
from tests.stack import REDIRECT_URI, Stack

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
SECTIONS = re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
SAMPLES = {heading: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for heading, text in SECTIONS}


class Reader:
    """A Nest, and the terminal of a program that asks for the code in a mail."""

    def __init__(self, nest: Stack, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.nest, self.folder, self._capsys = nest, folder, capsys
        self._loop = asyncio.get_running_loop()

    def ask(self, _prompt: str) -> str:
        mail = asyncio.run_coroutine_threadsafe(self.nest.mail("taro@example.com"), self._loop).result(60)
        (digits,) = set(re.findall(r"^[0-9]{6}$", mail.text, re.MULTILINE))
        return digits

    async def run(self, heading: str, number: int = 0, **more: Any) -> dict[str, Any]:
        """Run a sample in a thread, and return its names and what it has printed as ``printed``."""
        issuer = self.nest.environment["NEST_ISSUER"]
        names = {"NEST": self.nest.urls[0], "CLIENT_ID": CLIENT_ID, "REDIRECT_URI": REDIRECT_URI, "input": self.ask}
        names |= {"INTERNAL_KEY": self.nest.internal_key, "ISSUER": issuer, "__name__": "__main__", **more}
        code = SAMPLES[heading][number]
        if "async with" in code:
            code = f"async def sample():\n{code}".replace("\n", "\n    ") + "\nimport asyncio\nasyncio.run(sample())"
        code = code.replace('"tokens.json"', repr(str(self.folder / "tokens.json")))
        await asyncio.to_thread(exec, compile(code, f"README, {heading}", "exec"), names)
        # The services in this process print their log at any time.
        printed = re.sub(r"^\[\w+ *\] .*\n", "", self._capsys.readouterr().out, flags=re.MULTILINE)
        return names | {"printed": printed}


@pytest.fixture
async def reader(nest: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Reader:
    return Reader(nest, tmp_path, capsys)


async def test_person_logs_in_and_opens_a_protected_route(reader: Reader) -> None:
    logged_in = await reader.run("Log a person in")
    assert logged_in["printed"] == "taro@example.com\n"
    assert logged_in["session"].tokens.user_id == json.loads((reader.folder / "tokens.json").read_text())["user_id"]

    app = (await reader.run("Protect a route", NEST=reader.nest.environment["NEST_ISSUER"]))["app"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as http:
        token = logged_in["session"].tokens.access_token
        assert (await http.get("/me")).status_code == 401
        answer = await http.get("/me", headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()) == (200, logged_in["session"].tokens.user_id)


async def test_back_end_lists_clients_and_handles_errors(reader: Reader) -> None:
    assert (await reader.run("Log a person in", 1))["printed"]
    printed = (await reader.run("Errors and retries"))["printed"]
    assert re.search(r" /reference#error-client_not_found \S+\n$", printed)


async def test_signed_webhooks_are_handled(reader: Reader) -> None:
    handled: list[tuple[str, Any]] = []

    async def handle_once(message: str, payload: Any) -> None:
        handled.append((message, payload))

    app = (await reader.run("Verify webhooks", handle_once=handle_once))["app"]
    body, now = '{"type": "user.created"}', int(time.time())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test") as http:
        for secret, expected in (("whsec_b2xk", 204), ("whsec_AAAA", 400)):
            signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(now, UTC), body)
            headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": signature}
            answer = await http.post("/webhooks", content=body, headers=headers)
            assert answer.status_code == expected
    assert handled == [("msg_1", {"type": "user.created"})]


async def test_events_are_described_by_their_type(reader: Reader) -> None:
    describe = (await reader.run("Verify webhooks", 1))["describe"]

    trial = {"user_id": "user_1", "subscription_id": "sub_1", "ends_at": "2026-12-05T00:00:00.000Z"}
    assert describe({"type": "trial.started", "data": trial}) == "trial of user_1 until 2026-12-05T00:00:00.000Z"
    assert describe({"type": "user.erased", "data": {"user_id": "user_1"}}) == "forget user_1"
    assert describe({"type": "user.created", "data": {}}) == "ignored: user.created"
    assert describe({"type": "unknown", "body": [1]}) == "ignored, in full: [1]"


def test_every_sample_is_run() -> None:
    numbers = {heading: len(samples) for heading, samples in SAMPLES.items() if samples}

    assert numbers.pop("Test your app") == 1  # by `test_testing.py`
    assert numbers == {"Log a person in": 2, "Errors and retries": 1, "Protect a route": 1, "Verify webhooks": 2}
