"""Every registry that people pull from: by tag, recorded and checked; by digest; every blob."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from lib.oci.manifest import OCI_MANIFEST
from tests.fakes.profiles import PROFILES
from tests.fakes.registry import Status
from tests.profiles.conftest import PUBLIC, manifest, path, registry_of

if TYPE_CHECKING:
    from tests.fakes.profiles import Place, Profile
    from tests.profiles.conftest import Service

NOT_PUBLIC = "not public, or not there"


@pytest.mark.parametrize("profile", PUBLIC, ids=registry_of)
def test_a_tag_is_recorded_and_checked(service: Service, profile: Profile) -> None:
    place = service.place(profile.registry)
    old = place.push("1.0", manifest(1), OCI_MANIFEST)
    first = service.head(path(place, "manifests", "1.0"))
    assert (first.status, first.headers.get("tlog-first-seen")) == (200, "true")
    assert first.headers["docker-content-digest"] == old
    assert first.headers["content-type"] == OCI_MANIFEST
    assert int(first.headers["content-length"]) == len(manifest(1))
    for again in (service.get(path(place, "manifests", "1.0")), service.head(path(place, "manifests", "1.0"))):
        assert again.status == 200
        assert "tlog-first-seen" not in again.headers
        for header in ("docker-content-digest", "content-type", "content-length", "tlog-uuid", "tlog-logindex"):
            assert again.headers[header] == first.headers[header]
    assert service.get(path(place, "manifests", "1.0")).body == manifest(1)

    new = place.push("1.0", manifest(2), OCI_MANIFEST)
    assert service.head(path(place, "manifests", "1.0")).status == 403
    refused = service.get(path(place, "manifests", "1.0"))
    assert (refused.status, refused.code) == (403, "TAG_INVALID")
    detail = json.loads(refused.body)["errors"][0]["detail"]
    assert (detail["recorded"], detail["offered"]) == (old, new)
    assert detail["uuid"] == first.headers["tlog-uuid"]
    assert service.recorded(place, "1.0") == 1


@pytest.mark.parametrize("profile", PUBLIC, ids=registry_of)
def test_a_tag_is_the_same_one_through_a_mirror_and_through_the_alias(service: Service, profile: Profile) -> None:
    place = service.place(profile.registry)
    place.push("1.0", manifest(1), OCI_MANIFEST)
    first = service.get(f"/v2/{place.called}/manifests/1.0?ns={profile.registry}")
    assert (first.headers["tlog-first-seen"], first.headers["oci-namespace"]) == ("true", profile.registry)
    for again in (
        service.head(path(place, "manifests", "1.0")),
        service.get(f"/v2/r/{profile.registry}/{place.called}/manifests/1.0"),
    ):
        assert (again.status, again.headers["tlog-uuid"]) == (200, first.headers["tlog-uuid"])
        assert "tlog-first-seen" not in again.headers
    assert service.recorded(place, "1.0") == 1


@pytest.mark.parametrize("profile", PUBLIC, ids=registry_of)
def test_a_manifest_is_served_by_digest_and_never_recorded(service: Service, profile: Profile) -> None:
    place = service.place(profile.registry)
    digest = place.push(None, manifest(3), OCI_MANIFEST)
    before = service.calls()
    got, head = (service.ask(method, path(place, "manifests", digest)) for method in ("GET", "HEAD"))
    assert (got.status, got.body, head.status) == (200, manifest(3), 200)
    for answer in (got, head):
        assert answer.headers["docker-content-digest"] == digest
        assert answer.headers["content-type"] == OCI_MANIFEST
        assert answer.headers["content-length"] == str(len(manifest(3)))
        assert "tlog-uuid" not in answer.headers
    assert service.calls() == before


@pytest.mark.parametrize("profile", PUBLIC, ids=registry_of)
def test_every_blob_comes_whole_and_in_parts(service: Service, profile: Profile) -> None:
    place = service.place(profile.registry)
    before = service.calls()
    for content in (b"{}", bytes(range(256)) * 700, b"layer" * 9):
        digest = place.push_blob(content)
        url = path(place, "blobs", digest)
        assert service.fetch("GET", url).body == content
        head = service.fetch("HEAD", url)
        assert (head.status, head.headers["content-length"]) == (200, str(len(content)))
        part = service.fetch("GET", url, Range="bytes=1-")
        assert (part.status, part.body) == (206, content[1:])
        assert part.headers["content-range"] == f"bytes 1-{len(content) - 1}/{len(content)}"
        for method in ("GET", "HEAD"):
            assert service.ask(method, url).headers["docker-content-digest"] == digest
    missing = service.get(path(place, "blobs", f"sha256:{hashlib.sha256(b'none').hexdigest()}"))
    assert (missing.status, missing.code) == (404, "BLOB_UNKNOWN")
    assert service.calls() == before


@pytest.mark.parametrize(
    "registry",
    [row.registry for row in PUBLIC if row.habits.blob_redirect is None and row.behind is None],
)
def test_a_blob_that_is_streamed_is_not_a_redirect(service: Service, registry: str) -> None:
    place = service.place(registry)
    answer = service.get(path(place, "blobs", place.push_blob(b"streamed")))
    assert (answer.status, answer.body) == (200, b"streamed")


@pytest.mark.parametrize(
    "registry", [row.registry for row in PUBLIC if row.storage_host is not None or row.habits.blob_redirect is not None]
)
def test_a_blob_that_is_kept_elsewhere_is_a_redirect_to_exactly_there(service: Service, registry: str) -> None:
    place = service.place(registry)
    answer = service.get(path(place, "blobs", place.push_blob(b"stored")))
    storage = PROFILES[registry].storage_host
    where = service.internet.mapping[storage or registry]
    assert (answer.status, answer.body) == (307, b"")
    assert answer.headers["location"].startswith(f"{where}/")


# --- tokens ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [row for row in PUBLIC if row.token is not None], ids=registry_of)
def test_a_token_is_asked_for_one_repository_and_no_more(service: Service, profile: Profile) -> None:
    place = service.place(profile.registry)
    place.push("1.0", manifest(1), OCI_MANIFEST)
    issuer = place.front.issuer or place.front
    issuer.forget_requests()
    assert service.get(path(place, "manifests", "1.0")).status == 200
    asked = [parse_qs(seen.query) for seen in issuer.token_requests]
    assert asked
    for query in asked:
        assert query == {"service": [issuer.habits.service], "scope": [f"repository:{place.called}:pull"]}


def test_hubs_official_images_have_library_in_the_scope(service: Service) -> None:
    place = service.place("docker.io")
    place.push("1.0", manifest(1), OCI_MANIFEST)
    place.front.forget_requests()
    assert "/" not in place.asked
    assert service.get(path(place, "manifests", "1.0")).status == 200
    assert [parse_qs(seen.query)["scope"] for seen in place.front.token_requests] == [
        [f"repository:library/{place.asked}:pull"]
    ]


def test_the_placeholder_of_a_ping_is_nobodys_scope(service: Service) -> None:
    place = service.place("ghcr.io")
    place.push("1.0", manifest(1), OCI_MANIFEST)
    place.front.forget_requests()
    place.front.fault(
        f"/v2/{place.repository}/*", Status(401), times=1
    )  # without a challenge: that of /v2/ is all there is
    assert service.get(path(place, "manifests", "1.0")).status == 200
    assert place.front.count("GET", "/v2/") == 1
    assert [parse_qs(seen.query)["scope"] for seen in place.front.token_requests] == [
        [f"repository:{place.repository}:pull"]
    ]


def test_a_vanity_domain_gets_its_token_from_where_it_says_and_the_registry_behind_it_another(service: Service) -> None:
    place = service.place("lscr.io")
    place.push("1.0", manifest(1), OCI_MANIFEST)
    place.holder.forget_requests()
    place.front.forget_requests()
    assert service.get(path(place, "manifests", "1.0")).status == 200
    assert len(place.holder.token_requests) == 2
    tokens = [
        {seen.headers["authorization"] for seen in registry.requests if "authorization" in seen.headers}
        for registry in (place.front, place.holder)
    ]
    assert [len(found) for found in tokens] == [1, 1]
    assert tokens[0] != tokens[1]


def test_a_registry_that_needs_no_token_is_asked_for_none(service: Service) -> None:
    place = service.place("registry.k8s.io")
    place.push("1.0", manifest(1), OCI_MANIFEST)
    place.front.forget_requests()
    assert service.get(path(place, "manifests", "1.0")).status == 200
    assert [(seen.method, seen.path) for seen in place.front.requests] == [("GET", f"/v2/{place.called}/manifests/1.0")]


# --- what is not there, or not for everybody ---------------------------------------------------------------------------------

ABSENT = [
    ("docker.io", False, "NAME_UNKNOWN"),
    ("docker.io", True, "MANIFEST_UNKNOWN"),
    ("ghcr.io", False, "NAME_UNKNOWN"),
    ("ghcr.io", True, "MANIFEST_UNKNOWN"),
    ("lscr.io", False, "NAME_UNKNOWN"),
    ("quay.io", False, "MANIFEST_UNKNOWN"),
    ("registry.k8s.io", False, "MANIFEST_UNKNOWN"),
    ("registry.access.redhat.com", True, "MANIFEST_UNKNOWN"),
    ("artifactory.example", True, "NAME_UNKNOWN"),
]


@pytest.mark.parametrize(("registry", "repository_exists", "code"), ABSENT)
def test_what_is_not_there_is_404_and_not_recorded(
    service: Service, registry: str, repository_exists: bool, code: str
) -> None:
    place = service.place(registry)
    if repository_exists:
        place.push("another", manifest(1), OCI_MANIFEST)
    before = service.calls()
    for method in ("GET", "HEAD"):
        assert service.ask(method, path(place, "manifests", "1.0")).status == 404
    answer = service.get(path(place, "manifests", "1.0"))
    assert answer.code == code
    assert (NOT_PUBLIC in answer.message) == (code == "NAME_UNKNOWN")
    assert service.calls() == before


def everything(place: Place, digest: str) -> list[str]:
    return [
        path(place, "manifests", "1.0"),
        path(place, "manifests", digest),
        path(place, "blobs", digest),
        path(place, "referrers", digest),
        path(place, "tags", "list"),
    ]


def test_a_registry_with_accounts_only_is_not_public(service: Service) -> None:
    place = service.place("docker.pkg.github.com")
    digest = place.push("1.0", manifest(1), OCI_MANIFEST)
    place.front.forget_requests()
    before = service.calls()
    for url in everything(place, digest):
        assert service.head(url).status == 404
        answer = service.get(url)
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
        assert NOT_PUBLIC in answer.message
    assert all("authorization" not in seen.headers for seen in place.front.requests)
    assert not place.front.token_requests
    assert service.calls() == before


def test_hubs_limit_is_said_to_the_client_in_its_own_words(service: Service) -> None:
    place = service.place("docker.io")
    place.push("warm", manifest(1), OCI_MANIFEST)
    place.push("1.0", manifest(2), OCI_MANIFEST)
    assert service.get(path(place, "manifests", "warm")).status == 200
    place.front.pulls = 0
    before = service.calls()
    try:
        answer = service.get(path(place, "manifests", "1.0"))
        assert service.head(path(place, "manifests", "warm")).status == 200, "a HEAD does not count"
        assert service.get(path(place, "manifests", "warm")).body == manifest(1)
    finally:
        place.front.pulls = None
    assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["ratelimit-limit"] == "100;w=21600"
    assert answer.headers["ratelimit-remaining"] == "0;w=21600"
    assert answer.headers["docker-ratelimit-source"] == "203.0.113.7"
    assert b"docker.com/increase" not in answer.body
    assert service.calls() == before
