"""Tags and referrers of every registry, page by page through our links; neither ever touches the log."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest

from lib.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.fakes.profiles import PROFILES
from tests.fakes.registry import Html, Status
from tests.profiles.conftest import PUBLIC, manifest, path, registry_of

if TYPE_CHECKING:
    from tests.fakes.profiles import Place, Profile
    from tests.framework import Answer
    from tests.profiles.conftest import Service

TAGS = ["1.0", "1.1", "2.0", "2.0-rc.1", "Beta", "_x", "edge", "latest", "v3"]
PAGES_MAX = 20
SBOM, SIGNATURE = "application/spdx+json", "application/vnd.dev.sigstore.bundle.v0.3+json"
LINK = re.compile(r'<(/v2/[!-;=?-~]*)>; rel="next"', re.ASCII)


def pages(service: Service, target: str) -> list[Answer]:
    """All pages, each named by the one before; as a client that takes path and query of a link, on the same host."""
    found = []
    following: str | None = target
    while following is not None:
        answer = service.get(following)
        assert answer.status == 200, answer.body
        found.append(answer)
        assert len(found) < PAGES_MAX, "a list without an end"
        link = answer.headers.get("link")
        if link is None:
            return found
        match = LINK.fullmatch(link)
        assert match is not None, link
        following = match[1]
        assert urlsplit(following).path == urlsplit(target).path
    return found


def with_tags(service: Service, registry: str) -> Place:
    place = service.place(registry)
    for tag in TAGS:
        place.push(tag, manifest(1), OCI_MANIFEST)
    return place


def listed(found: list[Answer]) -> list[str]:
    return [tag for answer in found for tag in json.loads(answer.body)["tags"]]


@pytest.mark.parametrize("n", [None, 1, 3, 1000, 10**9], ids=lambda n: f"n={n}")
@pytest.mark.parametrize("profile", PUBLIC, ids=registry_of)
def test_all_tags_come_once_and_in_order(service: Service, profile: Profile, n: int | None) -> None:
    place = with_tags(service, profile.registry)
    before = service.calls()
    found = pages(service, path(place, "tags", "list") + (f"?n={n}" if n is not None else ""))
    assert listed(found) == sorted(TAGS)
    for answer in found:
        body = json.loads(answer.body)
        assert list(body) == ["name", "tags"]
        assert body["name"] == place.asked
        assert answer.headers["content-type"] == "application/json"
        assert n is None or len(body["tags"]) <= n
    assert service.calls() == before


@pytest.mark.parametrize("profile", PUBLIC, ids=registry_of)
def test_none_is_an_empty_list_without_a_link(service: Service, profile: Profile) -> None:
    answer = service.get(path(with_tags(service, profile.registry), "tags", "list") + "?n=0")
    assert (answer.status, json.loads(answer.body)["tags"]) == (200, [])
    assert "link" not in answer.headers


@pytest.mark.parametrize("profile", [row for row in PUBLIC if row.habits.tags_paging != "cursor"], ids=registry_of)
def test_last_is_exclusive(service: Service, profile: Profile) -> None:
    place = with_tags(service, profile.registry)
    assert listed(pages(service, path(place, "tags", "list") + "?last=Beta")) == ["_x", "edge", "latest", "v3"]
    assert listed(pages(service, path(place, "tags", "list") + "?n=2&last=Beta")) == ["_x", "edge", "latest", "v3"]
    assert listed([service.get(path(place, "tags", "list") + "?last=v3")]) == []


@pytest.mark.parametrize("registry", ["docker.io", "ghcr.io", "registry.k8s.io", "lscr.io", "quay.example"])
def test_a_mirrors_clients_are_led_on_with_ns(service: Service, registry: str) -> None:
    place = with_tags(service, registry)
    target = f"/v2/{place.called}/tags/list?n=4&ns={registry}"
    found = pages(service, target)
    assert len(found) == 3
    assert listed(found) == sorted(TAGS)
    for answer in found:
        assert json.loads(answer.body)["name"] == place.called
        assert answer.headers["oci-namespace"] == registry
        if "link" in answer.headers:
            match = LINK.fullmatch(answer.headers["link"])
            assert match is not None
            assert parse_qsl(urlsplit(match[1]).query).count(("ns", registry)) == 1


def test_a_list_of_no_tags_is_empty(service: Service) -> None:
    place = service.place("plain.example")
    place.push(None, manifest(1), OCI_MANIFEST)
    answer = service.get(path(place, "tags", "list"))
    assert (answer.status, json.loads(answer.body)) == (200, {"name": place.asked, "tags": []})


def test_a_head_of_a_list_is_its_get_without_a_body(service: Service) -> None:
    place = with_tags(service, "plain.example")
    got, head = (service.ask(method, path(place, "tags", "list") + "?n=2") for method in ("GET", "HEAD"))
    assert (head.status, head.headers["content-length"]) == (200, str(len(got.body)))
    assert head.headers["link"] == got.headers["link"]


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"[]", b'{"tags": {"1.0": 1}}', b'{"tags": "1.0"}', b'{"tags": ["1.0"', b"\xff\xfe", b""],
    ids=repr,
)
def test_what_is_no_list_of_tags_is_not_a_short_one(service: Service, content: bytes) -> None:
    place = with_tags(service, "plain.example")
    place.front.fault(f"/v2/{place.repository}/tags/list", Status(200, {"Content-Type": "application/json"}, content))
    answer = service.get(path(place, "tags", "list"))
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert "127.0.0.1" in answer.message


LINKS: dict[str, list[tuple[str, str]] | None] = {
    '<https://evil.example/v2/other/tags/list?n=2&last=1.1>; rel="next"': [("n", "2"), ("last", "1.1")],
    '<//evil.example/x?last=1.1>; rel="next"': [("last", "1.1")],
    '</v2/other/tags/list?last=1.1&ns=evil.example>; rel="next"': [("last", "1.1")],
    "<javascript:alert(1)?last=1.1>; rel=next": [("last", "1.1")],
    '</v2/x?last=1.0>; rel="prev", </v2/x?last=1.1>; REL="start next"; title="<evil>"': [("last", "1.1")],
    '</v2/x?last=1.1>; rel="prev"': None,
    "</v2/x?last=1.1>": None,
}
UNREADABLE = [
    'https://evil.example/v2/other/tags/list?n=2&last=1.0>; rel="next"',
    '</v2/x?last=%0d%0aX-Injected:+1>; rel="next"',
    '</v2/x?last=1.1&%0d%0aX-Injected=1>; rel="next"',
    f'</v2/x?last={"a" * 8000}>; rel="next"',
]


def linked(service: Service, link: str) -> tuple[Place, Answer]:
    place = with_tags(service, "plain.example")
    body = b'{"name": "x", "tags": ["1.0", "1.1"]}'
    place.front.fault(f"/v2/{place.repository}/tags/list", Status(200, {"Link": link}, body))
    return place, service.get(path(place, "tags", "list"))


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_nowhere_but_to_our_own_path(service: Service, link: str) -> None:
    place, answer = linked(service, link)
    assert answer.status == 200
    assert "evil" not in str(answer.headers)
    if LINKS[link] is None:
        assert "link" not in answer.headers
    else:
        match = LINK.fullmatch(answer.headers["link"])
        assert match is not None
        assert urlsplit(match[1]).path == path(place, "tags", "list")
        assert parse_qsl(urlsplit(match[1]).query) == LINKS[link]


@pytest.mark.parametrize("link", UNREADABLE, ids=lambda link: link[:40])
def test_a_link_that_cannot_be_read_is_not_the_end_of_a_list(service: Service, link: str) -> None:
    _, answer = linked(service, link)
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert "x-injected" not in answer.headers


# --- referrers ---------------------------------------------------------------------------------------------------------------


def with_referrers(service: Service, registry: str) -> tuple[Place, str, dict[str, str]]:
    """A manifest, and what refers to it: digest to artifact type."""
    place = service.place(registry)
    subject = place.push("1.0", manifest(1), OCI_MANIFEST)
    descriptor = {"mediaType": OCI_MANIFEST, "digest": subject, "size": len(manifest(1))}
    types = [SBOM, SIGNATURE, SIGNATURE, SBOM, SIGNATURE]
    digests = [
        place.push(None, manifest(10 + number, subject=descriptor, artifactType=kind), OCI_MANIFEST)
        for number, kind in enumerate(types)
    ]
    return place, subject, dict(zip(digests, types, strict=True))


def referring(found: list[Answer]) -> dict[str, str]:
    descriptors = [one for answer in found for one in json.loads(answer.body)["manifests"]]
    assert len({one["digest"] for one in descriptors}) == len(descriptors)
    return {one["digest"]: one["artifactType"] for one in descriptors}


SUPPORTING = [row for row in PUBLIC if row.habits.referrers == 200]


@pytest.mark.parametrize("profile", SUPPORTING, ids=registry_of)
def test_all_referrers_come(service: Service, profile: Profile) -> None:
    place, subject, expected = with_referrers(service, profile.registry)
    before = service.calls()
    found = pages(service, path(place, "referrers", subject))
    assert referring(found) == expected
    for answer in found:
        assert answer.headers["content-type"] == OCI_INDEX
        assert answer.headers["content-length"] == str(len(answer.body))
        assert "oci-filters-applied" not in answer.headers
    assert service.calls() == before


@pytest.mark.parametrize("profile", SUPPORTING, ids=registry_of)
def test_a_filter_is_the_registrys_and_said_only_if_it_was_applied(service: Service, profile: Profile) -> None:
    place, subject, expected = with_referrers(service, profile.registry)
    found = pages(service, path(place, "referrers", subject) + f"?artifactType={SIGNATURE.replace('+', '%2B')}")
    if profile.habits.referrers_filter:
        expected = {digest: kind for digest, kind in expected.items() if kind == SIGNATURE}
    assert referring(found) == expected
    for answer in found:
        assert answer.headers.get("oci-filters-applied") == (
            "artifactType" if profile.habits.referrers_filter else None
        )


def test_an_index_of_referrers_is_handed_on_as_it_came(service: Service) -> None:
    place, subject, _ = with_referrers(service, "docker.io")
    came = place.front.referrers_page(place.repository, subject, "").body
    assert b"\n" in came, "no form that anybody would write again"
    assert service.get(path(place, "referrers", subject)).body == came


def test_nothing_refers_to_what_nobody_knows(service: Service) -> None:
    place = service.place("docker.io")
    place.push("1.0", manifest(1), OCI_MANIFEST)
    answer = service.get(path(place, "referrers", f"sha256:{'7' * 64}"))
    assert (answer.status, json.loads(answer.body)["manifests"]) == (200, [])


@pytest.mark.parametrize("registry", ["plain.example", "quay.example"])
def test_a_mirrors_clients_see_all_pages_of_referrers(service: Service, registry: str) -> None:
    place, subject, expected = with_referrers(service, registry)
    found = pages(service, f"/v2/{place.called}/referrers/{subject}?ns={registry}")
    assert len(found) == 3
    assert referring(found) == expected
    assert {answer.headers["oci-namespace"] for answer in found} == {registry}


@pytest.mark.parametrize("profile", [row for row in PUBLIC if row.habits.referrers != 200], ids=registry_of)
def test_a_registry_without_referrers_sends_clients_to_the_tag(service: Service, profile: Profile) -> None:
    place, subject, _ = with_referrers(service, profile.registry)
    before = service.calls()
    answer = service.get(path(place, "referrers", subject))
    assert answer.status == (profile.habits.referrers or 404), "a 404 that became an empty list would hide signatures"
    assert answer.code != "NAME_UNKNOWN", "this would end a client's search"
    tag = subject.replace(":", "-")
    for number in (1, 2):
        index = json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"n": str(number)}}
        )
        place.push(tag, index.encode(), OCI_INDEX)
        assert service.get(path(place, "manifests", tag)).body == index.encode()
    assert service.calls() == before


def test_no_page_of_html_is_handed_on_as_referrers(service: Service) -> None:
    place, subject, _ = with_referrers(service, "docker.io")
    place.front.fault(f"/v2/{place.repository}/referrers/*", Html())
    answer = service.get(path(place, "referrers", subject))
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert b"<" not in answer.body


def test_every_profile_has_its_sources() -> None:
    for profile in PROFILES.values():
        assert profile.sources
