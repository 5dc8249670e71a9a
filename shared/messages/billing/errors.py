"""Refusals of billing. Clients rely on the codes, so they never change."""

from shared.errors import Kind, NotFound, Refusal, Unavailable
from shared.messages.auth.errors import InvalidEmail


class NoActiveSubscription(Refusal, kind=Kind.NOT_FOUND):
    """The user has no active subscription.

    If a payment or a payment method would resume one, ``meta`` has its ``status`` in Stripe (``past_due``, ``unpaid``,
    ``paused``), ``billing_portal_url``, and ``payment_url``, where its open invoice can be paid. The links are null if
    there is none, or Stripe does not return it in time.
    """


class SubscriptionExpired(Refusal, kind=Kind.PAYMENT_REQUIRED):
    """The user has no active subscription."""


class AlreadySubscribed(Refusal, kind=Kind.CONFLICT):
    """The user has an active subscription, so there is no trial."""


class TrialAlreadyUsed(Refusal, kind=Kind.CONFLICT):
    """The user, the device (``fingerprint``) or the installation (``beak_id``) had a trial before."""


class EmailRefusedByStripe(InvalidEmail, code="invalid_email", remembered=True):
    """Stripe accepts no customer with this address.

    The refusal is stored together with the release of the trial's reservation, so the user can try again.
    """


class TrialRefusedByStripe(Refusal, kind=Kind.CONFLICT, remembered=True):
    """Stripe does not create the trial, and a repeat gets the same answer until an operator has changed something.

    Examples: the price is archived, or the customer has another currency or no tax address. The refusal is stored
    together with the release of the trial's reservation, so the user can try again then.
    """


class SubscriptionExcluded(Refusal, kind=Kind.CONFLICT):
    """Another subscription of the user is for the same product, or for one that excludes it; cancel one of them first.

    ``meta.subscription_id`` is the other one's ID.
    """


class SubscriptionHasEnded(Refusal, kind=Kind.CONFLICT, code="subscription_ended"):
    """The subscription has ended for good. ``create_checkout`` orders a new one."""


class SubscriptionNotChangeable(Refusal, kind=Kind.CONFLICT):
    """The subscription can't be changed so. ``meta.reason`` says why.

    - ``status``: it is ``meta.status`` and has to be paid or resumed first.
    - ``cancellation_planned``: withdraw the cancellation first, with ``resume_subscription``.
    - ``schedule``: a schedule of the operator manages it.
    - ``item``: it has several prices, and ``replaces`` does not name one of them.
    - ``price_in_use``: another one of its prices is the ordered one.
    - ``usage_type``: a metered price can't replace one with a quantity, nor the other way round.
    - ``one_time``: the ordered price is paid once.
    """


class CurrencyNotOffered(Refusal, kind=Kind.CONFLICT):
    """The price has no amount in the subscription's currency, ``meta.currency``."""


class PreviewOutdated(Refusal, kind=Kind.CONFLICT):
    """The preview has expired, is for another order, or the change costs another amount now."""


class ImmediateCancellationNotAllowed(Refusal, kind=Kind.CONFLICT):
    """The operator's setting only allows cancellations at the end of the period."""


class ChangeRefusedByStripe(Refusal, kind=Kind.CONFLICT):
    """Stripe refuses the change, and a repeat gets the same answer until an operator has changed something.

    Nothing was changed. Examples: the customer has no tax address, or a schedule of the operator forbids it.
    """


class PriceNotFound(Refusal, kind=Kind.NOT_FOUND):
    """Stripe has no price with this ID, ``meta.price_id``, in this mode, live or test."""


class PriceInactive(Refusal, kind=Kind.CONFLICT):
    """The price ``meta.price_id`` or its product is archived in Stripe."""


class PriceNotSold(Refusal, kind=Kind.FORBIDDEN):
    """Nest does not sell the price ``meta.price_id``.

    ``NEST_STRIPE_PRODUCTS`` does not list its product, or the metadata of the price or of the product has
    ``nest=false``.
    """


class MixedIntervals(Refusal):
    """The recurring prices have different intervals. Stripe's Checkout sells them in separate subscriptions."""


class MixedCurrencies(Refusal):
    """The prices have different currencies."""


class QuantityNotAllowed(Refusal):
    """The price ``meta.price_id`` is not sold in this quantity.

    ``meta.max_quantity`` is the highest one. It is null for a metered price, which has no quantity.
    """


class TooManyCheckouts(Refusal, kind=Kind.THROTTLED):
    """The user has ordered too many checkouts; retry after ``meta.retry_after`` seconds."""


class CheckoutRefusedByStripe(Refusal, kind=Kind.CONFLICT, remembered=True):
    """Stripe does not sell these prices to this customer, and a repeat gets the same answer until something changes.

    Examples: the customer has a subscription in another currency, a URL has a scheme that Stripe does not accept, or
    the customer portal is not configured. The operator finds Stripe's error code in the log.
    """


class SubscriptionNotFound(NotFound, code="not_found"):
    """No subscription has this ID, or the user has none."""


class InvoiceNotFound(NotFound, code="not_found"):
    """The user has no such invoice, or it has no page yet because it is a draft."""


class TooManyInvoiceLists(Refusal, kind=Kind.THROTTLED):
    """The invoices of the user were listed too often; retry after ``meta.retry_after`` seconds."""


class TooManyPortalSessions(Refusal, kind=Kind.THROTTLED):
    """The user's links to the customer portal were opened too often; retry after ``meta.retry_after`` seconds."""


class UserWithoutCustomer(Refusal, kind=Kind.NOT_FOUND):
    """A user has no customer in Stripe, so nobody would be charged; ``meta.positions`` are those of the entries."""


class UsageOutOfTime(Refusal):
    """Usage is more than 35 days old, or more than 5 minutes ahead; ``meta.positions`` are those of the entries."""


class UsageIdentifierReused(Refusal, kind=Kind.CONFLICT):
    """An identifier belongs to an entry with other content; ``meta.positions`` are those of the entries."""


class TrialNotFound(NotFound, code="not_found"):
    """No trial has this ID."""


class StripeRunNotFound(NotFound, code="not_found"):
    """No Stripe run has this ID."""


class StripeRunUnderWay(Refusal, kind=Kind.CONFLICT):
    """A run of this kind is in progress; ``meta.run_id`` is its ID."""


class StripeUnavailable(Unavailable, code="unavailable"):
    """Stripe is unreachable, too slow, limits our requests or refuses our API key.

    It is unknown whether the call took effect in Stripe.
    """
