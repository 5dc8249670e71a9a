"""Service runtime: start, run and stop, the same for every service.

A start connects to Kafka and MongoDB, creates the indexes and then consumes. A stop finishes the messages that were
fetched.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Protocol, Self

import structlog
import uvloop
from pymongo import IndexModel

from shared.bus.committed_topics import CommittedTopics
from shared.bus.consumer import Consumer, OnGaps
from shared.bus.delivery import Delivery
from shared.bus.handling import Handlers, Handling
from shared.bus.inbox import BACKGROUND_INTERVAL, Inbox
from shared.bus.instance_name import InstanceName
from shared.bus.kafka_connection import KafkaAccessDenied
from shared.bus.message_span import MessageSpans
from shared.bus.oldest_message import OldestMessage
from shared.bus.outage import Outage
from shared.bus.outage_notices import OutageNotices
from shared.bus.outside_work import publish_outside_work
from shared.bus.partition_pauses import PartitionPauses
from shared.bus.paused_partitions import PauseAnnouncements, PausedPartitions
from shared.bus.producer import BusDown, Producer
from shared.bus.record_macs import RecordMacs
from shared.bus.republisher import Republisher, order_republishing
from shared.bus.row_encryption import RowEncryption
from shared.bus.sealed_message_counts import SealedMessageCounts
from shared.bus.sent_messages import SentMessages
from shared.bus.timers import Timers, TimerWakeups
from shared.bus.topic_growth import GrowthFollower
from shared.bus.topic_reader import OnRecord, TopicReader
from shared.bus.topics import CONSUMERS, TOPICS
from shared.bus.unknown_types import UnknownTypes
from shared.bus.watchdog import Watchdog, end_process
from shared.clock_check import ClockCheck, ClockGate
from shared.database_version import INDEXES as VERSION_INDEXES
from shared.database_version import DatabaseVersion
from shared.health import HealthServer
from shared.ids import Ids
from shared.listeners import CannotListen
from shared.messages import Message
from shared.messages.auth.partitions import PAUSED_PARTITIONS
from shared.messages.republishing import REPUBLISH_COMMANDS, RepublishMessages
from shared.migrations import Migrations
from shared.mongo import (
    PING_SECONDS,
    Client,
    Database,
    check_server,
    connect,
    database,
    drop_indexes,
    ensure_indexes,
    responds,
    usable,
)
from shared.process_metrics import process_metrics
from shared.sealing import Sealer
from shared.settings import ServiceSettings, SettingsError
from shared.startup import DependencyUnavailable, retry_until_available, tune_garbage_collector
from shared.telemetry import log
from shared.tracing import Tracing

SETTINGS_EXIT_CODE: Final = 78
"""EX_CONFIG of sysexits.h."""
UNAVAILABLE_EXIT_CODE: Final = 69
"""EX_UNAVAILABLE of sysexits.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Resources from which a service builds its context.

    ``publish`` sends a message outside of a work, for use at the start, and raises BusDown. ``follow`` calls a function
    with every authentic record of a topic, in order; it returns when the existing ones are read, and continues in the
    background until the service stops. ``clock`` returns the current time, timezone-aware. ``paused_partitions`` are
    those of all services.
    """

    database: Database
    ids: Ids
    sealer: Sealer
    macs: RecordMacs
    publish: Callable[[Message], Awaitable[None]]
    follow: Callable[[str, OnRecord], Awaitable[None]]
    clock: Callable[[], datetime]
    paused_partitions: PausedPartitions = field(default_factory=PausedPartitions)


OpenContext = Callable[[Resources], AbstractAsyncContextManager[Any]]
"""Opens the context of a service, the third argument of its handlers, and closes it at the stop."""


NO_MIGRATIONS: Final = Migrations()


class Service:
    """A service; it runs while it is entered as an async context manager.

    Its name is also that of its database, its consumer group and the receiver of its secrets. ``topics`` are those that
    it consumes, and ``consumers`` the services that consume each topic. ``on_stuck`` is called when the consumer is
    stuck; by default it ends the process. ``republish_commands`` are those of all services.

    Attributes:
        sent: the inbox rows whose messages are not passed yet; None before the start.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        name: str,
        handlers: Handlers,
        topics: Sequence[str],
        indexes: Mapping[str, Sequence[IndexModel]],
        former_indexes: Mapping[str, Sequence[str]] = MappingProxyType({}),
        open_context: OpenContext,
        migrations: Migrations = NO_MIGRATIONS,
        consumers: Mapping[str, Sequence[str]] = CONSUMERS,
        on_stuck: Callable[[], None] = end_process,
        republish_commands: Sequence[type[RepublishMessages]] = REPUBLISH_COMMANDS,
    ) -> None:
        self.settings = settings
        self.name = name
        self._sealer = Sealer(settings.master_keys())
        self._macs = settings.record_macs(self._sealer)
        self._handlers = handlers
        self._topics = topics
        self._indexes = indexes
        self._former_indexes = former_indexes
        self._open_context = open_context
        self._migrations = migrations
        self._version: DatabaseVersion | None = None
        self._committed_topics: CommittedTopics | None = None
        self._consumers = consumers
        self._on_stuck = on_stuck
        self._republish_commands = republish_commands
        self._own_republish_commands = [command for command in republish_commands if command.service == name]
        self._stack = AsyncExitStack()
        self._consumer: Consumer | None = None
        self._clock_check: ClockCheck | None = None
        self._outage: Outage | None = None
        self.sent: SentMessages | None = None
        self._reader = TopicReader(settings.kafka, macs=self._macs, client_id=f"nest-{name}")
        self._required_topics: list[str] = []
        """Topics without which the service is unhealthy."""

    async def __aenter__(self) -> Self:
        """Start; return when messages are consumed.

        Raises:
            DependencyUnavailable: Kafka or MongoDB did not answer in time.
            SettingsError: the stored data contradicts the settings, or MongoDB refuses this process.
            KafkaAccessDenied: Kafka refuses the credentials, or expects another protocol.
            CannotListen: the health port is in use.
        """
        structlog.contextvars.bind_contextvars(service=self.name)
        try:
            self.settings.warn_of_unauthenticated_records()
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        log.info("started", topics=list(self._topics))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish the fetched messages and stop."""
        await self._stack.aclose()
        log.info("stopped")

    def problems(self) -> list[str]:
        """Return the reasons why the health check fails, one sentence each; empty if it passes."""
        return self._problems([] if self._consumer is None else self._consumer.pauses.problems())

    def unready(self) -> list[str]:
        """Return the reasons why the process does no work: those of the health check, without single paused partitions.

        The rollout of a release that mends a paused partition must not wait for it. If all partitions are paused, each
        is a reason at once.
        """
        return self._problems([] if self._consumer is None else self._consumer.pauses.all_paused())

    def _problems(self, paused: list[str]) -> list[str]:
        if self._clock_check is None:
            return ["not started"]
        unread = [] if self._reader.following else [f"{topic} is not read" for topic in self._required_topics]
        faults = [] if self._consumer is None or self._consumer.fault is None else [self._consumer.fault]
        outages = [] if self._outage is None else self._outage.problems()
        version = [] if self._version is None or self._version.problem is None else [self._version.problem]
        return [*outages, *self._clock_check.problems(), *faults, *paused, *unread, *version]

    async def _start(self) -> None:
        settings = self.settings
        sealer, macs = self._sealer, self._macs
        ids = Ids(settings.environment)
        tracing = settings.tracing(self.name)
        self._stack.callback(tracing.stop)
        await self._stack.enter_async_context(process_metrics(self.name))

        client = connect(settings.mongo_url, application=f"nest-{self.name}", listeners=tracing.mongo_listeners())
        self._stack.push_async_callback(client.close)
        own = database(client, settings.database_prefix + self.name)
        encryption = RowEncryption(sealer, self.name)
        inbox = Inbox(
            client,
            own,
            retention=settings.inbox_retention,
            service=self.name,
            encryption=encryption,
            background_interval=BACKGROUND_INTERVAL,
        )
        version = await self._prepared_database(client, own, inbox)

        producer = await self._connected_producer(tracing)
        group = settings.topic_prefix + self.name
        instance = self._instance_name(group)
        self._stack.push_async_callback(self._reader.stop)
        growth = await self._growth(producer, instance)
        publish = partial(publish_outside_work, producer, sealer)
        announcements = await self._follow_pauses(producer, publish, instance)
        resources = Resources(
            database=own,
            ids=ids,
            sealer=sealer,
            macs=macs,
            publish=publish,
            follow=self._follow,
            clock=lambda: datetime.now(UTC),
            paused_partitions=announcements,
        )
        counts = SealedMessageCounts(sealer, resources.publish)
        counts.start()
        self._stack.push_async_callback(counts.stop)
        context = await self._stack.enter_async_context(self._open_context(resources))
        republisher = Republisher(
            own, producer, service=self.name, encryption=encryption, retention=settings.inbox_retention
        )
        wakeups = TimerWakeups()
        handling = Handling(
            service=self.name,
            handlers={**self._handlers, **self._bus_handlers(republisher)},
            context=context,
            inbox=inbox,
            ids=ids,
            sealer=sealer,
            on_timer=wakeups.add,
        )
        await retry_until_available("MongoDB", lambda: version.begin(instance))
        self._stack.push_async_callback(version.stop)
        ping_client = connect(settings.mongo_url, application=f"nest-{self.name}-ping", timeout=PING_SECONDS)
        self._stack.push_async_callback(ping_client.close)
        pinged = database(ping_client, own.name)
        outage = self._outage = Outage(
            lambda: responds(ping_client), lambda: usable(pinged[inbox.COLLECTION]), service=self.name
        )
        self._stack.push_async_callback(outage.stop)
        sent = self.sent = SentMessages(inbox, settings.kafka, prefix=settings.topic_prefix, consumers=self._consumers)
        sent.start()
        self._stack.push_async_callback(sent.stop)
        timers = partial(
            Timers,
            own,
            producer,
            service=self.name,
            encryption=encryption,
            sent=sent,
            wakeups=wakeups,
            paused=lambda: growth.pausing,
        )
        deliver = partial(
            Delivery,
            handling,
            producer,
            macs,
            outage=outage,
            group=group,
            sealer=sealer,
            spans=MessageSpans(tracing, service=self.name, prefix=settings.topic_prefix, group=group, client=instance),
            sent=sent,
            unknown_types=UnknownTypes(self.name, settings.unknown_type_hours * 3600),
        )
        on_gaps = partial(
            order_republishing,
            commands=self._republish_commands,
            resent={
                topic.name: self._own_republish_commands
                for topic in TOPICS
                if topic.resent and self.name in topic.writers
            },
            producer=producer,
            sealer=sealer,
            prefix=settings.topic_prefix,
            group=group,
        )
        pauses = partial(
            PartitionPauses,
            announcements,
            service=self.name,
            prefix=settings.topic_prefix,
            patience=settings.paused_minutes * 60,
        )
        consuming = partial(self._consuming, deliver, outage, timers, pauses, on_gaps, group=group, instance=instance)
        self._clock_check = ClockCheck(service=self.name, instance=instance, producer=producer, client=ping_client)
        gate = ClockGate(self._clock_check, consuming)
        self._stack.push_async_callback(gate.stop)
        await gate.start()
        if settings.health_port is not None:
            health = HealthServer(settings.health_host, settings.health_port, self.problems, self.unready)
            await health.start()
            self._stack.push_async_callback(health.stop)

    async def _connected_producer(self, tracing: Tracing) -> Producer:
        settings = self.settings
        producer = Producer(
            settings.kafka,
            macs=self._macs,
            prefix=settings.topic_prefix,
            client_id=f"nest-{self.name}",
            tracing=tracing,
        )
        await retry_until_available("Kafka", settings.kafka.check)
        await retry_until_available("Kafka", producer.start)
        self._stack.push_async_callback(producer.stop)
        return producer

    async def _growth(self, producer: Producer, instance: str) -> GrowthFollower:
        """Follow the orders of a growth of topics, before anything is sent."""
        growth = GrowthFollower(
            producer,
            reader=self._reader,
            prefix=self.settings.topic_prefix,
            service=self.name,
            instance=instance,
            consume=self._refresh_partitions,
        )
        await retry_until_available("Kafka", growth.start)
        self._stack.push_async_callback(growth.stop)
        return growth

    async def _prepared_database(self, client: Client, own: Database, inbox: Inbox) -> DatabaseVersion:
        """Check the server and the version of the database, create the indexes, and read what was committed."""
        version = self._version = DatabaseVersion(own, oldest=self._migrations.oldest, known=self._migrations.known)

        committed_topics = self._committed_topics = CommittedTopics(own, self.settings.kafka)

        async def prepare() -> None:
            await check_server(client, self.settings.mongo_url)
            await version.check()
            await ensure_indexes(own, {**VERSION_INDEXES, **inbox.indexes(), **self._indexes})
            await drop_indexes(own, self._former_indexes)
            await committed_topics.load()

        await retry_until_available("MongoDB", prepare)
        return version

    @asynccontextmanager
    async def _consuming(
        self,
        deliver: Callable[[], Delivery],
        outage: Outage,
        create_timers: Callable[[], Timers],
        create_pauses: Callable[[], PartitionPauses],
        on_gaps: OnGaps,
        *,
        group: str,
        instance: str,
    ) -> AsyncIterator[None]:
        """Consume messages and send due timers while the context is entered."""
        settings = self.settings
        delivery = deliver()
        consumer = self._consumer = Consumer(
            settings.kafka,
            prefix=settings.topic_prefix,
            group=group,
            instance=instance,
            topics=self._topics,
            delivery=delivery,
            in_flight=settings.in_flight,
            service=self.name,
            pauses=create_pauses(),
            on_gaps=on_gaps,
            committed_topics=self._committed_topics,
        )
        async with AsyncExitStack() as stack:
            notices = OutageNotices(
                consumer,
                delivery,
                outage,
                kafka=settings.kafka,
                prefix=settings.topic_prefix,
                service=self.name,
            )
            notices.start()
            stack.push_async_callback(notices.stop)
            await retry_until_available("Kafka", consumer.start)
            stack.push_async_callback(consumer.stop, settings.drain_seconds)
            timers = create_timers()
            timers.start()
            stack.push_async_callback(timers.stop)
            oldest = OldestMessage(consumer, service=self.name)
            oldest.start()
            stack.push_async_callback(oldest.stop)
            watchdog = Watchdog(consumer, settings.kafka, on_stuck=self._on_stuck)
            watchdog.start()
            stack.push_async_callback(watchdog.stop)
            yield

    def _bus_handlers(self, republisher: Republisher) -> Handlers:
        """Return the handlers of messages that the bus handles itself."""
        return dict.fromkeys(self._own_republish_commands, republisher.republish)

    def _instance_name(self, group: str) -> str:
        """Take a name of this process in its consumer group, until the stop."""
        name = InstanceName(f"{self.settings.kafka_bootstrap} {group}", self.settings.instance)
        self._stack.callback(name.release)
        return name.text

    async def _follow_pauses(
        self, producer: Producer, publish: Callable[[Message], Awaitable[None]], instance: str
    ) -> PauseAnnouncements:
        """Follow the paused partitions of all services, if Kafka has their topic."""
        announcements = PauseAnnouncements(instance, publish)
        self._stack.push_async_callback(announcements.stop)
        try:
            await producer.partitions(PAUSED_PARTITIONS)
        except BusDown as missing:
            log.error("pauses are not shared: run nest topics apply", topic=PAUSED_PARTITIONS, error=str(missing))
        else:
            # Not required: while it is not read, pauses are not shared, and messages are handled as usual.
            await self._read(PAUSED_PARTITIONS, announcements.apply)
        return announcements

    async def _refresh_partitions(self) -> None:
        if self._consumer is not None:
            await self._consumer.refresh_partitions()

    async def _follow(self, topic: str, on_record: OnRecord) -> None:
        """Follow a required topic."""
        await self._read(topic, on_record)
        self._required_topics.append(topic)

    async def _read(self, topic: str, on_record: OnRecord) -> None:
        topics = {self.settings.topic_prefix + topic: on_record}
        await retry_until_available("Kafka", partial(self._reader.follow, topics))


class Runnable(Protocol):
    """A service or the gateway."""

    settings: Any
    """A BusSettings."""

    async def __aenter__(self) -> object:
        """Start."""

    async def __aexit__(self, *_: object) -> None:
        """Finish what was begun and stop."""


def run(name: str, create: Callable[[], Runnable]) -> int:
    """Create and run a service until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 after a clean stop; 69 if Kafka or MongoDB is unavailable; 78 if a setting is missing or
        invalid, if Kafka or MongoDB refuses it, or if its port is in use.
    """
    try:
        service = create()
        service.settings.configure_logging(name)
        tune_garbage_collector()
        return uvloop.run(_run_until_signal(service))
    except (SettingsError, KafkaAccessDenied, CannotListen, DependencyUnavailable) as failure:
        print(f"nest {name} can't start:\n{failure}", file=sys.stderr)  # noqa: T201 -- for the person who starts it
        return UNAVAILABLE_EXIT_CODE if isinstance(failure, DependencyUnavailable) else SETTINGS_EXIT_CODE


async def _run_until_signal(service: Runnable) -> int:
    stop_requested = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_requested.set)
    if await _started(service, stop_requested):
        try:
            await stop_requested.wait()
        finally:
            await service.__aexit__(None, None, None)
    return 0


async def _started(service: Runnable, stop_requested: asyncio.Event) -> bool:
    """Start, which may wait for dependencies for a minute; return False if a stop was requested meanwhile."""
    starting, stopping = asyncio.ensure_future(service.__aenter__()), asyncio.create_task(stop_requested.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    while stop_requested.is_set() and not starting.done():
        # Repeated, because pymongo turns a cancellation into a connection error, after which the start goes on.
        starting.cancel()
        await asyncio.wait({starting}, timeout=0.5)
    if starting.cancelled() or (stop_requested.is_set() and starting.exception() is not None):
        return False
    await starting
    return True
