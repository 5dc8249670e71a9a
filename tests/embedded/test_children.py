import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.embedded.children import Child, end_orphan, start_time
from services.embedded.errors import AlreadyRunning

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.01)


def record_of(child: int, owner: int, *, started: str | None = None) -> str:
    return json.dumps(
        {
            "pid": child,
            "started": start_time(child) if started is None else started,
            "owner": owner,
            "owner_started": "a start time that no process has",
        }
    )


async def test_a_child_is_on_record_while_it_runs(tmp_path: Path) -> None:
    record, log = tmp_path / "pids" / "x.json", tmp_path / "x.log"
    child = await Child.start(SLEEP, record=record, log=log)
    assert json.loads(record.read_text())["pid"] == child.pid
    assert child.exit_code is None
    await child.stop()
    assert not record.exists()
    assert start_time(child.pid) == ""


async def test_a_deaf_child_is_killed_after_its_time(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    child = await Child.start(STUBBORN, record=tmp_path / "x.json", log=log)
    await until(lambda: "deaf" in log.read_text())
    await child.stop(seconds=0.2)
    assert child.exit_code == -signal.SIGKILL


async def test_what_a_child_writes_is_in_its_log_or_in_our_hands(tmp_path: Path) -> None:
    say = [sys.executable, "-c", "import sys; print('out', flush=True); print('err', file=sys.stderr)"]
    log = tmp_path / "x.log"
    logged = await Child.start(say, record=tmp_path / "x.json", log=log)
    await logged.ended()
    assert log.read_text().split() == ["out", "err"]
    piped = await Child.start(say, record=tmp_path / "y.json", log=None)
    assert (await piped.output.read()).split() == [b"out", b"err"]
    await piped.ended()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux only")
async def test_a_child_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    owner = f"""
import asyncio, sys
from pathlib import Path
from services.embedded.children import Child
async def main():
    await Child.start({SLEEP!r}, record=Path({str(record)!r}), log=Path({str(tmp_path / "x.log")!r}))
    await asyncio.sleep(600)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", owner)
    await until(record.exists)
    child = json.loads(record.read_text())["pid"]
    process.kill()
    await process.wait()
    await until(lambda: start_time(child) == "")


def test_an_orphan_is_ended_and_its_record_removed(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    with subprocess.Popen(SLEEP) as orphan:
        record.write_text(record_of(orphan.pid, owner=1))
        assert end_orphan(record, tmp_path)
        assert orphan.wait() == -signal.SIGTERM
    assert not record.exists()


def test_a_deaf_orphan_is_killed(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    with subprocess.Popen(STUBBORN, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout
        orphan.stdout.readline()
        record.write_text(record_of(orphan.pid, owner=1))
        assert end_orphan(record, tmp_path, seconds=0.2)
        assert orphan.wait() == -signal.SIGKILL


def test_a_reused_process_id_is_left_alone(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    with subprocess.Popen(SLEEP) as stranger:
        record.write_text(record_of(stranger.pid, owner=1, started="another time"))
        assert not end_orphan(record, tmp_path)
        time.sleep(0.05)
        assert stranger.poll() is None
        stranger.kill()
    assert not record.exists()


def test_a_child_of_a_living_owner_is_left_alone(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    with subprocess.Popen(SLEEP) as child, subprocess.Popen(SLEEP) as owner:
        known = json.loads(record_of(child.pid, owner.pid)) | {"owner_started": start_time(owner.pid)}
        record.write_text(json.dumps(known))
        with pytest.raises(AlreadyRunning, match=f"in use by process {owner.pid}: stop"):
            end_orphan(record, tmp_path)
        assert child.poll() is None
        child.kill()
        owner.kill()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": null}', "null"])
def test_a_damaged_record_names_nobody(tmp_path: Path, content: str) -> None:
    record = tmp_path / "x.json"
    record.write_text(content)
    assert not end_orphan(record, tmp_path)
    assert not record.exists()


def test_our_own_start_time_is_stable() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) != ""
