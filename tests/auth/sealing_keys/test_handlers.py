"""Sum of the messages that each sealing key has sealed, over processes and restarts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.auth.sealing_keys.handlers import MOST_MESSAGES
from shared.messages.auth.sealing_keys import CountSealedMessages
from tests.service_harness import ServiceHarness


def exported(key_id: str) -> float | None:
    return REGISTRY.get_sample_value("nest_sealing_key_messages", {"key_id": key_id})


async def count(harness: ServiceHarness, key_id: str, messages: int, **fields: str) -> None:
    await harness.deliver(CountSealedMessages(key=key_id, key_id=key_id, count=messages), **fields)


async def test_counts_add_up_for_each_key_and_survive_a_restart(
    harness: ServiceHarness, new_harness: Callable[..., ServiceHarness]
) -> None:
    await count(harness, "k1", 10)
    await count(harness, "k1", 5, id="1" * 32)
    await count(harness, "k1", 5, id="1" * 32)  # a repeated delivery
    await count(harness, "k2", 7)
    assert (exported("k1"), exported("k2")) == (15, 7)
    async with new_harness() as restarted:
        await count(restarted, "k1", 1)
    assert exported("k1") == 16


@pytest.mark.parametrize(("messages", "errors"), [(MOST_MESSAGES - 1, 0), (MOST_MESSAGES, 1)])
async def test_used_up_key_is_logged_as_an_error(harness: ServiceHarness, messages: int, errors: int) -> None:
    with capture_logs() as logs:
        await count(harness, "k3", messages)
    found = [entry["log_level"] for entry in logs if entry["event"].startswith("sealing key used up")]
    assert found == ["error"] * errors
    assert MOST_MESSAGES < 2**32
