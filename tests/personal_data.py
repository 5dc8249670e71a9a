"""Effect of an erasure on every collection of every service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Effect(Enum):
    """Effect of an erasure on a person's documents in a collection."""

    REMOVED = auto()
    """The documents are deleted."""
    ANONYMIZED = auto()
    """The documents stay without anything that leads to the person."""
    SEALED = auto()
    """The documents stay until they expire and hold only ciphertext and ids."""
    IDS = auto()
    """The documents stay and hold only ids that lead nowhere, or keyed hashes."""
    NOT_ABOUT_PEOPLE = auto()
    """The documents are not about users of Nest."""


@dataclass(frozen=True, slots=True)
class Classified:
    """Classification of a collection.

    Attributes:
        effect: the effect of an erasure.
        reason: why documents stay and, if they expire, when.
    """

    effect: Effect
    reason: str = ""


OF_THE_BUS: Final = {
    "inbox": Classified(Effect.SEALED, "detects redelivered messages; expires after NEST_INBOX_RETENTION"),
    "timers": Classified(Effect.SEALED, "delayed messages; deleted when published"),
    "schema": Classified(Effect.NOT_ABOUT_PEOPLE, "version of the database and progress of its migrations"),
}
COLLECTIONS: Final = {
    "auth": {
        **OF_THE_BUS,
        "users": Classified(Effect.REMOVED),
        "identifiers": Classified(Effect.REMOVED),
        "entitlements": Classified(Effect.REMOVED),
        "authorizations": Classified(Effect.REMOVED),
        "phone_codes": Classified(Effect.REMOVED),
        "access_tokens": Classified(Effect.REMOVED),
        "refresh_tokens": Classified(Effect.REMOVED),
        "familiars": Classified(Effect.REMOVED),
        "limits": Classified(Effect.REMOVED, "except counts of one device: keyed hashes that expire within 31 days"),
        "tallies": Classified(
            Effect.IDS, "shared counters of networks and clients; expire with the window of the rate limit"
        ),
        "audit": Classified(Effect.ANONYMIZED, "which action was attempted and when; expires after NEST_AUDIT_DAYS"),
        "user_export_parts": Classified(Effect.REMOVED),
        "user_processes": Classified(Effect.IDS, "that a user was erased, and when; expires after 180 days"),
        "owners": Classified(Effect.NOT_ABOUT_PEOPLE, "accounts of developers of applications, who delete their own"),
        "applications": Classified(Effect.NOT_ABOUT_PEOPLE, "their owners delete them"),
        "application_users": Classified(Effect.NOT_ABOUT_PEOPLE, "users of those applications, which delete them"),
        "account_links": Classified(Effect.NOT_ABOUT_PEOPLE, "mailed links to those users; expire within a day"),
        "clients": Classified(Effect.NOT_ABOUT_PEOPLE),
        "sealing_keys": Classified(Effect.NOT_ABOUT_PEOPLE, "how many messages each key has sealed"),
        "signing_keys": Classified(Effect.NOT_ABOUT_PEOPLE),
        "replays": Classified(Effect.IDS, "which dead letters were replayed; expires after 60 days"),
        "removed_letters": Classified(Effect.IDS, "which dead letters were removed; expires after 60 days"),
    },
    "billing": {
        **OF_THE_BUS,
        "subscriptions": Classified(Effect.REMOVED),
        "trials": Classified(Effect.REMOVED),
        "provider_mappings": Classified(Effect.REMOVED),
        "payers": Classified(Effect.REMOVED),
        "billing_history": Classified(Effect.REMOVED),
        "entitlements": Classified(Effect.REMOVED),
        "usage": Classified(Effect.REMOVED),
        "checkouts": Classified(Effect.REMOVED),
        "payments": Classified(Effect.ANONYMIZED, "accounting records"),
        "disputes": Classified(Effect.ANONYMIZED, "accounting records"),
        "erased": Classified(Effect.IDS, "a late event from Stripe must not recreate the person"),
        "failed_payment_mails": Classified(
            Effect.IDS, "time of the last mail about a failed payment, by subscription id"
        ),
        "stripe_events": Classified(Effect.IDS, "ids and types of events, never their content; expires"),
        "stripe_runs": Classified(Effect.IDS, "progress of runs over Stripe; expires"),
        "stripe_differences": Classified(Effect.IDS, "differences found by runs, by ids; expires"),
        "stripe_drift": Classified(Effect.IDS, "counts of differences"),
        "stripe_schedule": Classified(Effect.NOT_ABOUT_PEOPLE),
        "stripe_takeover": Classified(Effect.NOT_ABOUT_PEOPLE),
        **dict.fromkeys(("stripe_products", "stripe_prices", "stripe_catalog"), Classified(Effect.NOT_ABOUT_PEOPLE)),
    },
    "mailer": {
        **OF_THE_BUS,
        "deliveries": Classified(Effect.ANONYMIZED, "that a mail or text was sent"),
        "suppressions": Classified(
            Effect.IDS, "addresses that bounced or complained; until a mail is delivered there or an operator lifts it"
        ),
        "marketing_consents": Classified(Effect.REMOVED),
        "marketing_consent_changes": Classified(Effect.REMOVED),
        "audience_members": Classified(Effect.REMOVED),
        "erased": Classified(Effect.IDS, "an old unsubscribe link must not recreate the person"),
        "client_looks": Classified(Effect.NOT_ABOUT_PEOPLE),
        "webhook_endpoints": Classified(Effect.NOT_ABOUT_PEOPLE),
        "webhook_deliveries": Classified(
            Effect.REMOVED, "except user.erased with the user's ID; expires after NEST_WEBHOOK_DAYS"
        ),
    },
    "news": {
        **OF_THE_BUS,
        "dismissals": Classified(Effect.REMOVED),
        "subscriptions": Classified(Effect.REMOVED),
        "news_items": Classified(Effect.NOT_ABOUT_PEOPLE),
    },
}
REMOVED_BY_HANDLERS: Final = {"access_tokens", "refresh_tokens", "familiars", "limits"}
"""Collections of auth that its handlers delete: sessions must be revoked, and rate limits are found by hashes."""
