"""What survives the end of the process? One SQLite file with a row for each object."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    position INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (kind, id)
)
"""


class Journal:
    """Objects on disk; a change of several is written whole or not at all, and survives kill -9.

    The write-ahead log is handed to the kernel at each commit and flushed at checkpoints only: a
    power cut may cost the last moments, never the file.

    Args:
        folder: Where `stripe.sqlite` lies; made when it isn't there.

    Raises:
        sqlite3.OperationalError: The file can't be written, or another double has it open.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(folder / "stripe.sqlite", isolation_level=None, timeout=0)
        # Two doubles on one file would overwrite each other's objects; the kernel ends the lock with us.
        self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(_SCHEMA)

    def load(self) -> Iterator[dict[str, Any]]:
        """Yields every object, the first made first."""
        for (body,) in self._connection.execute("SELECT body FROM objects ORDER BY position"):
            yield from_json(body)

    def write(self, kept: Iterable[dict[str, Any]], removed: Iterable[tuple[str, str]]) -> None:
        """Stores objects under their kind and id, and removes others, in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(
                "INSERT INTO objects (kind, id, body) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                [(entry["object"], entry["id"], to_json(entry)) for entry in kept],
            )
            self._connection.executemany("DELETE FROM objects WHERE kind = ? AND id = ?", list(removed))
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Closes the file; nothing may be written after."""
        self._connection.close()
