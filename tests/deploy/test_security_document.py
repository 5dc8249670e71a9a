"""The security document: complete tables against the standards, and existing tests for what it calls met."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import pytest

from tests.deploy.environments import ROOT
from tests.deploy.test_documents import DOCUMENTS

SECURITY: Final = DOCUMENTS["docs/security.md"]
ASVS: Final = {
    "1": {1: 2, 2: 9, 3: 11, 4: 3, 5: 2},
    "2": {1: 3, 2: 3, 3: 4, 4: 1},
    "3": {2: 2, 3: 4, 4: 6, 5: 5, 7: 2},
    "4": {1: 3, 2: 1, 3: 2, 4: 4},
    "5": {1: 1, 2: 3, 3: 2, 4: 3},
    "6": {1: 3, 2: 12, 3: 4, 4: 4, 5: 5, 6: 3, 8: 4},
    "7": {1: 3, 2: 4, 3: 2, 4: 5, 5: 2, 6: 2},
    "8": {1: 2, 2: 3, 3: 1, 4: 1},
    "9": {1: 3, 2: 4},
    "10": {1: 2, 2: 2, 3: 4, 4: 11, 5: 5, 6: 2, 7: 3},
    "11": {1: 2, 2: 3, 3: 3, 4: 4, 5: 1, 6: 1},
    "12": {1: 3, 2: 2, 3: 4},
    "13": {1: 1, 2: 5, 3: 2, 4: 5},
    "14": {1: 2, 2: 4, 3: 3},
    "15": {1: 3, 2: 3, 3: 7},
    "16": {1: 1, 2: 5, 3: 4, 4: 3, 5: 3},
    "17": {1: 1, 2: 4, 3: 2},
}
"""Number of requirements of levels 1 and 2 in each section of each chapter of ASVS 5.0.0. They have the lowest numbers,
because a section begins with them."""
LEVELS: Final = {"L1": 70, "L2": 183}
RFC_9700: Final = [
    *("2.1", "2.1.1", "2.1.2", "2.2.1", "2.2.2", "2.3", "2.4", "2.5", "2.6"),
    *(f"4.{number}" for number in range(1, 18)),
]
RFC_8725: Final = [f"3.{number}" for number in range(1, 13)]
STATES: Final = {"met", "not met", "not applicable"}
NAMED_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(first: str) -> list[list[str]]:
    """Return the cells of the table rows whose first cell matches."""
    lines = re.findall(rf"^\| ((?:{first}) \|.+) \|$", SECURITY, re.MULTILINE)
    return [line.split(" | ") for line in lines]


REQUIREMENTS: Final = rows(r"v5\.0\.0-[\d.]+")
PRACTICES: Final = rows(r"RFC (?:9700|8725) [\d.]+")


@pytest.mark.parametrize("document", [name for name, text in DOCUMENTS.items() if NAMED_TEST.search(text)])
def test_every_named_test_exists(document: str) -> None:
    for path, name in NAMED_TEST.findall(DOCUMENTS[document]):
        assert re.search(rf"^ *(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"


def test_every_requirement_of_asvs_level_2_has_one_row_in_order() -> None:
    wanted = [
        f"v5.0.0-{chapter}.{section}.{number}"
        for chapter, sections in ASVS.items()
        for section, count in sections.items()
        for number in range(1, count + 1)
    ]
    assert [row[0] for row in REQUIREMENTS] == wanted
    assert len(wanted) == sum(LEVELS.values())
    assert Counter(re.search(r"\((L\d)\)$", row[1])[1] for row in REQUIREMENTS) == LEVELS  # type: ignore[index]


@pytest.mark.parametrize(("rfc", "sections"), [("RFC 9700", RFC_9700), ("RFC 8725", RFC_8725)])
def test_every_section_of_an_rfc_has_one_row_in_order(rfc: str, sections: list[str]) -> None:
    assert [row[0].removeprefix(f"{rfc} ") for row in PRACTICES if row[0].startswith(rfc)] == sections


@pytest.mark.parametrize("row", [*REQUIREMENTS, *PRACTICES], ids=lambda row: row[0])
def test_row_names_tests_if_met_and_a_reason_if_not(row: list[str]) -> None:
    assert len(row) == 4
    _, summary, state, evidence = row
    assert summary.strip()
    assert state in STATES
    if state == "met":
        assert NAMED_TEST.search(evidence)
    else:
        assert evidence.strip()


def test_the_summary_counts_the_rows_of_each_chapter() -> None:
    counted = Counter((row[0].removeprefix("v5.0.0-").partition(".")[0], row[2]) for row in REQUIREMENTS)
    summary = re.findall(r"^\| (\d+) [A-Z][^|]* \| (\d+) \| (\d+) \| (\d+) \|$", SECURITY, re.MULTILINE)
    assert [chapter for chapter, *_ in summary] == list(ASVS)
    for chapter, *counts in summary:
        assert [int(count) for count in counts] == [
            counted[chapter, state] for state in ("met", "not met", "not applicable")
        ]
    totals = Counter(row[2] for row in REQUIREMENTS)
    wanted = " | ".join(str(totals[state]) for state in ("met", "not met", "not applicable"))
    assert f"| all {len(REQUIREMENTS)} | {wanted} |" in SECURITY


def test_a_vulnerability_can_be_reported() -> None:
    assert "## Report a vulnerability" in DOCUMENTS["SECURITY.md"]
    assert "(../SECURITY.md)" in SECURITY
    assert "(SECURITY.md)" in DOCUMENTS["README.md"]
