"""Content discovery: referrers (distribution-spec "Listing Referrers", end-12)."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from lib.oci.manifest import OCI_INDEX
from tests.conformance.conftest import NOWHERE, TYPE_A, TYPE_B, Site, digest

if TYPE_CHECKING:
    from tests.framework import Answer


def listed(answer: Answer) -> list[dict[str, Any]]:
    """The descriptors of a page, which must be an OCI index with this very Content-Type."""
    assert answer.status == 200
    assert answer.headers["content-type"] == OCI_INDEX
    assert answer.headers["content-length"] == str(len(answer.body))
    document = json.loads(answer.body)
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    return list(document["manifests"])


def subject(site: Site) -> str:
    return f"referrers/{digest(site.content.manifests[0])}"


def test_get_request_to_nonexistent_blob_should_result_in_empty_200_response(site: Site) -> None:
    """1.1.1, "listing references"."""
    assert listed(site.get(f"referrers/{NOWHERE}")) == []


def test_empty_referrers(site: Site) -> None:
    """main: of a random digest."""
    assert listed(site.get(f"referrers/{digest(secrets.token_bytes(32))}")) == []


def test_get_request_to_existing_blob_should_yield_200(site: Site) -> None:
    """1.1.1: five; main: each with its mediaType, size, digest and artifactType."""
    found = [one for page in site.pages(subject(site)) for one in listed(page)]
    assert sorted(found, key=str) == sorted(site.content.referrers, key=str)
    assert len(found) == 5


@pytest.mark.parametrize(("kind", "count"), [(TYPE_A, 2), (TYPE_B, 3), ("application/vnd.none", 0)])
def test_get_request_to_existing_blob_with_filter_should_yield_200(site: Site, kind: str, count: int) -> None:
    """1.1.1 and main: only these, and OCI-Filters-Applied says so."""
    pages = site.pages(subject(site), artifactType=kind)
    found = [one for page in pages for one in listed(page)]
    assert {one["artifactType"] for one in found} <= {kind}
    assert len(found) == count
    assert all(page.headers["oci-filters-applied"] == "artifactType" for page in pages)


def test_the_filter_may_be_percent_encoded(site: Site) -> None:
    plain = site.get(subject(site), artifactType=TYPE_A)
    encoded = site.get(subject(site), artifactType=TYPE_A.replace("/", "%2F").replace("+", "%2B"))
    assert listed(encoded) == listed(plain)
    assert encoded.headers["oci-filters-applied"] == "artifactType"


def test_without_a_filter_none_is_said_to_be_applied(site: Site) -> None:
    assert "oci-filters-applied" not in site.get(subject(site)).headers


def test_each_referrer_is_pulled_by_its_descriptor(site: Site) -> None:
    for one in site.content.referrers:
        answer = site.get(f"manifests/{one['digest']}")
        assert (answer.status, len(answer.body), digest(answer.body)) == (200, one["size"], one["digest"])


def test_the_next_page_is_of_the_same_subject(site: Site) -> None:
    """`Link` keeps the path that the client used and its `ns`; what only the registry understands goes back to it."""
    link = site.get(subject(site), artifactType=TYPE_B)
    assert "link" not in link.headers, "three are one page"
    link = site.get(subject(site))
    assert link.headers["link"].startswith(f"</v2/{site.name}/{subject(site)}?")
    assert ("ns=registry.example" in link.headers["link"]) == bool(site.query)


@pytest.mark.parametrize("reference", ["sha256:bad", "latest"])
def test_referrers_of_what_is_no_digest_are_400(site: Site, reference: str) -> None:
    """Spec: a malformed digest MUST be 400."""
    answer = site.get(f"referrers/{reference}")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_head_is_answered_like_get(site: Site) -> None:
    answer, head = site.get(subject(site)), site.head(subject(site))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == OCI_INDEX
    assert head.headers["content-length"] == answer.headers["content-length"]
