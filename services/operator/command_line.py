"""The frame of the `nest` command: one style of placeholders in all help texts, and errors as JSON with ``--json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

PROGRAM: Final = "nest"
JSON_OPTION: Final = "--json"
USAGE: Final = "usage"
ABORTED: Final = "aborted"
_AS_JSON: Final[ContextVar[bool]] = ContextVar("as_json", default=False)


def as_json() -> bool:
    """Whether ``--json`` stands in the command line: standard error then has nothing but the error object."""
    return _AS_JSON.get()


def note(text: str) -> None:
    """Print a line for people on standard error; nothing with ``--json``."""
    if not as_json():
        typer.echo(text, err=True)


def print_error(
    text: str,
    *,
    code: str,
    message: str = "",
    docs: str | None = None,
    request_id: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Print an error on standard error: ``nest: <text>`` in one line, or with ``--json`` one object in one line.

    Args:
        text: reason for people.
        code: stable code, that of the HTTP API if Nest refused a request.
        message: one plain sentence; the text by default.
        docs: URL of the code's description, if it has one.
        request_id: ID of the refused request, if there was one.
        meta: further details of the refusal.
    """
    if not as_json():
        typer.echo(f"{PROGRAM}: {text}", err=True)
        return
    error = {"code": code, "message": message or text, "docs": docs, "request_id": request_id, "meta": dict(meta or {})}
    typer.echo(json.dumps(error, ensure_ascii=False), err=True)


class NestGroup(TyperGroup):
    """The root of all commands."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,  # noqa: ARG002 -- the program has one name, however it is started
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 -- the base's signature
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,
    ) -> Any:
        """Run a command line. With ``--json``, wrong usage and a declined confirmation are error objects too."""
        words = list(sys.argv[1:] if args is None else args)
        context = typer.Context(self, **self.context_settings)
        for command in _commands(self):
            # With the option --help, which the command creates for a context.
            for parameter in command.get_params(context):
                _set_placeholder(parameter)

        def run(*, standalone: bool) -> Any:
            return super(NestGroup, self).main(words, PROGRAM, complete_var, standalone, windows_expand_args, **extra)

        if JSON_OPTION not in words or not standalone_mode:
            return run(standalone=standalone_mode)
        before = _AS_JSON.set(True)
        try:
            code = run(standalone=False)
        except typer.TyperException as error:
            print_error(error.format_message(), code=USAGE)
            code = error.exit_code
        except typer.Abort:
            print_error("not confirmed, nothing was done", code=ABORTED)
            code = 1
        finally:
            _AS_JSON.reset(before)
        sys.exit(code if isinstance(code, int) else 0)


class _Argument(TyperArgument):
    """An argument that help texts name as the usage line does, without its type."""

    def display_type_rich(self, ctx: Any) -> str | None:  # noqa: ARG002 -- the base's signature
        return None

    def _usage_display_name(self) -> str:
        name = self.display_name_raw if self.required else f"[{self.display_name_raw}]"
        return name if self.nargs == 1 else f"{name}..."


def _commands(group: TyperGroup) -> Iterable[TyperGroup | TyperCommand]:
    """A group and all commands below it."""
    yield group
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            yield from _commands(command)
        elif isinstance(command, TyperCommand):
            yield command


def _set_placeholder(parameter: Any) -> None:
    """Give a parameter its placeholder: a word in capitals, or the values to choose among; flags have none.

    Typer's own are Python's types, ``<str>`` and ``<bool>``, and ranges such as ``[1<=x<=500]``.
    """
    if isinstance(parameter, TyperArgument):
        # Typer has no parameter for the class of an argument.
        parameter.__class__ = _Argument
        if parameter.metavar is None:
            parameter.metavar = _choices(parameter) or parameter.name.upper()
    elif isinstance(parameter, TyperOption) and parameter.metavar is None:
        parameter.metavar = "" if parameter.is_flag else _choices(parameter) or _value(parameter)
        # The range is part of the placeholder; values are checked elsewhere.
        parameter.min = parameter.max = None


def _choices(parameter: TyperArgument | TyperOption) -> str:
    choices = parameter.type_descriptor.choices if parameter.type_descriptor.is_choice else None
    return "|".join(str(getattr(each, "value", each)) for each in choices or ())


def _value(option: TyperOption) -> str:
    if option.min is not None and option.max is not None:
        return f"NUMBER ({option.min} to {option.max})"
    if option.min is not None:
        return f"NUMBER ({option.min} or more)"
    if option.type_descriptor.annotation in (int, float):
        return "NUMBER"
    return "PATH" if option.type_descriptor.is_path else option.opts[0].removeprefix("--").replace("-", "_").upper()
