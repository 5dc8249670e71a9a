"""The page that shows both clients side by side names what exists, and packages can be built."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import nest_client
from nest_client import client, fastapi

from tests.typescript_client import FOLDER, run

ROOT = Path(__file__).parents[2]
ROWS = [
    [each.strip() for each in line.strip("|").split("|")]
    for line in (ROOT / "docs/clients.md").read_text().splitlines()
    if line.startswith("| ")
][1:]


def names(cell: str) -> set[str]:
    """Return the names of classes, methods and arguments in the code of a cell."""
    code = " ".join(re.findall(r"`([^`]*)`", cell))
    return set(re.findall(r"(?<![\w/\"@.])[A-Z]\w+|(?<=\.)[a-zA-Z_]+(?=\()|\w+(?==)|use[A-Z]\w+", code))


def test_python_column_names_what_exists() -> None:
    modules = (nest_client, nest_client.errors, fastapi, client.Client, client.Session, nest_client.PendingLogin)
    source = "".join(path.read_text() for path in (ROOT / "clients/python/nest_client").glob("*.py"))
    known = {name for module in modules for name in dir(module)} | set(re.findall(r"\b(\w+): ", source))
    found = set().union(*(names(row[1]) for row in ROWS)) - {"True"}

    assert len(found) > 20
    assert found - known == set()


def test_typescript_column_names_what_exists() -> None:
    source = "".join(path.read_text() for path in (FOLDER / "src").glob("*.ts"))
    found = set().union(*(names(row[2]) for row in ROWS)) - {"JSON"}

    assert len(found) > 20
    assert [
        name
        for name in found
        if not re.search(rf"\b(class|interface|function|const|async|override) {name}\b|{name}\(", source)
    ] == []


def packed(folder: Path) -> set[str]:
    (wheel,) = folder.glob("nest_client-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


async def test_python_package_contains_the_client_and_its_types(tmp_path: Path) -> None:
    hatchling = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    await run(*hatchling, cwd=ROOT / "clients/python")

    names = packed(tmp_path)
    source = {f"nest_client/{path.name}" for path in Path(nest_client.__file__).parent.iterdir() if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == source
    assert any(name.endswith("/LICENSE") for name in names)
