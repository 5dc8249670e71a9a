"""How does billing say no, and what may go wrong between it and Stripe?"""


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
