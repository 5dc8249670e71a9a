"""State of the running system, as one gateway sees it."""

from typing import Literal

from shared.messages.message import Part, Query, Reply
from shared.messages.types import Many, Moment


class InstanceView(Part):
    """A running process of a service, as Kafka knows it."""

    name: str
    """Name of the instance, as in its log."""
    host: str
    """Address from which it is connected to Kafka."""
    partitions: int
    """Number of partitions that it handles."""


class ServiceStateView(Part):
    """A service."""

    service: str
    """Name of the service."""
    state: Literal["running", "rebalancing", "away"]
    """``running``; ``rebalancing`` while its instances divide the partitions anew; ``away`` if no instance is connected
    to Kafka."""
    instances: Many[InstanceView]
    """Its instances."""
    lag_records: int
    """Records that it has not handled yet."""
    lag_seconds: float
    """Age of the oldest of them, in seconds; 0 if there is none."""
    expired_records: int
    """Records that expired unread while it is away."""
    handled_per_second: float | None
    """Records that it has handled per second since the measurement before; null at the first one."""


class TopicStateView(Part):
    """A topic that services consume."""

    topic: str
    """Name of the topic, without the deployment's prefix."""
    partitions: int
    """Number of its partitions."""
    lag_records: int
    """Records that a service has not handled yet; counted for each of its services."""
    written_per_second: float | None
    """Records that were written to it per second since the measurement before; null at the first one."""


class GatewayStateView(Part):
    """The gateway that answers. It does not know the others."""

    instance: str
    """Name of the instance."""
    release: str
    """Release of Nest."""
    started_at: Moment
    """When it started."""
    problems: Many[str]
    """Its current problems, as in the health check; empty if there are none."""
    calls_waiting: int
    """Calls that wait for a service's reply."""
    requests: int
    """Requests to methods and other routes since its start."""
    failed_requests: int
    """Those of them with a status of 500 or higher."""
    requests_per_second: float | None
    """Requests per second since the measurement before; null at the first one."""


class SystemStateView(Reply):
    """The running system, as one gateway sees it."""

    gateway: GatewayStateView
    """The gateway that answers."""
    measured_at: Moment | None
    """When Kafka was last read. Null before, and while it can't be read: ``services`` and ``topics`` are empty."""
    services: Many[ServiceStateView]
    """The services that consume messages."""
    topics: Many[TopicStateView]
    """The topics that they consume, sorted by name."""


class GetSystemState(Query, wire="gateway.get-system-state", reply=SystemStateView):
    """Get the state of the running system, as the gateway sees it.

    The gateway that receives the call answers it from Kafka's consumer groups and its own counts, so it works while
    services are away. While the method is called, it measures every 2 seconds, else every 30. It does not know other
    gateways, nor whether a service reaches MongoDB, Stripe or the mail server; `nest doctor` checks these.
    """
