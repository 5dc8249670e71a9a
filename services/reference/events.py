"""The AsyncAPI 3 document of the bus: every topic and message, who writes and reads them, and what is secret in them.

https://www.asyncapi.com/docs/reference/specification/v3.0.0 and the Kafka bindings,
https://github.com/asyncapi/bindings/tree/master/kafka
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic_core import core_schema

from services.reference.operations import NEWEST
from services.reference.records import DEAD_LETTER, ENVELOPE, OTHER_MESSAGES, REPLIES
from services.reference.schemas import BodySchemas, Schemas, markdown, split_summary
from shared import messages
from shared.bus.access import OPERATOR, declared_acls
from shared.bus.envelope import MAX_BODY_BYTES
from shared.bus.topics import DAY, FOREVER, GROWTH, INSTANCES, MINUTE, TOPICS, Topic, declared
from shared.messages import MESSAGES, Caller, Command, Message, Query, Sealed
from shared.messages.types import MAX_CIPHERTEXT

BINDING: Final = "0.5.0"
"""Version of the Kafka bindings."""
ABOUT: Final = f"""\
The messages of Nest on Kafka: commands and queries to the services, their events, and the topics that processes follow.
The contract for apps is the HTTP API, `/openapi.json`; this document is for operators, for consumers inside the same
deployment, and for those who judge what a reader of the broker sees.

**Records.** The value is one JSON object of at most {MAX_BODY_BYTES // 1024} KiB, the headers have the envelope, and
the key is the ordering key: messages with the same key are handled one at a time, in order. Delivery is at least once,
and `id` is the same at every delivery. Readers ignore unknown fields. Messages are frozen: optional fields may be
added, and any other change is a new message. Topic names have the deployment's prefix in front
(`NEST_TOPIC_PREFIX`).

**Authenticity.** The first header of a record, `mac`, is an HMAC-SHA-256 over topic, key, value and headers, under a
key derived from the deployment's sealing keys. Processes of Nest refuse a record without a valid one, so no other
program can make them act. A foreign consumer can't check MACs without a sealing key: it trusts the broker's access
control.

**Secrecy.** Fields marked `x-sealed` (tokens, codes, passwords) hold ciphertext, which only the receiving service
decrypts. Whole replies with secrets (`x-reply-sealed`) and all dead letters are sealed too. Everything else is readable
for whoever may read the topic, until its retention ends: IDs, times, the caller's IP address in the header `caller`,
and the email addresses, phone numbers and names in fields that are not marked. Give nobody else the right to read.

**Rights.** The operations are the rights that `nest topics apply --acls` gives: each process writes and reads only what
is listed here.
"""
_KINDS: Final = {
    "command": "An order with exactly one handler; takes effect once.",
    "query": "A read without effects; dropped after its deadline.",
    "event": "A fact, published to all consumer groups that subscribe.",
}
_TOPIC_TEXTS: Final = {
    "auth.commands": "Calls to auth. A record may act for any caller, so only the gateway and auth write here.",
    "billing.commands": "Commands and queries to billing.",
    "mailer.commands": "Commands and queries to mailer.",
    "news.commands": "Commands and queries to news.",
    "auth.service-commands": "Reports and orders of other processes to auth.",
    "republishing": "Orders of services to each other to send expired messages again.",
    "auth.events": "Events about users, sessions and clients.",
    "auth.audit": "Audit entries. The collection `audit` keeps them for longer.",
    "billing.events": "Events about subscriptions, trials and payments.",
    "mailer.events": "Events about mails, consent and suppressions.",
    "news.events": "Events about news items, which every instance of news follows.",
    "stripe.webhooks": "Stripe's events as they arrived. billing sends stored ones again.",
    REPLIES: "Replies to calls of the gateway. Each gateway reads one partition, which the header `reply-to` names.",
    "auth.keys": "Public signing keys, which gateways read completely at the start. The key is the key ID.",
    "auth.clients": "Registered clients, which gateways and news read completely at the start. The key is their ID.",
    "auth.revocations": "Revoked access tokens, kept for twice the longest lifetime of a token.",
    "paused-partitions": "Partitions whose records a service does not handle. The key is the partition's ID.",
    INSTANCES.name: "Announcements of the running processes, one every 5 seconds. The key is the instance.",
    GROWTH.name: "Orders of `nest topics grow` to every process, and their confirmations.",
}


class RecordSchemas(BodySchemas):
    """Schemas of records as readers parse them: unknown fields are ignored, and secrets are ciphertext."""

    omitted = frozenset({"key"})
    closed = False

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """Mark the fields with secrets."""
        found = super().model_schema(schema)
        fields = schema["cls"].model_fields
        for name, each in found.get("properties", {}).items():
            if "description" in each:
                each["description"] = _in_terms_of_json(each["description"])
            if name in fields and _is_sealed(fields[name].annotation):
                text = f"{each.get('description', '')} Ciphertext for the receiving service.".strip()
                nullable = fields[name].default is None
                found["properties"][name] = {
                    "type": ["string", "null"] if nullable else "string",
                    "description": text,
                    # The other bounds are those of the plain text.
                    "maxLength": MAX_CIPHERTEXT,
                    "x-sealed": True,
                }
        return found


def _in_terms_of_json(text: str) -> str:
    """A description without Python's word for null."""
    return re.sub(r"\bNone\b", "null", re.sub(r"(^|\. )None\b", r"\1Null", text))


def _is_sealed(annotation: Any) -> bool:
    return annotation is Sealed or any(map(_is_sealed, get_args(annotation)))


def document(samples: Path) -> dict[str, Any]:
    """Generate the document. It depends only on the code and on the samples.

    Args:
        samples: folder with a body of each message, ``<wire name>.json``.
    """
    kinds = _kinds()
    schemas = Schemas([*kinds, Caller], [], RecordSchemas)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Nest",
            "version": NEWEST,
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": name, "description": text} for name, text in _KINDS.items()],
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic, kinds) for topic in declared()},
        "operations": dict(_operations()),
        "components": {
            "messages": {**{kind.wire: _message(kind, schemas, samples) for kind in kinds}, **OTHER_MESSAGES},
            "messageTraits": {"envelope": {"headers": ENVELOPE}},
            "schemas": schemas.components,
        },
    }


def _kinds() -> list[type[Message]]:
    """All messages of Nest that are sent, by wire name. The gateway answers some queries itself; they have no topic."""
    for module in pkgutil.walk_packages(messages.__path__, f"{messages.__name__}."):
        importlib.import_module(module.name)
    ours = f"{messages.__name__}."
    return [kind for _, kind in sorted(MESSAGES.items()) if kind.topic and kind.__module__.startswith(ours)]


def _channel(topic: Topic, kinds: Iterable[type[Message]]) -> dict[str, Any]:
    source = topic.name.removesuffix(".dead")
    dead = source != topic.name
    names = [kind.wire for kind in kinds if kind.topic == topic.name]
    if dead:
        names = [DEAD_LETTER]
        text = f"Records of `{source}` that could not be handled, sealed. The key identifies the failed record."
    else:
        names += {REPLIES: ["reply"], INSTANCES.name: ["instance"], GROWTH.name: ["growth-order"]}.get(topic.name, [])
        text = _TOPIC_TEXTS[topic.name]
    settings = topic.settings(replication=3)
    return {
        "address": topic.name,
        "title": topic.name,
        "description": f"{text} {_kept(topic)}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": settings["cleanup.policy"].split(","),
                    "retention.ms": topic.retention,
                    "max.message.bytes": int(settings["max.message.bytes"]),
                },
                "bindingVersion": BINDING,
            }
        },
    }


def _kept(topic: Topic) -> str:
    """How long records stay, in words."""
    if topic.retention == FOREVER:
        time = ""
    elif topic.retention >= DAY:
        time = f"{topic.retention // DAY} days" if topic.retention > DAY else "a day"
    else:
        time = f"{topic.retention // MINUTE} minutes"
    if not topic.compacted:
        return f"Records are kept for {time}."
    return f"The newest record of each key is kept {f'for {time}' if time else 'forever'}."


def _message(kind: type[Message], schemas: Schemas, samples: Path) -> dict[str, Any]:
    summary, description = split_summary(markdown(kind.__doc__))
    name = "command" if issubclass(kind, Command) else "query" if issubclass(kind, Query) else "event"
    found: dict[str, Any] = {
        "name": kind.wire,
        "title": kind.__name__,
        "summary": f"{summary}.",
        "description": description,
        "tags": [{"name": name}],
        "traits": [{"$ref": "#/components/messageTraits/envelope"}],
        "bindings": {"kafka": {"key": _key(kind), "bindingVersion": BINDING}},
    }
    if kind.tombstone:
        found["payload"] = {"type": "null", "description": "No value: the record removes its key from the topic."}
    else:
        found["payload"] = schemas.request(kind)
        found["examples"] = [{"name": "sample", "payload": json.loads((samples / f"{kind.wire}.json").read_text())}]
    if not issubclass(kind, Command | Query):
        return {key: value for key, value in found.items() if value}
    found["x-reply"] = None if kind.reply is None else kind.reply.__name__
    found["x-reply-sealed"] = kind.reply_sealed
    found["x-refusals"] = sorted(refusal.code for refusal in kind.refuses)
    return {key: value for key, value in found.items() if value}


def _key(kind: type[Message]) -> dict[str, Any]:
    text = markdown(kind.__doc__)
    own = next(
        (sentence for sentence in text.split(". ") if sentence.lower().startswith(("the key is", "their key"))), ""
    )
    return {
        "type": "string",
        "description": f"{own.rstrip('.')}."
        if own
        else "Ordering key: the subject's ID or a keyed hash; else the `id`.",
    }


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    """What each process sends and receives, from the rights that it has."""
    topics = {topic.name: topic for topic in TOPICS}
    names = {topic.name for topic in declared()}
    for acl in declared_acls():
        process, name = acl.principal.removeprefix("User:"), acl.name
        if acl.resource != "topic" or acl.operation not in ("read", "write") or name not in names:
            continue
        topic = topics.get(name)
        channel = {"$ref": f"#/channels/{name}"}
        operation_id = f"{process}_{'receives' if acl.operation == 'read' else 'sends'}_{name}".replace(".", "_")
        operation_id = operation_id.replace("-", "_")
        if acl.operation == "write":
            found: dict[str, Any] = {"action": "send", "channel": channel, "title": f"{process} writes {name}"}
            found["summary"] = _writes(process, topic)
            if process == "gateway" and name.endswith(".commands"):
                found["reply"] = {
                    "address": {
                        "location": "$message.header#/reply-to",
                        "description": "Partition of the topic. Messages without the header get no reply.",
                    },
                    "channel": {"$ref": f"#/channels/{REPLIES}"},
                }
        else:
            found = {"action": "receive", "channel": channel, "title": f"{process} reads {name}"}
            if topic is not None and process in topic.consumers:
                found["summary"] = "Consumes it with the other instances of the service."
                group = {"type": "string", "enum": [process]}
                found["bindings"] = {"kafka": {"groupId": group, "bindingVersion": BINDING}}
            elif topic is None:
                found["summary"] = "Shows dead letters, and replays them on an operator's order."
            else:
                found["summary"] = "Every instance reads it, without a consumer group."
        yield operation_id, found


def _writes(process: str, topic: Topic | None) -> str:
    if topic is None:
        return "Removes dead letters of erased users." if process == "auth" else "Writes what it cannot handle."
    if process == OPERATOR:
        return "Orders of `nest topics grow`."
    return "Sends its messages." if process in topic.writers else "Replays dead letters on an operator's order."
