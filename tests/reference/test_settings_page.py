"""The settings page and the example of all variables, against the settings classes and the files in the repository."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import pytest
from pydantic import Field, SecretStr

from services.reference.__main__ import EXAMPLE, SETTINGS_PAGE
from services.reference.settings import COMMANDS, EMBEDDED, SERVICES, docstrings, sections, unit_of, variable
from services.reference.settings_page import example, page
from shared.variables import Unit, VariableSettings
from tests.deploy.environments import all_variables, command_variables, other_variables

KINDS: Final[list[type[VariableSettings]]] = [*SERVICES.values(), *COMMANDS, EMBEDDED]
FIELDS: Final = {kind.variable(field): (kind, field) for kind in KINDS for field in kind.model_fields}
"""Every setting, by its variable."""
ROW: Final = re.compile(r"^\| `([A-Z_]+)` \|(.*)\| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)
"""A row of a table of settings: variable, columns between, default and meaning."""
EXAMPLE_LINE: Final = re.compile(r"^(# )?((?:NEST|OTEL)_[A-Z_]+)=(.*)$", re.MULTILINE)


def test_documented_defaults_match_the_settings() -> None:
    assert SETTINGS_PAGE.read_text() == page(), "run make reference"


def test_the_example_matches_the_settings() -> None:
    assert EXAMPLE.read_text() == example(), "run make reference"


def test_every_variable_of_every_process_has_a_row() -> None:
    escaped = page().replace("\\|", "/")
    rows = {name for name, *_ in ROW.findall(escaped)}
    assert set(FIELDS) | all_variables() | command_variables() <= rows | {"NEST_DATA", "NEST_HOST", "NEST_PORT"}
    assert rows <= all_variables() | other_variables() | command_variables() | set(FIELDS)


def test_required_variables_are_not_commented_out_in_the_example() -> None:
    lines = {name: not comment for comment, name, _ in EXAMPLE_LINE.findall(example())}
    required = {name for name, (kind, field) in FIELDS.items() if kind.model_fields[field].is_required()}
    assert all(lines[name] for name in required)
    secrets = {name for name, (kind, field) in FIELDS.items() if kind.secret(field)}
    assert {name.removesuffix("_FILE") for name in lines if name.removesuffix("_FILE") in secrets} == secrets
    assert {f"{name}_FILE" for name in secrets} <= set(lines)
    assert all_variables() <= set(lines)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_meaning_and_every_number_a_unit(name: str) -> None:
    kind, field = FIELDS[name]
    assert docstrings(kind).get(field, "").endswith((".", ")", "``")), f"{kind.__name__}.{field} has no docstring"
    info = kind.model_fields[field]
    if re.search(r"\b(int|float)\b", str(info.annotation)):
        marked = any(isinstance(each, Unit) for each in info.metadata) or "Unit(" in str(info.annotation)
        assert marked or unit_of(field), f"{kind.__name__}.{field} needs a Unit"


class Sample(VariableSettings):
    """Settings of every kind."""

    SECTIONS = {"rate": "Second"}  # noqa: RUF012 -- as a service declares it

    plain: str = Field(default="", max_length=1)
    """Text with ``code`` (docs/bus.md#secrets)."""
    secrets: tuple[SecretStr, ...] = Field(min_length=2)
    """Two secrets."""
    rate: Annotated[float, Unit("calls per second")] | None = Field(default=None, gt=0, le=2.5)
    """A rate."""
    wait_seconds: int = Field(default=3, ge=1, le=9)
    """A wait."""
    standard: SecretStr | None = Field(default=None, validation_alias="OTEL_SAMPLE")
    """A variable that a standard defines."""


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (
            "plain",
            {"type": "text", "limits": "at most 1 character", "meaning": "Text with `code` ([more](bus.md#secrets))."},
        ),
        ("secrets", {"type": "secrets", "limits": "at least 2 entries", "default": None, "secret": True}),
        (
            "rate",
            {
                "type": "number",
                "limits": "calls per second, more than 0, at most 2.5",
                "default": "",
                "section": "Second",
            },
        ),
        ("wait_seconds", {"type": "whole number", "limits": "seconds, 1 to 9", "default": "3"}),
        ("standard", {"name": "OTEL_SAMPLE", "type": "secret", "secret": True}),
    ],
)
def test_a_row_shows_type_unit_bounds_and_default(field: str, expected: dict[str, Any]) -> None:
    row = variable(Sample, field)
    assert {name: getattr(row, name) for name in expected} == expected
    assert sections(Sample)["plain"] == ""
