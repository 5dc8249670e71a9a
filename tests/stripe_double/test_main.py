"""The double as a program, called with stripe-python."""

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import stripe

COMMAND = (sys.executable, "-m", "services.stripe_double")


@asynccontextmanager
async def program(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start the program on a free port, yield it and its URL, and kill it if it still runs."""
    process = await asyncio.create_subprocess_exec(*COMMAND, "--port", "0", *options, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        yield process, line.rpartition(" ")[2].strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


@asynccontextmanager
async def client(url: str, api_key: str = "sk_test_double") -> AsyncIterator[Any]:
    http = stripe.HTTPXClient(timeout=5)
    try:
        yield stripe.StripeClient(api_key, base_addresses={"api": url}, http_client=http).v1  # type: ignore[typeddict-item]
    finally:
        await http.close_async()


async def run(*options: str) -> tuple[int | None, str]:
    """Run the program to its end; return its exit code and its output, on one line."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, re.sub(r"\W*\n\W*", " ", output.decode())


async def test_stripe_python_calls_the_program_until_sigterm() -> None:
    async with (
        program("--api-key", "sk_test_1", "--start", "2026-01-01") as (process, url),
        client(url, "sk_test_1") as v1,
    ):
        customer = await v1.customers.create_async({"email": "ada@example.com"})
        assert (await v1.customers.retrieve_async(customer.id)).email == "ada@example.com"
        assert 0 <= customer.created - 1767225600 < 60
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_the_program_restores_its_account_from_the_folder(tmp_path: Path) -> None:
    folder = ("--folder", str(tmp_path))
    async with program(*folder) as (process, url), client(url) as v1:
        customer = await v1.customers.create_async({"name": "Ada"})
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    async with program(*folder) as (_, url), client(url) as v1:
        assert (await v1.customers.retrieve_async(customer.id)).name == "Ada"


async def test_the_control_api_works_from_another_process() -> None:
    async with program() as (_, url), httpx.AsyncClient(base_url=url, auth=("sk_test_double", "")) as http:
        before = (await http.get("/_double/clock")).json()["now"]
        after = (await http.post("/_double/clock", json={"advance": 86400})).json()["now"]
        assert 86400 <= after - before < 86460


async def test_help_lists_the_options_with_examples() -> None:
    code, output = await run("--help")
    assert code == 0
    for part in ("--folder", "--webhook-secret", "Examples", "curl -u sk_test_double:"):
        assert part in output


async def test_a_port_in_use_is_reported_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output = await run("--port", str(port))
    assert (code, output.strip()) == (1, f"stripe_double: can't listen on 127.0.0.1:{port}: Address already in use")


async def test_a_folder_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    async with program("--folder", str(tmp_path)):
        code, output = await run("--port", "0", "--folder", str(tmp_path))
    assert code == 1
    assert f"can't use folder {tmp_path}" in output


async def test_a_webhook_url_without_a_secret_is_refused() -> None:
    code, output = await run("--webhook-url", "http://127.0.0.1:1/")
    assert (code, "needs a --webhook-secret" in output) == (2, True)
