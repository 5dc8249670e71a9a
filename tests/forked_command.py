"""The `nest` command with everything that it imports when it runs; for the server of tests/forked.py."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from typer.main import get_command

from services import cli, operator

for _name in cli.Name:
    import_module(f"services.{_name}.app")
for _module in pkgutil.walk_packages(operator.__path__, f"{operator.__name__}."):
    import_module(_module.name)
import_module("aiohttp")

COMMAND = get_command(cli.app)
