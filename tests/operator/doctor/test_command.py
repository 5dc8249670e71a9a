"""`nest doctor` without running services, and its output."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.embedded import ports
from services.operator.doctor import checks
from services.operator.doctor.command import _lines
from services.operator.doctor.findings import Finding, Level


@pytest.fixture
def no_nest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder and an environment without a Nest."""
    for name in ("NEST_URL", "NEST_KAFKA_BOOTSTRAP", "NEST_MONGO_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_without_a_nest_the_error_says_how_to_select_one(no_nest: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--data", str(no_nest)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("nest: which Nest?")
    assert len(done.stderr.splitlines()) == 1


def test_url_alone_checks_the_gateway_only(no_nest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEST_URL", f"http://127.0.0.1:{ports.any_free()}/")
    done = CliRunner().invoke(app, ["doctor", "--data", str(no_nest), "--json"])
    assert done.exit_code == 1
    findings = json.loads(done.stdout)
    assert [(each["level"], each["area"]) for each in findings] == [("skipped", "settings"), ("problem", "gateway")]
    text = CliRunner().invoke(app, ["doctor", "--data", str(no_nest)])
    assert text.stdout.splitlines()[-1] == "1 problem, 0 warnings, 1 skipped"
    assert "\x1b" not in text.output


@pytest.mark.parametrize(
    ("level", "words", "code"),
    [
        ("ok", [], 0),
        ("warning", [], 0),
        ("skipped", [], 0),
        ("skipped", ["--complete"], 1),
        ("problem", [], 1),
        ("ok", ["--service", "gateway", "--service", "news"], 0),
        ("ok", ["--service", "gatway"], 2),
    ],
)
def test_exit_code(no_nest: Path, monkeypatch: pytest.MonkeyPatch, level: str, words: list[str], code: int) -> None:
    async def one_finding(**_: object) -> list[Finding]:
        return [Finding(Level(level), "kafka", "a finding", "a remedy")]

    monkeypatch.setattr(checks, "check_everything", one_finding)
    monkeypatch.setenv("NEST_URL", "http://127.0.0.1:1")
    done = CliRunner().invoke(app, ["doctor", "--data", str(no_nest), *words])
    assert done.exit_code == code, done.output


def test_long_lines_wrap_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = "the certificate of https://a-host-with-a-long-name.example:8443/ ends on 2026-11-21"
    assert _lines("kafka:        ", text, terminal=False) == [f"kafka:         {text}"]
    lines = _lines("kafka:        ", text, terminal=True)
    assert all(len(line) <= 80 - 9 for line in lines)
    assert len(lines) > 1
    assert {line[:15] for line in lines[1:]} == {" " * 15}
    assert lines[0].startswith("kafka:         the")
    assert " ".join(line[15:] for line in lines) == text
