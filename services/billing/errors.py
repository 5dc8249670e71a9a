"""How does billing say no, and what may go wrong between it and Stripe?"""

from shared.errors import Kind, NotFound, Refusal, Unavailable


class NoActiveSubscription(Refusal):
    """The user has no subscription that is active now."""

    kind = Kind.NOT_FOUND


class SubscriptionExpired(Refusal):
    """The heartbeat's no: the user has no subscription that is active now."""

    kind = Kind.PAYMENT_REQUIRED


class AlreadySubscribed(Refusal):
    """A trial was asked for by a user whose subscription is active."""

    kind = Kind.CONFLICT


class TrialAlreadyUsed(Refusal):
    """This user, this fingerprint or this installation has had its trial."""

    kind = Kind.CONFLICT


class InvalidEmail(Refusal):
    """Stripe takes no customer with this address; the trial's place is free again."""

    remembered = True


class InvalidCursor(Refusal):
    """No page ended with this cursor."""


class SubscriptionNotFound(NotFound):
    """No subscription of ours has this id."""

    code = "not_found"


class TrialNotFound(NotFound):
    """No trial of ours has this id."""

    code = "not_found"


class StripeRunNotFound(NotFound):
    """No run over Stripe has this id."""

    code = "not_found"


class StripeRunUnderWay(Refusal):
    """A run of this kind is under way; its id is in ``run_id``."""

    kind = Kind.CONFLICT


class StripeUnavailable(Unavailable):
    """Stripe can't be reached, is too slow, limits us or refuses our key; what was ordered may have been done."""

    code = "unavailable"


class KeySpent(Exception):
    """An idempotency key won't make anything any more: it answers a failure again, or stands for other parameters.

    Whether the thing was made is to be found out by looking for it.
    """


class StripeRefused(Exception):
    """Stripe takes an order as wrong in itself: a fault of ours, or of what a person gave us.

    Attributes:
        code: Stripe's error code, empty for none.
        param: the parameter at fault, empty for none.
    """

    def __init__(self, code: str, param: str) -> None:
        super().__init__(f"code {code or 'none'}, parameter {param or 'none'}")
        self.code = code
        self.param = param
