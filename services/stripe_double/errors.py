"""What does the double answer when it refuses? The error bodies of Stripe's API."""

from typing import Any


class StripeApiError(Exception):
    """A call that Stripe would refuse; the HTTP layer turns it into Stripe's error body.

    Source: docs.stripe.com/api/errors.

    Args:
        message: For people; Stripe's own wording where the double knows it.
        status: The HTTP status, 400 to 599.
        type: `invalid_request_error`, `card_error`, `idempotency_error` or `api_error`.
        code: Stripe's machine-readable code, for example `resource_missing`.
        param: The parameter at fault, in the form-encoded spelling (`items[0][price]`).
        details: Further members of the error object (`decline_code`, `payment_intent`, …).
        keeps: What was done before the refusal stays done: a declined charge leaves its traces.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",  # noqa: A002 - the name of the member in Stripe's body
        code: str | None = None,
        param: str | None = None,
        details: dict[str, Any] | None = None,
        keeps: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.code = code
        self.param = param
        self.details = details or {}
        self.keeps = keeps

    @property
    def executed(self) -> bool:
        """True when the work had begun, so that an idempotency key remembers the answer.

        Stripe keeps no answer for calls that fail validation, authentication or a rate limit
        (docs.stripe.com/api/idempotent_requests).
        """
        return self.type in {"card_error", "api_error"}

    def body(self) -> dict[str, Any]:
        """Returns the JSON body, without the members that are unset, as Stripe sends it."""
        error: dict[str, Any] = {"message": self.message, "type": self.type}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        return {"error": error | self.details}


def missing(kind: str, identifier: str, *, param: str | None = None) -> StripeApiError:
    """An object that isn't there: 404 when the path names it, 400 when a parameter does."""
    return StripeApiError(
        f"No such {kind}: '{identifier}'",
        status=404 if param is None else 400,
        code="resource_missing",
        param=param or "id",
    )


def not_played(what: str, param: str | None = None) -> StripeApiError:
    """Something that Stripe can do and the double can't: said aloud, so that no test trusts it."""
    return StripeApiError(f"The Stripe double does not play {what}.", code="not_played", param=param)
