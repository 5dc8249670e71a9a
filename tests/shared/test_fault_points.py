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


def run(point: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "NEST_CRASH_AT": point, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_without_a_point_the_process_survives() -> None:
    assert run("") == (0, [f"{number} False" for number in range(5)], "")


def test_the_process_dies_at_its_point() -> None:
    assert run("V2") == (137, [], "")


def test_the_process_dies_at_the_nth_time() -> None:
    assert run("V2:3") == (137, ["0 True", "1 True"], "")


def test_an_unknown_point_ends_the_start() -> None:
    code, _, errors = run("V9")
    assert code == 1
    assert "unknown point 'V9'" in errors
