"""`nest clients looks` and `nest mail preview`, as a person types them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.operator.client import Client

RUN = CliRunner()


@pytest.fixture
def nest(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """A Nest that knows one client; what it was asked."""
    monkeypatch.setenv("NEST_URL", "http://nest.test")
    monkeypatch.setenv("NEST_INTERNAL_KEY", "a key")
    asked: list[tuple[str, dict[str, Any]]] = []
    shown = {
        "product_name": "Beak",
        "sender": "Beak <mail@getbeak.app>",
        "support_address": "help@getbeak.app",
        "accent_colour": "#2f57d6",
        "background_colour": "#f3f4f6",
        "logo_url": None,
        "locale": "de",
    }
    chosen = {"product_name": "Beak", "accent_colour": None, "locale": "de", "sender_name": None}

    def call(_client: Client, method: str, body: dict[str, Any]) -> Any:
        asked.append((method, body))
        return {"client_id": body["client_id"], "chosen": chosen, "shown": shown, "updated_at": None}

    monkeypatch.setattr(Client, "call", call)
    return asked


def test_looks_are_shown_beside_what_was_chosen(nest: list[tuple[str, dict[str, Any]]]) -> None:
    result = RUN.invoke(app, ["clients", "looks", "show", "client_1"])
    assert result.exit_code == 0, result.output
    lines = [line.split("\t") for line in result.output.splitlines()]
    assert lines[0] == ["WHAT", "CHOSEN", "SHOWN"]
    assert ["product_name", "Beak", "Beak"] in lines
    assert ["sender", "-", "Beak <mail@getbeak.app>"] in lines


def test_what_is_not_given_stays_as_it_is(nest: list[tuple[str, dict[str, Any]]]) -> None:
    result = RUN.invoke(app, ["clients", "looks", "set", "client_1", "--accent-colour", "#000000", "--json"])
    assert json.loads(result.output)["client_id"] == "client_1"
    assert nest == [
        ("get_client_looks", {"client_id": "client_1"}),
        (
            "set_client_looks",
            {
                "client_id": "client_1",
                "product_name": "Beak",
                "accent_colour": "#000000",
                "locale": "de",
                "sender_name": None,
            },
        ),
    ]
    assert RUN.invoke(app, ["clients", "looks", "reset", "client_1"]).exit_code == 0
    assert nest[-1] == ("set_client_looks", {"client_id": "client_1"})


def test_every_mail_is_written_to_look_at(tmp_path: Path, nest: list[tuple[str, dict[str, Any]]]) -> None:
    out = tmp_path / "out"
    result = RUN.invoke(app, ["mail", "preview", "--out", str(out), "--client", "client/1"])
    assert result.exit_code == 0, result.output
    # Nine mails and a text, in five languages, in the three looks of the preview and the client's.
    assert result.output.startswith("200 mails and texts are in ")
    assert (out / "index.html").is_file()
    assert len(list(out.glob("client-1/*/*.txt"))) == 50
    assert "Bei Beak anmelden" in (out / "client-1/de/magic-link.txt").read_text()
    assert (out / "own/en/login-code.txt").read_text().startswith("204817 is your Product code.")


def test_a_template_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "welcome.html").write_text("")
    result = RUN.invoke(app, ["mail", "preview", "--templates", str(tmp_path / "own"), "--out", str(tmp_path / "out")])
    assert (result.exit_code, (tmp_path / "out").exists()) == (1, False)
    assert "welcome.html is not a template that Nest uses" in result.output
