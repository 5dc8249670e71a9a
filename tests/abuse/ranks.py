"""Do two samples come from one distribution? The test of Mann and Whitney, which asks nothing of its shape.

H. B. Mann, D. R. Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other",
Annals of Mathematical Statistics 18 (1947).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby


def likelihood_of_one_source(first: Sequence[float], second: Sequence[float]) -> float:
    """How likely samples differ so much by chance: the two-sided p of U in its normal approximation.

    Corrected for ties and for continuity; good from some eight values on each side.

    Raises:
        ValueError: a sample is empty, or all values are the same.
    """
    if not first or not second:
        raise ValueError("nothing to compare")
    count_1, count_2 = len(first), len(second)
    count = count_1 + count_2
    ranked = sorted([(value, True) for value in first] + [(value, False) for value in second])
    ranks_of_first, ties, below = 0.0, 0, 0
    for _, alike in groupby(ranked, key=lambda pair: pair[0]):
        members = [of_first for _, of_first in alike]
        ranks_of_first += sum(members) * (below + (len(members) + 1) / 2)
        ties += len(members) ** 3 - len(members)
        below += len(members)
    u = ranks_of_first - count_1 * (count_1 + 1) / 2
    variance = count_1 * count_2 / 12 * (count + 1 - ties / (count * (count - 1)))
    if not variance:
        raise ValueError("all values are the same")
    distance = max(abs(u - count_1 * count_2 / 2) - 0.5, 0.0)
    return math.erfc(distance / math.sqrt(2 * variance))
