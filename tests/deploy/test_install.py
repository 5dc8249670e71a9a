"""What `make run` says when a machine lacks something: one line, with what to do."""

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "requirements" / "install"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing in it but the installer and an empty lock."""
    (tmp_path / "requirements").mkdir()
    shutil.copy(INSTALL, tmp_path / "requirements" / "install")
    (tmp_path / "requirements" / "dev.txt").write_text("")
    return tmp_path


def python(folder: Path, script: str) -> Path:
    """A stand-in for a Python interpreter."""
    made = folder / "stand-in"
    made.write_text(f"#!/bin/sh\n{script}\n")
    made.chmod(0o755)
    return made


def install(checkout: Path, interpreter: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "requirements" / "install", "dev"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(interpreter)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_that_is_too_old_is_one_line_with_what_to_do(checkout: Path) -> None:
    done = install(checkout, python(checkout, "exit 1"))
    assert done.returncode == 1
    assert done.stderr.startswith("nest: needs Python 3.11 or later and found ")
    assert done.stderr.endswith("install it, or run make PYTHON=/path/to/python3\n")
    assert done.stderr.count("\n") == 1


def test_a_python_without_venv_is_one_line_with_what_to_do(checkout: Path) -> None:
    script = 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.12;; esac'
    done = install(checkout, python(checkout, script))
    assert done.returncode == 1
    assert done.stderr.endswith("has no venv module: install it (Debian, Ubuntu: apt-get install python3.12-venv)\n")
    assert done.stderr.count("\n") == 1


def test_nothing_is_done_while_the_lock_is_the_installed_one(checkout: Path) -> None:
    interpreter = checkout / ".venv" / "bin"
    interpreter.mkdir(parents=True)
    python(interpreter, "exit 0").rename(interpreter / "python")
    (checkout / ".venv" / "installed.txt").write_text("")
    done = install(checkout, checkout / "none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
