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

from services.embedded.children import Child, start_time, stop_orphan
from services.embedded.errors import AlreadyRunning

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)",
]


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.01)


def record_text(child: int, owner: int, *, started: str | None = None) -> str:
    return json.dumps(
        {
            "pid": child,
            "started": start_time(child) if started is None else started,
            "owner": owner,
            "owner_started": "a start time that no process has",
        }
    )


async def test_running_child_has_a_record(tmp_path: Path) -> None:
    record, log = tmp_path / "pids" / "x.json", tmp_path / "x.log"
    child = await Child.start(SLEEP, record=record, log=log)
    assert json.loads(record.read_text())["pid"] == child.pid
    assert child.exit_code is None
    await child.stop()
    assert not record.exists()
    assert start_time(child.pid) == ""


async def test_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    child = await Child.start(STUBBORN, record=tmp_path / "x.json", log=log)
    await until(lambda: "ready" in log.read_text())
    await child.stop(seconds=0.2)
    assert child.exit_code == -signal.SIGKILL


async def test_output_goes_to_the_log_or_to_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('out', flush=True); print('err', file=sys.stderr)"]
    log = tmp_path / "x.log"
    logged = await Child.start(command, record=tmp_path / "x.json", log=log)
    await logged.wait()
    assert log.read_text().split() == ["out", "err"]
    piped = await Child.start(command, record=tmp_path / "y.json", log=None)
    assert (await piped.output.read()).split() == [b"out", b"err"]
    await piped.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
async def test_child_exits_when_its_parent_is_killed(tmp_path: Path) -> None:
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


def test_orphan_is_stopped_and_its_record_removed(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    with subprocess.Popen(SLEEP) as orphan:
        record.write_text(record_text(orphan.pid, owner=1))
        assert stop_orphan(record, tmp_path)
        assert orphan.wait() == -signal.SIGTERM
    assert not record.exists()


def test_orphan_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    with subprocess.Popen(STUBBORN, stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout
        orphan.stdout.readline()
        record.write_text(record_text(orphan.pid, owner=1))
        assert stop_orphan(record, tmp_path, seconds=0.2)
        assert orphan.wait() == -signal.SIGKILL


def test_process_with_a_reused_id_is_not_stopped(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    with subprocess.Popen(SLEEP) as other:
        record.write_text(record_text(other.pid, owner=1, started="another time"))
        assert not stop_orphan(record, tmp_path)
        time.sleep(0.05)
        assert other.poll() is None
        other.kill()
    assert not record.exists()


def test_child_of_a_running_parent_is_not_stopped(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    with subprocess.Popen(SLEEP) as child, subprocess.Popen(SLEEP) as owner:
        known = json.loads(record_text(child.pid, owner.pid)) | {"owner_started": start_time(owner.pid)}
        record.write_text(json.dumps(known))
        with pytest.raises(AlreadyRunning, match=f"process {owner.pid} uses .*: stop it"):
            stop_orphan(record, tmp_path)
        assert child.poll() is None
        child.kill()
        owner.kill()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": null}', "null"])
def test_invalid_record_is_removed(tmp_path: Path, content: str) -> None:
    record = tmp_path / "x.json"
    record.write_text(content)
    assert not stop_orphan(record, tmp_path)
    assert not record.exists()


def test_start_time_of_a_process_is_stable() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) != ""
