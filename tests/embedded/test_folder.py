import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.embedded.errors import AlreadyRunning, FolderNotWritable
from services.embedded.folder import held


def test_a_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / ".gitignore").read_text() == "*\n"


def test_a_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    holder = """
import sys
from pathlib import Path
from services.embedded.folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=f"in use by process {other.pid}: stop"), held(tmp_path):
            pass
        other.kill()
    with held(tmp_path):  # a kill -9 leaves nothing that is in the way
        assert int((tmp_path / "lock").read_text()) == os.getpid()


def test_a_folder_that_cannot_be_made_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FolderNotWritable) as refusal, held(file / "data"):
        pass
    assert str(refusal.value) == f"can't write to {file / 'data'} (Not a directory): give another folder with --data"
