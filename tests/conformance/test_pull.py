"""Pull: `/v2/`, manifests and blobs (distribution-spec end-1, end-2, end-3)."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING

import pytest

from lib.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.conformance.conftest import NOWHERE, TAGS, Site, digest

if TYPE_CHECKING:
    from tests.framework import Answer

ACCEPT = ("Accept", OCI_MANIFEST)  # all that 1.1.1 accepts
ACCEPTS = (("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST))  # main, as two lines
INVALID_NAME = ".INVALID_MANIFEST_NAME"  # of 1.1.1; no legal tag
# What 1.1.1 takes for the code of a 400 (setup.go, `errorCodes`)
CODES = {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "MANIFEST_UNVERIFIED", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID",
    "TAG_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED",
}  # fmt: skip


def is_manifest(answer: Answer, content: bytes, *, head: bool) -> None:
    """200 with what the spec wants of it, exactly: main compares Content-Type as a string."""
    assert answer.status == 200
    assert answer.headers["docker-content-digest"] == digest(content)
    assert answer.headers["content-type"] == json.loads(content)["mediaType"]
    assert answer.headers["content-length"] == str(len(content))
    assert answer.body == (b"" if head else content)


def is_blob(answer: Answer, content: bytes, *, head: bool) -> None:
    assert answer.status == 200
    assert answer.headers["docker-content-digest"] == digest(content)
    assert answer.headers["content-length"] == str(len(content))
    assert answer.body == (b"" if head else content)


# --- determining support ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping(site: Site, method: str) -> None:
    """main, `ping`. 200 and no challenge: whoever gets one starts to authenticate."""
    answer = site.follow(method, "/v2/")
    assert answer.status == 200
    assert "www-authenticate" not in answer.headers


# --- 1.1.1 "Pull blobs"; main "blob-head", "blob-get" -----------------------------------------------------------------------


def test_head_request_to_nonexistent_blob_should_result_in_404_response(site: Site) -> None:
    assert site.head(f"blobs/{NOWHERE}").status == 404


def test_head_request_to_existing_blob_should_yield_200(site: Site) -> None:
    for blob in site.content.blobs:
        is_blob(site.head(f"blobs/{digest(blob)}"), blob, head=True)


def test_get_nonexistent_blob_should_result_in_404_response(site: Site) -> None:
    answer = site.get(f"blobs/{NOWHERE}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")


def test_get_request_to_existing_blob_url_should_yield_200(site: Site) -> None:
    for blob in site.content.blobs:
        is_blob(site.get(f"blobs/{digest(blob)}"), blob, head=False)


def test_blob_get_range(site: Site) -> None:
    """main, of its blob tests: `Range` SHOULD be supported, as RFC 9110 has it."""
    blob = site.content.blobs[0]
    answer = site.get(f"blobs/{digest(blob)}", ("Range", "bytes=2-5"))
    assert (answer.status, answer.body) == (206, blob[2:6])
    assert answer.headers["content-range"] == f"bytes 2-5/{len(blob)}"
    answer = site.get(f"blobs/{digest(blob)}", ("Range", f"bytes={len(blob)}-"))
    assert answer.status == 416


# --- 1.1.1 "Pull manifests"; main "manifest-head-by-…", "manifest-by-…" -------------------------------------------------------


def test_head_request_to_nonexistent_manifest_should_return_404(site: Site) -> None:
    assert site.head(f"manifests/{INVALID_NAME}").status == 404


@pytest.mark.parametrize("number", [0, 1])
def test_head_request_to_manifest_path_by_digest_should_yield_200_response(site: Site, number: int) -> None:
    manifest = site.content.manifests[number]
    is_manifest(site.head(f"manifests/{digest(manifest)}", ACCEPT), manifest, head=True)
    is_manifest(site.head(f"manifests/{digest(manifest)}", *ACCEPTS), manifest, head=True)


def test_head_request_to_manifest_path_by_tag_should_yield_200_response(site: Site) -> None:
    for tag, manifest in zip(TAGS, site.content.manifests, strict=True):
        is_manifest(site.head(f"manifests/{tag}", ACCEPT), manifest, head=True)
        is_manifest(site.head(f"manifests/{tag}", *ACCEPTS), manifest, head=True)


def test_get_nonexistent_manifest_should_return_404(site: Site) -> None:
    answer = site.get(f"manifests/{INVALID_NAME}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("number", [0, 1])
def test_get_request_to_manifest_path_by_digest_should_yield_200_response(site: Site, number: int) -> None:
    manifest = site.content.manifests[number]
    is_manifest(site.get(f"manifests/{digest(manifest)}", ACCEPT), manifest, head=False)
    is_manifest(site.get(f"manifests/{digest(manifest)}", *ACCEPTS), manifest, head=False)


def test_get_request_to_manifest_path_by_tag_should_yield_200_response(site: Site) -> None:
    for tag, manifest in zip(TAGS, site.content.manifests, strict=True):
        is_manifest(site.get(f"manifests/{tag}", ACCEPT), manifest, head=False)
        is_manifest(site.get(f"manifests/{tag}", *ACCEPTS), manifest, head=False)


def test_an_index_is_pulled_like_a_manifest(site: Site) -> None:
    """main, its data sets with an index: by digest, and every manifest that it names."""
    is_manifest(site.get(f"manifests/{digest(site.content.index)}", *ACCEPTS), site.content.index, head=False)
    is_manifest(site.head(f"manifests/{digest(site.content.index)}", *ACCEPTS), site.content.index, head=True)
    for platform in json.loads(site.content.index)["manifests"]:
        assert site.get(f"manifests/{platform['digest']}", *ACCEPTS).status == 200


def test_a_manifest_by_sha512_is_pulled_under_that_digest(site: Site) -> None:
    """main, its data sets of sha512: the spec registers both algorithms."""
    manifest = site.content.manifests[0]
    name = f"sha512:{hashlib.sha512(manifest).hexdigest()}"
    answer = site.get(f"manifests/{name}", *ACCEPTS)
    assert (answer.status, answer.headers["docker-content-digest"], answer.body) == (200, name, manifest)


# --- 1.1.1 "Error codes"; main "missing-manifest", "invalid-digest-format" ----------------------------------------------------


def test_400_response_body_should_contain_oci_conforming_json_message(site: Site) -> None:
    """1.1.1 sends a body with this GET, and the type of a manifest."""
    body = b"blablabla"
    answer = site.ask("GET", "manifests/sha256:totallywrong", ("Content-Type", OCI_MANIFEST), body=body)
    assert answer.status == 400
    assert answer.code in CODES


def test_missing_manifest_by_digest(site: Site) -> None:
    answer = site.get(f"manifests/{digest(secrets.token_bytes(1024))}", *ACCEPTS)
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


def test_missing_manifest_by_tag(site: Site) -> None:
    """A random tag each time: what is not there is never recorded (`test_nothing_that_is_missing_is_recorded`)."""
    answer = site.get(f"manifests/missing-{secrets.token_hex(10)}", *ACCEPTS)
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


def test_nothing_that_is_missing_is_recorded(site: Site) -> None:
    tag = f"missing-{secrets.token_hex(10)}"
    assert site.get(f"manifests/{tag}", *ACCEPTS).status == 404
    recorded = site.follow("GET", f"/sightings/{site.name}:{tag}{'?' if site.query else ''}{site.query}")
    assert (recorded.status, recorded.code) == (404, "MANIFEST_UNKNOWN")


def test_invalid_digest_format_manifest_get(site: Site) -> None:
    answer = site.get("manifests/sha256:baddigeststring", *ACCEPTS)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


# --- pushing and deleting: not offered ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/test0"),
        ("PATCH", "blobs/uploads/1"),
        ("DELETE", "manifests/test0"),
        ("DELETE", f"manifests/{NOWHERE}"),
        ("DELETE", f"blobs/{NOWHERE}"),
    ],
)
def test_what_is_disabled_is_400_or_405(site: Site, method: str, rest: str) -> None:
    """Spec, "Content Management": a registry that disables deletion MUST answer with 400 or 405; 1.1.1, "Teardown"."""
    answer = site.ask(method, rest)
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
