"""Clients of other people: generated ones have typed errors, and libraries verify tokens of RFC 9068."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from services.embedded.demo import CLIENT_ID
from services.gateway.error_messages import MESSAGES
from services.gateway.methods import METHODS
from services.gateway.openapi_view import NEWEST, OpenApiView
from services.reference.__main__ import OUTPUT
from tests.stack import Stack
from tests.token_verifiers import check_verifiers

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = Path(__file__).parent / "clients"
PYTHON: Final = CLIENTS / "python" / ".venv" / "bin"
NODE_MODULES: Final = CLIENTS / "typescript" / "node_modules"


async def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return its output."""
    assert PYTHON.is_dir(), "run `make install-clients`"
    assert NODE_MODULES.is_dir(), "run `make install-clients`"
    done = await asyncio.to_thread(subprocess.run, command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def arguments(nest: Stack) -> tuple[str, str]:
    """Base URL and internal key."""
    return nest.urls[0], nest.internal["authorization"].removeprefix("internal ")


async def test_document_is_valid_openapi(tmp_path: Path) -> None:
    await run(PYTHON / "python", "-m", "openapi_spec_validator", OUTPUT, cwd=tmp_path)


@pytest.mark.slow
async def test_python_client_has_typed_errors(nest: Stack, tmp_path: Path) -> None:
    config = CLIENTS / "python" / "config.yml"
    output = ("--output-path", tmp_path / "nest_client", "--meta", "none")
    generate = (PYTHON / "openapi-python-client", "generate", "--path", OUTPUT, "--config", config, *output)
    await run(*generate, "--fail-on-warning", cwd=tmp_path)
    shutil.copy(CLIENTS / "python" / "program.py", tmp_path)
    await run(PYTHON / "mypy", "--strict", "program.py", cwd=tmp_path)
    output_text = await run(PYTHON / "python", "program.py", *arguments(nest), cwd=tmp_path)
    version, conflict, unknown = output_text.splitlines()
    assert version == "1"
    assert conflict.startswith("exists already, request ")
    assert conflict.endswith(MESSAGES["client_already_exists"])
    assert unknown == "no such client"


async def test_typescript_client_has_typed_errors(nest: Stack, tmp_path: Path) -> None:
    for name in ("package.json", "tsconfig.json", "program.ts"):
        shutil.copy(CLIENTS / "typescript" / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    programs = NODE_MODULES / ".bin"
    await run(programs / "openapi-typescript", OUTPUT, "--output", tmp_path / "api.ts", cwd=tmp_path)
    await run(programs / "tsc", "--project", tmp_path, cwd=tmp_path)
    output_text = await run("node", "dist/program.js", *arguments(nest), cwd=tmp_path)
    version, conflict, unknown = output_text.splitlines()
    assert version == "1"
    assert conflict.startswith("exists already, request ")
    assert conflict.endswith(MESSAGES["client_already_exists"])
    assert unknown == "no such client"


@pytest.mark.slow
async def test_typescript_examples_of_the_reference_compile(tmp_path: Path) -> None:
    sources = ROOT / "clients/typescript/src"
    groups = OpenApiView(json.loads(OUTPUT.read_text("utf-8")), "https://nest.example").groups
    entries = [entry for _, group in groups for entry in group]
    assert len(entries) > len(METHODS[NEWEST])
    for entry in entries:
        (source,) = [each.source for each in entry.examples if each.id == "typescript"]
        (tmp_path / f"{entry.id}.ts").write_text(
            f"declare const TOKEN: string;\ndeclare const KEY: string;\n{source}\nexport {{}};\n"
        )
    paths = {"@nest/client": [f"{sources}/index.ts"], "@nest/client/node": [f"{sources}/node.ts"]}
    paths["#crypto"] = [f"{sources}/crypto.ts"]
    options = {"strict": True, "noEmit": True, "target": "es2022", "module": "nodenext", "skipLibCheck": True}
    libraries = {"lib": ["es2023", "dom", "dom.iterable"], "types": ["node"], "typeRoots": [f"{NODE_MODULES}/@types"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": {**options, **libraries, "paths": paths}}))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    await run(NODE_MODULES / ".bin/tsc", "--project", tmp_path, cwd=tmp_path)


async def test_libraries_verify_tokens_of_rfc_9068(nest: Stack) -> None:
    await check_verifiers(nest, "verified@example.com", {"alg": "ES256", "typ": "at+jwt"}, {"client_id": CLIENT_ID})


def test_locks_name_no_host() -> None:
    for lock in ("python/requirements.txt", "typescript/package-lock.json", "go/go.mod", "go/go.sum"):
        assert "://" not in (CLIENTS / lock).read_text("utf-8")
