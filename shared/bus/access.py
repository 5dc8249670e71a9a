"""Access control lists of Kafka: the rights of each process, derived from the declared topics.

``nest topics apply --acls`` creates them, and ``nest topics check`` compares them. Each process is a principal of its
own. A right to read or write a topic includes that to describe it, and the right to read a consumer group that to
describe it.

https://kafka.apache.org/documentation/#operations_in_kafka
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, for_code
from aiokafka.protocol.admin import (
    CreateAclsRequest_v1,
    DeleteAclsRequest_v1,
    DescribeAclsRequest,
)
from aiokafka.protocol.api import Request

from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import GROWTH, INSTANCES, PROCESSES, SERVICES, TOPICS, Topic, dead_letter_topic
from shared.messages.auth.partitions import PAUSED_PARTITIONS

OPERATOR: Final = "operator"
"""The principal of ``nest topics`` and ``nest doctor``. It writes only the orders of ``nest topics grow``, which need a
sealing key too, and can't change these lists."""
PRINCIPALS: Final = (*PROCESSES, OPERATOR)
SECURITY_DISABLED: Final = 54
"""Kafka's error code for a broker without an authorizer."""
ANY: Final = 1
LITERAL, PREFIXED = 3, 4
ALLOW: Final = 3
CODES: Final = {"topic": 2, "group": 3, "cluster": 4}
OPERATIONS: Final = {
    "all": 2,
    "read": 3,
    "write": 4,
    "create": 5,
    "delete": 6,
    "alter": 7,
    "describe": 8,
    "cluster action": 9,
    "describe configs": 10,
    "alter configs": 11,
    "idempotent write": 12,
}
CLUSTER: Final = "kafka-cluster"
"""Kafka's name of the only resource of its kind."""


class NoAuthorizer(Exception):
    """The brokers have no authorizer, so every principal may do everything."""


class MayNotChangeAcls(Exception):
    """The principal may not read or change the access control lists."""


@dataclass(frozen=True, order=True)
class Acl:
    """A right of a principal, or its denial.

    Attributes:
        principal: Kafka's name of it, ``User:auth``.
        resource: ``topic``, ``group`` or ``cluster``.
        name: full name of the topic or group, or the beginning of it.
        operation: what it may do, such as ``read``.
        prefixed: it concerns all names that begin with ``name``.
        denied: it is a denial.
        host: address that it concerns; ``*`` for all.
    """

    principal: str
    resource: str
    name: str
    operation: str
    prefixed: bool = False
    denied: bool = False
    host: str = "*"

    def __str__(self) -> str:
        may = "may not" if self.denied else "may"
        names = f"{self.name}*" if self.prefixed else self.name
        resource = "" if self.resource == "cluster" else f"{self.resource} "
        host = "" if self.host == "*" else f" from {self.host}"
        return f"{self.principal} {may} {self.operation} {resource}{names}{host}"

    def concerns(self, topics: Iterable[str], groups: Iterable[str]) -> bool:
        """Return True if it concerns one of these topics or groups."""
        names = {"topic": topics, "group": groups}.get(self.resource, ())
        return any(self.name in ("*", each) or (self.prefixed and each.startswith(self.name)) for each in names)

    def fields(self) -> tuple[int, str, int, str, str, int, int]:
        """Return the fields of Kafka's requests."""
        pattern = PREFIXED if self.prefixed else LITERAL
        permission = ALLOW - 1 if self.denied else ALLOW
        resource, operation = CODES[self.resource], OPERATIONS[self.operation]
        return (resource, self.name, pattern, self.principal, self.host, operation, permission)


def declared_acls(
    *, prefix: str = "", principals: Mapping[str, str] | None = None, topics: Sequence[Topic] = TOPICS
) -> list[Acl]:
    """Return the rights that every process needs, sorted.

    Args:
        prefix: prefix of topics and consumer groups.
        principals: Kafka's names of processes whose principal is not ``User:<process>``.
        topics: the declared topics.
    """
    rights: set[tuple[str, str, str, str]] = set()
    for topic in topics:
        rights |= {(process, "topic", topic.name, "write") for process in topic.writers}
        rights |= {(process, "topic", topic.name, "read") for process in (*topic.consumers, *topic.readers)}
        rights.add((OPERATOR, "topic", topic.name, "describe"))
        names = [topic.name]
        if topic.consumed:
            letters = dead_letter_topic(topic.name)
            names.append(letters)
            # auth replays dead letters and removes those about erased users.
            rights.add(("auth", "topic", topic.name, "write"))
            writers = {"auth", *topic.consumers}
            rights |= {(process, "topic", letters, "write") for process in writers}
            rights |= {("auth", "topic", letters, "read"), (OPERATOR, "topic", letters, "read")}
            # It measures the lag of all consumer groups.
            rights |= {("gateway", "topic", topic.name, "describe")} if topic.consumers else set()
        configure = ("create", "describe configs", "alter configs")
        rights |= {(OPERATOR, "topic", name, operation) for name in names for operation in configure}
        rights |= {(OPERATOR, "topic", topic.name, "alter")} if topic.growable else set()
    rights |= {(OPERATOR, "topic", name, "read") for name in (INSTANCES.name, PAUSED_PARTITIONS, GROWTH.name)}
    rights.add((OPERATOR, "topic", GROWTH.name, "write"))
    rights.add((OPERATOR, "cluster", CLUSTER, "describe"))
    for service in SERVICES:
        rights.add((service, "group", service, "read"))
        rights |= {(process, "group", service, "describe") for process in ("gateway", OPERATOR)}
        # An inbox row keeps its messages until the groups that consume them have passed them.
        sends = [topic for topic in topics if service in topic.writers or service == "auth"]
        rights |= {(service, "group", group, "describe") for topic in sends for group in topic.consumers}
    implied = {(*right[:3], "describe") for right in rights if right[3] in ("read", "write")}
    names_of = {process: f"User:{process}" for process in PRINCIPALS} | dict(principals or {})
    return sorted(
        Acl(names_of[process], resource, name if resource == "cluster" else prefix + name, operation)
        for process, resource, name, operation in rights - implied
    )


@dataclass(frozen=True)
class AclDifference:
    """The difference between Kafka's lists and the declared ones.

    Attributes:
        missing: declared rights that Kafka does not have.
        extra: rights and denials of Nest's principals that are not declared.
        foreign: rights and denials of others that concern Nest's topics and groups.
    """

    missing: list[Acl]
    extra: list[Acl]
    foreign: list[Acl]

    def lines(self) -> list[str]:
        """Return one sentence for each."""
        return [
            *(f"missing: {each}" for each in self.missing),
            *(f"not declared: {each}" for each in self.extra),
            *(f"not declared, of another principal: {each}" for each in self.foreign),
        ]


async def compare_acls(
    kafka: KafkaConnection, *, prefix: str = "", principals: Mapping[str, str] | None = None
) -> AclDifference:
    """Compare Kafka's lists with the declared ones; arguments as for ``declared_acls``.

    Raises:
        NoAuthorizer: the brokers do not use access control lists.
        MayNotChangeAcls: this principal may not read them; that is the right to describe the cluster.
        KafkaError: Kafka can't be reached or rejected the request.
    """
    admin = AIOKafkaAdminClient(**kafka.options, request_timeout_ms=30_000)
    try:
        await admin.start()
        return await _difference(admin, prefix, principals)
    finally:
        await admin.close()


async def apply_acls(
    kafka: KafkaConnection, *, prefix: str = "", principals: Mapping[str, str] | None = None
) -> AclDifference:
    """Create the missing rights, remove undeclared ones of Nest's principals, and return the difference before.

    Rights of other principals stay. Arguments and errors as for ``compare_acls``; changes need the right to alter the
    cluster.
    """
    admin = AIOKafkaAdminClient(**kafka.options, request_timeout_ms=30_000)
    try:
        await admin.start()
        difference = await _difference(admin, prefix, principals)
        if difference.missing:
            created = await admin._send_request(_CreateAcls(difference.missing))  # noqa: SLF001 -- no public method
            _raise_for([(each[0], each[1]) for each in created.creation_responses])
        if difference.extra:
            deleted = await admin._send_request(_DeleteAcls(difference.extra))  # noqa: SLF001
            _raise_for([(each[0], each[1]) for each in deleted.filter_responses])
        return difference
    finally:
        await admin.close()


async def _difference(admin: AIOKafkaAdminClient, prefix: str, principals: Mapping[str, str] | None) -> AclDifference:
    declared = declared_acls(prefix=prefix, principals=principals)
    topics = {each.name for each in declared if each.resource == "topic"}
    groups = {each.name for each in declared if each.resource == "group"}
    ours = {each.principal for each in declared}
    existing = await _existing(admin)
    others = [
        each
        for each in existing
        if each not in declared and (each.concerns(topics, groups) or (each.principal in ours and not prefix))
    ]
    return AclDifference(
        missing=[each for each in declared if each not in existing],
        extra=[each for each in others if each.principal in ours],
        foreign=[each for each in others if each.principal not in ours],
    )


async def _existing(admin: AIOKafkaAdminClient) -> set[Acl]:
    """Return all lists of topics, groups and the cluster."""
    response = await admin._send_request(  # noqa: SLF001
        DescribeAclsRequest(ANY, None, ANY, None, None, ANY, ANY)
    )
    _raise_for([(response.error_code, response.error_message)])
    resources = {code: name for name, code in CODES.items()}
    operations = {code: name for name, code in OPERATIONS.items()}
    return {
        Acl(
            principal,
            resources[kind],
            name,
            operations[operation],
            prefixed=pattern == PREFIXED,
            denied=permission != ALLOW,
            host=host,
        )
        for kind, name, pattern, acls in response.resources
        for principal, host, operation, permission in acls
        if kind in resources and operation in operations
    }


def _raise_for(results: Iterable[tuple[int, str | None]]) -> None:
    """Raise the first error of a response."""
    for code, message in results:
        if not code:
            continue
        if code == SECURITY_DISABLED:
            raise NoAuthorizer("the brokers have no authorizer: set authorizer.class.name, see docs/operations.md")
        error = for_code(code)
        if error is ClusterAuthorizationFailedError:
            raise MayNotChangeAcls(
                "this Kafka user may not read or change access control lists: log in as one that may alter the cluster"
            )
        raise (error if issubclass(error, KafkaError) else KafkaError)(message or f"error {code}")


class _CreateAcls(Request[CreateAclsRequest_v1]):  # type: ignore[misc]
    """A request for several rights; aiokafka's has one."""

    API_KEY = 30

    def __init__(self, acls: Iterable[Acl]) -> None:
        self._acls = [each.fields() for each in acls]

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> Any:
        return request_struct_class(self._acls)


class _DeleteAcls(Request[DeleteAclsRequest_v1]):  # type: ignore[misc]
    """A request to remove several rights; aiokafka's has one."""

    API_KEY = 31

    def __init__(self, acls: Iterable[Acl]) -> None:
        self._acls = [each.fields() for each in acls]

    def build(self, request_struct_class: type[DeleteAclsRequest_v1]) -> Any:
        return request_struct_class(self._acls)
