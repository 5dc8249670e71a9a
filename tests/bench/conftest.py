"""Benchmarks as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RunBench = Callable[..., Path]


@pytest.fixture
def run_bench(tmp_path: Path) -> RunBench:
    """Run a benchmark with options for at most 500 seconds; return the file with its results as JSON."""

    def run(module: str, *options: str) -> Path:
        results = tmp_path / "results.json"
        ran = subprocess.run(
            [sys.executable, "-m", module, *options, "--json", str(results)],
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        return results

    return run
