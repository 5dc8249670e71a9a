from __future__ import annotations

import random

import pytest

from tests.abuse.mann_whitney import mann_whitney_p


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        # The example of scipy.stats.mannwhitneyu, method="asymptotic".
        ([19, 22, 16, 29, 24], [20, 11, 17, 12], 0.11134688653314041),
        # U = 0 of 25: z = 12 / sqrt(25 * 11 / 12).
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 0.012185780355344813),
        # With ties: ranks 1.5, 1.5, 3.5, 3.5; U = 2 of 4, the middle.
        ([1, 2], [1, 2], 1.0),
    ],
)
def test_p_matches_published_values(first: list[float], second: list[float], p: float) -> None:
    assert mann_whitney_p(first, second) == pytest.approx(p, rel=1e-12)
    assert mann_whitney_p(second, first) == pytest.approx(p, rel=1e-12)


def test_p_is_uniformly_distributed_for_equal_distributions() -> None:
    seeded = random.Random(5)
    values = [
        mann_whitney_p(
            [seeded.lognormvariate(0, 1) for _ in range(100)], [seeded.lognormvariate(0, 1) for _ in range(100)]
        )
        for _ in range(300)
    ]
    for threshold in (0.01, 0.1, 0.5):
        assert sum(p < threshold for p in values) / 300 == pytest.approx(threshold, abs=0.05)


def test_shift_by_a_fifth_of_the_deviation_is_detected_in_1000_values() -> None:
    seeded = random.Random(6)
    known = [seeded.gauss(10.2, 1) for _ in range(1000)]
    unknown = [seeded.gauss(10.0, 1) for _ in range(1000)]
    assert mann_whitney_p(known, unknown) < 0.001


@pytest.mark.parametrize(("first", "second"), [([], [1.0]), ([1.0], []), ([2.0, 2.0], [2.0])])
def test_empty_or_constant_samples_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match=r"empty sample|all values are equal"):
        mann_whitney_p(first, second)
