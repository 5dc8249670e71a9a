"""`nest dead` with unusual letters; test_commands.py and tests/end_to_end cover the usual ones."""

import json
from pathlib import Path

import pytest

from tests.operator.conftest import NestStub
from tests.operator.responses import LETTER

ID = LETTER["id"]


def test_letter_sealed_with_a_lost_key_shows_reason_and_missing_key(nest: NestStub, tmp_path: Path) -> None:
    sealed = {**LETTER, "closed": True, "key": None, "headers": [], "body": None}
    nest.responses["list_dead_letters"] = {"letters": [sealed], "next_cursor": None}
    shown = nest.run("dead", "show", ID)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "failing" in shown.stdout
    assert "NEST_SEALING_KEYS" in shown.stdout
    assert "headers:" not in shown.stdout
    body = nest.run("dead", "show", ID, "--body-to", str(tmp_path / "body"))
    assert body.exit_code == 1
    assert not (tmp_path / "body").exists()


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        ("replayed_before", "1 skipped: replayed before (--again replays them again)"),
        ("too_old", "1 skipped: older than the inbox"),
        ("not_ours", "1 skipped: not written by Nest"),
        ("closed", "1 skipped: sealed with a key that is no longer in NEST_SEALING_KEYS"),
        ("gone", "1 not found (any more)"),
    ],
)
def test_replay_prints_each_outcome(nest: NestStub, outcome: str, text: str) -> None:
    nest.responses["replay_dead_letters"] = {"letters": [{"id": ID, "outcome": outcome}], "next_cursor": None}
    done = nest.run("dead", "replay", ID)
    assert done.exit_code == 0, done.output
    assert text in done.stdout
    printed = json.loads(nest.run("dead", "replay", ID, "--json").stdout)
    assert printed == {"letters": [{"id": ID, "outcome": outcome}]}


@pytest.mark.parametrize("verb", ["list", "show", "replay"])
def test_help_shows_several_examples(nest: NestStub, verb: str) -> None:
    shown = nest.run("dead", verb, "--help")
    assert "Examples:" in shown.stdout
    assert shown.stdout.count(f"nest dead {verb}") >= 2
