"""What the service costs the registries: counted at each of them, request by request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lib.oci.manifest import OCI_MANIFEST
from tests.profiles.conftest import PUBLIC, manifest, path, registry_of

if TYPE_CHECKING:
    from tests.fakes.profiles import Place, Profile
    from tests.profiles.conftest import Service


def seen_by(place: Place, kind: str = "manifests") -> tuple[list[str], list[str]]:
    """What the front and what the registry behind it, if there is one, were asked about a repository."""
    front = [seen.method for seen in place.front.requests if seen.path.startswith(f"/v2/{place.called}/{kind}/")]
    if place.holder is place.front:
        return front, []
    back = [seen.method for seen in place.holder.requests if seen.path.startswith(f"/v2/{place.repository}/{kind}/")]
    return front, back


def forget(place: Place) -> None:
    place.front.forget_requests()
    place.holder.forget_requests()


def tokens(place: Place) -> int:
    return len(place.front.token_requests) + (
        len(place.holder.token_requests) if place.holder is not place.front else 0
    )


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("profile", PUBLIC, ids=registry_of)
def test_a_warm_tag_costs_one_request_and_no_token(service: Service, profile: Profile, method: str) -> None:
    place = service.place(profile.registry)
    place.push("1.0", manifest(1), OCI_MANIFEST)
    url = path(place, "manifests", "1.0")
    assert service.get(url).status == 200
    assert service.get(url).status == 200, "the registry is known to give no digest on HEAD, if it gives none"
    forget(place)
    calls = service.calls()
    assert service.ask(method, url).status == 200
    helpful = profile.habits.manifest_head == 200 and profile.habits.digest_header
    front, back = seen_by(place)
    assert front == (["HEAD"] if helpful else ["GET"])
    assert back == (["HEAD"] if place.holder is not place.front else [])
    assert tokens(place) == 0
    assert service.calls() == calls


def test_a_tag_that_moved_costs_one_head_for_each_refusal(service: Service) -> None:
    """Docker asks by HEAD and then by GET, again and again, and Docker Hub counts GETs."""
    place = service.place("docker.io")
    place.push("1.0", manifest(1), OCI_MANIFEST)
    url = path(place, "manifests", "1.0")
    assert service.get(url).status == 200
    place.push("1.0", manifest(2), OCI_MANIFEST)
    assert service.head(url).status == 403, "its bytes were never seen: they are fetched once"
    forget(place)
    for _ in range(3):
        assert service.head(url).status == 403
        assert service.get(url).status == 403
    assert seen_by(place)[0] == ["HEAD"] * 6
    place.push("1.0", manifest(1), OCI_MANIFEST)
    assert service.get(url).status == 200


@pytest.mark.parametrize("profile", PUBLIC, ids=registry_of)
def test_a_cold_tag_costs_one_get_and_a_manifest_by_digest_is_then_held(service: Service, profile: Profile) -> None:
    place = service.place(profile.registry)
    digest = place.push("1.0", manifest(1), OCI_MANIFEST)
    forget(place)
    for reference in ("1.0", digest, digest):
        assert service.get(path(place, "manifests", reference)).body == manifest(1)
    for registry, repository in {(place.front, place.called), (place.holder, place.repository)}:
        asked = [seen for seen in registry.requests if seen.path.startswith(f"/v2/{repository}/manifests/")]
        with_token = [seen for seen in asked if "authorization" in seen.headers]
        assert [seen.method for seen in (with_token if registry.token_field else asked)] == ["GET"]
        assert all(seen.path.endswith("/1.0") for seen in asked)


@pytest.mark.parametrize("registry", ["docker.io", "registry.k8s.io", "plain.example"])
def test_a_manifest_by_digest_asked_twice_costs_one_get(service: Service, registry: str) -> None:
    place = service.place(registry)
    digest = place.push(None, manifest(1), OCI_MANIFEST)
    assert service.get(path(place, "manifests", digest)).status == 200
    forget(place)
    for method in ("GET", "HEAD"):
        answer = service.ask(method, path(place, "manifests", digest))
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(manifest(1))))
    assert seen_by(place) == ([], [])


def test_what_one_repository_showed_is_asked_for_again_for_another(service: Service) -> None:
    one, other = service.place("plain.example"), service.place("plain.example")
    digest = one.push(None, manifest(1), OCI_MANIFEST)
    assert service.get(path(one, "manifests", digest)).status == 200
    assert service.get(path(other, "manifests", digest)).status == 404
    other.push(None, manifest(1), OCI_MANIFEST)


def test_a_repository_that_went_private_costs_the_others_at_its_registry_nothing(service: Service) -> None:
    """Whoever can make one repository's HEAD fail must not turn everybody's HEADs, which are free, into GETs, which count."""
    gone, there = service.place("docker.io"), service.place("docker.io")
    for place in (gone, there):
        place.push("1.0", manifest(1), OCI_MANIFEST)
        assert service.get(path(place, "manifests", "1.0")).status == 200
    gone.front.private.add(gone.repository)
    try:
        assert service.head(path(gone, "manifests", "1.0")).status == 404
        forget(there)
        assert service.head(path(there, "manifests", "1.0")).status == 200
        assert service.get(path(there, "manifests", "1.0")).status == 200
    finally:
        gone.front.private.clear()
    assert seen_by(there)[0] == ["HEAD", "HEAD"]


def test_a_blob_costs_one_request(service: Service) -> None:
    place = service.place("docker.io")
    digest = place.push_blob(b"layer")
    assert service.fetch("GET", path(place, "blobs", digest)).body == b"layer"
    forget(place)
    assert service.fetch("GET", path(place, "blobs", digest)).body == b"layer"
    assert (seen_by(place, "blobs")[0], tokens(place)) == (["GET"], 0)


def test_a_registry_that_refuses_head_for_blobs_costs_one_get_more_and_no_token(service: Service) -> None:
    place = service.place("public.ecr.aws")
    digest = place.push_blob(b"layer")
    assert service.head(path(place, "blobs", digest)).status == 200
    assert service.get(path(place, "blobs", digest)).status == 307
    forget(place)
    assert service.head(path(place, "blobs", digest)).headers["content-length"] == "5"
    assert (seen_by(place, "blobs")[0], tokens(place)) == (["HEAD", "GET"], 0)


def test_lists_are_asked_for_each_time(service: Service) -> None:
    """A signature that was just pushed must be seen."""
    place = service.place("docker.io")
    subject = place.push("1.0", manifest(1), OCI_MANIFEST)
    for number in (1, 2):
        assert service.get(path(place, "tags", "list")).body.count(b"1.") == number
        answer = service.get(path(place, "referrers", subject))
        assert answer.body.count(b'"artifactType"') == number - 1
        place.push("1.1", manifest(2), OCI_MANIFEST)
        place.push(
            None,
            manifest(3, subject={"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}, artifactType="a/b"),
            OCI_MANIFEST,
        )
