"""What goes wrong with a call? Timeouts, 429, 500, resets: for the next few, or now and then."""

import random
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from services.stripe_double.errors import StripeApiError


class FaultKind(StrEnum):
    """What a caller sees of a fault."""

    RATE_LIMIT = "rate_limit"
    """429, before any work."""
    SERVER_ERROR = "server_error"
    """500, before the work or after it."""
    CONFLICT = "conflict"
    """409 `lock_timeout`, before any work."""
    RESET = "reset"
    """The connection is reset, before the work or after it."""
    HANG = "hang"
    """No answer until the caller goes away, before the work or after it."""
    SLOW = "slow"
    """The right answer, `seconds` late."""


@dataclass(kw_only=True)
class Fault:
    """One switch: which trouble, when, and for which calls."""

    trouble: FaultKind
    after_work: bool = False
    """The work is done (and its answer kept under the idempotency key) before the trouble begins."""
    stored: bool = False
    """The 500 itself is kept under the idempotency key and replayed, as Stripe does."""
    times: int | None = None
    """How many calls it strikes; None for no end."""
    probability: float = 1.0
    """The share of the matching calls that it strikes, 0 to 1."""
    method: str | None = None
    """`GET`, `POST` or `DELETE`; None for all."""
    path: str = "*"
    """The calls' path, with `*` for any part: `/v1/subscriptions*`."""
    seconds: float = 1.0
    """How late a slow answer is."""
    hits: int = 0
    """How many calls it has struck: a test whose fault did not happen has shown nothing."""


class Faults:
    """The faults that are switched on.

    Args:
        seed: Of the dice, so that a run can be repeated.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - dice, not secrets
        self.active: list[Fault] = []

    def add(
        self,
        trouble: FaultKind | str,
        *,
        after_work: bool = False,
        stored: bool = False,
        times: int | None = None,
        probability: float = 1.0,
        method: str | None = None,
        path: str = "*",
        seconds: float = 1.0,
    ) -> Fault:
        """Switches a fault on and returns it; by default it strikes every call, `times` limits that.

        Raises:
            ValueError: There is no such trouble, or it can't come after the work.
        """
        kind = FaultKind(trouble)
        if after_work and kind in {FaultKind.RATE_LIMIT, FaultKind.CONFLICT}:
            raise ValueError(f"{kind} comes before any work.")
        fault = Fault(
            trouble=kind,
            after_work=after_work,
            stored=stored,
            times=times,
            probability=probability,
            method=method,
            path=path,
            seconds=seconds,
        )
        self.active.append(fault)
        return fault

    def clear(self) -> None:
        """Switches all off."""
        self.active.clear()

    def strike(self, method: str, path: str) -> Fault | None:
        """Returns the fault that strikes a call, counted; None for most."""
        for fault in self.active:
            if (
                (fault.times is None or fault.hits < fault.times)
                and fault.method in {None, method}
                and fnmatchcase(path, fault.path)
                and (fault.probability >= 1 or self._random.random() < fault.probability)
            ):
                fault.hits += 1
                return fault
        return None


def refusal(fault: Fault) -> StripeApiError:
    """Returns what Stripe answers to a caller in such trouble."""
    if fault.trouble is FaultKind.RATE_LIMIT:
        return StripeApiError(
            "Request rate limit exceeded. Learn more about rate limits in the documentation.",
            status=429,
            code="rate_limit",
        )
    if fault.trouble is FaultKind.CONFLICT:
        return StripeApiError(
            "This object cannot be accessed right now because another API request or Stripe process is"
            " currently accessing it.",
            status=409,
            code="lock_timeout",
        )
    return StripeApiError("An unknown error occurred.", status=500, type="api_error")
