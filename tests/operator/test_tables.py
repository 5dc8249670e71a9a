import json

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
