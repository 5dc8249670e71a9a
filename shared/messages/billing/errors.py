"""TODO."""

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
