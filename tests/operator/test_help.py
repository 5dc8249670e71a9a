"""One style in every help text: placeholders in capitals or values to choose among, none for flags, whole sentences."""

import re
from typing import Any

import pytest
import typer

from tests.deploy.environments import COMMAND_LINE
from tests.operator.conftest import NestStub
from tests.operator.test_commands import all_commands

PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*(=[A-Z]+)?( \(\d+(\.\d+)? (to \d+|or more)\))?|[a-z_]+(\|[a-z_]+)+")
"""``NAME``, ``PROCESS=NAME``, ``NUMBER (1 to 500)``, ``NUMBER (1 or more)``, ``mail|text``."""
PYTHON = re.compile(r"<\w|list\[|<=|\bbool\b|\bstr\b|\[\[|\{")
"""Python's types and ranges, and nested brackets."""


def groups(group: Any, *before: str) -> list[str]:
    """Return the full names of all groups, the root's is empty."""
    found = [" ".join(before)]
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += groups(command, *before, name)
    return found


@pytest.mark.parametrize("name", [*groups(COMMAND_LINE), *all_commands(COMMAND_LINE)])
def test_help_has_no_types_of_python(nest: NestStub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shown = nest.run(*name.split(), "--help")
    assert shown.exit_code == 0
    assert PYTHON.search(shown.stdout) is None, shown.stdout
    assert f"Usage: nest {name}".strip() in shown.stdout


@pytest.mark.parametrize("name", all_commands(COMMAND_LINE))
def test_parameters_have_a_placeholder_and_a_sentence(nest: NestStub, name: str) -> None:
    nest.run("--version")  # Sets the placeholders.
    command = all_commands(COMMAND_LINE)[name]
    for parameter in command.get_params(typer.Context(command, help_option_names=["-h", "--help"])):
        if getattr(parameter, "is_flag", False):
            assert parameter.metavar == "", parameter.name
        else:
            assert PLACEHOLDER.fullmatch(parameter.metavar), (parameter.name, parameter.metavar)
        assert re.fullmatch(r"(?s)[A-Z].*([.…]|(: .*[^.]))", parameter.help or ""), (parameter.name, parameter.help)


@pytest.mark.parametrize("name", all_commands(COMMAND_LINE))
def test_every_command_has_the_option_json(name: str) -> None:
    options = {option for parameter in all_commands(COMMAND_LINE)[name].params for option in parameter.opts}
    assert name == "run" or "--json" in options
