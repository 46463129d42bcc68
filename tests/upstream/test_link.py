"""Link: the next page of a list, in every form that registries write, and in none that leads anywhere else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.oci import query
from lib.oci.query import KEY, Pairs
from lib.upstream.link import LINE_CHARS, next_page

PAGES: list[tuple[str, Pairs]] = [
    ('</v2/library/alpine/tags/list?n=2&last=3.16.0>; rel="next"', (("n", "2"), ("last", "3.16.0"))),
    ("</v2/a/tags/list?last=b>;rel=next", (("last", "b"),)),
    ("</v2/a/tags/list?last=b> ; title=x ; REL = Next", (("last", "b"),)),
    ('<?last=b>; rel="prev next"', (("last", "b"),)),
    ('<https://quay.io/v2/a/tags/list?next_page=gAAA%3D%3D&n=5>; rel="next"', (("next_page", "gAAA=="), ("n", "5"))),
    ('<http://169.254.169.254/latest?last=b#x>; rel="next"', (("last", "b"),)),
    ('</first?n=1>; rel="first", </v2/a/tags/list?n=2>; rel="next"', (("n", "2"),)),
    ('</v2/a/tags/list?last=b&ns=evil.example&NS=x>; rel="next"', (("last", "b"),)),
    ('</v2/a/tags/list?last=b&n=0>; rel="next"', (("last", "b"),)),  # ghcr.io: as many as it likes
    ('</v2/a/tags/list?last=a,b>; title="x, <y>; rel=no"; rel="next"', (("last", "a,b"),)),
]


@pytest.mark.parametrize(("line", "pairs"), PAGES, ids=lambda value: str(value)[:60])
def test_only_the_query_of_the_next_page_is_used(line: str, pairs: Pairs) -> None:
    """CVE-2026-85732: wherever a Link leads, it is the same registry that is asked again."""
    assert next_page([line]) == pairs
    assert next_page(["</v2/>; rel=first", line]) == pairs


@pytest.mark.parametrize("line", ["", " , ", '</x?n=1>; rel="last"', "</x?n=1>", '</x?n=1>; rev="next"', "<>;;;"])
def test_no_next_page(line: str) -> None:
    assert next_page([]) is None
    assert next_page([line]) is None


@pytest.mark.parametrize(
    "line",
    [
        "/v2/a/tags/list?n=2",
        '"</x?n=1>; rel=next"',
        "<" * 10,
        "</x?n=1",
        "</x?n=1>; rel=next junk",
        f"</x?last={'a' * 3000}>; rel=next",
        f"</x?{'&'.join(f'k{number}=1' for number in range(30))}>; rel=next",
        "</x?a%20b=1>; rel=next",
        "</x?a=%0d%0aX-Evil:1>; rel=next",
        "</x?a=%ff>; rel=next",
        "x" * (LINE_CHARS + 1),
        '</v2/a/tags/list>; rel="next"',  # would never end
        '</v2/a/tags/list?ns=ghcr.io&n=0>; rel="next"',
    ],
    ids=lambda line: line[:40],
)
def test_what_cannot_be_read_is_an_error_and_not_the_end_of_the_list(line: str) -> None:
    with pytest.raises(ValueError, match="Link"):
        next_page([line])


@given(st.lists(st.tuples(st.from_regex(KEY, fullmatch=True), st.text("abc=&+%/ ", max_size=9)), max_size=8))
def test_whatever_a_registry_means_by_its_parameters_comes_back_to_it(pairs: list[tuple[str, str]]) -> None:
    kept = tuple(pair for pair in pairs if pair[0].lower() != "ns")
    if kept:
        assert next_page([f'</v2/a/tags/list?{query.text(pairs)}>; rel="next"']) == kept
    assert query.parse_pairs(query.text(kept)) == kept


@given(st.text('<>;,="nextrl /?&%a\\', max_size=60))
def test_nothing_but_an_error_comes_out_of_a_link_that_is_none(line: str) -> None:
    with suppress(ValueError):
        next_page([line])
