"""Refusals of billing. Clients rely on the codes, so they never change."""

from shared.errors import Kind, NotFound, Refusal, Unavailable
from shared.messages.auth.errors import InvalidEmail


class NoActiveSubscription(Refusal):
    """The user has no active subscription."""

    kind = Kind.NOT_FOUND


class SubscriptionExpired(Refusal):
    """The user has no active subscription."""

    kind = Kind.PAYMENT_REQUIRED


class AlreadySubscribed(Refusal):
    """The user has an active subscription, so there is no trial."""

    kind = Kind.CONFLICT


class TrialAlreadyUsed(Refusal):
    """The user, the device (``fingerprint``) or the installation (``beak_id``) had a trial before."""

    kind = Kind.CONFLICT


class EmailRefusedByStripe(InvalidEmail):
    """Stripe accepts no customer with this address.

    The refusal is stored together with the release of the trial's reservation, so the user can try again.
    """

    code = "invalid_email"
    remembered = True


class SubscriptionNotFound(NotFound):
    """No subscription has this ID, or the user has none."""

    code = "not_found"


class TrialNotFound(NotFound):
    """No trial has this ID."""

    code = "not_found"


class StripeRunNotFound(NotFound):
    """No Stripe run has this ID."""

    code = "not_found"


class StripeRunUnderWay(Refusal):
    """A run of this kind is in progress; ``meta.run_id`` is its ID."""

    kind = Kind.CONFLICT


class StripeUnavailable(Unavailable):
    """Stripe is unreachable, too slow, limits our requests or refuses our API key.

    It is unknown whether the call took effect in Stripe.
    """

    code = "unavailable"
