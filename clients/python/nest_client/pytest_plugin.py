"""Fixtures for pytest: a Nest for the whole run, and a person who is logged in.

The plugin is active where this package and pytest are installed. The Nest is started when a test first asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nest_client.client import Session
from nest_client.testing import DATA, LocalNest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings of this plugin."""
    parser.addini("nest_command", "Command that runs Nest; by default that of NEST_COMMAND, else nest.", "args")
    parser.addini("nest_settings", "Settings of Nest, one NAME=value per line.", "linelist")


@pytest.fixture(scope="session")
def nest(pytestconfig: pytest.Config) -> Iterator[LocalNest]:
    """A Nest that is shared by all tests: each test takes people of its own, with ``nest.log_in()``.

    It attaches to the data folder in ``NEST_TEST_DATA``, if that is set.
    """
    if data := os.environ.get(DATA):
        with LocalNest.attach(Path(data)) as attached:
            yield attached
        return
    settings = dict(line.split("=", 1) for line in pytestconfig.getini("nest_settings"))
    command = pytestconfig.getini("nest_command") or None
    with LocalNest.start(command=command, environment=settings) as started:
        yield started


@pytest.fixture
def person(nest: LocalNest) -> Session:
    """The session of a new person of the demo client."""
    return nest.log_in()
