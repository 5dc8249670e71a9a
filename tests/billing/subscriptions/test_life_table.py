"""The table of lives in `docs/subscription-lives.md`, played on the Stripe double."""

import os
import re
from pathlib import Path
from typing import Final

import pytest

from tests.billing.conftest import Shop
from tests.billing.subscriptions.lives import LIVES, Player

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "subscription-lives.md"
WRITE: Final = "WRITE_LIVES" in os.environ
"""Write the document instead of comparing it."""
HEAD: Final = ("step", "Stripe", "Nest", "access", "renews", "action", "heartbeat", "mails", "events")


@pytest.fixture(scope="module")
def documented() -> dict[str, str]:
    """The tables of the document, by the title of their life."""
    parts = re.split(r"^## (.+)\n\n", DOCUMENT.read_text(), flags=re.MULTILINE)
    return {title: table.strip() for title, table in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("title", LIVES)
async def test_a_life_goes_as_documented(title: str, shop: Shop, documented: dict[str, str]) -> None:
    player = Player(shop)
    rows = [HEAD, ["---"] * len(HEAD)]
    for name, action in LIVES[title]:
        await action(player)
        await player.settle()
        rows.append([name, *await player.row()])
    played = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    if WRITE:
        _write(title, played, documented)
    assert played.splitlines() == documented.get(title, "").splitlines()


def test_the_document_has_exactly_these_lives(documented: dict[str, str]) -> None:
    assert list(documented) == list(LIVES)


def _write(title: str, table: str, documented: dict[str, str]) -> None:
    documented[title] = table
    introduction = DOCUMENT.read_text().partition("\n## ")[0].rstrip()
    lives = [f"## {each}\n\n{documented[each]}" for each in LIVES if each in documented]
    DOCUMENT.write_text("\n\n".join((introduction, *lives)) + "\n")
