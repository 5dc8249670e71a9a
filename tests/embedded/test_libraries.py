"""mongod starts on a machine that lacks the libraries it was linked with."""

import os
import subprocess
from pathlib import Path

import pytest

from services.embedded import libraries
from services.embedded.mongo import find_mongod


def test_a_machine_with_all_libraries_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_loads", lambda _name: True)

    assert libraries.environment(tmp_path / "libraries") == dict(os.environ)


def test_mongod_runs_on_the_carried_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_loads", lambda _name: False)
    environment = libraries.environment(tmp_path / "libraries")

    told = subprocess.run([find_mongod(), "--version"], env=environment, capture_output=True, text=True, check=True)

    assert str(tmp_path) in environment["LD_LIBRARY_PATH"]
    assert told.stdout.startswith("db version v6")


def test_links_of_an_earlier_start_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_loads", lambda _name: False)
    (tmp_path / "libcurl.so.4").symlink_to(tmp_path / "gone")

    libraries.environment(tmp_path)

    assert (tmp_path / "libcurl.so.4").exists()
