"""Rows of the benchmark: every measured operation, with what it needs before a round."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.bench import floors
from tests.bench.app import App, new_event_id
from tests.bench.applied_events import AppliedEvents
from tests.bench.measure import Call
from tests.bench.passwords import BareHashes, Passwords

FLOOR: Final = "floor: "
"""How the names of floors begin."""
SETTINGS: Final = {
    "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "100/1m, 100/1h, 100/1d",
    "NEST_LIMIT_PASSWORDS_PER_PREFIX": "100000000/5m",
    # As in production; the tests' stack waits longer.
    "NEST_REPLY_SECONDS": "10",
}
"""People of the benchmark request more links than real ones, all from one network."""
OPEN_LOOP_CONNECTIONS: Final = 64
STRIPE_SECONDS: Final = 0.02
"""Latency of the Stripe double."""
EVENTS: Final = 300
"""Stripe's events a second of the open loop whose lag has a goal."""
EVENTS_IN_FLIGHT: Final = 128
"""Closed loops of the row that waits for the application of each event."""
EVENTS_OPEN: Final = 512
"""Connections of its open loop: each waits until its event is applied."""
SUBSCRIPTIONS: Final = 600
"""So many that at ``EVENTS`` a second each has one event in two seconds."""
PASSWORD_CALLS: Final = 40
"""Parallel logins with a password that must all be answered in time."""
FASTEST_CODES: Final = {1: 250, 32: 1_800}
"""Codes a second that no round exceeds, by connections."""

JOBS: Final = {
    "link": "send_magic_link, new address",
    "link_known": "send_magic_link, known address",
    "code": "authenticate_user, code of a new user",
    "code_known": "authenticate_user, code of a known user",
    "refresh": "authenticate_user, refresh",
    "get_user": "get_user",
    "status": "get_subscription_status",
    "news": "list_news_items",
    "webhook": "Stripe webhook, accepted",
    "applied": "Stripe webhook, applied",
    "signwithemail": "signwithemail",
}
"""Short names of the rows."""

Prepare = Callable[[int], Awaitable[object]]
"""Prepares a round of at most so many calls."""


@dataclass(frozen=True)
class Later:
    """What the calls of a round have caused after their responses, as a row of its own.

    Attributes:
        name: of the row.
        begin: runs before a round.
        end: waits for the effects of the round; returns their latencies, and the seconds from the first call to the
            last effect.
    """

    name: str
    begin: Callable[[], object]
    end: Callable[[], Awaitable[tuple[list[float], float]]]


@dataclass(frozen=True)
class Row:
    """An operation of the table.

    Attributes:
        trace: lets the next calls of a connection belong to a trace.
        prepare: runs before each round.
        rate: requests a second of an open loop; None for closed loops.
        connections: numbers of closed loops instead of the usual ones; the connections of the open loop.
    """

    name: str
    call: Call
    prepare: Prepare | None = None
    rate: int | None = None
    connections: tuple[int, ...] = ()
    later: Later | None = None
    trace: Callable[[int, str], object] | None = None

    def most_calls(self, connections: int, seconds: float) -> int:
        """No round of these closed loops, or of this open loop, has more calls."""
        fastest = self.rate or FASTEST_CODES[1 if connections == 1 else 32]
        return int(fastest * seconds) + connections


class Renewals:
    """Events about changed subscriptions, each followed until it is applied.

    Args:
        app: sends the events.
        orders: orders the subscriptions, over few connections.
        applied: knows when they are applied.
    """

    def __init__(self, app: App, orders: App, applied: AppliedEvents) -> None:
        self._app = app
        self._orders = orders
        self._applied = applied
        self._subscriptions: Iterator[str] = iter(())
        self._lags: list[float] = []
        self._began = 0.0

    async def prepare(self, calls: int) -> None:
        """Create the subscriptions, fewer for a short round, and wait until no earlier event is pending."""
        wanted = min(SUBSCRIPTIONS, max(EVENTS_IN_FLIGHT, calls - EVENTS_OPEN))
        existing = len(await self._applied.subscriptions())
        await self._orders.create_trials(max(0, wanted - existing))
        await self._applied.settled()
        self._subscriptions = itertools.cycle(await self._applied.subscriptions())
        await self._app.connect()

    async def send(self, number: int) -> None:
        """Send one event and wait until it is applied."""
        event_id = new_event_id()
        done = self._applied.expect(event_id)
        await self._app.renewal(number, next(self._subscriptions), event_id=event_id)
        accepted = time.perf_counter()
        self._lags.append(max(0.0, await done - accepted))

    def begin(self) -> None:
        """Begin to note lags."""
        self._lags.clear()
        self._began = time.perf_counter()

    async def lags(self) -> tuple[list[float], float]:
        """The seconds from the acceptance to the application of each event since `begin`."""
        return list(self._lags), time.perf_counter() - self._began


@asynccontextmanager
async def floor_rows(running: dict[str, Any]) -> AsyncIterator[list[Row]]:
    """What the machine allows without Nest."""
    hashes = BareHashes()
    async with floors.kafka(running["kafka"]) as kafka, floors.mongo(running["mongo"]) as mongo:
        calls = {**kafka, **mongo, "Argon2id": hashes.check}
        yield [
            *(Row(FLOOR + name, call) for name, call in calls.items()),
            Row(f"{FLOOR}record onto Kafka", kafka["record onto Kafka"], rate=500),
        ]
    hashes.close()


@asynccontextmanager
async def nest_rows(running: dict[str, Any], connections: int) -> AsyncIterator[tuple[list[Row], Counter[int]]]:
    """The operations of Nest, over up to so many connections, and the responses to logins with a password so far."""
    async with AsyncExitStack() as stack:
        app = App(running, max(OPEN_LOOP_CONNECTIONS, connections))
        events_app = App(running, EVENTS_OPEN)
        passwords = Passwords(running["url"], max(PASSWORD_CALLS, connections))
        for each in (app, events_app, passwords):
            stack.callback(each.close)
        applied = AppliedEvents(running["mongo"])
        await stack.enter_async_context(applied.watching())
        renewals = Renewals(events_app, app, applied)

        def prepared(prepare: Prepare | None = None) -> Prepare:
            async def connected(calls: int) -> None:
                if prepare is not None:
                    await prepare(calls)
                await app.connect()

            return connected

        logins = prepared(lambda _: app.prepare_logins(OPEN_LOOP_CONNECTIONS))
        subscribers = prepared(lambda _: app.prepare_subscribers(OPEN_LOOP_CONNECTIONS))
        known = prepared(lambda _: app.prepare_known(1000))
        new_codes, known_codes = prepared(app.prepare_codes), prepared(app.prepare_known_codes)
        mail = Later("mail handed over", app.expect_mails, app.mailed)
        lag = Later("lag after acceptance", renewals.begin, renewals.lags)

        async def sign_ins(_calls: int) -> None:
            await passwords.prepare()

        def both(job: str, call: Call, prepare: Prepare, rate: int, later: Later | None = None) -> list[Row]:
            row = Row(JOBS[job], call, prepare, later=later, trace=app.trace)
            return [row, replace(row, rate=rate)]

        applying = Row(JOBS["applied"], renewals.send, renewals.prepare, trace=events_app.trace)
        signing = Row(JOBS["signwithemail"], passwords.sign_in, sign_ins, trace=passwords.trace)
        rows = [
            *both("link", app.send_magic_link, prepared(), 400, mail),
            *both("code", app.authenticate_user_code, new_codes, 250),
            *both("link_known", app.send_magic_link_known, known, 400, mail),
            *both("code_known", app.authenticate_user_code, known_codes, 250),
            *both("refresh", app.authenticate_user_refresh, logins, 400),
            *both("get_user", app.get_user, logins, 1000),
            *both("status", app.get_subscription_status, subscribers, 1000),
            *both("news", app.list_news_items, prepared(), 1000),
            replace(signing, connections=(1, 32, PASSWORD_CALLS)),
            replace(applying, rate=EVENTS, connections=(EVENTS_OPEN,), later=lag),
            replace(applying, connections=(1, EVENTS_IN_FLIGHT)),
            # Last, and its open loop first: the closed loops send more events than billing applies meanwhile.
            *reversed(both("webhook", app.webhook, prepared(), 500)),
        ]
        yield rows, passwords.statuses
