"""Manifests: a 200 that is none is never compared or recorded, and no two readers see two documents."""

from __future__ import annotations

import json
import tracemalloc
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import ManifestInvalid, NoManifest
from lib.oci.digest import Digest
from lib.oci.manifest import (
    ACCEPT,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_BYTES,
    MAX_MARKS,
    MEDIA_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    essence,
)

INDEXES, IMAGES = (OCI_INDEX, DOCKER_LIST), (OCI_MANIFEST, DOCKER_MANIFEST)
AS_INDEX: dict[str, object] = {"schemaVersion": 2, "manifests": []}
AS_IMAGE: dict[str, object] = {"schemaVersion": 2, "config": {}, "layers": []}


def shape(media_type: str) -> dict[str, object]:
    return AS_INDEX if media_type in INDEXES else AS_IMAGE


def text(document: object) -> bytes:
    return json.dumps(document).encode()


def test_what_is_asked_for_is_a_fixed_list() -> None:
    assert ACCEPT == (
        "application/vnd.oci.image.index.v1+json, "
        "application/vnd.docker.distribution.manifest.list.v2+json, "
        "application/vnd.oci.image.manifest.v1+json, "
        "application/vnd.docker.distribution.manifest.v2+json"
    )


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize(
    "content_type", [None, "same", "same; charset=utf-8", "SAME", "text/plain", "application/json", ""]
)
def test_the_bodys_media_type_decides(media_type: str, content_type: str | None) -> None:
    content = text({**shape(media_type), "mediaType": media_type})
    header = content_type and content_type.replace("same", media_type).replace("SAME", media_type.upper())
    manifest = Manifest.parse(content, header)
    assert manifest == Manifest(content, media_type, Digest.of(content))


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("spelling", ["{}", "{};charset=utf-8", " {} ; a=b", "{};"])
def test_without_one_the_content_type_decides(media_type: str, spelling: str) -> None:
    for header in (spelling.format(media_type), spelling.format(media_type).upper()):
        assert Manifest.parse(text(shape(media_type)), header).media_type == media_type


@pytest.mark.parametrize(
    "content_type", [None, "", "application/json", "text/html", f"{OCI_INDEX}, {OCI_INDEX}", "*/*"]
)
@pytest.mark.parametrize("document", [AS_INDEX, AS_IMAGE], ids=["index", "image"])
def test_without_either_it_is_no_manifest(document: dict[str, object], content_type: str | None) -> None:
    with pytest.raises(ManifestInvalid, match="none of the four"):
        Manifest.parse(text(document), content_type)


@pytest.mark.parametrize(("said", "header"), [pair for pair in product(MEDIA_TYPES, MEDIA_TYPES) if pair[0] != pair[1]])
def test_a_body_and_a_header_that_name_different_types_are_refused(said: str, header: str) -> None:
    with pytest.raises(ManifestInvalid, match="different types"):
        Manifest.parse(text({**shape(said), "mediaType": said}), header)


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        2,
        True,
        [OCI_INDEX],
        {OCI_INDEX: 1},
        OCI_INDEX.upper(),
        f"{OCI_INDEX} ",
        f"{OCI_INDEX}; charset=utf-8",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/json",
    ],
    ids=str,
)
def test_a_media_type_that_is_none_of_the_four_is_refused_whatever_the_header_says(said: object) -> None:
    with pytest.raises(ManifestInvalid, match="none of the four"):
        Manifest.parse(text({**AS_INDEX, "mediaType": said}), OCI_INDEX)


@pytest.mark.parametrize("version", [1, 3, 0, -2, True, False, 2.0, "2", None, [2], {}, 2**64], ids=repr)
def test_any_other_schema_version_is_refused(version: object) -> None:
    with pytest.raises(ManifestInvalid, match="schemaVersion"):
        Manifest.parse(text({**AS_INDEX, "schemaVersion": version}), OCI_INDEX)


@pytest.mark.parametrize("written", [b"2.0", b"2e0", b"20E-1", b"02", b"+2", b"0x2", b"2_"])
def test_two_has_one_spelling(written: bytes) -> None:
    with pytest.raises((ManifestInvalid, NoManifest)):
        Manifest.parse(b'{"schemaVersion": ' + written + b', "manifests": []}', OCI_INDEX)


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize(
    "members",
    [
        {},
        {"manifests": None},
        {"manifests": {}},
        {"manifests": "x"},
        {"config": {}},
        {"layers": []},
        {"config": [], "layers": []},
        {"config": {}, "layers": {}},
        {"config": None, "layers": None},
        {"manifests": [], "config": {}, "layers": []},
        {"manifests": [], "layers": []},
        {"manifests": [], "config": {}},
        {"manifests": [], "layers": None},
        {"manifests": None, "config": {}, "layers": []},
        {"fsLayers": [], "history": [], "signatures": []},
    ],
    ids=json.dumps,
)
def test_neither_shape_or_both_is_refused(media_type: str, members: dict[str, object]) -> None:
    """Both is CVE-2021-41190: one digest, two meanings."""
    with pytest.raises(ManifestInvalid, match="either manifests, or config and layers"):
        Manifest.parse(text({"schemaVersion": 2, "mediaType": media_type, **members}), media_type)


@pytest.mark.parametrize(
    "members",
    [
        {"Manifests": []},
        {"manifests": [], "Config": {}, "Layers": []},
        {"manifests": [], "MediaType": OCI_MANIFEST},
        {"manifests": [], "LAYERS": []},
        {"manifests": [], "layer\u017f": []},  # Go folds this, too
        {"manifests": [], "Blobs": []},
    ],
    ids=json.dumps,
)
def test_a_key_in_another_case_is_refused(members: dict[str, object]) -> None:
    """CVE-2021-41190 once more: to Go these are the keys of the other shape."""
    with pytest.raises(ManifestInvalid, match="a key in another case"):
        Manifest.parse(text({"schemaVersion": 2, "mediaType": OCI_INDEX, **members}), OCI_INDEX)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html", "application/vnd.docker.distribution.manifest.v1+prettyjws", "application/xml", "image/png",
        "application/vnd.oci.artifact.manifest.v1+json", "application/vnd.oci.image.config.v1+json", "*/*",
        f"{OCI_INDEX}, {OCI_INDEX}",
    ],
)  # fmt: skip
def test_a_content_type_of_something_else_contradicts_the_body(content_type: str) -> None:
    with pytest.raises(ManifestInvalid, match="different types"):
        Manifest.parse(text(AS_INDEX | {"mediaType": OCI_INDEX}), content_type)


@pytest.mark.parametrize(
    ("media_type", "document"),
    [*((index, AS_IMAGE) for index in INDEXES), *((image, AS_INDEX) for image in IMAGES)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_shape_that_its_media_type_does_not_have_is_refused(media_type: str, document: dict[str, object]) -> None:
    for content in (text(document), text({**document, "mediaType": media_type})):
        with pytest.raises(ManifestInvalid, match="as its media type says"):
            Manifest.parse(content, media_type)


INSIDE = b'{"schemaVersion": 2, "manifests": [], "x": %s}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"null",
        b"2",
        b'"schemaVersion"',
        b"[]",
        b'[{"schemaVersion": 2, "manifests": []}]',
        b"<!doctype html><title>We will be right back</title>",
        b"\x1f\x8b\x08 not unzipped",
        b'{"schemaVersion": 2, "manifests": []',
        b'{"schemaVersion": 2, "manifests": []} trailing',
        b'{"schemaVersion": 2, "manifests": []}{}',
        b'{"schemaVersion": 2, "manifests": [],}',
        b"{'schemaVersion': 2, 'manifests': []}",
        b'{"manifests": []}',
        b'{"errors": [{"code": "UNKNOWN"}]}',
        b'\xef\xbb\xbf{"schemaVersion": 2, "manifests": []}',
        '{"schemaVersion": 2, "manifests": []}'.encode("utf-16"),
        INSIDE % b"NaN",
        INSIDE % b"Infinity",
        INSIDE % b"-Infinity",
        INSIDE % b'"\xff"',
        INSIDE % b'"\xc0\xaf"',
        INSIDE % b'"\xed\xa0\x80"',
        INSIDE % b'"\n"',
        INSIDE % b"/* comment */ 1",
        INSIDE % (b"[" * 100_000 + b"]" * 100_000),
        INSIDE % (b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        INSIDE % (b"[" * 100_000),
        INSIDE % (b"1" * 10_000),
    ],
    ids=lambda content: f"{content[:56]!r} of {len(content)}",
)
def test_anything_but_one_strict_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(NoManifest, match="not a manifest"):
        Manifest.parse(content, OCI_INDEX)


@pytest.mark.parametrize(
    "content",
    [
        b'{"schemaVersion": 2, "schemaVersion": 2, "manifests": []}',
        b'{"schemaVersion": 1, "manifests": [], "schemaVersion": 2}',
        b'{"schemaVersion": 2, "manifests": [], "m\\u0061nifests": []}',
        INSIDE % b'{"a": 1, "a": 1}',
    ],
)
def test_a_document_that_two_parsers_may_read_as_two_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestInvalid, match="a key is there twice"):
        Manifest.parse(content, OCI_INDEX)


def padded(length: int) -> bytes:
    return text(AS_INDEX).ljust(length)


def test_the_cap_is_exact_and_comes_before_parsing() -> None:
    assert len(Manifest.parse(padded(MAX_BYTES), OCI_INDEX).content) == MAX_BYTES
    for content in (padded(MAX_BYTES + 1), b"<" * (MAX_BYTES + 1)):
        with pytest.raises(ManifestInvalid, match="longer than 4194304 bytes"):
            Manifest.parse(content, OCI_INDEX)


def test_an_index_of_nothing_but_the_tersest_descriptors_may_have_all_its_bytes() -> None:
    platform = {"architecture": "arm", "os": "linux", "variant": "v7"}
    descriptor = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "0" * 64, "size": 424, "platform": platform}
    head, one = b'{"schemaVersion":2,"manifests":[', json.dumps(descriptor, separators=(",", ":")).encode()
    content = head + b",".join([one] * ((MAX_BYTES - len(head) - 2) // (len(one) + 1))) + b"]}"
    assert MAX_BYTES - len(one) < len(content) <= MAX_BYTES
    assert Manifest.parse(content, OCI_INDEX).content == content


# What costs the most memory for its bytes: each of 4 MiB took 170 to 280 MiB.
BLOATED = {
    "lists": b'{"schemaVersion":2,"manifests":[%s[]]}' % (b"[]," * 1_390_000),
    "objects": b'{"schemaVersion":2,"manifests":[%s{}]}' % (b"{}," * 1_390_000),
    "pairs": b'{"schemaVersion":2,"manifests":[%s{}]}' % (b'{"":0},' * 590_000),
    "keys": b'{"schemaVersion":2,"manifests":[]%s}' % b"".join(b',"%x":0' % number for number in range(400_000)),
    "numbers": b'{"schemaVersion":2,"manifests":[%s0]}' % (b"1," * 2_000_000),
}


@pytest.mark.parametrize("kind", BLOATED)
def test_a_document_that_is_larger_in_memory_is_refused_before_it_is_parsed(kind: str) -> None:
    assert len(BLOATED[kind]) <= MAX_BYTES
    tracemalloc.start()
    try:
        with pytest.raises(ManifestInvalid, match=f"more than {MAX_MARKS} values"):
            Manifest.parse(BLOATED[kind], OCI_INDEX)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_number_of_values_is_exact() -> None:
    for values, refused in ((MAX_MARKS - 3, False), (MAX_MARKS - 2, True)):
        content = b'{"schemaVersion":2,"manifests":[%s0]}' % (b"0," * (values))
        if refused:
            with pytest.raises(ManifestInvalid, match="values"):
                Manifest.parse(content, OCI_INDEX)
        else:
            assert Manifest.parse(content, OCI_INDEX).content == content


@given(st.sampled_from(MEDIA_TYPES), st.dictionaries(st.text(max_size=5), st.integers(), max_size=3), st.integers(0, 4))
def test_the_digest_is_of_the_bytes_as_they_came(media_type: str, annotations: dict[str, int], indent: int) -> None:
    content = json.dumps({**shape(media_type), "annotations": annotations}, indent=indent).encode() + b"\n"
    manifest = Manifest.parse(content, media_type)
    assert manifest.content == content
    assert manifest.digest == Digest.of(content)
    assert Manifest.parse(content, media_type, "sha512").digest == Digest.of(content, "sha512")


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(text)
)
def test_nothing_else_than_a_refusal_comes_out_of_a_body_that_is_none(content: bytes) -> None:
    with pytest.raises((ManifestInvalid, NoManifest)):
        Manifest.parse(content, OCI_INDEX)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [(None, None), ("", ""), ("A/B", "a/b"), ("a/b; c=d", "a/b"), (" a/b ;", "a/b")],
)
def test_essence_is_the_type_without_parameters(content_type: str | None, expected: str | None) -> None:
    assert essence(content_type) == expected
