"""`nest suppressions`, as a person types it."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.operator.client import Client

RUN = CliRunner()
SUPPRESSION = {
    "delivery_id": "delivery_1",
    "cause": "complaint",
    "since": "2026-11-21T06:05:00.000Z",
    "template": "welcome",
    "reason": None,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What a Nest was asked that holds one suppression."""
    monkeypatch.setenv("NEST_URL", "http://nest.test")
    monkeypatch.setenv("NEST_INTERNAL_KEY", "a key")
    asked: list[tuple[str, dict[str, Any]]] = []

    def call(_client: Client, method: str, body: dict[str, Any]) -> Any:
        asked.append((method, body))
        return {"suppressions": [SUPPRESSION], "next_cursor": None} if method == "list_suppressions" else SUPPRESSION

    monkeypatch.setattr(Client, "call", call)
    return asked


def test_suppressions_are_listed_by_what_is_asked_of_them(asked: list[tuple[str, dict[str, Any]]]) -> None:
    result = RUN.invoke(app, ["suppressions", "list", "--cause", "complaint", "--since", "2026-11-21", "--limit", "5"])
    assert result.exit_code == 0, result.output
    lines = [line.split("\t") for line in result.output.splitlines()]
    assert lines == [
        ["SINCE", "CAUSE", "TEMPLATE", "WHAT WAS SAID", "DELIVERY"],
        ["2026-11-21T06:05:00.000Z", "complaint", "welcome", "-", "delivery_1"],
    ]
    assert asked == [
        ("list_suppressions", {"cause": "complaint", "since": "2026-11-21T00:00:00+00:00", "limit": 5}),
    ]


def test_an_address_is_lifted_at_once_and_a_complaint_only_after_a_question(
    asked: list[tuple[str, dict[str, Any]]],
) -> None:
    result = RUN.invoke(app, ["suppressions", "lift", "ada@example.com", "--json"])
    assert json.loads(result.stdout) == SUPPRESSION
    refused = RUN.invoke(app, ["suppressions", "lift", "--delivery", "delivery_1", "--although-complained"], input="n")
    assert refused.exit_code == 1
    assert "called one of our mails spam" in refused.stderr
    for sure in (["--yes"], []):
        given = ["suppressions", "lift", "--delivery", "delivery_1", "--although-complained", *sure]
        assert RUN.invoke(app, given, input="y").exit_code == 0
    assert asked == [
        ("lift_suppression", {"recipient": "ada@example.com", "although_complained": False}),
        ("lift_suppression", {"delivery_id": "delivery_1", "although_complained": True}),
        ("lift_suppression", {"delivery_id": "delivery_1", "although_complained": True}),
    ]


@pytest.mark.parametrize("given", [[], ["ada@example.com", "--delivery", "delivery_1"]])
def test_one_suppression_must_be_named(asked: list[tuple[str, dict[str, Any]]], given: list[str]) -> None:
    assert RUN.invoke(app, ["suppressions", "lift", *given]).exit_code == 2
    assert asked == []
