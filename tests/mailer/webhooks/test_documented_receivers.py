"""The receivers in docs/webhooks.md, run with the mailer's signatures."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import pytest

from services.embedded import ports
from services.mailer.webhooks.signatures import body_of, headers_of
from tests.stack import eventually
from tests.typescript_client import built, run

PAGE: Final = (Path(__file__).parents[3] / "docs/webhooks.md").read_text()
SECRET: Final = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY: Final = body_of("user.erased", datetime.now(UTC), {"user_id": "user_1"})


def sample(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert SECRET in code
    return code


def headers(secret: str = SECRET, *, at: float | None = None) -> dict[str, str]:
    return headers_of("webhookevent_1", BODY, [secret], at=datetime.fromtimestamp(at or time.time(), UTC))


REFUSED: Final = {
    "another secret": headers("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    "an old timestamp": headers(at=time.time() - 600),
    "no signature": {},
}


async def test_receiver_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    module: dict[str, object] = {"__name__": "receiver"}
    exec(compile(sample("python"), "docs/webhooks.md", "exec", dont_inherit=True), module)  # noqa: S102 -- our document
    app = httpx.ASGITransport(module["app"])  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=app, base_url="http://app.test") as client:
        assert (await client.post("/webhooks", content=BODY, headers=headers())).status_code == 204
        for case, refused in REFUSED.items():
            assert (await client.post("/webhooks", content=BODY, headers=refused)).status_code == 400, case
    assert capsys.readouterr().out == "forget user_1\n"


async def test_receiver_in_typescript(tmp_path: Path) -> None:
    folder = await built()
    modules = tmp_path / "node_modules"
    (modules / "@nest").mkdir(parents=True)
    (modules / "@nest/client").symlink_to(folder)
    (modules / "@types").symlink_to(folder / "node_modules/@types")
    port = ports.any_free()
    (tmp_path / "receiver.ts").write_text(sample("ts").replace("listen(3000)", f'listen({port}, "127.0.0.1")'))
    options = ("--strict", "--module", "nodenext", "--target", "es2022", "--types", "node", "--skipLibCheck")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    await run(folder / "node_modules/.bin/tsc", *options, "receiver.ts", cwd=tmp_path)
    server = await asyncio.create_subprocess_exec(
        "node", "receiver.js", cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def accepted() -> bool:
                with suppress(httpx.ConnectError):
                    return (await client.post("/webhooks", content=BODY, headers=headers())).status_code == 204
                return False

            await eventually(accepted, what="the receiver accepts a webhook")
            for case, refused in REFUSED.items():
                assert (await client.post("/webhooks", content=BODY, headers=refused)).status_code == 400, case
    finally:
        server.kill()
        output, _ = await server.communicate()
    assert output.decode() == "forget user_1\n"
