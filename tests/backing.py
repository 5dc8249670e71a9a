"""Backing services of a test run: one Kafka and one MongoDB, shared by all workers.

They come from `NEST_KAFKA_BOOTSTRAP` and `NEST_MONGO_URL`, else from containers where a Docker engine answers, else
they are the embedded ones. A separate process starts them when the first test needs them and stops them when its
standard input ends, which happens however the run ends.

`python -m tests.backing --folder F` (`make backing`) keeps both running until Ctrl-C and prints the variables to set,
so that repeated runs need not start their own.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from services.embedded import ports
from services.embedded.console import Console, Progress, Silent
from services.embedded.errors import CannotStart
from services.embedded.kafka import EmbeddedKafka, responds
from services.embedded.mongo import EmbeddedMongo
from services.embedded.mongo_probe import connect, is_primary

HEAP_MB = 640
"""Heap of the JVM for the thousands of partitions that a whole run creates."""

KAFKA_IMAGE = "apache/kafka:4.3.0"
MONGO_IMAGE = "mongo:7"
_START_SECONDS = 180.0


@dataclass(frozen=True)
class Backing:
    """Addresses of a Kafka and of a MongoDB replica set."""

    kafka_bootstrap: str
    mongo_url: str


def from_environment() -> Backing | None:
    """The services that the environment names, if it names both."""
    kafka, mongo = os.environ.get("NEST_KAFKA_BOOTSTRAP"), os.environ.get("NEST_MONGO_URL")
    return Backing(kafka, mongo) if kafka and mongo else None


@contextmanager
def backing_process() -> Iterator[Path]:
    """Run the process that starts the backing services on demand.

    Yields:
        the Unix socket at which `addresses_from` gets their addresses.
    """
    with tempfile.TemporaryDirectory(prefix="nest-tests-") as folder:
        at = Path(folder) / "backing.socket"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.backing", "--folder", folder, "--socket", str(at)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches only us; the process ends when its input does
        )
        try:
            yield at
        finally:
            process.communicate(timeout=30)


def addresses_from(at: Path) -> Backing:
    """Wait until the services are ready and return their addresses. Blocks.

    Raises:
        RuntimeError: they did not start; the text gives the reason and the remedy.
    """
    deadline = time.monotonic() + _START_SECONDS
    while not at.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"the process that starts the backing services did not open its socket within {_START_SECONDS:.0f} s"
            )
        time.sleep(0.02)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_START_SECONDS)
        client.connect(str(at))
        reply = json.loads(client.makefile().readline())
    if "error" in reply:
        raise RuntimeError(reply["error"])
    return Backing(**reply)


@asynccontextmanager
async def running(folder: Path, progress: Progress) -> AsyncIterator[Backing]:
    """Run both services while the context is entered; services that the environment names are used as they are."""
    async with AsyncExitStack() as stack:
        docker = await asyncio.to_thread(_docker_answers)
        kafka, mongo = await asyncio.gather(
            stack.enter_async_context(_kafka(folder, progress, docker=docker)),
            stack.enter_async_context(_mongo(folder, progress, docker=docker)),
        )
        yield Backing(kafka, mongo)


@asynccontextmanager
async def _kafka(folder: Path, progress: Progress, *, docker: bool) -> AsyncIterator[str]:
    if address := os.environ.get("NEST_KAFKA_BOOTSTRAP"):
        yield address
    elif docker:
        port = ports.any_free()
        settings = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@127.0.0.1:9093",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://127.0.0.1:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{ports.LOOPBACK}:{port}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        }
        async with _container(KAFKA_IMAGE, port, environment=settings):
            await _until(lambda: responds(ports.LOOPBACK, port))
            yield f"{ports.LOOPBACK}:{port}"
    else:
        async with EmbeddedKafka(folder, heap_mb=HEAP_MB, progress=progress) as embedded:
            yield embedded.bootstrap


@asynccontextmanager
async def _mongo(folder: Path, progress: Progress, *, docker: bool) -> AsyncIterator[str]:
    if address := os.environ.get("NEST_MONGO_URL"):
        yield address
    elif docker:
        # The same port inside, so that the replica set's member has one name on both sides.
        port = ports.any_free()
        command = f"--replSet rs0 --bind_ip_all --port {port} --setParameter enableTestCommands=1"
        async with _container(MONGO_IMAGE, port, command=command), connect(port) as client:
            await _until(lambda: is_primary(client, port))
            yield f"mongodb://{ports.LOOPBACK}:{port}/?replicaSet=rs0"
    else:
        async with EmbeddedMongo(folder, test_commands=True, progress=progress) as embedded:
            yield embedded.url


def _docker_answers() -> bool:
    # Docker's libraries take half a second to import, and most runs do not need them.
    import docker  # type: ignore[import-untyped]  # noqa: PLC0415
    from docker.errors import DockerException  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        client = docker.from_env(timeout=5)
    except DockerException:
        return False
    with contextlib.closing(client), contextlib.suppress(DockerException, OSError):
        return bool(client.ping())
    return False


@asynccontextmanager
async def _container(
    image: str, port: int, *, environment: dict[str, str] | None = None, command: str | None = None
) -> AsyncIterator[None]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - as above

    container = DockerContainer(image, command=command, env=environment).with_bind_ports(port, port)
    try:
        async with asyncio.timeout(_START_SECONDS):
            await asyncio.to_thread(container.start)
        yield
    finally:
        await asyncio.to_thread(container.stop)


async def _until(ready: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while not await ready():  # noqa: ASYNC110 - the state of another program
            await asyncio.sleep(0.1)


async def _serve(at: Path, folder: Path) -> None:
    """Start the services at the first connection, answer each with the addresses, stop when standard input ends."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    started: asyncio.Future[Backing] | None = None

    async def start() -> Backing:
        return await stack.enter_async_context(running(folder, Silent()))

    async def reply_to(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal started
        started = started or asyncio.ensure_future(start())
        try:
            reply = asdict(await asyncio.shield(started))
        except CannotStart as error:
            reply = {"error": str(error)}
        writer.write(json.dumps(reply).encode() + b"\n")
        await writer.drain()
        writer.close()

    async with AsyncExitStack() as stack, await asyncio.start_unix_server(reply_to, at):
        await over.wait()
        if started:
            # If the run ends while the services start, wait for them, so that they are stopped in order.
            await asyncio.wait([started])


async def _keep(folder: Path) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with running(folder, Console(sys.stderr)) as backing:
        print(f"export NEST_KAFKA_BOOTSTRAP='{backing.kafka_bootstrap}'")  # noqa: T201 -- the output of the command
        print(f"export NEST_MONGO_URL='{backing.mongo_url}'", flush=True)  # noqa: T201
        await over.wait()


def main() -> None:
    """Run the command line."""
    arguments = argparse.ArgumentParser(description="Keep a Kafka and a MongoDB running for test runs.")
    arguments.add_argument("--folder", type=Path, default=Path(".nest/backing"), help="where their data live")
    arguments.add_argument("--socket", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    try:
        asyncio.run(_serve(options.socket, options.folder) if options.socket else _keep(options.folder))
    except CannotStart as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
