"""`nest dead`, where a letter is not as most are; the usual is in test_verbs.py and, over a whole Nest, end_to_end."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.operator.answers import ANSWERS
from tests.operator.conftest import Nest

ID = "mailer.commands.17"


def answered(nest: Nest, **changed: Any) -> None:
    """Have a letter found that is so."""
    (letter,) = ANSWERS["list_dead_letters"]["letters"]
    nest.answers["list_dead_letters"] = {"letters": [{**letter, **changed}], "next_cursor": None}


def test_of_a_letter_whose_key_is_gone_it_is_said_why_it_died_and_what_is_missing(nest: Nest, tmp_path: Path) -> None:
    answered(nest, closed=True, key=None, headers=[], body=None)
    shown = nest.run("dead", "show", ID)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "failing" in shown.stdout
    assert "NEST_SEALING_KEYS" in shown.stdout
    assert "headers:" not in shown.stdout
    asked_for = nest.run("dead", "show", ID, "--body-to", str(tmp_path / "body"))
    assert asked_for.exit_code == 1
    assert not (tmp_path / "body").exists()


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ("replayed_before", "1 left alone, put back before (--again puts them back once more)"),
        ("too_old", "1 left alone, older than anybody remembers"),
        ("not_ours", "1 left alone, not written by Nest"),
        ("closed", "1 left alone, sealed with a key that NEST_SEALING_KEYS no longer holds"),
        ("gone", "1 not there (any more)"),
    ],
)
def test_what_became_of_a_letter_is_told_in_words(nest: Nest, outcome: str, told: str) -> None:
    nest.answers["replay_dead_letters"] = {"letters": [{"id": ID, "outcome": outcome}], "next_cursor": None}
    done = nest.run("dead", "replay", ID)
    assert done.exit_code == 0, done.output
    assert told in done.stdout
    said = json.loads(nest.run("dead", "replay", ID, "--json").stdout)
    assert said == {"letters": [{"id": ID, "outcome": outcome}]}


@pytest.mark.parametrize("verb", ["list", "show", "replay"])
def test_each_verb_shows_how_it_is_typed(nest: Nest, verb: str) -> None:
    shown = nest.run("dead", verb, "--help")
    assert "Examples:" in shown.stdout
    assert shown.stdout.count(f"nest dead {verb}") >= 2
