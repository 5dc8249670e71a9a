"""Mann-Whitney U test: whether two samples come from one distribution, of any shape.

H. B. Mann, D. R. Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other",
Annals of Mathematical Statistics 18 (1947).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby


def mann_whitney_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value of U in the normal approximation, corrected for ties and continuity.

    The approximation is good from about eight values per sample.

    Raises:
        ValueError: a sample is empty, or all values are equal.
    """
    if not first or not second:
        raise ValueError("empty sample")
    count_1, count_2 = len(first), len(second)
    count = count_1 + count_2
    ranked = sorted([(value, True) for value in first] + [(value, False) for value in second])
    rank_sum, ties, below = 0.0, 0, 0
    for _, group in groupby(ranked, key=lambda pair: pair[0]):
        in_first = [is_first for _, is_first in group]
        rank_sum += sum(in_first) * (below + (len(in_first) + 1) / 2)
        ties += len(in_first) ** 3 - len(in_first)
        below += len(in_first)
    u = rank_sum - count_1 * (count_1 + 1) / 2
    variance = count_1 * count_2 / 12 * (count + 1 - ties / (count * (count - 1)))
    if not variance:
        raise ValueError("all values are equal")
    distance = max(abs(u - count_1 * count_2 / 2) - 0.5, 0.0)
    return math.erfc(distance / math.sqrt(2 * variance))
