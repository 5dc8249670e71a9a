"""Supply chain: security rules of the linter, audit of packages, bill of materials, and images by digest."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator

from tests.deploy.environments import ROOT

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE: Final = (ROOT / "Makefile").read_text()
DOCKERFILE: Final = (ROOT / "deploy/Dockerfile").read_text()
BAD: Final = {
    "S307": "print(eval(input()))",
    "S602": "import subprocess\nsubprocess.run(input(), shell=True)",
    "S301": "import pickle\npickle.loads(b'')",
    "S506": "import yaml\nyaml.load('', Loader=yaml.Loader)",
    "S501": "import httpx\nhttpx.get('https://example.com', verify=False, timeout=1)",
    "S324": "import hashlib\nhashlib.md5(b'')",
    "S608": "name = input()\nquery = f'SELECT * FROM users WHERE name = {name}'",
    "S104": "HOST = '0.0.0.0'",
    "S105": "password = 'hunter2'",
}
"""Code that bandit's rules report, by rule."""
TESTS_ONLY: Final = {"S101", "S104", "S105", "S106", "S107", "S311", "S603", "S607"}


def audit() -> Any:
    namespace: dict[str, Any] = {"__file__": str(ROOT / "requirements/audit.py"), "__name__": "audit"}
    exec(compile((ROOT / "requirements/audit.py").read_text(), "audit.py", "exec"), namespace)  # noqa: S102 -- ours
    return namespace["report"]


def test_no_security_rule_is_off_outside_of_tests() -> None:
    lint = PROJECT["tool"]["ruff"]["lint"]
    assert lint["select"] == ["ALL"]
    assert not [rule for rule in lint["ignore"] if re.fullmatch(r"S\d*", rule)]
    off = {
        folder: {rule for rule in rules if re.fullmatch(r"S\d+", rule)}
        for folder, rules in lint["per-file-ignores"].items()
    }
    assert {folder: rules for folder, rules in off.items() if rules} == {
        "tests/**": TESTS_ONLY,
        "examples/**/test_*.py": {"S101"},
    }
    assert not {"exclude", "extend-exclude", "force-exclude"} & {*PROJECT["tool"]["ruff"], *lint}


@pytest.mark.parametrize("folder", ["services/auth", "services/embedded", "shared/bus", "requirements", "tests/auth"])
def test_security_rules_apply_to_every_folder(folder: str) -> None:
    source = "\n".join(BAD.values())
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "json"]
    ran = subprocess.run(
        [*command, "--stdin-filename", f"{folder}/bad.py", "-"],
        cwd=ROOT,
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {each["code"] for each in json.loads(ran.stdout)}
    wanted = set(BAD) - TESTS_ONLY if folder.startswith("tests") else set(BAD)
    assert wanted <= found


def test_the_check_runs_the_linter_and_the_audit_everywhere() -> None:
    check = MAKEFILE.partition("\ncheck: ")[2].partition("\n\n")[0]
    assert "ruff check .\n" in check
    assert "requirements/audit.py" in check
    assert "make check" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages, 0 vulnerabilities"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}],
            1,
            "a 1: PYSEC-1, fixed in 2",
        ),
        ([{"name": "a", "skip_reason": "not found"}], 0, "SKIPPED pip-audit: no data about 1 of 1 packages"),
        (
            [
                {"name": "a", "skip_reason": "not found"},
                {"name": "b", "version": "1", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
            ],
            1,
            "b 1: PYSEC-2, fixed in none",
        ),
        (None, 0, "SKIPPED pip-audit: the vulnerability data cannot be reached (ConnectionError: no route)"),
    ],
)
def test_audit_fails_for_vulnerabilities_and_says_what_it_skipped(packages: Any, code: int, says: str) -> None:
    written = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    returned, lines = audit()(written, "Traceback\nConnectionError: no route\n")
    assert returned == code
    assert says in "\n".join(lines)


def test_the_bill_of_materials_is_valid_and_lists_exactly_the_locked_packages(tmp_path: Path) -> None:
    """CycloneDX 1.6, validated with the schema of cyclonedx-python-lib."""
    words = re.search(r"-m (cyclonedx_py .+?) --output-file dist/sbom", MAKEFILE.replace("\\\n", " "))
    assert words is not None
    file = tmp_path / "sbom.cdx.json"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *words[1].split(), "--output-file", str(file)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    bill = json.loads(file.read_text())
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.from_version(bill["specVersion"]))
    assert validator.validate_str(file.read_text()) is None
    assert validator.validate_str(file.read_text().replace('"type": "library"', '"type": "thing"')) is not None
    pins = re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE)
    assert {(each["name"], each["version"]) for each in bill["components"]} == set(pins)
    assert bill["metadata"]["component"]["name"] == "nest"
    hashed = [each for each in bill["components"] if each["externalReferences"][0]["hashes"]]
    assert len(hashed) == len(pins)


def test_the_image_contains_the_bill_of_materials() -> None:
    command = re.search(r"-m (cyclonedx_py .+?) --output-file (\S+)", DOCKERFILE.replace("\\\n", " "))
    ours = re.search(r"-m (cyclonedx_py .+?) --output-file", MAKEFILE.replace("\\\n", " "))
    assert command is not None
    assert ours is not None
    assert command[1].split() == ours[1].split()
    assert command[2] == "/opt/nest/sbom.cdx.json"
    assert DOCKERFILE.index("COPY --from=build /opt/nest /opt/nest") > command.start()


def test_base_images_are_arguments_that_take_digests() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    foreign = {each["image"] for each in services.values() if not each["image"].startswith("nest:")}
    assert foreign
    for image in foreign:
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/-]+:[v0-9.]+\}", image), image


@pytest.mark.parametrize("image", ["", "python:3.13-slim"])
def test_image_without_a_digest_is_refused(image: str) -> None:
    ran = subprocess.run(
        ["make", "image", f"PYTHON_IMAGE={image}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode != 0
    assert "name PYTHON_IMAGE with a digest" in ran.stderr
