"""Message contracts between the services, registered by wire name.

This package imports every contract module, so that ``MESSAGES`` is complete for every reader.
"""

from shared.messages import news, personal_data
from shared.messages.auth import (
    accounts,
    audit,
    clients,
    dead_letters,
    magic_links,
    phone,
    sessions,
    signing_keys,
    tokens,
    users,
)
from shared.messages.billing import disputes, payments, runs, stripe_events, subscriptions, trials
from shared.messages.mailer import (
    branding,
    consents,
    deliveries,
    mail_reports,
    mails,
    suppressions,
    texts,
)
from shared.messages.message import (
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
    "branding",
    "clients",
    "consents",
    "dead_letters",
    "deliveries",
    "disputes",
    "iso_milliseconds",
    "magic_links",
    "mail_reports",
    "mails",
    "news",
    "payments",
    "personal_data",
    "phone",
    "runs",
    "sessions",
    "signing_keys",
    "stripe_events",
    "subscriptions",
    "suppressions",
    "texts",
    "tokens",
    "trials",
    "users",
]
