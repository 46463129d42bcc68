"""SECURITY.md: every adversary says what is left to them at worst, and every line of theirs is shown by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.attacks.test_readme import functions

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "SECURITY.md").read_text().partition("\n## Who might attack")[2]
ADVERSARIES = {
    head: text for head, _, text in (part.partition("\n") for part in re.split(r"^### ", MODEL, flags=re.MULTILINE)[1:])
}
ROWS = [
    (head, *(cell.strip() for cell in line.strip("|").split("|")))
    for head, text in ADVERSARIES.items()
    for line in text.splitlines()
    if line.startswith("| ") and not line.startswith("| what they try")
]
TEST = re.compile(r"`(tests/[a-z_/]+\.py)::(test_\w+)`")


def test_the_adversaries_are_all_there() -> None:
    words = [
        "client",
        "registry",
        "network",
        "log's operator",
        "store's operator",
        "stolen service account",
        "deployer",
    ]
    assert len(ADVERSARIES) == len(words)
    for head, word in zip(ADVERSARIES, words, strict=True):
        assert word in head


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_each_has_a_worst_that_is_said(adversary: str) -> None:
    assert ADVERSARIES[adversary].count("**At worst**: ") == 1
    assert sum(head == adversary for head, *_ in ROWS) >= 3


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_each_line_is_shown_by_tests_that_exist(row: tuple[str, ...]) -> None:
    _, tried, shown = row
    named = TEST.findall(shown)
    assert tried
    assert named
    assert shown.count("`") == 2 * len(named), "nothing but names of tests"
    for path, test in named:
        assert test in functions(ROOT / path), path
