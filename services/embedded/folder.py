"""Whose is the data folder right now, and can it be written?"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from services.embedded.errors import AlreadyRunning, FolderNotWritable


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Holds `folder` for this process, made if missing and readable by its owner alone; gives its absolute path.

    The kernel lets the lock go when the process ends, however it ends.

    Raises:
        AlreadyRunning: another process holds it.
        FolderNotWritable: it can't be made or written.
    """
    folder = folder.absolute()
    make_writable(folder)
    try:
        folder.chmod(0o700)
        # Data never belong into a repository, whatever folder was chosen.
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
    """Makes the folder if it is missing.

    Raises:
        FolderNotWritable: it can't be made, or no file in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderNotWritable(folder, error.strerror or str(error)) from error
