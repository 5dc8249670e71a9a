"""Whose trial is it, how far is it, and under which keys is it made in Stripe?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from services.billing.stripe_api.models import StripeSubscription

KEY_LIFE: Final = timedelta(hours=23)
"""Stripe keeps idempotency keys for at least 24 hours (https://docs.stripe.com/api/idempotent_requests)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialDevice:
    """The device a trial was started from."""

    beak_id: str | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The one trial of a user and a device: first reserved, then made in Stripe, then finished.

    Attributes:
        stp_customer_id: the customer the user already had, or the one that was made.
        stp_subscription_id: None until it is finished; as are the product and the times.
        email: the address it was asked with, sealed for billing, until it is finished: Stripe wants the same
            parameters whenever an idempotency key comes again.
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
        """A trial whose place is taken and which Stripe knows nothing of.

        Args:
            id: its id; all idempotency keys come from it.
            user_id: whose it is.
            device: where it was asked for.
            customer_id: the customer that the user has already.
            email: the address it was asked with, sealed.
            at: now.
        """
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
        """Reserved, and not known to be made in Stripe."""
        return self.stp_subscription_id is None

    def goes_on_for(self, device: TrialDevice) -> bool:
        """Whether a further order from this device is about finishing this trial."""
        return self.pending and self.device == device

    def unsure(self, at: datetime) -> bool:
        """Whether Stripe may have forgotten the keys of its first attempt, so that one must look before ordering."""
        return at - self.created_at > KEY_LIFE

    def key(self, step: str, generation: int) -> str:
        """The idempotency key of a step; a later generation takes over when the one before it is spent."""
        return f"{self.id}:{step}" if generation == 0 else f"{self.id}:{step}:{generation}"

    def finish(self, truth: StripeSubscription, *, at: datetime) -> Self:
        """The trial once it is there in Stripe."""
        return replace(
            self,
            stp_customer_id=truth.customer.id,
            stp_subscription_id=truth.id,
            stp_product_id=truth.product_id,
            starts_at=truth.trial_start or truth.created,
            ends_at=truth.trial_end or truth.period_end,
            email=None,
            updated_at=at,
        )
