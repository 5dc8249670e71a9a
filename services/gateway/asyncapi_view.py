"""What the page of events shows of the AsyncAPI document: topics with their rights, and messages with their fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from services.gateway.openapi_view import Row, rows


@dataclass(frozen=True, slots=True)
class MessageEntry:
    """A message: anchor, names, texts in Markdown, topic, kind, fields, example, key, and what a caller gets."""

    id: str
    name: str
    title: str
    summary: str
    text: str
    topic: str
    kind: str
    fields: list[Row]
    sealed: frozenset[str]
    example: str
    key: str
    reply: str
    reply_sealed: bool
    refusals: list[str]


@dataclass(frozen=True, slots=True)
class TopicEntry:
    """A topic: name, text in Markdown, partitions, retention in words, and who writes and reads it."""

    id: str
    name: str
    text: str
    partitions: int
    cleanup: str
    writers: list[tuple[str, str]]
    readers: list[tuple[str, str]]
    messages: list[MessageEntry]


class AsyncApiView:
    """The page's view of the document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    @cached_property
    def topics(self) -> list[TopicEntry]:
        """All topics, in the order of the document: each with its dead letters behind it."""
        return [self._topic(name, channel) for name, channel in self.document["channels"].items()]

    @cached_property
    def headers(self) -> list[Row]:
        """Headers of a record."""
        return list(rows(self.document, self.document["components"]["messageTraits"]["envelope"]["headers"]))

    def _topic(self, name: str, channel: dict[str, Any]) -> TopicEntry:
        kafka = channel["bindings"]["kafka"]
        return TopicEntry(
            id=f"topic-{name}",
            name=name,
            text=channel["description"],
            partitions=kafka["partitions"],
            cleanup=" and ".join(kafka["topicConfiguration"]["cleanup.policy"]),
            writers=self._processes(name, "send"),
            readers=self._processes(name, "receive"),
            messages=[self._message(name, each) for each in channel["messages"] if not name.endswith(".dead")],
        )

    def _processes(self, topic: str, action: str) -> list[tuple[str, str]]:
        return [
            (operation["title"].split()[0], operation["summary"])
            for operation in self.document["operations"].values()
            if operation["action"] == action and operation["channel"]["$ref"] == f"#/channels/{topic}"
        ]

    def _message(self, topic: str, name: str) -> MessageEntry:
        message = self.document["components"]["messages"][name]
        fields = list(rows(self.document, message.get("payload", {})))
        properties = _properties(self.document, message.get("payload", {}))
        example = next((each["payload"] for each in message.get("examples", [])), None)
        return MessageEntry(
            id=name,
            name=name,
            title=message["title"],
            summary=message["summary"].rstrip("."),
            text=message.get("description", ""),
            topic=topic,
            kind=next((tag["name"] for tag in message.get("tags", [])), ""),
            fields=fields,
            sealed=frozenset(field for field, schema in properties.items() if schema.get("x-sealed")),
            example="" if example is None else json.dumps(example, indent=2, ensure_ascii=False),
            key=message.get("bindings", {}).get("kafka", {}).get("key", {}).get("description", ""),
            reply=message.get("x-reply", ""),
            reply_sealed=message.get("x-reply-sealed", False),
            refusals=message.get("x-refusals", []),
        )


def _properties(document: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    name = payload.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"].get(name, payload).get("properties", {})
    return found
