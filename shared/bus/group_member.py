"""Static membership in consumer groups (KIP-345), which aiokafka supports only in part.

aiokafka joins under an instance name, but its heartbeats do not carry it, a stopped consumer does not leave, and after
FENCED_INSTANCE_ID it stalls without an error (aio-libs/aiokafka#1186). This member sends heartbeats with its name,
leaves its group when it stops, and reports that another process has taken its name.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.consumer import consumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError, UnknownMemberIdError
from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import HeartbeatRequest, HeartbeatResponse_v1, JoinGroupRequest
from aiokafka.protocol.types import Int32, Schema, String

from shared.bus.kafka_connection import KafkaConnection

SESSION_SECONDS: Final = 6.0
"""After so long without a heartbeat Kafka gives a member's partitions to others: the shortest time that brokers accept
by default (``group.min.session.timeout.ms``)."""
HEARTBEAT_SECONDS: Final = 0.3
"""The response to a heartbeat also announces a rebalance. So other members learn within this time that one has left, or
that its session has ended."""
SOLE_HEARTBEAT_SECONDS: Final = 2.0
"""Interval of the heartbeats of a group's only member. No partition waits for another member to leave, and while one
joins this member handles all of them."""
BLOCKED_SECONDS: Final = 1.0
"""An event loop that has not responded for so long needs the spare heartbeats, one per this interval."""
MAX_BLOCKED_SECONDS: Final = 15.0
"""How long a blocked event loop keeps its partitions. Only then does the session timeout begin."""
FENCED_INSTANCE_ID: Final = 82
"""Kafka's error code for a member whose instance name another one has taken."""


class Fenced(Exception):
    """Another process has joined the group under this member's instance name."""


class _HeartbeatResponse(HeartbeatResponse_v1):  # type: ignore[misc]
    API_VERSION = 3


class _HeartbeatStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class _Heartbeat(Request[_HeartbeatStruct]):  # type: ignore[misc]
    """A heartbeat with the instance name, so that Kafka can tell a fenced member from an expired one."""

    API_KEY = 12

    def __init__(self, member: GroupMember) -> None:
        self._fields = (member.group_id, member.generation, member.member_id, member.instance)

    def build(self, request_struct_class: type[_HeartbeatStruct]) -> _HeartbeatStruct:
        return request_struct_class(*self._fields)


class GroupMember(GroupCoordinator):  # type: ignore[misc]
    """The membership of one consumer in its group.

    Attributes:
        instance: instance name; None for a dynamic member.
        on_fenced: called once when another process has taken the name. The member then neither fetches, commits nor
            joins again: two processes that take the name from each other would both make no progress.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.instance: str | None = options.get("group_instance_id")
        self.on_fenced: Callable[[], None] | None = None
        self._fenced = False
        self._join_unanswered = False
        self._sole = False

    async def _on_join_prepare(self, previous_assignment: Any) -> None:
        self._sole = False
        await super()._on_join_prepare(previous_assignment)

    async def _perform_assignment(self, response: Any) -> Any:
        # Kafka names the members to their leader alone, which a sole member is.
        self._sole = len(response.members) == 1
        return await super()._perform_assignment(response)

    def _start_heartbeat_task(self) -> None:
        self._heartbeat_interval_ms = int(1000 * (SOLE_HEARTBEAT_SECONDS if self._sole else HEARTBEAT_SECONDS))
        super()._start_heartbeat_task()

    async def _send_req(self, request: Any) -> Any:
        if self._fenced:
            raise Fenced
        if isinstance(request, HeartbeatRequest) and self.instance is not None:
            request = _Heartbeat(self)
        try:
            response = await super()._send_req(request)
        except KafkaError:
            self._join_unanswered |= isinstance(request, JoinGroupRequest)
            raise
        if getattr(response, "error_code", 0) == FENCED_INSTANCE_ID:
            if self._join_unanswered:
                # Kafka may have handled that request after a later one of this member, and so given its name to itself.
                self._join_unanswered = False
                self.reset_generation()
                raise UnknownMemberIdError(self.group_id)
            if not self._fenced and self.on_fenced is not None:
                self.on_fenced()
            self._fenced = True
            raise Fenced
        if isinstance(request, OffsetCommitRequest) and self.instance and self.member_id and _unknown_member(response):
            # aiokafka's commits do not carry the name. It would join again after this response, and take the name back.
            # Without an ID it is joining again already, and Kafka would take the heartbeat for that of a fenced member.
            await self._send_req(_Heartbeat(self))
        return response

    async def ensure_active_group(self, subscription: Any, prev_assignment: Any) -> Any:
        """Join the group if necessary; a fenced member only waits for its end."""
        try:
            return await super().ensure_active_group(subscription, prev_assignment)
        except Fenced:
            await asyncio.wait([self._closing])
            return None

    def _push_error_to_user(self, exc: BaseException) -> Awaitable[Any]:
        if isinstance(exc, Fenced):
            return asyncio.wait([self._closing])
        waiting: Awaitable[Any] = super()._push_error_to_user(exc)
        return waiting

    async def _maybe_leave_group(self) -> None:
        """Leave the group; aiokafka's static members do not."""
        if self._fenced:
            return
        # By its member ID, which is not that of a process that has taken the name meanwhile.
        self._group_instance_id = None
        try:
            await super()._maybe_leave_group()
        finally:
            self._group_instance_id = self.instance


def _unknown_member(response: Any) -> bool:
    return any(code == UnknownMemberIdError.errno for _, partitions in response.topics for _, code in partitions)


def use_group_members() -> None:
    """Make every consumer of this process a `GroupMember`; may be called repeatedly."""
    consumer.GroupCoordinator = GroupMember


class SpareHeartbeats:
    """A thread that sends a member's heartbeats while its event loop is blocked.

    A loop that is busy for seconds would otherwise lose its partitions, and every unfinished message would be handled
    again elsewhere. It does not help against code that holds the interpreter lock, nor if the whole process is frozen.

    Args:
        kafka: the connection to Kafka.
        member: the membership of a consumer in the running loop.
    """

    def __init__(self, kafka: KafkaConnection, member: GroupMember) -> None:
        self._kafka = kafka
        self._member = member
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self.sent = 0

    def start(self) -> None:
        """Measure the loop's responsiveness until the stop."""
        threading.Thread(target=self._run, name=f"heartbeats of {self._member.group_id}", daemon=True).start()

    def stop(self) -> None:
        """Send no more heartbeats."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(BLOCKED_SECONDS):
            responded = threading.Event()
            try:
                self._loop.call_soon_threadsafe(responded.set)
            except RuntimeError:  # the loop is closed
                return
            blocked_until = time.monotonic() + MAX_BLOCKED_SECONDS
            while not responded.wait(BLOCKED_SECONDS) and not self._stopping.is_set():
                if time.monotonic() < blocked_until and self._member.generation > 0:
                    self._send()

    def _send(self) -> None:
        try:
            asyncio.run(asyncio.wait_for(self._heartbeat(), SESSION_SECONDS))
        except (KafkaError, TimeoutError):
            return
        self.sent += 1

    async def _heartbeat(self) -> None:
        client = AIOKafkaClient(**self._kafka.options)
        try:
            await client.bootstrap()
            node = await client.coordinator_lookup(CoordinationType.GROUP, self._member.group_id)
            await client.send(node, _Heartbeat(self._member), group=ConnectionGroup.COORDINATION)
        finally:
            await client.close()
