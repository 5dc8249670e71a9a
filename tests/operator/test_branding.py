import json
from pathlib import Path

import pytest

from shared.messages.mailer.mails import VARIABLES
from shared.messages.mailer.texts import TEXT_VARIABLES
from tests.operator.conftest import NestStub

CHOSEN = {"product_name": "Beak", "accent_colour": None, "locale": "de", "sender_name": None}


@pytest.fixture
def branded(nest: NestStub) -> NestStub:
    """A stub whose client has chosen a branding."""
    for method in ("get_client_looks", "set_client_looks"):
        nest.responses[method] = {**nest.responses[method], "chosen": CHOSEN}
    return nest


def test_shows_chosen_and_effective_branding(branded: NestStub) -> None:
    result = branded.run("clients", "looks", "show", "client_1")
    assert result.exit_code == 0, result.output
    lines = [line.split("\t") for line in result.output.splitlines()]
    assert lines[0] == ["FIELD", "CHOSEN", "SHOWN"]
    assert ["product_name", "Beak", "Beak"] in lines
    assert ["sender", "-", "Beak <mail@getbeak.app>"] in lines


def test_set_keeps_omitted_fields_and_reset_clears_all(branded: NestStub) -> None:
    result = branded.run("clients", "looks", "set", "client_1", "--accent-colour", "#000000", "--json")
    assert json.loads(result.output)["client_id"] == "client_1"
    assert branded.calls == [
        ("get_client_looks", {"client_id": "client_1"}),
        ("set_client_looks", {"client_id": "client_1", **CHOSEN, "accent_colour": "#000000"}),
    ]
    assert branded.run("clients", "looks", "reset", "client_1").exit_code == 0
    assert branded.calls[-1] == ("set_client_looks", {"client_id": "client_1"})


def test_preview_writes_every_mail_in_every_language_and_branding(tmp_path: Path, nest: NestStub) -> None:
    out = tmp_path / "out"
    result = nest.run("mail", "preview", "--out", str(out), "--client", "client/1")
    assert result.exit_code == 0, result.output
    # In five languages, in the three brandings of the preview and the client's.
    templates = len(VARIABLES) + len(TEXT_VARIABLES)
    assert templates >= 20
    assert result.output.startswith(f"{templates * 5 * 4} mails and texts are in ")
    assert (out / "index.html").is_file()
    assert len(list(out.glob("client-1/*/*.txt"))) == templates * 5
    assert "Bei Beak anmelden" in (out / "client-1/de/magic-link.txt").read_text()
    assert (out / "own/en/login-code.txt").read_text().startswith("204817 is your Product code.")


def test_preview_names_an_unusable_template(tmp_path: Path, nest: NestStub) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "welcome.html").write_text("")
    folders = ("--templates", str(tmp_path / "own"), "--out", str(tmp_path / "out"))
    result = nest.run("mail", "preview", *folders)
    assert (result.exit_code, (tmp_path / "out").exists()) == (1, False)
    assert "welcome.html is not a template that Nest uses" in result.output
