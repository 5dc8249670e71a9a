"""The statistic that the tests of timing rest on agrees with what others compute, and finds what it is to find."""

import random

import pytest

from tests.abuse.ranks import likelihood_of_one_source


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        # The example of scipy.stats.mannwhitneyu, method="asymptotic".
        ([19, 22, 16, 29, 24], [20, 11, 17, 12], 0.11134688653314041),
        # U = 0 of 25: z = 12 / sqrt(25 * 11 / 12).
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 0.012185780355344813),
        # With ties: ranks 1.5, 1.5, 3.5, 3.5; U = 2 of 4, in the very middle.
        ([1, 2], [1, 2], 1.0),
    ],
)
def test_known_values(first: list[float], second: list[float], p: float) -> None:
    assert likelihood_of_one_source(first, second) == pytest.approx(p, rel=1e-12)
    assert likelihood_of_one_source(second, first) == pytest.approx(p, rel=1e-12)


def test_samples_of_one_source_pass_as_often_as_they_should() -> None:
    seeded = random.Random(5)
    passed = sum(
        likelihood_of_one_source(
            [seeded.lognormvariate(0, 1) for _ in range(100)], [seeded.lognormvariate(0, 1) for _ in range(100)]
        )
        > 0.01
        for _ in range(300)
    )
    assert 290 <= passed <= 300


def test_a_shift_of_a_fifth_of_the_noise_is_found_in_a_thousand() -> None:
    seeded = random.Random(6)
    known = [seeded.gauss(10.2, 1) for _ in range(1000)]
    unknown = [seeded.gauss(10.0, 1) for _ in range(1000)]
    assert likelihood_of_one_source(known, unknown) < 0.001


@pytest.mark.parametrize(("first", "second"), [([], [1.0]), ([1.0], []), ([2.0, 2.0], [2.0])])
def test_what_tells_nothing_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match=r"nothing|same"):
        likelihood_of_one_source(first, second)
