"""Build of the TypeScript client, once for all tests and workers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

import filelock

FOLDER: Final = Path(__file__).parents[1] / "clients" / "typescript"
SECONDS: Final = 120


async def built() -> Path:
    """Compile the client if its source has changed, and return its folder."""
    assert (FOLDER / "node_modules").is_dir(), "run `make install-clients`"
    lock = filelock.AsyncFileLock(FOLDER / "node_modules" / ".build.lock")
    async with lock:
        digest = hashlib.sha256()
        for path in sorted([*(FOLDER / "src").iterdir(), FOLDER / "tsconfig.json", FOLDER / "package-lock.json"]):
            digest.update(path.name.encode() + path.read_bytes())
        stamp = FOLDER / "node_modules" / ".built"
        if not (FOLDER / "dist").is_dir() or not stamp.is_file() or stamp.read_text() != digest.hexdigest():
            shutil.rmtree(FOLDER / "dist", ignore_errors=True)
            await run("node_modules/.bin/tsc")
            stamp.write_text(digest.hexdigest())
    return FOLDER


async def run(*command: str | Path, cwd: Path = FOLDER, **environment: str) -> str:
    """Run a command with additional variables and return its output; fail with it if the command fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(SECONDS):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()
