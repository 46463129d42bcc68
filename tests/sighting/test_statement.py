"""The statement's format, held to docs/sighting-statement.md and its vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given

from lib.errors import DigestInvalid, RecordInvalid
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.statement import digest_in, statement, tag_key
from tests.strategies import sha256_digests, tags

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "statements.json").read_text())["statements"]
BUNDLES = Path(__file__).parents[1] / "vectors" / "sigstore"
ALPINE = Tag.parse("alpine:3.16.0")


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["tag"][:60] for vector in VECTORS])
def test_statement_is_the_vectors_bytes(vector: dict[str, str]) -> None:
    tag, digest = Tag.parse(vector["tag"]), Digest.parse(vector["digest"])
    payload = statement(tag, digest)
    assert payload == vector["payload"].encode()
    assert hashlib.sha256(payload).hexdigest() == vector["payloadSha256"]
    assert tag_key(tag) == vector["tagKey"]
    assert digest_in(payload, tag) == digest


@pytest.mark.parametrize("path", sorted(BUNDLES.glob("*.statement.json")), ids=lambda path: path.name)
def test_statement_in_a_real_bundle_is_read(path: Path) -> None:
    payload = path.read_bytes()
    tag = Tag.parse("moved:1.0" if "moved" in path.name else "alpine:3.16.0")
    assert statement(tag, digest_in(payload, tag)) == payload


@given(tags(), sha256_digests())
def test_digest_in_is_the_inverse_of_statement(tag: Tag, digest: Digest) -> None:
    assert digest_in(statement(tag, digest), tag) == digest


@given(tags(), sha256_digests())
def test_statement_stays_below_its_cap_and_is_one_line(tag: Tag, digest: Digest) -> None:
    payload = statement(tag, digest)
    assert len(payload) < 4096
    assert b"\n" not in payload


GOOD = VECTORS[0]["payload"]


@pytest.mark.parametrize(
    "payload",
    [
        GOOD + " ",
        GOOD.replace("sha256:686d", "sha256:686e"),
        GOOD.replace('"tag":', '"more":1,"tag":'),
        GOOD.replace("v1.2.3", "x").replace("tag-sighting/v1", "tag-sighting/v2"),
        json.dumps(json.loads(GOOD)),
        json.dumps(json.loads(GOOD), indent=1),
        GOOD.replace("3.16.0", "3.16.1"),
        GOOD.replace("docker.io", "index.docker.io"),
        "null",
        "[]",
        "{}",
        '{"predicate":[]}',
        '{"predicate":{"digest":7}}',
        "[" * 3000,
        "",
        "\ufeff" + GOOD,
        " " * 5000,
    ],
    ids=lambda payload: payload[:20] + "…" + payload[-20:],
)
def test_anything_but_the_canonical_statement_is_refused(payload: str) -> None:
    with pytest.raises(RecordInvalid):
        digest_in(payload.encode(), ALPINE)


def test_statement_about_another_tag_is_refused() -> None:
    with pytest.raises(RecordInvalid, match=r"docker\.io/library/alpine:3\.15\.0"):
        digest_in(GOOD.encode(), Tag.parse("alpine:3.15.0"))


def test_sha512_is_not_recorded() -> None:
    with pytest.raises(DigestInvalid):
        statement(ALPINE, Digest.of(b"x", "sha512"))


def test_the_pages_numbers_are_the_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sighting-statement.md").read_text()
    tag, digest = Tag.parse(VECTORS[0]["tag"]), Digest.parse(VECTORS[0]["digest"])
    payload = statement(tag, digest)
    assert f"the payload has {len(payload)} bytes" in page
    assert hashlib.sha256(payload).hexdigest() in page
    assert tag_key(tag) in page
    example = page.split("```json\n")[1].split("```")[0]
    assert json.loads(example) == json.loads(payload)
