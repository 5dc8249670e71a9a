from __future__ import annotations

import argparse
import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import command_line, growth, scale, scale_out
from tests.bench.conftest import RunBench
from tests.bench.cpu_shares import CpuShares, NoCpuShares
from tests.bench.environment import short_names
from tests.bench.measure import Round


def test_processes_have_short_names() -> None:
    names = short_names(["gateway-8080", "gateway-8081", "auth", "auth-2", "news"])
    assert list(names.values()) == ["gateway", "gateway-2", "auth", "auth-2", "news"]


def test_a_row_compares_cpu_time() -> None:
    measured = Round.of([0.001], 1.0)
    assert growth.Row("get_user", measured, measured, (0.5, 0.6)).ratio == pytest.approx(1.2)


def test_ratios_compare_two_instances_with_one() -> None:
    one, two = (scale_out.Result("get_user", 96, rate, 1, 1, 1) for rate in (100, 170))
    assert scale_out.Measured(0.1, jobs={"get_user": [one, two]}).ratios() == {"get_user": 1.7}


def test_every_measured_table_has_a_place_in_the_document() -> None:
    measured = Round.of([0.001], 1.0)
    row = growth.Row("get_user", measured, measured, (0.5, 0.6))
    results = [scale_out.Result("get_user", 96, rate, 1, 1, 1) for rate in (100, 170)]
    hot = scale_out.Measured(0.1, {"get_user": results}, {"get_user": {"auth": 0.9}}, {"auth.events": [9, 11]}, results)
    named = {**growth.tables(growth.Growth({}, {"auth.users": 9}, 1.0, [row], [row])), **scale_out.tables(hot)}
    document = Path(scale.DOCUMENT).read_text()
    for name, (head, rows) in named.items():
        assert f"<!-- table {name} -->\n" in document
        assert all(len(cells) == len(head) for cells in rows)


def test_finished_bench_writes_the_document_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scale.DOCUMENT.parent.mkdir()
    scale.DOCUMENT.write_text("before\n<!-- table hot-keys -->\nold\n<!-- end -->\nafter\n")
    parser = argparse.ArgumentParser()
    command_line.add_options(parser, seconds=3.0)
    tables: dict[str, command_line.Cells] = {"hot-keys": (("load", "p50"), [("none", "1.0")])}
    printed = Console(file=StringIO())

    command_line.finish(parser.parse_args([]), printed, tables, {"a": 1})
    assert "old" in scale.DOCUMENT.read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "docs"]

    command_line.finish(parser.parse_args(["--document", "--json", "results.json"]), printed, tables, {"a": 1})
    text = "before\n<!-- table hot-keys -->\n| load | p50 |\n| --- | --- |\n| none | 1.0 |\n<!-- end -->\nafter\n"
    assert scale.DOCUMENT.read_text() == text
    assert json.loads(Path("results.json").read_text()) == {"a": 1}


def test_a_missing_process_gets_no_share() -> None:
    with pytest.raises(NoCpuShares), CpuShares({"auth": 2**22 + 1}, 0.1):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bench", "options"),
    [
        ("growth", ["--users", "2000", "--codes", "500", "--inbox", "3000", "--audit", "3000", "--settle", "1"]),
        ("scale_out", ["--share", "0.2"]),
    ],
)
def test_bench_runs_a_short_round_of_every_row(run_bench: RunBench, bench: str, options: list[str]) -> None:
    assert json.loads(run_bench(f"tests.bench.{bench}", "--runs", "1", "--seconds", "0.5", *options).read_text())
