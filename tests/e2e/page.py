"""docs/clients.md as the tests read it: its indented blocks under their headings, and the table that they write."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e import golden

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
MARKS = ("<!-- requests: written by tests/e2e/test_page.py -->\n", "<!-- /requests -->\n")
COST = re.compile(r"manifests HEAD (\d+) GET (\d+) blobs HEAD (\d+) GET (\d+) tokens (\d+)")
HEAD = (
    "| client | first pull: manifests | blobs | tokens | second pull: manifests | blobs | tokens |\n"
    "|---|---|---|---|---|---|---|\n"
)


def blocks() -> dict[str, list[str]]:
    """Heading, as it is written -> its blocks, without their indentation."""
    text = PAGE.read_text()
    found: dict[str, list[str]] = {}
    for heading, section in re.findall(r"^(#+ .+)\n((?:(?!#).*\n)*)", text, re.MULTILINE):
        parts = re.findall(r"^(?: {4}.*\n|\n(?= {4}))+", section, re.MULTILINE)
        found[heading] = [re.sub(r"^ {4}", "", part.strip("\n") + "\n", flags=re.MULTILINE) for part in parts]
    return found


def table() -> str:
    """Requests at the registry for each client, from the golden files."""
    rows = []
    for title, steps in golden.steps().items():
        costs = [cost.groups() for step in steps if (cost := COST.search(step)) is not None]
        if costs:
            first, second = costs
            rows.append("| " + " | ".join([title, *_cells(first), *_cells(second)]) + " |\n")
    return HEAD + "".join(rows)


def _cells(cost: tuple[str, ...]) -> list[str]:
    heads, gets, blob_heads, blob_gets, tokens = cost
    return [f"{heads} HEAD, {gets} GET", f"{blob_heads} HEAD, {blob_gets} GET", tokens]


def written_table() -> str:
    _, _, rest = PAGE.read_text().partition(MARKS[0])
    return rest.partition(MARKS[1])[0]


def write_table() -> None:
    before, mark, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(before + mark + table() + MARKS[1] + rest.partition(MARKS[1])[2])
