"""Processes under measurement: Kafka, MongoDB, the Stripe double, a mail sink and each service in its own process.

``python -m tests.bench.environment FOLDER [OPTIONS]`` prints one JSON object with addresses and secrets once it is
ready, and stops when its standard input ends. OPTIONS are a JSON object of the fields of `Options`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from services.billing.events.handlers import NEEDED_EVENTS
from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import SMALLEST_CACHE_GB, EmbeddedMongo
from services.stripe_double import FaultKind
from tests.bench.mail_sink import separate_sink
from tests.stack import MAX_PARTITIONS, running_stack

SERVICES = ("gateway", "auth", "billing", "mailer", "news")
LIMITS = {
    # Rate limits are enforced, but one client and one network may do the work of many.
    "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "1/1m, 5/1h, 10/1d",
    "NEST_LIMIT_MAGIC_LINKS_PER_PREFIX": "100000000/5m",
    "NEST_LIMIT_MAGIC_LINKS_PER_CLIENT": "100000000/1m, 100000000/1h",
    "NEST_LIMIT_TRIALS_PER_ADDRESS": "5/10m, 10/1d",
    "NEST_LIMIT_TRIALS_PER_PREFIX": "100000000/1h",
    "NEST_LIMIT_TRIALS_PER_DEPLOYMENT": "100000000/1d",
    "NEST_LIMIT_LIFT_LOOPBACK": "false",
}


@dataclass(frozen=True)
class Options:
    """What an environment consists of.

    Attributes:
        settings: further variables of the services.
        stripe_seconds: how long the Stripe double waits before it responds.
        instances: of each service, gateways included.
        max_partitions: of a topic; None for as many as in production.
        mongo_cache_gb: size of MongoDB's cache in GiB.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    stripe_seconds: float = 0.0
    instances: int = 1
    max_partitions: int | None = MAX_PARTITIONS
    mongo_cache_gb: float = SMALLEST_CACHE_GB


@asynccontextmanager
async def environment(
    settings: Mapping[str, str] | None = None,
    *,
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[dict[str, Any]]:
    """Run the environment in a process of its own, so that the driver shares no event loop with it.

    Args:
        settings: further variables of the services.
        variables: further variables of the environment itself, and so of Kafka and MongoDB.
        options: the other fields of `Options`.

    Yields:
        ``url`` of the first gateway, ``urls`` of all, ``kafka``, ``mongo``, the path ``mails`` of the sink's file,
        ``internal_key``, ``webhook_secret``, ``sealing_keys``, ``pids`` and ``health`` (the base URL of its metrics) by
        service, and ``all_pids`` by process: those of the services, ``kafka``, ``mongo``, ``mail_sink``,
        ``stripe_double`` and ``driver``.

    Raises:
        RuntimeError: the environment did not start; its own output says why.
    """
    with tempfile.TemporaryDirectory(prefix="nest-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.environment", folder),
            json.dumps(asdict(Options(settings=dict(settings or {}), **options))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 20,
            env={**os.environ, **(variables or {})},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready = await process.stdout.readline()
            if not ready:
                raise RuntimeError("the environment did not start: see the lines above")
            running = json.loads(ready)
            running["all_pids"]["driver"] = os.getpid()
            yield running
        finally:
            process.stdin.close()
            await process.wait()


async def main(folder: Path, options: Options) -> None:
    """Start everything, print the addresses, run until standard input ends."""
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(EmbeddedKafka(folder))
        mongo = await stack.enter_async_context(EmbeddedMongo(folder, cache_gb=options.mongo_cache_gb))
        smtp_port, sink_pid = await stack.enter_async_context(separate_sink(folder / "mails.jsonl"))
        nest = await stack.enter_async_context(
            running_stack(
                folder,
                kafka_bootstrap=kafka.bootstrap,
                mongo_url=mongo.url,
                topic_prefix="",
                database_prefix="nest_",
                max_partitions=options.max_partitions,
                gateways=options.instances,
                instances=dict.fromkeys(SERVICES[1:], options.instances),
                separate=SERVICES,
                settings={"NEST_LOG_LEVEL": "warning", "NEST_SMTP_PORT": str(smtp_port), **LIMITS, **options.settings},
            )
        )
        if options.stripe_seconds:
            nest.stripe.faults.add(FaultKind.SLOW, seconds=options.stripe_seconds)
        pids = {name: process.pid for name, process in nest.processes.items()}
        # As `nest stripe setup` sets up an endpoint: Stripe sends no other events.
        nest.stripe.webhooks.enabled_events = sorted(NEEDED_EVENTS)
        names = short_names(pids)
        ready = {
            "url": nest.urls[0],
            "urls": nest.urls,
            "kafka": kafka.bootstrap,
            "mongo": mongo.url,
            "mails": str(folder / "mails.jsonl"),
            "internal_key": nest.internal_key,
            "sealing_keys": nest.environment["NEST_SEALING_KEYS"],
            "webhook_secret": nest.environment["NEST_STRIPE_WEBHOOK_SECRETS"],
            "pids": pids,
            "health": {names[name]: url for name, url in nest.health.items()},
            "all_pids": {
                **{names[name]: pid for name, pid in pids.items()},
                "kafka": kafka.pid,
                "mongo": mongo.pid,
                "mail_sink": sink_pid,
                # The double runs in this process, which does nothing else.
                "stripe_double": os.getpid(),
            },
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


def short_names(processes: Iterable[str]) -> dict[str, str]:
    """Names of processes without ports, after which gateways are named: ``gateway``, ``gateway-2``."""
    names: dict[str, str] = {}
    for process in processes:
        service = process.partition("-")[0]
        number = 1 + sum(name.partition("-")[0] == service for name in names.values())
        names[process] = service if number == 1 else f"{service}-{number}"
    return names


if __name__ == "__main__":
    words = sys.argv[1:]
    uvloop.run(
        main(
            Path(words[0]),
            Options(**json.loads(words[1])) if len(words) > 1 else Options(),
        )
    )
