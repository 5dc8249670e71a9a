"""Goals of Nest's operations, and figures of comparable systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONNECTIONS: Final = 32
"""Closed loops of the goals for rates; those for latencies are for one."""


@dataclass(frozen=True)
class Peer:
    """A figure of another system.

    Attributes:
        system: what it is, and what it does differently.
        per_second: requests a second at ``CONNECTIONS``.
        p50: milliseconds at one connection, where it was measured.
    """

    system: str
    per_second: float
    p50: float | None = None


@dataclass(frozen=True)
class Goal:
    """The goal of a row.

    Attributes:
        per_second: calls a second at ``CONNECTIONS``; None if the goal is a part of the floor.
        p50: milliseconds at one connection.
        p99: the same.
        of_floor: part of the floor's rate.
        floor: the row to compare with: what Kafka, MongoDB or the processor allow without Nest.
        peers: other systems.
    """

    floor: str
    per_second: float | None = None
    p50: float | None = None
    p99: float | None = None
    of_floor: float | None = None
    peers: tuple[Peer, ...] = ()

    @property
    def best_peer(self) -> Peer | None:
        """The fastest of the others."""
        return max(self.peers, key=lambda peer: peer.per_second, default=None)


ECHO: Final = "floor: echo over Kafka"
RECORD: Final = "floor: record onto Kafka"
TRANSACTION: Final = "floor: MongoDB transaction"
ARGON2: Final = "floor: Argon2id"
# Measured beside Nest in interleaved runs on two cores that driver, services, broker and database shared: closed loops,
# 32 connections and one, the same mail sink. Supabase Auth (Go, commit bc32168e of 2026-08-20, PostgreSQL 15 with
# fsync, its newest scheme of refresh tokens): medians of three rounds on 2026-11-29. Its access tokens were signed with
# HS256 and with ES256; Nest signs with ES256. "Another" are the fastest of four further systems in earlier such runs.
HS256: Final = "Supabase Auth, HS256"
ES256: Final = "Supabase Auth, ES256"
ANOTHER: Final = "another system"
_CODES: Final = (Peer(HS256, 678, 3.0), Peer(ES256, 678, 3.0), Peer(ANOTHER, 328))
GOALS: Final = {
    "send_magic_link, new address": Goal(
        floor=TRANSACTION,
        per_second=1500,
        p50=6,
        p99=15,
        peers=(Peer("Supabase Auth", 38, 52.7), Peer("another system, which sends no mail", 1320)),
    ),
    "send_magic_link, known address": Goal(
        floor=TRANSACTION,
        per_second=1500,
        p50=6,
        p99=15,
        peers=(Peer("Supabase Auth", 1005, 2.3), Peer("another system, which sends no mail", 1320)),
    ),
    "authenticate_user, code of a new user": Goal(floor=TRANSACTION, per_second=1100, p50=7, p99=18, peers=_CODES),
    "authenticate_user, code of a known user": Goal(floor=TRANSACTION, per_second=1100, p50=7, p99=18, peers=_CODES),
    "authenticate_user, refresh": Goal(
        floor=TRANSACTION,
        per_second=1300,
        p50=7,
        p99=18,
        peers=(Peer(HS256, 854, 2.6), Peer(ES256, 819, 2.6), Peer(ANOTHER, 243)),
    ),
    "get_user": Goal(
        floor=ECHO,
        per_second=4500,
        p50=2,
        p99=5,
        peers=(Peer(HS256, 2613, 0.7), Peer(ES256, 2581, 0.8), Peer(ANOTHER, 1601)),
    ),
    "get_subscription_status": Goal(floor=ECHO, per_second=4500, p50=2, p99=5, peers=(Peer(ANOTHER, 482),)),
    "list_news_items": Goal(
        floor=ECHO, per_second=6000, p50=2, p99=5, peers=(Peer("another system, without a database", 12951),)
    ),
    "Stripe webhook, accepted": Goal(floor=RECORD, per_second=5000, p50=1, p99=3),
    "Stripe webhook, applied": Goal(floor=TRANSACTION, per_second=500),
    "signwithemail": Goal(
        floor=ARGON2, of_floor=0.9, peers=(Peer("Supabase Auth, bcrypt", 32), Peer(f"{ANOTHER}, bcrypt", 33))
    ),
}
"""The goals, by row."""
LAG_P99_MILLISECONDS: Final = 1000
"""Goal: from the acceptance of a Stripe event to its application, at `tests.bench.rows.EVENTS` events a second."""
IDLE_PERCENT: Final = 2.0
"""Goal: CPU time of ``nest up`` without calls, in percent of a core."""
IDLE_PEER_PERCENT: Final = 1.0
"""Supabase Auth with PostgreSQL, measured in the same way."""
