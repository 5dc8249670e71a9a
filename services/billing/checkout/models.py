"""Rules of checkouts: which prices go together, and which checkout of a user is the same as another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from services.billing.catalog.models import Offer
from services.billing.stripe_api.payment_models import StripeCheckout
from services.billing.trials.models import TrialDevice
from shared.messages.billing.checkout import OrderedItem
from shared.messages.billing.errors import MixedCurrencies, MixedIntervals

Mode = Literal["subscription", "payment"]
Status = Literal["pending", "open", "complete", "expired", "replaced", "refused"]
"""What became of a checkout.

- ``pending``: recorded here, and not known to be in Stripe.
- ``open``: its page may be paid.
- ``complete``: its user has paid, or authorized a bank debit.
- ``expired``: Stripe has closed it, after a day.
- ``replaced``: another order of its user has replaced it.
- ``refused``: Stripe refuses it.
"""
LAST_MINUTES: Final = timedelta(minutes=5)
"""A page that expires sooner is replaced, so that its user has time to pay."""
KEY_PERIOD: Final = timedelta(minutes=10)
"""How long attempts at one session share idempotency keys. In later attempts the session is looked up first."""
RETENTION: Final = timedelta(days=90)
"""How long a checkout is kept: longer than a bank debit takes, and than Stripe keeps its events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutSettings:
    """What an operator chose for checkouts.

    Attributes:
        promotion_codes: whether the page takes promotion codes.
        automatic_tax: whether Stripe computes the tax.
        several_subscriptions: whether a user may have several subscriptions of one product.
        one_trial_per_card: whether a trial ends if another person had one with the card.
    """

    promotion_codes: bool
    automatic_tax: bool
    several_subscriptions: bool
    one_trial_per_card: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutItem:
    """An ordered price; ``quantity`` is None if it is metered."""

    stp_price_id: str
    stp_product_id: str
    quantity: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Basket:
    """Prices that can be checked out together; ``trial_days`` is None without a trial."""

    items: tuple[CheckoutItem, ...]
    mode: Mode
    trial_days: int | None

    @classmethod
    def of(cls, items: Sequence[OrderedItem], offers: Sequence[Offer], *, trials: Mapping[str, int]) -> Self:
        """The basket of the ordered items, whose offers are in the same order.

        One-time prices beside recurring ones are on the first invoice of the subscription. ``trials`` are the days of
        trials by price, where Stripe's price has none.

        Raises:
            PriceNotSold, PriceInactive, QuantityNotAllowed: of one of the prices, as ``Offer``.
            MixedIntervals, MixedCurrencies: Stripe sells these prices separately.
        """
        ordered = tuple(
            CheckoutItem(
                stp_price_id=offer.price.id,
                stp_product_id=offer.price.product_id,
                quantity=offer.require_for_sale(item.quantity),
            )
            for item, offer in zip(items, offers, strict=True)
        )
        if len({offer.price.currency for offer in offers}) > 1:
            raise MixedCurrencies
        recurring = {offer.price.id: offer.price.recurring for offer in offers if offer.price.recurring is not None}
        if len({(each.interval, each.interval_count) for each in recurring.values()}) > 1:
            raise MixedIntervals
        days = [each.trial_days or trials.get(price_id) for price_id, each in recurring.items()]
        return cls(
            items=ordered,
            mode="subscription" if recurring else "payment",
            trial_days=max(filter(None, days), default=None),
        )

    @property
    def products(self) -> frozenset[str]:
        """Stripe's IDs of the products."""
        return frozenset(item.stp_product_id for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A checkout of a user.

    Attributes:
        device: on which it was ordered, as far as known.
        person: keyed hash of the user's address without tags and dots, as in a trial.
        trial_days: length of the trial with which the subscription begins; None for no trial.
        open_for: the user's ID while it is pending or open, which a unique index allows once; None afterwards.
        stp_session_id: ``cs_…``; None while it is pending.
        payment_status: Stripe's: ``paid``, ``unpaid``, ``no_payment_required``; None before it is known.
        expires_at: when Stripe closes its page.
        completed_at: when its completion was announced.
        deleted_at: when MongoDB deletes the row.
    """

    id: str
    user_id: str
    client_id: str
    items: tuple[CheckoutItem, ...]
    mode: Mode
    success_url: str
    cancel_url: str
    locale: str | None
    trial_days: int | None
    device: TrialDevice
    person: str | None
    status: Status = "pending"
    open_for: str | None
    stp_session_id: str | None = None
    stp_customer_id: str | None = None
    stp_subscription_id: str | None = None
    payment_status: str | None = None
    expires_at: datetime | None = None
    completed_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime
    version: int = 1

    @classmethod
    def order(
        cls,
        id: str,  # noqa: A002
        basket: Basket,
        *,
        user_id: str,
        client_id: str,
        urls: tuple[str, str],
        locale: str | None,
        trial_days: int | None,
        device: TrialDevice,
        person: str | None,
        at: datetime,
    ) -> Self:
        """A pending checkout; idempotency keys are derived from ``id``. ``urls`` are those of success and of cancel."""
        return cls(
            id=id,
            user_id=user_id,
            client_id=client_id,
            items=basket.items,
            mode=basket.mode,
            success_url=urls[0],
            cancel_url=urls[1],
            locale=locale,
            trial_days=trial_days,
            device=device,
            person=person,
            open_for=user_id,
            created_at=at,
            updated_at=at,
            deleted_at=at + RETENTION,
        )

    @property
    def current(self) -> bool:
        """Whether it is pending or open."""
        return self.open_for is not None

    def orders_the_same(self, other: Checkout) -> bool:
        """Whether the page of one serves the order of the other."""
        return self._ordered() == other._ordered()

    def _ordered(self) -> tuple[object, ...]:
        return (
            frozenset(self.items),
            self.client_id,
            self.success_url,
            self.cancel_url,
            self.trial_days,
        )

    def closes_soon(self, at: datetime) -> bool:
        """Whether its page has expired, or leaves no time to pay."""
        return self.expires_at is not None and self.expires_at - LAST_MINUTES <= at

    def key_period(self, at: datetime) -> int:
        """The number of the period, counted from 0, in which attempts at the session share idempotency keys.

        With each period come new keys, because Stripe may have stored failures under all earlier ones.
        """
        return (at - self.created_at) // KEY_PERIOD

    def close(self, status: Literal["replaced", "refused", "expired"], *, at: datetime) -> Self:
        """The checkout after it was replaced, refused or lost."""
        return replace(self, status=status, open_for=None, updated_at=at)

    def follow(self, session: StripeCheckout, *, at: datetime) -> Self:
        """The checkout as its session in Stripe is now. One that was replaced stays so unless it was paid after all."""
        status: Status = session.status
        if self.status == "replaced" and status != "complete":
            status = "replaced"
        return replace(
            self,
            status=status,
            open_for=self.open_for if status == "open" else None,
            stp_session_id=session.id,
            stp_customer_id=session.customer_id or self.stp_customer_id,
            stp_subscription_id=session.subscription_id or self.stp_subscription_id,
            payment_status=session.payment_status,
            expires_at=session.expires_at,
            updated_at=at,
        )
