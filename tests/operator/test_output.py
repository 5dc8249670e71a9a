import json
import re

import pytest

from services.operator.output import Table, columns, show

RESPONSE = {"things": [{"name": "a\x1b[31m\nb", "flag": True, "list": ["x", 1], "none": None, "hidden": 1}]}
COLUMNS = columns("name, flag, list, none")
TABLE = Table(RESPONSE, RESPONSE["things"], COLUMNS)

ROW = {
    "id": "client_000000C2kdCzNlbL1BqR5FeMatItU",
    "state": "failed",
    "uris": ["https://a", "https://b"],
    "none": None,
}
WIDE = columns("id: CLIENT, state, uris, none, at")


def rows(*rows: dict[str, object], titles: dict[str, str]) -> Table:
    return Table(rows, rows, titles)


def emulate_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard output a terminal with 80 columns and colours."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the printed lines without colours."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()]


def test_column_titles_default_to_field_names() -> None:
    assert columns("created_at, stp_id: STRIPE ID, user_id") == {
        "created_at": "CREATED",
        "stp_id": "STRIPE ID",
        "user_id": "USER",
    }


def test_pipe_gets_tab_separated_lines_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show(TABLE)
    assert capsys.readouterr().out == "NAME\tFLAG\tLIST\tNONE\na [31m b\tyes\tx, 1\t-\n"


def test_json_is_the_whole_response(capsys: pytest.CaptureFixture[str]) -> None:
    show(TABLE, as_json=True)
    assert json.loads(capsys.readouterr().out) == RESPONSE


def test_terminal_gets_a_table_without_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(rows({**RESPONSE["things"][0], "name": "[bold]a[/bold]"}, titles=COLUMNS))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "FLAG", "LIST", "NONE"]
    assert lines[1].split() == ["[bold]a[/bold]", "yes", "x,", "1", "-"]


def test_wide_table_becomes_records_with_whole_ids(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate_terminal(monkeypatch)
    table = rows({**ROW, "at": "2026-11-21T06:05:09.123Z"}, {**ROW, "state": "done", "uris": []}, titles=WIDE)
    show(table)
    assert printed(capsys) == [
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
    show(table)
    lines = printed(capsys)
    assert [line.split() for line in lines] == [
        ["CLIENT", "STATE", "URIS", "NONE", "AT"],
        [ROW["id"], "failed", "https://a,", "https://b", "-", "2026-11-21", "06:05:09Z"],
        [ROW["id"], "done", "-", "-", "-"],
    ]
    assert max(map(len, lines)) <= 120


def test_states_are_coloured_unless_no_color_is_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate_terminal(monkeypatch)
    table = rows(ROW, titles=columns("state"))
    show(table)
    assert "\x1b[31mfailed" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    show(table)
    assert "\x1b[3" not in capsys.readouterr().out


def test_empty_list_is_a_word_on_a_terminal_and_a_header_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(Table([], [], COLUMNS))
    assert capsys.readouterr().out == "NAME\tFLAG\tLIST\tNONE\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(Table([], [], COLUMNS))
    assert printed(capsys) == ["none"]


def test_text_that_resembles_a_time_is_unchanged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate_terminal(monkeypatch)
    show(rows({"name": "Z"}, {"name": "HertZ"}, titles=columns("name")))
    assert printed(capsys) == ["NAME", "Z", "HertZ"]
