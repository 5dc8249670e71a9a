"""Steps of the proof: a line for each, commands, and conditions that are waited for."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_SECONDS = 120.0
REASON = 1000
"""Longest text of a refusal."""


class Failed(Exception):
    """A step failed; the text says why."""


@contextmanager
def step(name: str) -> Iterator[list[str]]:
    """Print a step with its time and what it found, which the block appends to the list."""
    started, notes = time.monotonic(), list[str]()
    state = "FAILED"
    try:
        yield notes
        state = "ok"
    finally:
        print(
            f"{state:<7}{time.monotonic() - started:7.1f} s  {name}{''.join(f'; {note}' for note in notes)}", flush=True
        )


def run(*command: str | Path, folder: Path | None = None, stdin: str | None = None, **environment: str) -> str:
    """Run a command and return its output.

    Raises:
        Failed: its exit code is not 0.
    """
    done = subprocess.run(  # noqa: S603 -- those programs, go and openssl
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()
        # The API server puts the whole object between the field and the reason.
        reason = reason if len(reason) <= REASON else f"{reason[: REASON // 2]} … {reason[-REASON // 2 :]}"
        raise Failed(f"{Path(command[0]).name} {command[-1]}: {reason}")
    return done.stdout


def until(condition: Callable[[], str], *, seconds: float = WAIT_SECONDS) -> None:
    """Wait until the condition returns no reason against it.

    Raises:
        Failed: it still does.
    """
    end = time.monotonic() + seconds
    while (reason := condition()) and time.monotonic() < end:
        time.sleep(0.3)
    if reason:
        raise Failed(reason)
