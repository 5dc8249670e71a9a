"""Runs everything that a benchmark measures, each service in a process of its own; told over standard input.

Prints one JSON object with the addresses once all is ready, and stops when its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from tests.bench.sink import Sink
from tests.stack import running_stack

SERVICES = ("gateway", "auth", "billing", "mailer", "news")
LIMITS = {
    # Everything is counted, and one machine and one app may do what many do otherwise.
    "NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS": "1/1m, 5/1h, 10/1d",
    "NEST_LIMIT_MAGIC_LINKS_PER_PREFIX": "100000000/5m",
    "NEST_LIMIT_MAGIC_LINKS_PER_CLIENT": "100000000/1m, 100000000/1h",
    "NEST_LIMIT_TRIALS_PER_ADDRESS": "5/10m, 10/1d",
    "NEST_LIMIT_LIFT_LOOPBACK": "false",
}


async def main(folder: Path) -> None:
    """Start, tell, wait, stop."""
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(EmbeddedKafka(folder))
        mongo = await stack.enter_async_context(EmbeddedMongo(folder))
        sink = await stack.enter_async_context(Sink(folder / "mails.jsonl"))
        nest = await stack.enter_async_context(
            running_stack(
                folder,
                kafka_bootstrap=kafka.bootstrap,
                mongo_url=mongo.url,
                topic_prefix="",
                database_prefix="nest_",
                separate=SERVICES,
                settings={"NEST_LOG_LEVEL": "warning", "NEST_SMTP_PORT": str(sink.port), **LIMITS},
            )
        )
        told = {
            "url": nest.urls[0],
            "kafka": kafka.bootstrap,
            "mongo": mongo.url,
            "mails": str(folder / "mails.jsonl"),
            "internal_key": nest.internal_key,
            "webhook_secret": nest.environment["NEST_STRIPE_WEBHOOK_SECRETS"],
            "pids": {name: process.pid for name, process in nest.processes.items()},
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
