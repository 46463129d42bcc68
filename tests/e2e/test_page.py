"""docs/clients.md says what the clients printed and what the tests ran, and nothing that neither did."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e import golden, page

RECIPES = Path(__file__).with_name("test_recipes.py").read_text()
RUN = {(heading, int(number or 0)) for heading, number in re.findall(r'recipe\(\s*"(.+?)"(?:, (\d))?\)', RECIPES)}
QUOTES = [
    quote
    for heading, found in page.blocks().items()
    for number, block in enumerate(found)
    if (heading, number) not in RUN
    for quote in block.split("\n\n")
]


@pytest.mark.parametrize("quote", QUOTES, ids=[" ".join(quote.split()[:6]) for quote in QUOTES])
def test_a_quote_is_what_a_client_printed(quote: str) -> None:
    """Its lines, in this order, in one step of one client; some may be left out, and the end of one that ends in […]."""
    steps = [step for steps in golden.steps().values() for step in steps]
    assert any(_quotes(quote.splitlines(), step.splitlines()) for step in steps), quote


def _quotes(quoted: list[str], printed: list[str]) -> bool:
    lines = iter(printed)
    return all(
        any(line == quote or (quote.endswith(" […]") and line.startswith(quote[:-4])) for line in lines)
        for quote in quoted
    )


def test_each_configuration_is_run() -> None:
    known = {(heading, number) for heading, found in page.blocks().items() for number in range(len(found))}
    assert known >= RUN
    assert len(RUN) >= 8


def test_each_client_is_quoted_when_a_tag_moved() -> None:
    """What people see is the point of the page."""
    refusals = {title: [s for s in steps if s.startswith("== after")] for title, steps in golden.steps().items()}
    for title, steps in refusals.items():
        quoted = [quote for quote in QUOTES for step in steps if _quotes(quote.splitlines(), step.splitlines())]
        assert quoted, title


def test_the_table_of_requests_is_what_was_counted() -> None:
    if golden.WRITE:
        page.write_table()
    assert page.written_table() == page.table()
