"""A process dies where it is told to, and nowhere else."""

import os
import subprocess
import sys

PROGRAM = """
from shared.fault_points import armed, fault_point
for number in range(5):
    fault_point("V1")
    fault_point("V2")
    print(number, armed("V2"))
"""


def ran(point: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "NEST_CRASH_AT": point, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_without_a_point_nothing_dies() -> None:
    assert ran("") == (0, [f"{number} False" for number in range(5)], "")


def test_the_point_is_deadly_the_first_time() -> None:
    assert ran("V2") == (137, [], "")


def test_or_the_nth() -> None:
    assert ran("V2:3") == (137, ["0 True", "1 True"], "")


def test_a_point_that_does_not_exist_is_said_at_once() -> None:
    code, _, said = ran("V9")
    assert code == 1
    assert "unknown point 'V9'" in said
