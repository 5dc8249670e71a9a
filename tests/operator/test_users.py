import json
from copy import deepcopy
from pathlib import Path

import pytest

from tests.operator.conftest import NestStub
from tests.operator.responses import EXPORT

DISMISSAL = {"newsItemId": "newsitem_1"}


def test_export_file_is_readable_by_its_owner_only(nest: NestStub, tmp_path: Path) -> None:
    to = tmp_path / "ada.json"
    to.write_text("older")
    to.chmod(0o644)
    done = nest.run("users", "export", "user_1", "--to", str(to))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"written: {to}\n")
    assert json.loads(to.read_text())["services"]["news"]["dismissals"] == [DISMISSAL]
    assert to.stat().st_mode & 0o777 == 0o600
    failed = nest.run("users", "export", "user_1", "--to", str(tmp_path))
    assert (failed.exit_code, "can't be written" in failed.stderr) == (1, True)


def test_export_merges_its_pages(nest: NestStub, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [deepcopy({**EXPORT, "next_cursor": cursor}) for cursor in (1, None)]
    call = nest.call
    monkeypatch.setattr(
        nest, "call", lambda method, body: pages.pop(0) if method == "get_user_export" else call(method, body)
    )
    export = json.loads(nest.run("users", "export", "user_1").stdout)
    assert export["services"]["news"]["dismissals"] == [DISMISSAL] * 2
    assert "next_cursor" not in export


def test_unfinished_erasure_shows_what_it_waits_for(nest: NestStub) -> None:
    running = {
        **nest.responses["erase_user"],
        "state": "running",
        "finished_at": None,
        "services": [{"service": "billing", "done_at": None, "waits_for": "stripe", "reason": "no route"}],
    }
    nest.responses["erase_user"] = nest.responses["get_user_process"] = running
    done = nest.run("users", "erase", "user_1", "--yes", "--wait", "0.1")
    assert done.exit_code == 2
    assert "waiting for billing (which waits for stripe: no route)" in done.stderr
    assert "nest users erase --process userproc_1" in done.stderr
    assert "stripe\t-\tno route" in done.stdout
