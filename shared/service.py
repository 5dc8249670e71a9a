"""How does a service start, run and stop? The same way for all: connect, make sure of indexes, take messages, drain."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self, TypeVar

import structlog
import uvloop
from aiokafka.errors import KafkaError
from pymongo import IndexModel

from shared.bus.consumer import Consumer
from shared.bus.delivery import Delivery
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.handling import Handlers, Handling
from shared.bus.inbox import Inbox
from shared.bus.producer import BusDown, Producer
from shared.bus.row_encryption import RowEncryption
from shared.bus.timers import Timers
from shared.bus.topic_reader import OnRecord, TopicReader
from shared.bus.watchdog import Watchdog, end_process
from shared.health import HealthServer
from shared.ids import Ids, new_message_id
from shared.messages import SERVICE, Message
from shared.mongo import Database, connect, database, dependency_down, ensure_indexes
from shared.sealing import Sealer
from shared.settings import ServiceSettings, SettingsError
from shared.telemetry import Tracing, configure_logging, log, new_traceparent

START_SECONDS: Final = 60.0
"""How long a start waits for Kafka and MongoDB: they may be starting too."""
SETTINGS_EXIT_CODE: Final = 78
"""EX_CONFIG of sysexits.h."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a service builds its context from.

    Attributes:
        database: its own database.
        ids: makes ids.
        sealer: closes and opens secrets.
        publish: puts a message on Kafka outside of any other, as at a start; raises BusDown.
        follow: tells a function every record of a topic, in order; returns when all that were there have been told,
            and goes on until the service stops.
        clock: the time, aware.
    """

    database: Database
    ids: Ids
    sealer: Sealer
    publish: Callable[[Message], Awaitable[None]]
    follow: Callable[[str, OnRecord], Awaitable[None]]
    clock: Callable[[], datetime]


Open = Callable[[Resources], AbstractAsyncContextManager[Any]]
"""Makes the third argument of a service's handlers, and closes what it opened."""


class Service:
    """A service, running while it is entered.

    Args:
        settings: as read from the environment.
        name: ``auth``, …; names its database, its consumer group and what is sealed for it.
        handlers: which function handles which message.
        topics: what it consumes.
        indexes: what its collections need.
        open: makes its context.
        stuck: what to do when the consumer hangs; ends the process by default.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        name: str,
        handlers: Handlers,
        topics: Sequence[str],
        indexes: Mapping[str, Sequence[IndexModel]],
        open: Open,  # noqa: A002 -- what it does
        stuck: Callable[[], None] = end_process,
    ) -> None:
        self.settings = settings
        self.name = name
        self._handlers = handlers
        self._topics = topics
        self._indexes = indexes
        self._open = open
        self._stuck = stuck
        self._stack = AsyncExitStack()
        self._bus: Consumer | None = None
        self._tails: dict[str, TopicReader] = {}

    async def __aenter__(self) -> Self:
        """Start; returns when messages are being taken.

        Raises:
            KafkaError, PyMongoError, BusDown: a dependency did not answer in a minute.
            SettingsError: what it keeps does not go with its settings.
        """
        structlog.contextvars.bind_contextvars(service=self.name)
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        log.info("started", topics=list(self._topics))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain and stop."""
        await self._stack.aclose()
        log.info("stopped")

    def problems(self) -> list[str]:
        """What is wrong with it, a sentence each."""
        if self._bus is None:
            return ["not started"]
        unheard = [f"{topic} is not heard" for topic, tail in self._tails.items() if not tail.following]
        return unheard if self._bus.fault is None else [self._bus.fault, *unheard]

    async def _start(self) -> None:
        settings = self.settings
        sealer = Sealer(settings.master_keys())
        ids = Ids(settings.environment)
        tracing = Tracing(self.name, settings.otlp_endpoint)
        self._stack.callback(tracing.stop)

        client = connect(settings.mongo_url, application=f"nest-{self.name}")
        self._stack.push_async_callback(client.close)
        own = database(client, settings.database_prefix + self.name)
        keeping = RowEncryption(sealer, self.name)
        inbox = Inbox(client, own, retention=settings.inbox_retention, service=self.name, keeping=keeping)
        await retry_until_available("MongoDB", lambda: ensure_indexes(own, {**inbox.indexes(), **self._indexes}))

        producer = Producer(
            settings.kafka_bootstrap, prefix=settings.topic_prefix, client_id=f"nest-{self.name}", timeout=10.0
        )
        await retry_until_available("Kafka", producer.start)
        self._stack.push_async_callback(producer.stop)

        resources = Resources(
            database=own,
            ids=ids,
            sealer=sealer,
            publish=lambda message: publish_outside_work(producer, sealer, message),
            follow=self._follow,
            clock=lambda: datetime.now(UTC),
        )
        context = await self._stack.enter_async_context(self._open(resources))
        handling = Handling(
            service=self.name, handlers=self._handlers, context=context, inbox=inbox, ids=ids, sealer=sealer
        )
        group = settings.topic_prefix + self.name
        delivery = Delivery(handling, producer, group=group, sealer=sealer, tracing=tracing)
        bus = self._bus = Consumer(
            settings.kafka_bootstrap,
            prefix=settings.topic_prefix,
            group=group,
            topics=self._topics,
            delivery=delivery,
            in_flight=settings.in_flight,
            service=self.name,
        )
        await retry_until_available("Kafka", bus.start)
        self._stack.push_async_callback(bus.stop, settings.drain_seconds)

        timers = Timers(own, producer, service=self.name, keeping=keeping)
        timers.start()
        self._stack.push_async_callback(timers.stop)
        watchdog = Watchdog(bus, settings.kafka_bootstrap, stuck=self._stuck)
        watchdog.start()
        self._stack.push_async_callback(watchdog.stop)
        if settings.health_port is not None:
            health = HealthServer(settings.health_host, settings.health_port, self.problems)
            await health.start()
            self._stack.push_async_callback(health.stop)

    async def _follow(self, topic: str, take: OnRecord) -> None:
        settings = self.settings
        tail = TopicReader(settings.kafka_bootstrap, settings.topic_prefix + topic, take, client_id=f"nest-{self.name}")
        await retry_until_available("Kafka", tail.start)
        self._tails[topic] = tail
        self._stack.push_async_callback(tail.stop)


async def publish_outside_work(producer: Producer, sealer: Sealer, message: Message) -> None:
    """Put a message on Kafka outside of any other.

    Raises:
        BusDown: Kafka did not acknowledge it.
    """
    envelope = Envelope(
        id=new_message_id(),
        wire=message.wire,
        topic=message.topic,
        key=message.key,
        body=encode(message, sealer),
        time=unix_milliseconds(),
        caller=SERVICE,
        trace=new_traceparent(),
    )
    await producer.send(envelope)


async def retry_until_available(what: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Try until a dependency answers, for a minute at most.

    Raises:
        KafkaError, PyMongoError, BusDown: the last failure.
    """
    began = time.monotonic()
    while True:
        try:
            return await attempt()
        except Exception as failure:
            away = dependency_down(failure) or isinstance(failure, KafkaError | BusDown)
            if not away or time.monotonic() - began > START_SECONDS:
                raise
            log.warning("waiting for a dependency", dependency=what, error=type(failure).__name__)
            await asyncio.sleep(0.5)


class Runnable(Protocol):
    """What can be run: a service, or the gateway."""

    settings: Any
    """A BusSettings."""

    async def __aenter__(self) -> object:
        """Start."""

    async def __aexit__(self, *_: object) -> None:
        """Drain and stop."""


def run(name: str, create: Callable[[], Runnable]) -> int:
    """Run what ``create`` makes until SIGTERM or SIGINT, then drain it.

    Returns:
        The exit code: 0 after a clean stop, 78 when a setting is missing or wrong.
    """
    try:
        service = create()
        configure_logging(name, level=service.settings.log_level, console=service.settings.log_format == "console")
        tune_garbage_collector()
        return uvloop.run(_until_told(service))
    except SettingsError as wrong:
        print(f"nest {name} can't start:\n{wrong}", file=sys.stderr)  # noqa: T201 -- for the person who starts it
        return SETTINGS_EXIT_CODE


async def _until_told(service: Runnable) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if await _started(service, told):
        try:
            await told.wait()
        finally:
            await service.__aexit__(None, None, None)
    return 0


async def _started(service: Runnable, told: asyncio.Event) -> bool:
    """Start, which may wait for dependencies for a minute; False when it was told to stop meanwhile."""
    starting, stopping = asyncio.ensure_future(service.__aenter__()), asyncio.create_task(told.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    while told.is_set() and not starting.done():
        # More than once: pymongo makes a lost connection of a cancellation, and the start would go on waiting.
        starting.cancel()
        await asyncio.wait({starting}, timeout=0.5)
    if starting.cancelled() or (told.is_set() and starting.exception() is not None):
        return False
    await starting
    return True


def tune_garbage_collector() -> None:
    """Let the garbage collector look less often, and never at what was imported.

    What a message leaves behind is freed by reference counts; looking for cycles among hundreds of thousands of
    imported objects after every 700 new ones is pure cost.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
