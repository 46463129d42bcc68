"""Marks: never fewer than a parser would make objects of."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.oci.marks import marks


def held(value: object) -> int:
    """Pairs and elements, however deep."""
    if isinstance(value, dict):
        return sum(1 + held(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(1 + held(inner) for inner in value)
    return 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", 0),
        (b"1", 0),
        (b"[]", 1),
        (b"[1]", 1),
        (b"[1,2]", 2),
        (b'{"":0}', 1),
        (b'{"name": "x", "tags": ["1.0", "latest"]}', 4),
        (b'["a,b"]', 2),
    ],
)
def test_marks_are_what_comes_before_a_value(content: bytes, expected: int) -> None:
    assert marks(content) == expected


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=30,
    ),
    st.sampled_from(["utf-8", "utf-16", "utf-32"]),
)
def test_there_are_never_fewer_marks_than_values(document: object, encoding: str) -> None:
    assert marks(json.dumps(document).encode(encoding)) >= held(document)
