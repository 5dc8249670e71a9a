"""Error responses of Stripe's API (docs.stripe.com/api/errors)."""

from typing import Any


class StripeApiError(Exception):
    """A request that Stripe would refuse; the HTTP layer turns it into Stripe's error body.

    Args:
        message: Text for people; Stripe's own wording where it is known.
        status: The HTTP status, 400 to 599.
        type: `invalid_request_error`, `card_error`, `idempotency_error` or `api_error`.
        code: Stripe's machine-readable code, for example `resource_missing`.
        param: The invalid parameter in its form-encoded spelling (`items[0][price]`).
        details: Further members of the error object (`decline_code`, `payment_intent`, …).
        keeps_changes: Do not roll back the changes made before the error: a declined charge stays on record.
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
        keeps_changes: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.code = code
        self.param = param
        self.details = details or {}
        self.keeps_changes = keeps_changes

    @property
    def executed(self) -> bool:
        """Whether execution had begun, so that the response is stored under the idempotency key.

        Stripe stores no response for requests that fail validation, authentication or a rate limit
        (docs.stripe.com/api/idempotent_requests).
        """
        return self.type in {"card_error", "api_error"}

    def body(self) -> dict[str, Any]:
        """Return the JSON body; like Stripe, leave out the members that are unset."""
        error: dict[str, Any] = {"message": self.message, "type": self.type}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        return {"error": error | self.details}


def resource_missing(kind: str, identifier: str, *, param: str | None = None) -> StripeApiError:
    """Return the error for an object that does not exist: 404 if the path names it, 400 if a parameter does."""
    return StripeApiError(
        f"No such {kind}: '{identifier}'",
        status=404 if param is None else 400,
        code="resource_missing",
        param=param or "id",
    )


def not_supported(feature: str, param: str | None = None) -> StripeApiError:
    """Return the error for a feature of Stripe that the double lacks.

    The double refuses such requests instead of ignoring the parameter, so that no test relies on it.
    """
    return StripeApiError(f"The Stripe double does not support {feature}.", code="not_supported", param=param)


def card_declined(decline_code: str | None, **details: object) -> StripeApiError:
    """Return the 402 for a declined card.

    Args:
        decline_code: The issuer's reason, for example `insufficient_funds`.
        details: Further members of the error object, for example `charge`.
    """
    code = "expired_card" if decline_code == "expired_card" else "card_declined"
    message = "Your card has expired." if code == "expired_card" else "Your card was declined."
    return StripeApiError(
        message, status=402, type="card_error", code=code, details={"decline_code": decline_code, **details}
    )


def payment_method_missing() -> StripeApiError:
    """Return the 400 for a customer without a payment method to charge."""
    return StripeApiError(
        "This customer has no attached payment source or default payment method. Please consider adding a"
        " default payment method.",
        code="resource_missing",
    )
