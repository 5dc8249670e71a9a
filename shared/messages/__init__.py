"""The contracts: what the services say to each other, by wire name.

Every module is imported here, so that ``MESSAGES`` is whole whoever reads it.
"""

from shared.messages import (
    accounts,
    audit,
    auth,
    billing,
    clients,
    mailer,
    news,
    phone,
    sessions,
    signing_keys,
    stripe,
    subscriptions,
)
from shared.messages.message import (
    stripe_runs,
    ANONYMOUS,
    MESSAGES,
    SERVICE,
    Caller,
    Command,
    Event,
    Message,
    Moment,
    Part,
    Query,
    Reply,
    Sealed,
    iso_milliseconds,
)

__all__ = [
    "ANONYMOUS",
    "MESSAGES",
    "SERVICE",
    "Caller",
    "Command",
    "Event",
    "Message",
    "Moment",
    "Part",
    "Query",
    "Reply",
    "Sealed",
    "accounts",
    "audit",
    "auth",
    "billing",
    "clients",
    "iso_milliseconds",
    "mailer",
    "news",
    "phone",
    "sessions",
    "signing_keys",
    "stripe",
    "subscriptions",
]
    "stripe_runs",
