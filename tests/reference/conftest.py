from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.stack import HIGH_LIMITS, Stack, running_stack


@pytest.fixture(scope="package")
async def nest(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """A running Nest with all optional routes and with tokens of RFC 9068, shared by the tests of the reference.

    Its rate limits are high: a refusal for a rate limit would hide other responses.
    """
    prefix = unique()
    async with running_stack(
        tmp_path_factory.mktemp("nest"),
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        settings={
            **HIGH_LIMITS,
            "NEST_REPLY_SECONDS": "30",
            "NEST_OLD_CLIENTS": "true",
            "NEST_TEST_LOGIN": "true",
            "NEST_ACCESS_TOKEN_TYPE": "at+jwt",
        },
    ) as running:
        yield running
