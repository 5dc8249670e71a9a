import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.embedded.errors import AlreadyRunning, FolderNotWritable
from services.embedded.folder import lock_folder


def test_folder_is_created_for_its_owner_only(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "a" / "b") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / ".gitignore").read_text() == "*\n"


def test_second_process_gets_the_id_of_the_first(tmp_path: Path) -> None:
    holder = """
import sys
from pathlib import Path
from services.embedded.folder import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(AlreadyRunning, match=f"process {other.pid} uses .*: stop it"), lock_folder(tmp_path):
            pass
        other.kill()
    with lock_folder(tmp_path):  # the kernel has released the lock of the killed process
        assert int((tmp_path / "lock").read_text()) == os.getpid()


def test_folder_that_cannot_be_created_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FolderNotWritable) as error, lock_folder(file / "data"):
        pass
    assert str(error.value) == f"can't write to {file / 'data'} (Not a directory): choose another folder with --data"
