"""Every collection of every service, and what becomes of a person's documents in it when they are erased."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Fate(Enum):
    """What an erasure does."""

    REMOVED = auto()
    """The documents go."""
    NOBODYS = auto()
    """They stay, and nothing in them leads to the person."""
    CLOSED = auto()
    """They stay until they expire, and hold ciphertext and ids only."""
    IDS = auto()
    """They stay, and hold ids that mean nothing any more, or hashes under a key of ours."""
    NOT_ABOUT_PEOPLE = auto()
    """Nothing in them is about a user of Nest."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One collection.

    Attributes:
        fate: what becomes of a person's documents.
        why: where anything stays, for what; and for how long, where that is not for ever.
    """

    fate: Fate
    why: str = ""


OF_THE_BUS: Final = {
    "inbox": Kept(Fate.CLOSED, "what was done is not done again; goes after NEST_INBOX_RETENTION"),
    "timers": Kept(Fate.CLOSED, "what is to be said later; goes when it is said"),
}
COLLECTIONS: Final = {
    "auth": {
        **OF_THE_BUS,
        "users": Kept(Fate.REMOVED),
        "identifiers": Kept(Fate.REMOVED),
        "authorizations": Kept(Fate.REMOVED),
        "phone_codes": Kept(Fate.REMOVED),
        "access_tokens": Kept(Fate.REMOVED),
        "refresh_tokens": Kept(Fate.REMOVED),
        "familiars": Kept(Fate.REMOVED),
        "limits": Kept(Fate.REMOVED, "but for counts of one device, keyed hashes that expire within 31 days"),
        "tallies": Kept(Fate.IDS, "how often a network or an app did something; expires with the limit's window"),
        "audit": Kept(Fate.NOBODYS, "what was tried and when; goes after NEST_AUDIT_DAYS"),
        "user_export_parts": Kept(Fate.REMOVED),
        "user_processes": Kept(Fate.IDS, "that a user was erased, and when; goes after 180 days"),
        "owners": Kept(Fate.NOT_ABOUT_PEOPLE, "accounts of those who build apps; they remove themselves"),
        "applications": Kept(Fate.NOT_ABOUT_PEOPLE, "their owners remove them"),
        "application_users": Kept(Fate.NOT_ABOUT_PEOPLE, "people of other people's applications, who remove them"),
        "clients": Kept(Fate.NOT_ABOUT_PEOPLE),
        "signing_keys": Kept(Fate.NOT_ABOUT_PEOPLE),
        "replays": Kept(Fate.IDS, "which dead letters were put back; goes after 60 days"),
        "removed_letters": Kept(Fate.IDS, "which dead letters are not shown any more; goes after 60 days"),
    },
    "billing": {
        **OF_THE_BUS,
        "subscriptions": Kept(Fate.REMOVED),
        "trials": Kept(Fate.REMOVED),
        "provider_mappings": Kept(Fate.REMOVED),
        "payers": Kept(Fate.REMOVED),
        "payments": Kept(Fate.NOBODYS, "the books"),
        "disputes": Kept(Fate.NOBODYS, "the books"),
        "erased": Kept(Fate.IDS, "whoever comes late from Stripe must not come back"),
        "failed_payment_mails": Kept(Fate.IDS, "when a failure was told last, by the id of Stripe's subscription"),
        "stripe_events": Kept(Fate.IDS, "which events came, never what they said; expires"),
        "stripe_runs": Kept(Fate.IDS, "how far comparisons are; expires"),
        "stripe_differences": Kept(Fate.IDS, "what comparisons found, by ids; expires"),
        "stripe_drift": Kept(Fate.IDS, "how much differs"),
        "stripe_schedule": Kept(Fate.NOT_ABOUT_PEOPLE),
        "stripe_takeover": Kept(Fate.NOT_ABOUT_PEOPLE),
    },
    "mailer": {
        **OF_THE_BUS,
        "deliveries": Kept(Fate.NOBODYS, "that something was sent"),
        "suppressions": Kept(
            Fate.IDS, "where mail bounces or is called spam none is sent; until one arrives, or operators lift it"
        ),
        "marketing_consents": Kept(Fate.REMOVED),
        "marketing_consent_changes": Kept(Fate.REMOVED),
        "audience_members": Kept(Fate.REMOVED),
        "erased": Kept(Fate.IDS, "whoever follows an old link must not come back"),
        "client_looks": Kept(Fate.NOT_ABOUT_PEOPLE),
    },
    "news": {
        **OF_THE_BUS,
        "dismissals": Kept(Fate.REMOVED),
        "subscriptions": Kept(Fate.REMOVED),
        "news_items": Kept(Fate.NOT_ABOUT_PEOPLE),
    },
}
REMOVED_BY_HANDLERS: Final = {"access_tokens", "refresh_tokens", "familiars", "limits"}
"""Of auth: sessions must be ended and limits be found by their hashes, so they are no ``Holding``."""
