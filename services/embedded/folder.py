"""The data folder: its lock, and files in it that are replaced in one step."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from services.embedded.errors import AlreadyRunning, FolderNotWritable


@contextmanager
def lock_folder(folder: Path) -> Iterator[Path]:
    """Lock a folder for this process and yield its absolute path. Create it, readable by its owner only.

    The kernel releases the lock when the process exits, even after a crash.

    Raises:
        AlreadyRunning: another process has locked it.
        FolderNotWritable: it cannot be created or written.
    """
    folder = folder.absolute()
    make_writable(folder)
    try:
        folder.chmod(0o700)
        # Data must not get into a repository, whichever folder is used.
        (folder / ".gitignore").write_text("*\n")
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise FolderNotWritable(folder, error.strerror or str(error)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyRunning(folder, int(lock.read() or 0)) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder


def make_writable(folder: Path) -> None:
    """Create a folder if it is missing.

    Raises:
        FolderNotWritable: the folder, or a file in it, cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderNotWritable(folder, error.strerror or str(error)) from error


def replace_file(file: Path, text: str) -> None:
    """Write a file in one step, so that a crash never leaves a part of it. Only its owner may read it."""
    half = file.with_suffix(".new")
    # Created with its mode: between creation and a chmod another process could open it.
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    half.replace(file)
