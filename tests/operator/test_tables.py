import json
import re

import pytest

from services.operator.tables import show

ANSWER = {"things": [{"name": "a\x1b[31m\nb", "flag": True, "list": ["x", 1], "none": None, "unseen": 1}]}
COLUMNS = {"name": "NAME", "flag": "FLAG", "list": "LIST", "none": "NONE"}


def test_a_pipe_gets_lines_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, ANSWER["things"], COLUMNS, as_json=False)
    # What would steer a terminal or break the line is gone.
    assert capsys.readouterr().out == "NAME\tFLAG\tLIST\tNONE\na [31m b\tyes\tx, 1\t-\n"


def test_a_script_gets_all_that_nest_said(capsys: pytest.CaptureFixture[str]) -> None:
    show(ANSWER, ANSWER["things"], COLUMNS, as_json=True)
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_a_terminal_gets_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(ANSWER, [{**ANSWER["things"][0], "name": "[bold]a[/bold]"}], COLUMNS, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "FLAG", "LIST", "NONE"]
    assert lines[1].split() == ["[bold]a[/bold]", "yes", "x,", "1", "-"]


ROW = {
    "id": "client_000000C2kdCzNlbL1BqR5FeMatItU",
    "state": "failed",
    "uris": ["https://a", "https://b"],
    "none": None,
}
FOUND = {"id": "CLIENT", "state": "STATE", "uris": "URIS", "none": "NONE", "at": "AT"}


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as on one of 80 columns with colours."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()]


def test_what_does_not_fit_is_shown_row_by_row_and_no_id_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    rows = [{**ROW, "at": "2026-11-21T06:05:09.123Z"}, {**ROW, "state": "done", "uris": []}]
    show(rows, rows, FOUND, as_json=False)
    assert told(capsys) == [
        f"CLIENT  {ROW['id']}",
        "STATE   failed",
        "URIS    https://a",
        "        https://b",
        "AT      2026-11-21 06:05:09Z",
        "",
        f"CLIENT  {ROW['id']}",
        "STATE   done",
    ]
    monkeypatch.setenv("COLUMNS", "120")
    show(rows, rows, FOUND, as_json=False)
    lines = told(capsys)
    assert [line.split() for line in lines] == [
        ["CLIENT", "STATE", "URIS", "NONE", "AT"],
        [ROW["id"], "failed", "https://a,", "https://b", "-", "2026-11-21", "06:05:09Z"],
        [ROW["id"], "done", "-", "-", "-"],
    ]
    assert max(map(len, lines)) <= 120


def test_states_have_colours_unless_somebody_wants_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    show([ROW], [ROW], {"state": "STATE"}, as_json=False)
    assert "\x1b[31mfailed" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    show([ROW], [ROW], {"state": "STATE"}, as_json=False)
    assert "\x1b[3" not in capsys.readouterr().out


def test_an_empty_list_says_so_to_people_and_stays_a_header_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show([], [], COLUMNS, as_json=False)
    assert capsys.readouterr().out == "NAME\tFLAG\tLIST\tNONE\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show([], [], COLUMNS, as_json=False)
    assert told(capsys) == ["none"]


def test_a_text_that_only_looks_like_a_time_stays_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    show([], [{"name": "Z"}, {"name": "HertZ"}], {"name": "NAME"}, as_json=False)
    assert told(capsys) == ["NAME", "Z", "HertZ"]
