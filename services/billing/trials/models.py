"""Rules of trials: reserved for a user and a device, created in Stripe, then finished."""

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


def _not_blank(text: str | None) -> str | None:
    return text if text is not None and text.strip() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The one trial of a user and a device.

    Attributes:
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
    version: int = 1

    @classmethod
    def reserve(
        cls,
        id: str,  # noqa: A002
        user_id: str,
        device: TrialDevice,
        *,
        customer_id: str | None,
        email: str,
        at: datetime,
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
        )

    @property
    def pending(self) -> bool:
        """Whether it is reserved and not known to exist in Stripe."""
        return self.stp_subscription_id is None

    def continues_on(self, device: TrialDevice) -> bool:
        """Whether StartTrial from this device continues it instead of being refused."""
        return self.pending and self.device == device

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
