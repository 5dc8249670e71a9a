"""The TypeScript client without a Nest: its own tests, its types, and the content of its package."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from generate_typescript import generated
from openapi_document import Document

from tests.typescript_client import FOLDER, built, run

ROOT = Path(__file__).parents[2]
SIZES = {
    'export { Client, LocalStorageStore } from "@nest/client"': 30_000,
    'export * from "@nest/client/react"': 34_000,
    'export { TokenVerifier } from "@nest/client/server"': 26_000,
    'export { WebhookVerifier } from "@nest/client/server"': 3_000,
}
"""Largest bundles for browsers, minified, in bytes. The README has the sizes with gzip."""


def test_generated_files_are_those_of_the_document() -> None:
    texts = generated(Document())

    assert [path.name for path, text in texts.items() if path.read_text("utf-8") != text] == []


async def test_client_passes_its_own_tests() -> None:
    folder = await built()

    output = await run("node", "--test", *sorted((folder / "tests").glob("*.test.mjs")), cwd=folder)

    assert "# fail 0" in output


async def test_programs_are_checked_against_the_types() -> None:
    folder = await built()

    await run("node_modules/.bin/tsc", "--project", "tests", cwd=folder)


async def test_package_contains_the_modules_of_its_exports_and_nothing_else() -> None:
    folder = await built()
    manifest = json.loads((folder / "package.json").read_text())

    packed = json.loads(
        await run(
            "npm", "pack", "--dry-run", "--ignore-scripts", "--json", "--offline", "--loglevel=silent", cwd=folder
        )
    )

    (package,) = packed if isinstance(packed, list) else packed.values()
    names = {each["path"] for each in package["files"]}
    exported = {path for each in manifest["exports"].values() if isinstance(each, dict) for path in each.values()}
    exported |= set(manifest["imports"]["#crypto"].values())
    assert {path.removeprefix("./") for path in exported} <= names
    source = {f"dist/{path.stem}.{kind}" for path in (folder / "src").iterdir() for kind in ("js", "d.ts")}
    assert names == source | {"package.json", "README.md", "LICENSE"}
    assert list(manifest["dependencies"]) == ["jose"]
    assert manifest["sideEffects"] is False


@pytest.mark.parametrize(("program", "bound"), SIZES.items(), ids=range(len(SIZES)))
async def test_bundle_for_browsers_is_small(program: str, bound: int, tmp_path: Path) -> None:
    folder = await built()
    entry = folder / "tests" / f".bundle-{bound}.js"
    entry.write_text(program)
    try:
        options = (
            "--bundle",
            "--minify",
            "--format=esm",
            "--platform=browser",
            "--external:react",
            "--log-level=error",
        )
        await run("node_modules/.bin/esbuild", entry, *options, f"--outfile={tmp_path / 'out.js'}", cwd=folder)
    finally:
        entry.unlink()

    assert (tmp_path / "out.js").stat().st_size < bound


def test_versions_follow_that_of_nest() -> None:
    nest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert json.loads((FOLDER / "package.json").read_text())["version"] == nest
    assert tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())["project"]["version"] == nest


def test_lock_names_no_host() -> None:
    assert "://" not in (FOLDER / "package-lock.json").read_text("utf-8")
