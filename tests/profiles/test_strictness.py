"""The fakes see what they should not be shown, or every other test here would promise nothing."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from lib.oci.manifest import ACCEPT, OCI_INDEX, OCI_MANIFEST
from tests.fakes.profiles import PROFILES, Internet
from tests.profiles.conftest import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.profiles import Place


@pytest.fixture(scope="module")
def running() -> Iterator[Internet]:
    with Internet() as internet:
        yield internet


@pytest.fixture
def internet(running: Internet) -> Internet:
    running.violations()
    return running


def place_at(internet: Internet, registry: str) -> Place:
    place = internet.place(PROFILES[registry], "strict")
    place.push("1.0", manifest(1), OCI_MANIFEST)
    return place


def ask(url: str, **headers: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("registry", "target", "headers"),
    [
        ("plain.example", "manifests/1.0", {"Accept": "*/*"}),
        ("plain.example", "manifests/1.0", {"Accept": ACCEPT, "Cookie": "a=b"}),
        ("plain.example", "manifests/1.0", {"Accept": ACCEPT, "Accept-Encoding": "gzip"}),
        ("plain.example", "manifests/1.0", {"Accept": ACCEPT, "Host": "other.example"}),
        ("plain.example", "manifests/1.0", {"Accept": ACCEPT, "Authorization": "Bearer unasked"}),
        ("ghcr.io", "manifests/1.0", {"Accept": ACCEPT, "Authorization": "Bearer of-somebody-else"}),
        ("lscr.io", "manifests/1.0", {"Accept": ACCEPT, "Authorization": "Bearer of-somebody-else"}),
        ("plain.example", "tags/list?ns=ghcr.io", {}),
        ("plain.example", "tags/list?n=1&n=2", {}),
        ("plain.example", "tags/list?n=+1", {}),
        ("plain.example", "tags/list?next_page=made-up", {}),
        ("quay.example", "tags/list?next_page=made-up", {}),
        ("plain.example", "referrers/sha256:1?ns=ghcr.io", {"Accept": OCI_INDEX}),
        ("plain.example", "referrers/sha256:1?nextToken=made-up", {"Accept": OCI_INDEX}),
        ("plain.example", "referrers/sha256:1", {"Accept": "application/json"}),
    ],
    ids=str,
)
def test_what_a_registry_should_not_see_is_seen(
    internet: Internet, registry: str, target: str, headers: dict[str, str]
) -> None:
    place = place_at(internet, registry)
    ask(f"{place.front.base_url}/v2/{place.called}/{target}", **headers)
    assert len(internet.violations()) == 1


def test_a_token_at_storage_is_seen(internet: Internet) -> None:
    place = place_at(internet, "mcr.microsoft.com")
    answer = ask(f"{place.front.base_url}/v2/{place.called}/blobs/{place.push_blob(b'x')}", Accept="*/*")
    location = answer.headers["Location"]
    assert ask(location).status == 200
    assert internet.violations() == []
    assert ask(location, Authorization="Bearer x").status == 400
    assert len(internet.violations()) == 1


def test_a_password_and_another_service_at_a_token_service_are_seen(internet: Internet) -> None:
    place = place_at(internet, "docker.io")
    scope = f"scope=repository:{place.called}:pull"
    assert ask(f"{place.front.token_url}?service=registry.docker.io&{scope}").status == 200
    assert internet.violations() == []
    ask(f"{place.front.token_url}?service=registry.docker.io&{scope}", Authorization="Basic eDp5")
    assert len(internet.violations()) == 1
    ask(f"{place.front.token_url}?service=other&{scope}")
    assert len(internet.violations()) == 1


def test_a_presigned_url_is_for_its_method_and_exactly_as_given(internet: Internet) -> None:
    place = place_at(internet, "mcr.microsoft.com")
    answer = ask(f"{place.front.base_url}/v2/{place.called}/blobs/{place.push_blob(b'x')}", Accept="*/*")
    location = answer.headers["Location"]
    assert ask(location.replace("%2F", "/")).status == 403
    assert ask(location.partition("?")[0]).status == 403
