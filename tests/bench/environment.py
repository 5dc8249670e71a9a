"""Processes under measurement: Kafka, MongoDB, the Stripe double, a mail sink and each service in its own process.

``python -m tests.bench.environment FOLDER [SETTINGS [STRIPE_SECONDS]]`` prints one JSON object with addresses and
secrets once it is ready, and stops when its standard input ends. SETTINGS are a JSON object of further variables of the
services; STRIPE_SECONDS are the latency of the Stripe double.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from services.billing.events.handlers import NEEDED_EVENTS
from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from services.stripe_double import FaultKind
from tests.bench.mail_sink import separate_sink
from tests.stack import running_stack

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


@asynccontextmanager
async def environment(
    settings: Mapping[str, str] | None = None,
    *,
    stripe_seconds: float = 0.0,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """Run the environment in a process of its own, so that the driver shares no event loop with it.

    Args:
        settings: further variables of the services.
        stripe_seconds: how long the Stripe double waits before it responds.
        variables: further variables of the environment itself, and so of Kafka and MongoDB.

    Yields:
        ``url`` of the gateway, ``kafka``, ``mongo``, the path ``mails`` of the sink's file, ``internal_key``,
        ``webhook_secret``, ``sealing_keys``, ``pids`` and ``health`` (the base URL of its metrics) by service, and
        ``all_pids`` by process: those of the services, ``kafka``, ``mongo``, ``mail_sink``, ``stripe_double`` and
        ``driver``.

    Raises:
        RuntimeError: the environment did not start; its own output says why.
    """
    with tempfile.TemporaryDirectory(prefix="nest-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.environment", folder, json.dumps(dict(settings or {}))),
            str(stripe_seconds),
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


async def main(folder: Path, settings: Mapping[str, str], stripe_seconds: float) -> None:
    """Start everything, print the addresses, run until standard input ends."""
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(EmbeddedKafka(folder))
        mongo = await stack.enter_async_context(EmbeddedMongo(folder))
        smtp_port, sink_pid = await stack.enter_async_context(separate_sink(folder / "mails.jsonl"))
        nest = await stack.enter_async_context(
            running_stack(
                folder,
                kafka_bootstrap=kafka.bootstrap,
                mongo_url=mongo.url,
                topic_prefix="",
                database_prefix="nest_",
                separate=SERVICES,
                settings={"NEST_LOG_LEVEL": "warning", "NEST_SMTP_PORT": str(smtp_port), **LIMITS, **settings},
            )
        )
        if stripe_seconds:
            nest.stripe.faults.add(FaultKind.SLOW, seconds=stripe_seconds)
        pids = {name: process.pid for name, process in nest.processes.items()}
        # As `nest stripe setup` sets up an endpoint: Stripe sends no other events.
        nest.stripe.webhooks.enabled_events = sorted(NEEDED_EVENTS)
        ready = {
            "url": nest.urls[0],
            "kafka": kafka.bootstrap,
            "mongo": mongo.url,
            "mails": str(folder / "mails.jsonl"),
            "internal_key": nest.internal_key,
            "sealing_keys": nest.environment["NEST_SEALING_KEYS"],
            "webhook_secret": nest.environment["NEST_STRIPE_WEBHOOK_SECRETS"],
            "pids": pids,
            "health": {service(name): url for name, url in nest.health.items()},
            "all_pids": {
                **{service(name): pid for name, pid in pids.items()},
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


def service(process: str) -> str:
    """Name of the service of a process: a gateway is named after its port."""
    return process.partition("-")[0]


if __name__ == "__main__":
    words = sys.argv[1:]
    uvloop.run(
        main(
            Path(words[0]),
            json.loads(words[1]) if len(words) > 1 else {},
            float(words[2]) if len(words) > 2 else 0.0,
        )
    )
