"""How do deliveries go astray? Switches that shuffle, repeat, delay and lose them."""

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Disorder:
    """What happens to each delivery planned while it is switched on; nothing by default."""

    shuffled: float = 0.0
    """Seconds over which deliveries are scattered: any two planned closer together may change places."""
    repeated: int = 1
    """How many copies of each are sent."""
    parallel: bool = False
    """Whether the copies are sent at the same moment instead of one after the other."""
    delayed: float = 0.0
    """Seconds that each waits."""
    lost: float = 0.0
    """The share that is never sent, 0 to 1; `GET /v1/events?delivery_success=false` still lists them."""
    seed: int = 0
    _random: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_random", random.Random(self.seed))  # noqa: S311 - dice, not secrets

    def wait(self) -> float:
        """Returns the seconds that the next delivery waits."""
        return self.delayed + (self._random.random() * self.shuffled if self.shuffled else 0.0)

    def loses(self) -> bool:
        """Tells whether the next delivery is lost."""
        return self.lost > 0 and self._random.random() < self.lost


@dataclass(frozen=True, kw_only=True)
class Retries:
    """When a failed delivery is tried again: at growing intervals, for three days.

    Stripe publishes the three days but not the intervals (docs.stripe.com/webhooks).
    """

    first: float = 5.0
    """Seconds to the first repetition."""
    factor: float = 4.0
    limit: float = 3 * 86400.0
    """Seconds after which it is given up."""
    scale: float = 1.0
    """What all of it is multiplied by; tests take 0.001."""

    def wait(self, attempts: int) -> float | None:
        """Returns the real seconds before the next try after so many; None to give up."""
        waited = sum(self.first * self.factor**number for number in range(attempts))
        if waited > self.limit:
            return None
        return float(self.first * self.factor ** (attempts - 1) * self.scale)
