"""Mails of the sink: the codes in their links, and when they were handed over."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from email import message_from_string, policy
from pathlib import Path
from typing import Any, Final

ARRIVAL_SECONDS: Final = 120.0
_CODE: Final = re.compile(r"[?&]code=([^&\s]+)")


class Mails:
    """The growing file of a sink.

    Args:
        file: its path.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def size(self) -> int:
        """Bytes so far: the position at which the next mail begins."""
        return self._file.stat().st_size

    async def since(self, position: int) -> AsyncIterator[dict[str, Any]]:
        """Yield the mails from a position on, without end.

        Raises:
            AssertionError: the next one did not arrive within ``ARRIVAL_SECONDS``.
        """
        end = time.monotonic() + ARRIVAL_SECONDS
        line = ""
        with self._file.open() as lines:
            lines.seek(position)
            while True:
                # A line that is being written may arrive in two parts.
                line = line + lines.readline()
                if not line.endswith("\n"):
                    assert time.monotonic() < end, f"mails did not arrive within {ARRIVAL_SECONDS} s"
                    await asyncio.sleep(0.02)
                    continue
                mail, line = json.loads(line), ""
                end = time.monotonic() + ARRIVAL_SECONDS
                yield mail

    async def codes(self, wanted: set[str], *, start: int = 0) -> AsyncIterator[tuple[str, str]]:
        """Yield address and code of the first mail with a code to each of these addresses, from ``start`` on."""
        async for mail in self.since(start):
            if mail["to"] in wanted and (code := code_of(mail["content"])):
                wanted.discard(mail["to"])
                yield mail["to"], code
            if not wanted:
                return


def code_of(mail: str) -> str | None:
    """The code of the magic link in a mail's text, if it has one."""
    part = message_from_string(mail, policy=policy.default).get_body(("plain",))
    found = _CODE.search(part.get_content()) if part is not None else None
    return found[1] if found else None
