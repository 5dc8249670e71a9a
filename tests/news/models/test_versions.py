"""Versions of apps in the order of Semantic Versioning."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.news.models.versions import order

IN_ORDER = (
    "0",
    "0.9",
    "1.0.0-0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1",
    "1.0.1",
    "1.2",
    "1.9",
    "1.10",
    "2.0.0.1-x",
    "2.0.0.1",
)
"""Among them the example of https://semver.org, section 11."""


def test_numbers_count_as_numbers_and_what_leads_to_a_release_comes_before_it() -> None:
    assert sorted(IN_ORDER, key=order) == list(IN_ORDER)
    assert len({order(version) for version in IN_ORDER}) == len(IN_ORDER)


@pytest.mark.parametrize("other", ["2.10.0", "2.10.0.0", "2.10+build.7", "2.10.0+x-y"])
def test_trailing_zeros_and_the_name_of_a_build_make_no_other_version(other: str) -> None:
    assert order(other) == order("2.10")


@given(st.lists(st.from_regex(r"\A[0-9]{1,9}(\.[0-9]{1,9}){0,3}([-+][0-9A-Za-z.+-]{1,50})?\Z"), max_size=5))
def test_whatever_apps_call_their_versions_has_an_order(versions: list[str]) -> None:
    ordered = sorted(map(order, versions))
    assert all(before <= after for before, after in pairwise(ordered))
