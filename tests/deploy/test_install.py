"""The installer that `make` runs first, on machines without a suitable Python: a one-line error with the remedy."""

import shutil
import subprocess
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
