"""Processes under measurement: Kafka, MongoDB, the Stripe double, a mail sink and each service in its own process.

``python -m tests.bench.environment FOLDER [SETTINGS]`` prints one JSON object with addresses and secrets once it is
ready, and stops when its standard input ends. SETTINGS are a JSON object of further variables of the services.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo
from tests.bench.mail_sink import MailSink
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
async def environment(settings: Mapping[str, str] | None = None) -> AsyncIterator[dict[str, Any]]:
    """Run the environment in a process of its own, so that the driver shares no event loop with it.

    ``settings`` are further variables of the services.

    Yields:
        ``url`` of the gateway, ``kafka``, ``mongo``, the path ``mails`` of the sink's file, ``internal_key``,
        ``webhook_secret``, ``sealing_keys`` and ``pids`` by service.

    Raises:
        RuntimeError: the environment did not start; its own output says why.
    """
    with tempfile.TemporaryDirectory(prefix="nest-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.environment", folder, json.dumps(dict(settings or {}))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 20,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready = await process.stdout.readline()
            if not ready:
                raise RuntimeError("the environment did not start: see the lines above")
            yield json.loads(ready)
        finally:
            process.stdin.close()
            await process.wait()


async def main(folder: Path, settings: Mapping[str, str]) -> None:
    """Start everything, print the addresses, run until standard input ends."""
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(EmbeddedKafka(folder))
        mongo = await stack.enter_async_context(EmbeddedMongo(folder))
        sink = await stack.enter_async_context(MailSink(folder / "mails.jsonl"))
        nest = await stack.enter_async_context(
            running_stack(
                folder,
                kafka_bootstrap=kafka.bootstrap,
                mongo_url=mongo.url,
                topic_prefix="",
                database_prefix="nest_",
                separate=SERVICES,
                settings={"NEST_LOG_LEVEL": "warning", "NEST_SMTP_PORT": str(sink.port), **LIMITS, **settings},
            )
        )
        ready = {
            "url": nest.urls[0],
            "kafka": kafka.bootstrap,
            "mongo": mongo.url,
            "mails": str(folder / "mails.jsonl"),
            "internal_key": nest.internal_key,
            "sealing_keys": nest.environment["NEST_SEALING_KEYS"],
            "webhook_secret": nest.environment["NEST_STRIPE_WEBHOOK_SECRETS"],
            "pids": {name: process.pid for name, process in nest.processes.items()},
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
