"""Facts about the machine and the software of a measurement."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pymongo import AsyncMongoClient

ROOT: Final = Path(__file__).parents[2]


async def facts(mongo: str) -> dict[str, Any]:
    """Return the facts, with the version of the MongoDB at this URL.

    ``commit`` ends with ``+`` if the working tree has changes; ``load`` is the load average of the minute before, by
    which a reader sees whether the machine was quiet.
    """
    async with AsyncMongoClient[dict[str, Any]](mongo) as client:
        database = (await client.server_info())["version"]
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kafka": _kafka(),
        "mongodb": database,
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(os.getloadavg()[0], 2),
    }


def described(machine: dict[str, Any]) -> str:
    """The facts in a sentence."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']};"
        f" Python {machine['python']}, Kafka {machine['kafka']}, MongoDB {machine['mongodb']};"
        f" commit {machine['commit']}, {machine['date']}, load average before the run {machine['load']}"
    )


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _kafka() -> str:
    jars = tomllib.loads((ROOT / "services/embedded/jgo.toml").read_text())["dependencies"]["coordinates"]
    return next(str(name).rpartition(":")[2] for name in jars if name.startswith("org.apache.kafka:"))


def _commit() -> str:
    def git(*words: str) -> str:
        ran = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return ran.stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain") else "")
