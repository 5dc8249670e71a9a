from __future__ import annotations

import json
from pathlib import Path

from tests.bench import performance, plot
from tests.bench.goals import GOALS
from tests.bench.markdown import render
from tests.bench.profile_data import read, write

ROOT = Path(__file__).parents[2]


def test_the_tables_and_the_plot_of_the_document_are_made_of_the_stored_results() -> None:
    document = (ROOT / performance.DOCUMENT).read_text()
    bench, profiles = performance.stored(ROOT)
    assert render(document, performance.tables(bench, profiles)) == document
    assert (ROOT / performance.PLOT).read_text() == plot.svg(bench)


def test_the_document_shows_every_table() -> None:
    document = (ROOT / performance.DOCUMENT).read_text()
    bench, profiles = performance.stored(ROOT)
    assert [name for name in performance.tables(bench, profiles) if f"<!-- table {name} -->" not in document] == []


def test_every_operation_was_measured_and_compared_with_its_goals() -> None:
    bench, _ = performance.stored(ROOT)
    assert set(GOALS) <= {each.name for each in bench.results}
    shown = performance.tables(bench, [])["results"]
    assert all(performance.named(row) in shown for row in GOALS)


def test_profiles_survive_their_file(tmp_path: Path) -> None:
    profiles = read(ROOT / performance.PROFILES)
    write(tmp_path / "profile.json", profiles)
    assert read(tmp_path / "profile.json") == profiles
    assert json.loads((tmp_path / "profile.json").read_text()) == json.loads((ROOT / performance.PROFILES).read_text())
