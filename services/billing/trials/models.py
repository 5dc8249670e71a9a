"""Rules of trials: reserved for a user and a device, created in Stripe, then finished.

A trial that was ordered is provisional until its link is redeemed, because anybody can order one for any address. One
that nobody redeems is undone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from services.billing.stripe_api.models import StripeSubscription

KEY_LIFETIME: Final = timedelta(hours=23)
"""Stripe keeps idempotency keys for at least 24 hours (https://docs.stripe.com/api/idempotent_requests)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDevice:
    """The device on which a trial was started."""

    beak_id: str | None
    fingerprint: str | None

    @classmethod
    def named(cls, *, beak_id: str | None, fingerprint: str | None) -> Self:
        """The device of a command; empty values in older commands belong to no device."""
        return cls(beak_id=_not_blank(beak_id), fingerprint=_not_blank(fingerprint))


NO_DEVICE: Final = TrialDevice(beak_id=None, fingerprint=None)


def _not_blank(text: str | None) -> str | None:
    return text if text is not None and text.strip() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The one trial of a user and a device.

    Attributes:
        device: that ordered it; once its link is redeemed, that ordered the redeemed link.
        person: keyed hash of the address without tags and dots, by which a second trial of the person is recognized;
            None while it is provisional, and for trials of earlier releases.
        ordered_at: when it was last ordered while it was provisional.
        provisional_until: when it is undone unless its link is redeemed; None once it is redeemed, and for trials of
            earlier releases.
        undone_at: when it began to be undone.
        card: keyed hash of Stripe's fingerprint of the card with which a checkout began it.
        stp_customer_id: the customer that the user already had; of a finished trial, its customer.
        stp_subscription_id: None until the trial is finished, like the product and the times.
        email: the address with which the trial was started, sealed for billing; None once the trial is finished. Stripe
            requires the same parameters whenever an idempotency key is used again.
    """

    id: str
    user_id: str
    device: TrialDevice
    stp_customer_id: str | None
    stp_subscription_id: str | None = None
    stp_product_id: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    email: str | None
    created_at: datetime
    updated_at: datetime
    person: str | None = None
    ordered_at: datetime | None = None
    provisional_until: datetime | None = None
    undone_at: datetime | None = None
    card: str | None = None
    version: int = 1

    @classmethod
    def reserve(
        cls,
        id: str,  # noqa: A002
        user_id: str,
        device: TrialDevice,
        *,
        customer_id: str | None,
        email: str | None,
        at: datetime,
        person: str | None = None,
    ) -> Self:
        """A reserved trial, not in Stripe yet; idempotency keys are derived from ``id``, and ``email`` is sealed."""
        return cls(
            id=id,
            user_id=user_id,
            device=device,
            stp_customer_id=customer_id,
            email=email,
            created_at=at,
            updated_at=at,
            person=person,
        )

    @property
    def undone(self) -> bool:
        """Whether it is being undone. It is removed once its subscription is cancelled."""
        return self.undone_at is not None

    @property
    def provisional(self) -> bool:
        """Whether it may still be redeemed or undone."""
        return self.provisional_until is not None and not self.undone

    @property
    def settled(self) -> bool:
        """Whether its user, person and device have had their trial."""
        return self.provisional_until is None

    @property
    def pending(self) -> bool:
        """Whether it is reserved and not known to exist in Stripe."""
        return self.stp_subscription_id is None

    def continues_on(self, device: TrialDevice) -> bool:
        """Whether StartTrial from this device continues it instead of being refused.

        A provisional trial is continued from any device: the mailbox decides whose it is.
        """
        return self.provisional or (self.settled and self.pending and self.device == device)

    def order(self, *, until: datetime, at: datetime) -> Self:
        """The trial after an order; the first one decides until when it is provisional."""
        return replace(self, ordered_at=at, provisional_until=self.provisional_until or until)

    def redeem(self, device: TrialDevice, *, person: str | None, at: datetime) -> Self:
        """The settled trial of the person who redeemed its link, which was ordered from this device."""
        return replace(self, device=device, person=person, provisional_until=None, updated_at=at)

    def settle(self, *, at: datetime) -> Self:
        """The trial as settled although nobody redeemed its link, because its subscription is in use."""
        return replace(self, provisional_until=None, undone_at=None, updated_at=at)

    def without_device(self, *, at: datetime) -> Self:
        """The trial after another one took its device."""
        return replace(self, device=NO_DEVICE, updated_at=at)

    def undo(self, *, at: datetime) -> Self:
        """The trial as one to be undone: from now on nothing continues it."""
        return replace(self, undone_at=at, updated_at=at)

    def keys_expired(self, at: datetime) -> bool:
        """Whether Stripe may have forgotten the idempotency keys of the first attempt."""
        return at - self.created_at > KEY_LIFETIME

    def finish(self, stripe_subscription: StripeSubscription, *, at: datetime) -> Self:
        """The finished trial, with the IDs and times of its subscription in Stripe."""
        return replace(
            self,
            stp_customer_id=stripe_subscription.customer.id,
            stp_subscription_id=stripe_subscription.id,
            stp_product_id=stripe_subscription.product_id,
            starts_at=stripe_subscription.trial_start or stripe_subscription.created,
            ends_at=stripe_subscription.trial_end or stripe_subscription.period_end,
            email=None,
            updated_at=at,
        )
