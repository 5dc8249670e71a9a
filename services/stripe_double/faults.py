"""Fault injection: errors, timeouts and resets of API requests; lost, late and repeated deliveries."""

import random
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from services.stripe_double.errors import StripeApiError


class FaultKind(StrEnum):
    """Kind of a request fault, as the client sees it."""

    RATE_LIMIT = "rate_limit"
    """429, before the request is executed."""
    SERVER_ERROR = "server_error"
    """500, before or after the request is executed."""
    CONFLICT = "conflict"
    """409 `lock_timeout`, before the request is executed."""
    REFUSED = "refused"
    """A refusal with `status`, `type`, `code` and `param`, before the request is executed."""
    RESET = "reset"
    """Connection reset, before or after the request is executed."""
    HANG = "hang"
    """No response until the client disconnects, before or after the request is executed."""
    SLOW = "slow"
    """The correct response, `seconds` late."""


@dataclass(kw_only=True)
class Fault:
    """One injected fault: its kind, and the requests that it applies to."""

    kind: FaultKind
    after_work: bool = False
    """Execute the request, and store its response under the idempotency key, before the fault."""
    stored: bool = False
    """Store the 500 itself under the idempotency key, so that it is replayed as Stripe does."""
    times: int | None = None
    """Maximum number of requests; None for no limit."""
    probability: float = 1.0
    """Share of the matching requests, 0 to 1."""
    method: str | None = None
    """`GET`, `POST` or `DELETE`; None for all."""
    path: str = "*"
    """Path of the requests, in which `*` stands for any text: `/v1/subscriptions*`."""
    seconds: float = 1.0
    """Delay of a slow response."""
    status: int = 400
    """HTTP status of a refusal."""
    type: str = "invalid_request_error"
    """Stripe's error type of a refusal."""
    code: str | None = None
    """Stripe's error code of a refusal; many have none."""
    param: str | None = None
    """The parameter that a refusal names."""
    hits: int = 0
    """Number of requests that it was applied to. A test should assert that its fault happened."""


class Faults:
    """The active request faults.

    Args:
        seed: Seed of the random numbers behind `probability`, so that a run can be repeated.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - probabilities, not secrets
        self.active: list[Fault] = []

    def add(
        self,
        kind: FaultKind | str,
        *,
        after_work: bool = False,
        stored: bool = False,
        times: int | None = None,
        probability: float = 1.0,
        method: str | None = None,
        path: str = "*",
        seconds: float = 1.0,
        status: int = 400,
        type: str = "invalid_request_error",  # noqa: A002 - the name of the member in Stripe's body
        code: str | None = None,
        param: str | None = None,
    ) -> Fault:
        """Add a fault and return it; by default it applies to every request, without end.

        The arguments are the members of `Fault`.

        Raises:
            ValueError: The kind is unknown, or can't happen after the request is executed.
        """
        kind = FaultKind(kind)
        if after_work and kind in {FaultKind.RATE_LIMIT, FaultKind.CONFLICT, FaultKind.REFUSED}:
            raise ValueError(f"{kind} happens only before a request is executed: leave after_work out.")
        fault = Fault(
            kind=kind,
            after_work=after_work,
            stored=stored,
            times=times,
            probability=probability,
            method=method,
            path=path,
            seconds=seconds,
            status=status,
            type=type,
            code=code,
            param=param,
        )
        self.active.append(fault)
        return fault

    def clear(self) -> None:
        """Remove all faults."""
        self.active.clear()

    def match(self, method: str, path: str) -> Fault | None:
        """Return the first fault that applies to a request, and count the hit; None if there is none."""
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


def error_of(fault: Fault) -> StripeApiError:
    """Return the error response of a fault."""
    if fault.kind is FaultKind.RATE_LIMIT:
        return StripeApiError(
            "Request rate limit exceeded. Learn more about rate limits in the documentation.",
            status=429,
            code="rate_limit",
        )
    if fault.kind is FaultKind.CONFLICT:
        return StripeApiError(
            "This object cannot be accessed right now because another API request or Stripe process is"
            " currently accessing it.",
            status=409,
            code="lock_timeout",
        )
    if fault.kind is FaultKind.REFUSED:
        return StripeApiError(
            "Stripe refuses this request.", status=fault.status, type=fault.type, code=fault.code, param=fault.param
        )
    return StripeApiError("An unknown error occurred.", status=500, type="api_error")


@dataclass(frozen=True, kw_only=True)
class DeliveryFaults:
    """Faults of webhook deliveries, applied to each delivery that is planned while they are set; none by default."""

    shuffle_seconds: float = 0.0
    """Random delay of 0 to so many seconds, so that deliveries planned closer together may change places."""
    copies: int = 1
    """Number of times that each delivery is sent."""
    parallel: bool = False
    """Send the copies at the same time instead of one after the other."""
    delay_seconds: float = 0.0
    """Fixed delay of each delivery."""
    loss_rate: float = 0.0
    """Share of deliveries that are never sent, 0 to 1; `GET /v1/events?delivery_success=false` lists their events."""
    failure_rate: float = 0.0
    """Share of the attempts that fail as if the endpoint did not respond, 0 to 1; retries follow."""
    seed: int = 0
    """Seed of the random numbers."""
    _random: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_random", random.Random(self.seed))  # noqa: S311 - probabilities, not secrets

    def next_delay(self) -> float:
        """Return the delay of the next delivery in seconds."""
        return self.delay_seconds + (self._random.random() * self.shuffle_seconds if self.shuffle_seconds else 0.0)

    def next_is_lost(self) -> bool:
        """Return whether the next delivery is lost."""
        return self.loss_rate > 0 and self._random.random() < self.loss_rate

    def next_fails(self) -> bool:
        """Return whether the next attempt fails."""
        return self.failure_rate > 0 and self._random.random() < self.failure_rate
