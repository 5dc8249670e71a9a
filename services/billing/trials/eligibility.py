"""Eligibility for a trial: one for each user, device and person.

A person is recognized by the address without its aliases: the text after ``+`` is a tag (subaddressing, RFC 5233), and
Gmail ignores dots (https://support.google.com/mail/answer/7436150). Mails still go to the address as it was typed.
"""

from __future__ import annotations

from typing import Final

from services.billing.context import Billing
from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.models import current
from services.billing.trials.models import Trial, TrialDevice
from shared.bus.work import Work

PERSON: Final = "trial person"
"""Purpose of the keyed hashes of persons."""
DOTLESS_DOMAINS: Final = {"gmail.com": "gmail.com", "googlemail.com": "gmail.com"}
"""Domains whose mailboxes ignore dots in the local part, and the domain with the same mailboxes."""


def unaliased(address: str) -> str:
    """The address without tag and meaningless dots; ``address`` is in normal form."""
    local, _, domain = address.rpartition("@")
    local = local.partition("+")[0] or local
    if domain in DOTLESS_DOMAINS:
        return f"{local.replace('.', '')}@{DOTLESS_DOMAINS[domain]}"
    return f"{local}@{domain}"


def person_of(address: str, billing: Billing) -> str | None:
    """Keyed hash of the person with this address; None if persons are not compared."""
    if not billing.trial_unaliased:
        return None
    return billing.sealer.keyed_hash(PERSON, unaliased(address).encode())


async def other_trials(address: str, device: TrialDevice, billing: Billing, *, own: Trial | None) -> list[Trial]:
    """The trials of the person and of the device, other than the user's own."""
    found = await billing.trials.of_device(device)
    if billing.trial_unaliased:
        found += await billing.trials.of_person(billing.sealer.keyed_hashes(PERSON, unaliased(address).encode()))
    return [other for other in found if own is None or other.id != own.id]


async def had_trial(address: str, device: TrialDevice, billing: Billing, *, own: Trial | None) -> bool:
    """Whether the person or the device has had another trial than the user's own. Provisional ones do not count."""
    return any(other.settled for other in await other_trials(address, device, billing, own=own))


async def is_subscribed(user_id: str, trial: Trial | None, work: Work, billing: Billing) -> bool:
    """Whether a user has an active subscription, other than that of a trial that an order may continue."""
    active = current(await billing.subscriptions.of_user(user_id), at=work.now, policy=billing.access)
    return active is not None and not (trial is not None and active.trial_id == trial.id)


async def is_provisional(stripe_subscription: StripeSubscription, billing: Billing) -> bool:
    """Whether nobody has redeemed the link of a trial's subscription, so that nobody may be mailed about it.

    A trial that was undone is removed.
    """
    if stripe_subscription.trial_id is None:
        return False
    trial = await billing.trials.find(stripe_subscription.trial_id)
    return trial is None or not trial.settled
