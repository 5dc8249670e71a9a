"""What a million users need, computed from the measured costs of operations in ``docs/scale.json``.

``python -m tests.bench.scale`` writes the tables of ``docs/scale.md`` anew. `tests.bench.sizes --json docs/scale.json`
measures the costs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.auth.magic_links import store as magic_links
from services.auth.settings import AuthSettings
from services.auth.tokens import store as tokens
from services.auth.tokens.models import FAMILY_LIFETIME
from services.billing.settings import BillingSettings
from services.mailer.settings import MailerSettings
from shared.bus.topics import TOPICS
from shared.settings import ServiceSettings
from tests.bench.markdown import render, table
from tests.bench.sizes import Cost

DOCUMENT: Final = Path("docs/scale.md")
COSTS: Final = Path("docs/scale.json")
USERS: Final = 1_000_000
MONTH: Final = 30.0
PEAK: Final = 5.0
"""The busiest hour of the day as a multiple of the mean."""
REPLICAS: Final = 3
"""Copies of everything: members of a replica set, replicas of a partition."""
PER_USER_AND_MONTH: Final[Mapping[str, float]] = {
    "send_magic_link, known address": 1,
    "authenticate_user, code of a known user": 1,
    "authenticate_user, first refresh": 1,
    "authenticate_user, refresh": 59,
    "get_user": 60,
    "get_subscription_status": 60,
    # One user in fifty is new, and one in a hundred starts a trial.
    "send_magic_link, new address": 0.02,
    "authenticate_user, code of a new user": 0.02,
    "create_trial_and_magic_link, new user": 0.01,
    # One user in twenty subscribes, and Stripe sends four events a month about each.
    "Stripe event, applied": 0.2,
}
"""How often an operation is performed."""


def _default(settings: type[ServiceSettings], field: str) -> timedelta:
    days = settings.model_fields[field].default
    return days if isinstance(days, timedelta) else timedelta(days=days)


INBOX: Final = _default(ServiceSettings, "inbox_retention")
KEPT: Final[Mapping[str, timedelta]] = {
    "auth.inbox": INBOX,
    "billing.inbox": INBOX,
    "mailer.inbox": INBOX,
    "news.inbox": INBOX,
    "auth.audit": _default(AuthSettings, "audit_days"),
    "auth.authorizations": magic_links.RETENTION,
    "auth.access_tokens": tokens.RETENTION,
    # The token of an ended session too, so that a second use is recognized as theft.
    "auth.refresh_tokens": FAMILY_LIFETIME + tokens.RETENTION,
    "mailer.deliveries": _default(MailerSettings, "deliveries_days"),
    "billing.stripe_events": _default(BillingSettings, "stripe_events_retention_days"),
}
"""How long a collection keeps what an operation adds."""
BRIEF: Final = timedelta(days=1)
"""Counters of rate limits and timers, whose documents expire within a day."""
BRIEFLY_KEPT: Final = ("auth.limits", "auth.tallies", "billing.timers")
LOGIN: Final = ("send_magic_link, known address", "authenticate_user, code of a known user")
"""The operations of one login."""
LOGINS_PER_SECOND: Final = 100
PERIOD: Final = timedelta(days=8)
"""Period of the example with ``LOGINS_PER_SECOND``."""
PRINCIPAL: Final = (
    "send_magic_link, known address",
    "authenticate_user, code of a known user",
    "authenticate_user, first refresh",
    "authenticate_user, refresh",
    "create_trial_and_magic_link, new user",
    "Stripe event, applied",
)
"""Operations whose traces are shown by collection and topic."""
SHOWN: Final = 20
"""Bytes below which an operation's trace in a collection or topic is not shown."""
ONCE: Final = (
    "authenticate_user, code of a new user",
    "create_trial_and_magic_link, new user",
)
"""Operations that create what is kept for ever: of each user once, and of one in twenty once."""
SUBSCRIBERS: Final = 0.05


def lifetime(collection: str) -> timedelta | None:
    """How long a collection keeps what an operation adds; None for ever."""
    return KEPT.get(collection, BRIEF if collection in BRIEFLY_KEPT else None)


def topic_lifetime(topic: str) -> timedelta | None:
    """How long a topic keeps a record at most: its retention, and the time of a segment.

    None for topics that are kept for ever, which have few records, and for those of Kafka itself.
    """
    return next(
        (
            timedelta(milliseconds=each.retention + each.segment)
            for each in TOPICS
            if each.name == topic and each.retention > 0
        ),
        None,
    )


@dataclass(frozen=True)
class Model:
    """The needs of ``USERS`` users.

    Args:
        costs: the cost of each operation, by name.
    """

    costs: Mapping[str, Cost]

    def per_second(self, operation: str) -> float:
        """How often an operation is performed each second, on average."""
        return USERS * PER_USER_AND_MONTH[operation] / (MONTH * 86_400)

    def collections(self) -> Counter[str]:
        """Bytes in one copy, by collection, once as much expires as is added."""
        sizes = Counter[str]()
        for name, cost in self.costs.items():
            for collection, size in cost.collections.items():
                if kept := lifetime(collection):
                    sizes[collection] += round(size * self.per_second(name) * kept.total_seconds())
                elif name in ONCE:
                    sizes[collection] += round(size * USERS * (1 if name == ONCE[0] else SUBSCRIBERS))
        return sizes

    def topics(self) -> Counter[str]:
        """Bytes in one copy, by topic."""
        sizes = Counter[str]()
        for name, cost in self.costs.items():
            for topic, size in cost.topics.items():
                # What Kafka keeps of offsets is compacted to one record for each partition.
                if kept := topic_lifetime(topic):
                    sizes[topic] += round(size * self.per_second(name) * kept.total_seconds())
        return sizes

    def after_logins(self) -> dict[tuple[str, str], tuple[float, timedelta, float, float]]:
        """What ``LOGINS_PER_SECOND`` leave in one copy, by database and its collection or topic.

        Returns:
            Bytes of one login, how long they are kept, bytes after ``PERIOD``, and bytes once as much expires as is
            added.
        """
        rows = {}
        for where, stores, kept_by in (("MongoDB", "collections", lifetime), ("Kafka", "topics", topic_lifetime)):
            sizes = Counter[str]()
            for operation in LOGIN:
                sizes.update(getattr(self.costs[operation], stores))
            for store, size in sizes.items():
                if kept := kept_by(store):
                    second = size * LOGINS_PER_SECOND
                    after = second * min(kept, PERIOD).total_seconds()
                    rows[where, store] = size, kept, after, second * kept.total_seconds()
        return rows

    def cores(self) -> Counter[str]:
        """Cores in the busiest hour, by process."""
        cores = Counter[str]()
        for name, cost in self.costs.items():
            for process, milliseconds in cost.cpu.items():
                cores[process] += PEAK * milliseconds / 1000 * self.per_second(name)  # type: ignore[assignment]
        return cores


def tables(costs: Sequence[Cost]) -> dict[str, str]:
    """The tables of the document, by name."""
    model = Model({cost.name: cost for cost in costs})
    return {
        "costs": table(
            ("operation", "MongoDB", "largest", "Kafka", "largest", "CPU, ms", "MongoDB", "services", "Kafka"),
            [
                (
                    f"`{cost.name.partition(',')[0]}`{cost.name.partition(',')[1]}{cost.name.partition(',')[2]}"
                    if "_" in cost.name
                    else cost.name,
                    _bytes(sum(cost.collections.values())),
                    _largest(cost.collections),
                    _bytes(sum(cost.topics.values())),
                    _largest(cost.topics),
                    f"{sum(cost.cpu.values()):.1f}",
                    f"{cost.cpu['mongo']:.1f}",
                    f"{sum(used for name, used in cost.cpu.items() if name not in ('mongo', 'kafka')):.1f}",
                    f"{cost.cpu['kafka']:.1f}",
                )
                for cost in costs
            ],
        ),
        "traces": _traces(model),
        "logins": _logins(model),
        "rates": table(
            ("operation", "a user and month", "a second, mean", "a second, busiest hour"),
            [
                (name, f"{often:g}", f"{model.per_second(name):.2f}", f"{PEAK * model.per_second(name):.1f}")
                for name, often in PER_USER_AND_MONTH.items()
            ],
        ),
        "collections": _sizes("collection", model.collections(), kept=_kept),
        "topics": _sizes("topic", model.topics(), kept=_topic_kept),
        "cores": table(
            ("process", "cores in the busiest hour"),
            [(name, f"{cores:.2f}") for name, cores in model.cores().most_common()]
            + [("**all**", f"**{sum(model.cores().values()):.2f}**")],
        ),
    }


def load(file: Path = COSTS) -> list[Cost]:
    """The measured costs."""
    return [Cost(**each) for each in json.loads(file.read_text())]


def _traces(model: Model) -> str:
    """Bytes that one operation leaves in each collection and topic."""
    rows = []
    for stores, kept in (("collections", _kept), ("topics", _topic_kept)):
        left = [getattr(model.costs[name], stores) for name in PRINCIPAL]
        sums = Counter[str]()
        for each in left:
            sums.update(each)
        rows += [
            (f"`{name}`", kept(name), *(f"{each.get(name, 0):,.0f}" for each in left))
            for name, _ in sums.most_common()
            if max(each.get(name, 0) for each in left) >= SHOWN and not name.startswith("__")
        ]
        total = [f"**{sum(each.values()):,.0f}**" for each in left]
        rows.append(("**all of MongoDB**" if stores == "collections" else "**all of Kafka**", "", *total))
    return table(
        ("collection or topic", "kept", "link", "code", "first refresh", "refresh", "trial", "Stripe event"), rows
    )


def _logins(model: Model) -> str:
    """What many logins leave."""
    rows = sorted(model.after_logins().items(), key=lambda item: -item[1][2])
    total = [sum(each[number] for _, each in rows) for number in (0, 2, 3)]
    return table(
        ("in", "collection or topic", "bytes of a login", "kept", f"after {PERIOD.days} days", "in the end"),
        [
            *(
                (where, f"`{name}`", f"{size:,.0f}", _duration(kept), _bytes(after), _bytes(end))
                for (where, name), (size, kept, after, end) in rows
                if size >= SHOWN
            ),
            ("**all**", "", f"**{total[0]:,.0f}**", "", f"**{_bytes(total[1])}**", f"**{_bytes(total[2])}**"),
        ],
    )


def _duration(kept: timedelta) -> str:
    days = kept / timedelta(days=1)
    return f"{round(days, 2):g} days" if days > 1 else "up to a day" if kept.days else f"{kept.seconds // 60} minutes"


def _kept(collection: str) -> str:
    kept = lifetime(collection)
    return "for ever" if kept is None else _duration(kept)


def _topic_kept(topic: str) -> str:
    kept = topic_lifetime(topic)
    return "for ever" if kept is None else _duration(kept)


def _sizes(title: str, sizes: Counter[str], *, kept: object) -> str:
    assert callable(kept)
    total = sum(sizes.values())
    shown = [(name, size) for name, size in sizes.most_common() if size >= total / 500]
    rest = total - sum(size for _, size in shown)
    rows = [(f"`{name}`", kept(name), _bytes(size), _bytes(size * REPLICAS)) for name, size in shown]
    return table(
        (title, "kept", "one copy", "three copies"),
        [
            *rows,
            ("others", "", _bytes(rest), _bytes(rest * REPLICAS)),
            ("**all**", "", f"**{_bytes(total)}**", f"**{_bytes(total * REPLICAS)}**"),
        ],
    )


def _largest(sizes: Mapping[str, float]) -> str:
    named = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"`{name}` {_bytes(size)}" for name, size in named if size >= 1)


def _bytes(size: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def main() -> None:
    """Write the tables of the document anew."""
    DOCUMENT.write_text(render(DOCUMENT.read_text(), tables(load())))


if __name__ == "__main__":
    main()
