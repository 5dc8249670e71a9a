"""Prometheus metrics of the bus, which every service exports. A capability declares its own metrics beside its code.

Labels have few values, and none is a person. docs/operations.md describes them.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

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
    "nest_oldest_message_seconds", "Age of the oldest message that is fetched and not finished.", ["service"]
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
TIMERS_DUE: Final = Counter("nest_timers_published", "Delayed messages that were sent when due.", ["service"])
