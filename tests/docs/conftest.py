"""A running Nest for the commands of all pages."""

from collections.abc import AsyncIterator

import pytest

from tests.nest_up import NestUp, nest_up

ORIGIN = "http://localhost:5173"
"""The origin of the pages in the recipes."""


@pytest.fixture(scope="session")
async def nest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NestUp]:
    """A `nest up` shared by the sessions of all pages."""
    async with nest_up(tmp_path_factory.mktemp("nest"), variables={"NEST_CORS_ORIGINS": ORIGIN}) as running:
        yield running
