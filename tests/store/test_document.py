"""The documents of the store: format and parse are inverse, and nothing else is parsed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.config import FirestoreDatabase
from lib.sighting.sighting import Bundle
from lib.store.document import DocumentInvalid, Place, format_bundle, parse_bundle, parse_digest
from tests.store.contract import NEIGHBOURS, ONE, TAG
from tests.strategies import digests, tags

if TYPE_CHECKING:
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag

DATABASE = FirestoreDatabase("my-project", "records")
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy


def found(place: Place, text: str) -> object:
    """As Firestore sends it: through JSON."""
    document = {"name": str(place), **place.format(text), "createTime": "…", "updateTime": "…"}
    return json.loads(json.dumps([{"found": document, "readTime": "…"}]))


@few
@given(tags(), digests())
def test_a_claim_that_was_formatted_is_parsed(tag: Tag, digest: Digest) -> None:
    place = Place.claim(DATABASE, tag)
    assert parse_digest(place.parse_batch(found(place, str(digest))) or "") == digest


@few
@given(tags(), st.binary(max_size=500).map(Bundle))
def test_a_sighting_that_was_formatted_is_parsed(tag: Tag, bundle: Bundle) -> None:
    place = Place.sighting(DATABASE, tag)
    text = place.parse_batch(found(place, format_bundle(bundle)))
    assert text is not None
    assert parse_bundle(text) == bundle


@pytest.mark.parametrize("other", NEIGHBOURS, ids=str)
def test_a_document_is_believed_for_its_own_tag_only(other: Tag) -> None:
    mine, theirs = Place.claim(DATABASE, TAG), Place.claim(DATABASE, other)
    for wrong in (found(theirs, str(ONE)), found(Place.sighting(DATABASE, TAG), "e30=")):
        with pytest.raises(DocumentInvalid):
            mine.parse_batch(wrong)
    with pytest.raises(DocumentInvalid):
        mine.parse({"name": str(mine), **theirs.format(str(ONE))})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["found", "missing", "readTime", "name", "fields", "tag"]), inner)
    ),
    max_leaves=20,
)


@few
@given(JSON)
def test_no_other_json_is_absence_or_a_value(answer: object) -> None:
    place = Place.claim(DATABASE, TAG)
    with pytest.raises(DocumentInvalid):
        place.parse_batch(answer)
    with pytest.raises(DocumentInvalid):
        place.parse(answer)


@pytest.mark.parametrize("text", ["AB==", "AAB=", "e30", "e30=\n", "e3 0=", "e30=e30=", "_-8=", "é", "=", "e30==", "A"])
def test_base64_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(DocumentInvalid):
        parse_bundle(text)
