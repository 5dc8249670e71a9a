"""Prometheus metrics of the bus, which every service exports. A capability declares its own metrics beside its code.

Labels have few values, and none is a person. docs/operations.md describes them.
"""

from __future__ import annotations

from functools import cache
from typing import Final, TypeVar

from prometheus_client import Counter, Gauge, Histogram

Metric = TypeVar("Metric", Counter, Gauge, Histogram)


@cache
def labelled(metric: Metric, *values: str) -> Metric:
    """Return ``metric.labels(*values)``, from memory: looking it up costs more than counting."""
    return metric.labels(*values)


_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

MESSAGES_HANDLED: Final = Counter(
    "nest_messages_handled", "Messages that have reached an outcome.", ["service", "type", "outcome"]
)
MESSAGE_SECONDS: Final = Histogram(
    "nest_message_seconds",
    "Time from fetching a message to the last acknowledgement of its messages.",
    ["service", "type"],
    buckets=_BUCKETS,
)
IN_FLIGHT: Final = Gauge("nest_messages_in_flight", "Messages fetched and not finished.", ["service"])
OLDEST: Final = Gauge(
    "nest_oldest_message_seconds",
    "Age of the oldest message on the partitions of this process that is not finished, fetched or not.",
    ["service"],
)
PAUSED: Final = Gauge(
    "nest_partition_paused",
    "1 while an assigned partition is paused, because its records or this release are faulty; else 0.",
    ["service", "topic", "partition"],
)
UNKNOWN_TYPES: Final = Gauge(
    "nest_unknown_type_messages", "Messages of an unknown type that wait for a newer release.", ["service"]
)
RETRIES: Final = Counter("nest_message_retries", "Failed attempts that were repeated.", ["service", "type"])
DEAD_LETTERS: Final = Counter("nest_dead_letters", "Messages that were dead-lettered.", ["service", "reason"])
COMMITS: Final = Histogram(
    "nest_commit_messages", "Number of messages in one commit.", ["service"], buckets=(1, 2, 4, 8, 16, 32, 64)
)
REPLIES_LOST: Final = Counter("nest_replies_lost", "Replies that could not be sent in time.", ["service"])
LAG: Final = Gauge("nest_consumer_lag_records", "Records that a service has not handled yet.", ["service"])
LAG_SECONDS: Final = Gauge(
    "nest_consumer_lag_seconds", "Age of the oldest record that a service has not handled yet.", ["service"]
)
UNREAD_EXPIRED: Final = Gauge(
    "nest_consumer_lag_expired_records", "Records that expired unread while a service is away.", ["service"]
)
EXPIRED: Final = Counter(
    "nest_records_expired", "Records that Kafka deleted before the service read them.", ["service", "topic"]
)
REPUBLISHED: Final = Counter(
    "nest_messages_republished", "Messages sent again after their records expired unread.", ["service", "topic"]
)
GROUP_LAG: Final = Gauge(
    "nest_consumer_group_lag_records",
    "Records of a partition that a consumer group has not handled yet.",
    ["service", "group", "topic", "partition"],
)
GROUP_OLDEST: Final = Gauge(
    "nest_consumer_group_oldest_record_timestamp_seconds",
    "When the oldest record that a consumer group has not handled was written to a partition; 0 without any.",
    ["service", "group", "topic", "partition"],
)
PARTITIONS: Final = Gauge(
    "nest_consumer_partitions_assigned", "Partitions that Kafka has assigned to this process.", ["service"]
)
WORKS_WAITING: Final = Gauge(
    "nest_commit_works_waiting", "Handled messages whose changes wait for their commit to MongoDB.", ["service"]
)
TIMERS_PUBLISHED: Final = Counter("nest_timers_published", "Delayed messages that were sent when due.", ["service"])
TIMERS_DUE: Final = Gauge("nest_timers_due", "Delayed messages that are due and not sent yet.", ["service"])
TIMERS_DUE_SINCE: Final = Gauge(
    "nest_timers_due_since_timestamp_seconds",
    "When the longest overdue delayed message was due; 0 without any.",
    ["service"],
)
DEPENDENCY_UP: Final = Gauge(
    "nest_dependency_up",
    "1 if a dependency (MongoDB, Kafka) answered the last check of a process, else 0.",
    ["service", "dependency"],
)
EVENT_LOOP_DELAY: Final = Histogram(
    "nest_event_loop_delay_seconds",
    "How much later than scheduled the event loop ran a timer.",
    ["service"],
    buckets=_BUCKETS,
)
LOGINS: Final = Counter(
    "nest_logins",
    "Logins by method and step: asked (a link or code was ordered), mailed, texted, or redeemed (tokens were issued).",
    ["method", "step"],
)
LOGINS_REFUSED: Final = Counter(
    "nest_logins_refused", "Refused steps of logins (asked or redeemed), by error code.", ["method", "step", "code"]
)
BUILD: Final = Gauge(
    "nest_build_info", "1, with the versions of Nest and Python as labels.", ["service", "version", "python_version"]
)
