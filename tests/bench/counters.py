"""Counters of what calls cause: MongoDB commands, Kafka requests and bytes, messages in a commit."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pymongo import AsyncMongoClient

REQUEST_LOG: Final = {"JDK_JAVA_OPTIONS": "-Dorg.slf4j.simpleLogger.log.kafka.request.logger=debug"}
"""Variable with which the embedded Kafka logs each request when it has been answered."""
COMMITS: Final = "nest_commit_messages"
_COMPLETED: Final = re.compile(rb"Completed request:(\{.*\})")
_IDLE: Final = frozenset({"hello", "isMaster", "ping", "serverStatus", "replSetGetStatus", "replSetUpdatePosition"})
"""Commands that monitoring sends, with or without calls."""
_INTERNAL: Final = frozenset(
    {"ALTER_PARTITION", "BROKER_HEARTBEAT", "BROKER_REGISTRATION", "FETCH_SNAPSHOT", "VOTE", "API_VERSIONS"}
)


async def mongo_commands(url: str) -> Counter[str]:
    """Commands that MongoDB has executed so far, by name, and ``bytes in`` and ``bytes out`` of its connections."""
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        status = await client.admin.command("serverStatus")
    commands = Counter(
        {
            name: found["total"]
            for name, found in status["metrics"]["commands"].items()
            if isinstance(found, dict) and name not in _IDLE and found.get("total")
        }
    )
    commands["bytes in"], commands["bytes out"] = status["network"]["bytesIn"], status["network"]["bytesOut"]
    return commands


@dataclass(frozen=True)
class KafkaRequest:
    """A request that the broker has answered.

    Attributes:
        client: ID of the client.
        kind: such as ``PRODUCE``.
        milliseconds: from its arrival to the answer; a fetch waits for records.
        records: whether a fetch has brought any.
    """

    client: str
    kind: str
    milliseconds: float
    records: bool


class KafkaLog:
    """The log of an embedded Kafka that runs with ``REQUEST_LOG``.

    Args:
        folder: of the environment.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "logs" / "kafka.log"
        self._data = folder / "kafka"

    def position(self) -> int:
        """Bytes of the log so far."""
        return self._file.stat().st_size

    def requests(self, begin: int, end: int) -> list[KafkaRequest]:
        """Clients' requests that were logged between two positions."""
        with self._file.open("rb") as log:
            log.seek(begin)
            found = _COMPLETED.finditer(log.read(end - begin))
            return [request for match in found if (request := _request(match[1])) is not None]


def topic_bytes(folder: Path) -> Counter[str]:
    """Bytes in the segments of each topic of the embedded Kafka in a folder."""
    sizes = Counter[str]()
    for segment in (folder / "kafka").glob("*/*.log"):
        topic = segment.parent.name.rpartition("-")[0]
        # Announcements of instances come by time, not by call.
        if topic not in ("instances", "__cluster_metadata"):
            sizes[topic] += segment.stat().st_size
    return sizes


async def commits(health: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Messages and commits so far, by service.

    Args:
        health: base URLs of the metrics of each service.
    """
    found = {}
    async with httpx.AsyncClient() as http:
        for name, url in health.items():
            text = (await http.get(f"{url}/metrics")).text
            values = {
                sample.name: sample.value
                for family in text_string_to_metric_families(text)
                if family.name == COMMITS
                for sample in family.samples
            }
            if f"{COMMITS}_count" in values:
                found[name] = values[f"{COMMITS}_sum"], values[f"{COMMITS}_count"]
    return found


def per_call(before: Counter[str], after: Counter[str], calls: int, *, least: float = 0.005) -> dict[str, float]:
    """How much each counter has grown for each call, the largest first, without what is below ``least``."""
    grown = {name: (value - before[name]) / calls for name, value in after.items()}
    return {name: value for name, value in sorted(grown.items(), key=lambda item: -item[1]) if value >= least}


def commit_sizes(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Messages in a commit, on average between two readings, by service."""
    sizes = {}
    for name, (messages, count) in after.items():
        earlier = before.get(name, (0.0, 0.0))
        if count > earlier[1]:
            sizes[name] = (messages - earlier[0]) / (count - earlier[1])
    return sizes


def _request(line: bytes) -> KafkaRequest | None:
    entry = json.loads(line)
    header = entry["requestHeader"]
    kind = header["requestApiKeyName"]
    if kind in _INTERNAL or entry.get("listener") == "CONTROLLER":
        return None
    records = any(
        partition.get("recordsSizeInBytes", 0)
        for topic in entry["response"].get("responses", ())
        for partition in topic.get("partitions", ())
    )
    return KafkaRequest(header.get("clientId") or "", kind, entry["totalTimeMs"], records)
