"""The installer that `make` runs first, on machines without a suitable Python: a one-line error with the remedy.

On others it shows how far pip is.
"""

import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "requirements" / "install"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that contains only the installer and an empty lock."""
    (tmp_path / "requirements").mkdir()
    shutil.copy(INSTALL, tmp_path / "requirements" / "install")
    (tmp_path / "requirements" / "dev.txt").write_text("")
    return tmp_path


def python(folder: Path, script: str) -> Path:
    """Create a shell script that replaces the Python interpreter."""
    interpreter = folder / "interpreter"
    interpreter.write_text(f"#!/bin/sh\n{script}\n")
    interpreter.chmod(0o755)
    return interpreter


def install(checkout: Path, interpreter: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "requirements" / "install", "dev"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(interpreter)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_old_python_is_refused_in_one_line(checkout: Path) -> None:
    completed = install(checkout, python(checkout, "exit 1"))
    assert completed.returncode == 1
    assert completed.stderr.startswith("nest: needs Python 3.11 or later and found ")
    assert completed.stderr.endswith("install it, or run make PYTHON=/path/to/python3\n")
    assert completed.stderr.count("\n") == 1


def test_python_without_venv_is_refused_in_one_line(checkout: Path) -> None:
    script = 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.12;; esac'
    completed = install(checkout, python(checkout, script))
    assert completed.returncode == 1
    assert completed.stderr.endswith(
        "has no venv module: install it (Debian, Ubuntu: apt-get install python3.12-venv)\n"
    )
    assert completed.stderr.count("\n") == 1


def test_unchanged_lock_installs_nothing(checkout: Path) -> None:
    interpreter = checkout / ".venv" / "bin"
    interpreter.mkdir(parents=True)
    python(interpreter, "exit 0").rename(interpreter / "python")
    (checkout / ".venv" / "installed.txt").write_text("")
    completed = install(checkout, checkout / "none")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", "")


PIP = """case "$*" in
    *"-m venv"*) mkdir -p .venv/bin .venv/lib/python3/site-packages; cp "$0" .venv/bin/python ;;
    *--require-hashes*)
        for name in one two; do : >"$TMPDIR/$name.whl"; done
        until [ -e install ]; do sleep 0.02; done
        mkdir .venv/lib/python3/site-packages/one.dist-info
        until [ -e end ]; do sleep 0.02; done
        echo "why it fails" >&2
        exit {code} ;;
    *print*) echo 3.12 ;;
esac"""
"""A Python whose pip downloads two packages, installs one of them when `install` exists, and ends when `end` does."""


@pytest.fixture
def two_packages(checkout: Path) -> Path:
    """A checkout with a lock of two packages for every system and one for Windows."""
    lock = "one==1\ntwo==2 ; python_version < '4'\ncolorama==3 ; sys_platform == 'win32'\n"
    (checkout / "requirements" / "dev.txt").write_text(lock)
    return checkout


def installed_step_by_step(checkout: Path, read: int, write: int) -> str:
    """Run the installer with this standard output, let pip continue after each report, and return the output."""
    process = subprocess.Popen(
        [checkout / "requirements" / "install", "dev"],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHON": str(python(checkout, PIP.replace("{code}", "0"))),
            "NEST_INSTALL_REPORT_SECONDS": "0",
        },
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    printed = ""
    # A moving line has been drawn twice.
    for report, step in (("downloaded 2 of 2", "install"), ("installed 1 of 2", "end")):
        while printed.count(report) < 2:
            printed += os.read(read, 1 << 16).decode()
        (checkout / step).touch()
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")
    printed += os.read(read, 1 << 16).decode()
    os.close(read)
    return printed


def test_progress_without_a_terminal_is_plain_lines(two_packages: Path) -> None:
    lines = installed_step_by_step(two_packages, *os.pipe()).splitlines()
    assert lines[0] == "nest: creating .venv with Python 3.12"
    assert re.fullmatch(r"nest: installing 2 packages into \.venv, a download of \d+ MB \(once\)", lines[1])
    for line in lines[2:-1]:
        assert re.fullmatch(r"nest: (downloaded 2|installed 1) of 2 packages, \d+ s", line), line
    assert re.fullmatch(r"nest: installed 2 packages in \d+ s", lines[-1])
    assert {each.name for each in (two_packages / ".venv").iterdir()} == {"bin", "lib", "installed.txt"}


def test_progress_on_a_terminal_is_one_moving_line(two_packages: Path) -> None:
    moving = installed_step_by_step(two_packages, *pty.openpty()).partition("(once)\r\n")[2]
    assert len({*re.findall(r"\r\x1b\[Knest: ([|/\\-]) downloaded 2 of 2 packages, \d+ s", moving)}) > 1
    # The line is cleared before the last one.
    assert re.search(r"\r\x1b\[Knest: installed 2 packages in \d+ s\r\n$", moving)
    assert "\n" not in moving[:-2]


def test_failure_of_pip_shows_its_reason_and_the_next_run_starts_again(two_packages: Path) -> None:
    for step in ("install", "end"):
        (two_packages / step).touch()
    failed = install(two_packages, python(two_packages, PIP.replace("{code}", "1")))
    assert failed.returncode == 1
    reason, remedy = failed.stderr.splitlines()
    assert reason == "why it fails"
    assert remedy.startswith("nest: could not install the packages of requirements/dev.txt: see the lines above")
    assert not (two_packages / ".venv" / "installed.txt").exists()
    assert not (two_packages / ".venv" / "downloads").exists()


def test_ctrl_c_ends_pip(two_packages: Path) -> None:
    interpreter = python(two_packages, PIP.replace("until [ -e install ]", "echo $$ >pid; until [ -e install ]"))
    process = subprocess.Popen(
        # A run of the tests in the background ignores Ctrl-C, and a shell cannot trap what it was started to ignore.
        ["/usr/bin/env", "--default-signal=INT", two_packages / "requirements" / "install", "dev"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(interpreter)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    pid = two_packages / "pid"
    deadline = time.monotonic() + 20
    while not (pid.exists() and pid.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    try:
        assert process.wait(20) == 130
    finally:
        process.kill()
    while Path(f"/proc/{pid.read_text().strip()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
