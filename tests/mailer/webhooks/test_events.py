"""Events of Nest as events of webhooks: every type has a source, a documented shape and a stable sample."""

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from services.mailer.webhooks.events import SOURCES, webhook_events
from services.mailer.webhooks.wanted_events import WantedEvents, wanted
from shared.messages import Event
from shared.messages.mailer.webhook_events import DATA, EVENT_TYPES, TEST
from tests.mailer.webhooks.test_models import ENDPOINT
from tests.stack import eventually

SAMPLES = Path("tests/shared/samples")


class Endpoints:
    """Endpoints that can be read or not."""

    def __init__(self) -> None:
        self.stored = [ENDPOINT]
        self.fails = False
        self.reads = 0

    async def enabled(self) -> list[object]:
        self.reads += 1
        if self.fails:
            raise OSError("MongoDB is away")
        return list(self.stored)


def test_every_type_has_a_source_and_data() -> None:
    assert set(EVENT_TYPES) == set(itertools.chain(*SOURCES.values()))
    assert DATA.keys() == {*EVENT_TYPES, TEST}


@pytest.mark.parametrize("kind", SOURCES, ids=lambda kind: kind.__name__)
def test_published_samples_become_events_with_their_documented_data(kind: type[Event]) -> None:
    event = kind.model_validate_json((SAMPLES / f"{kind.wire}.json").read_text())
    ids = iter("12")
    found = list(webhook_events(event, published_at=1_795_932_300_000, new_id=lambda: next(ids)))
    assert [each.type for each in found][:1] == list(SOURCES[kind])[:1]
    for each in found:
        assert each.user_id == getattr(event, "user_id", None)
        data = DATA[each.type].model_validate(each.data)
        assert json.loads(data.model_dump_json()) == each.data


async def test_events_are_skipped_only_if_it_is_certain_that_nobody_wants_them() -> None:
    now, store = 0.0, Endpoints()
    events = WantedEvents(store, clock=lambda: now)  # type: ignore[arg-type]
    assert not events.skips("billing.trial-started")
    await events.reload()
    assert events.skips("billing.trial-started")
    assert not events.skips("auth.user-created")
    assert not events.skips("billing.payment-failed")
    assert not events.skips("mailer.send-mail")
    now = 0.9
    store.fails = True
    with pytest.raises(OSError, match="away"):
        await events.reload()
    assert events.skips("billing.trial-started")
    now = 1.0
    assert not events.skips("billing.trial-started")


async def test_endpoints_are_read_only_while_events_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.mailer.webhooks.wanted_events.RELOAD_SECONDS", 0.01)
    store = Endpoints()
    events = WantedEvents(store)  # type: ignore[arg-type]
    events.start()
    await asyncio.sleep(0.1)
    assert store.reads == 1
    events.skips("billing.trial-started")
    await eventually(lambda: store.reads == 2)
    await events.stop()


def test_a_disabled_endpoint_wants_no_events() -> None:
    assert "auth.user-created" in wanted([ENDPOINT])
    assert wanted([ENDPOINT.disable("operator", at=ENDPOINT.created_at)]) == frozenset()
