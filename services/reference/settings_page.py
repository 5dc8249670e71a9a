"""The settings page, docs/settings.md, and the example with every variable, deploy/example.env."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from services.embedded.machine import DEFAULTS
from services.reference.settings import COMMANDS, EMBEDDED, SERVICES, Variable, service_variables, variable
from services.reference.settings_text import (
    COMMAND_VARIABLES,
    EMBEDDED_OPTIONS,
    EXAMPLE_END,
    EXAMPLE_HEAD,
    GROUPS,
    INTRODUCTION,
    NEXT_TO_SERVICES,
    STANDARD_VARIABLES,
)
from shared.variables import FILE, VariableSettings

COMPOSE: Final = Path(__file__).parents[2] / "deploy" / "compose.yaml"
EXAMPLE_WIDTH: Final = 116
DATABASE_SERVICES: Final = tuple(service for service in SERVICES if service != "gateway")
FLAT: Final = frozenset({"auth, billing, mailer and news", "Several services", "news"})
"""Groups without headings."""
HEAD: Final = "| variable | type | unit and bounds | default | meaning |\n|---|---|---|---|---|"
SHARED_HEAD: Final = "| variable | services | type | unit and bounds | default | meaning |\n|---|---|---|---|---|---|"

IN_GROUP: Final[dict[str, Callable[[Variable], bool]]] = {
    "Every service": lambda each: set(each.readers) == set(SERVICES),
    "auth, billing, mailer and news": lambda each: set(each.readers) == set(DATABASE_SERVICES),
    "Several services": lambda each: 1 < len(each.readers) < len(DATABASE_SERVICES),
    **{service: lambda each, service=service: each.readers == (service,) for service in SERVICES},  # type: ignore[misc]
}
"""Which variables belong to each group of the services' variables, in the order of the page."""


def groups() -> Iterator[tuple[str, dict[str, list[Variable]]]]:
    """Return the groups with their variables by section, those that must be set first."""
    variables = service_variables()
    for group, belongs in IN_GROUP.items():
        by_section: dict[str, list[Variable]] = {}
        for each in filter(belongs, variables):
            by_section.setdefault("" if group in FLAT else each.section, []).append(each)
        yield (
            group,
            {name: sorted(found, key=lambda each: each.default is not None) for name, found in by_section.items()},
        )


def page() -> str:
    """Return docs/settings.md."""
    parts = [INTRODUCTION, *_required()]
    for group, by_section in groups():
        shared = group == "Several services"
        parts += [f"## {group}", *([GROUPS[group]] if group in GROUPS else [])]
        for section, variables in by_section.items():
            rows = "\n".join(_row(each, shared=shared) for each in variables)
            parts += [f"### {section}"] if section else []
            parts.append(f"{SHARED_HEAD if shared else HEAD}\n{rows}")
    parts += [NEXT_TO_SERVICES["commands"], _table(COMMANDS[:1]), COMMAND_VARIABLES]
    parts += [NEXT_TO_SERVICES["own"], _own_variables()]
    parts += [
        NEXT_TO_SERVICES["embedded"],
        _table([EMBEDDED]) + EMBEDDED_OPTIONS,
        NEXT_TO_SERVICES["defaults"],
        _embedded_defaults(),
    ]
    parts += [STANDARD_VARIABLES]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def example() -> str:
    """Return deploy/example.env: every variable with its default; uncommented are those that must be set."""
    must_set = set(re.findall(r"\$\{(NEST_\w+):\?", COMPOSE.read_text()))
    lines = EXAMPLE_HEAD.strip().splitlines()
    for group, by_section in groups():
        for section, variables in by_section.items():
            title = f"{group}: {section}" if section else group
            lines += ["", f"# ==== {title} ===="]
            for each in variables:
                lines += ["", *_example_lines(each, must_set=each.default is None or each.name in must_set)]
    lines += ["", "# ==== Commands of nest ===="]
    for field in COMMANDS[0].model_fields:
        lines += ["", *_example_lines(variable(COMMANDS[0], field), must_set=False)]
    return "\n".join(lines) + EXAMPLE_END


def _example_lines(each: Variable, *, must_set: bool) -> Iterator[str]:
    meaning = re.sub(r"\[[^\]]*\]\(([^)]*)\)", r"docs/\1", each.meaning).replace("`", "")
    limits = f"; {each.limits.replace('`', '')}" if each.limits else ""
    reads = f"; read by {', '.join(each.readers)}" if 1 < len(each.readers) < len(DATABASE_SERVICES) else ""
    yield from (f"# {line}" for line in textwrap.wrap(meaning, EXAMPLE_WIDTH, break_long_words=False))
    yield f"# ({each.type.replace('`', '')}{limits}{reads})"
    value = each.examples[0] if must_set and each.examples else "" if must_set else each.default
    yield f"{'' if must_set else '# '}{each.name}={value}"
    if each.secret:
        yield f"# {each.name}{FILE}=/run/secrets/{each.name.lower()}"


def _required() -> Iterator[str]:
    variables = [each for each in service_variables() if each.default is None]
    rows = [
        f"| `{each.name}` | {_services(each.required_by)} | {_first_sentence(each.meaning)} |" for each in variables
    ]
    yield "## Required settings"
    yield "A service does not start without these. Everything else has a default."
    yield "| variable | required by | meaning |\n|---|---|---|\n" + "\n".join(rows)


def _first_sentence(meaning: str) -> str:
    return re.split(r"(?<=\.) (?=[A-Z`])", meaning)[0]


def _services(names: Sequence[str]) -> str:
    if set(names) == set(SERVICES):
        return "every service"
    return "all but gateway" if set(names) == set(DATABASE_SERVICES) else ", ".join(names)


def _row(each: Variable, *, shared: bool = False) -> str:
    default = "**required**" if each.default is None else f"`{each.default}`" if each.default else "none"
    if shared and each.default is None and each.required_by != each.readers:
        default = f"**required** by {', '.join(each.required_by)}"
    cells = [f"`{each.name}`", *([", ".join(each.readers)] if shared else []), each.type, each.limits, default]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, each.meaning]) + " |"


def _table(kinds: Sequence[type[VariableSettings]]) -> str:
    return "\n".join([HEAD, *(_row(variable(kind, field)) for kind in kinds for field in kind.model_fields)])


def _own_variables() -> str:
    rows = []
    for field in sorted(VariableSettings.OWN):
        kind = next(kind for kind in SERVICES.values() if field in kind.model_fields)
        name = kind.variable(field).removeprefix("NEST_")
        file = f", `NEST_AUTH_{name}{FILE}`" if kind.secret(field) else ""
        rows.append(f"| `NEST_{name}` | `NEST_AUTH_{name}`{file} |")
    return "| variable | of auth alone |\n|---|---|\n" + "\n".join(rows)


def _embedded_defaults() -> str:
    rows = (f"| `{name}` | `{value}` |" for name, value in DEFAULTS.items())
    return "| variable | default of the embedded mode |\n|---|---|\n" + "\n".join(rows)
