"""Mirror mode (`ns=`), the dotless alias `/v2/r/` and what could be made of them: other registries, second first sightings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from tests.attacks.test_private_addresses import HOSTS
from tests.handlers.test_http import manifest, path
from tests.sigstore import digests_logged

if TYPE_CHECKING:
    from tests.handlers.test_http import World

DIGEST = "sha256:" + "0" * 64
KINDS = ("manifests/1.0", f"manifests/{DIGEST}", f"blobs/{DIGEST}", "tags/list", f"referrers/{DIGEST}")


@pytest.mark.parametrize("host", HOSTS)
def test_no_spelling_of_an_inner_address_is_a_namespace(world: World, name: str, host: str) -> None:
    """CVE-2026-32591, CVE-2026-0600, CVE-2022-27907: `ns` names an upstream as the path does."""
    calls, asked = dict(world.dev.calls), world.registry.count() + world.other.count()
    for kind in KINDS:
        answer = world.get(f"/v2/{name}/{kind}?ns={quote(host, safe='')}")
        assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert dict(world.dev.calls) == calls
    assert world.registry.count() + world.other.count() == asked


@pytest.mark.parametrize("host", HOSTS)
def test_no_spelling_of_an_inner_address_behind_the_alias(world: World, host: str) -> None:
    """The same through `/v2/r/`, which is only another way to write a path."""
    calls, asked = dict(world.dev.calls), world.registry.count() + world.other.count()
    port = "" if {".", ":"} & set(host) or host.lower() == "localhost" else ":443"
    for kind in KINDS:
        answer = world.get(f"/v2/r/{host}{port}/x/{kind}")
        assert (answer.status, answer.code) in {(400, "NAME_INVALID"), (404, "NAME_UNKNOWN")}
    assert dict(world.dev.calls) == calls
    assert world.registry.count() + world.other.count() == asked


@pytest.mark.parametrize(
    "query",
    [
        "ns=https://other.example", "ns=other.example/x", "ns=user@other.example", "ns=other.example%00", "ns=other.example%0a",
        "ns=other.example%2f..", "ns=", "ns=other.example&ns=docker.io", "ns=docker.io&ns=docker.io", "NS=other.example",
        "Ns=other.example", "%20ns=other.example", "ns%20=other.example", "ns=other.example&%6es=docker.io",
        "ns=b%C3%BCcher.example", "ns=other.example%23", "ns=*", "ns=..", "ns=.",
    ],
)  # fmt: skip
def test_a_namespace_that_can_be_read_in_two_ways_is_refused(world: World, name: str, query: str) -> None:
    """A proxy, a cache or a client in front must not see another registry than we do."""
    world.push(name)
    world.other.push(f"library/{name}", "1.0", manifest(9), OCI_MANIFEST)
    asked = world.registry.count() + world.other.count()
    for kind in KINDS:
        answer = world.get(f"/v2/library/{name}/{kind}?{query}")
        assert (answer.status, answer.code) == (400, "NAME_INVALID")
        assert "oci-namespace" not in answer.headers
    assert world.registry.count() + world.other.count() == asked


def test_a_namespace_that_contradicts_the_path_is_refused(world: World, name: str) -> None:
    """Mirror mode is no way to have one registry's tag recorded under another's name."""
    world.other.push(name, "1.0", manifest(1), OCI_MANIFEST)
    for host, namespace in (
        ("other.example", "docker.io"),
        ("docker.io", "other.example"),
        ("r/other.example", "ghcr.io"),
    ):
        for kind in KINDS:
            answer = world.get(f"/v2/{host}/{name}/{kind}?ns={namespace}")
            assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert digests_logged(world.dev.url, Tag.parse(f"other.example/{name}:1.0")) == set()
    assert digests_logged(world.dev.url, Tag.parse(f"{name}:1.0")) == set()


@pytest.mark.parametrize(
    "spelling",
    [
        "r/other.example/{}", "other.example/{}?ns=other.example", "{}?ns=other.example", "{}?ns=OTHER.example.:443",
        "r/Other.Example./{}?ns=other.example", "r/other.example:443/{}", "{}?x=y&ns=other.example",
    ],
)  # fmt: skip
def test_a_namespace_or_an_alias_is_not_a_second_first_sighting(world: World, name: str, spelling: str) -> None:
    """Alias bypass: one tag has one record, however the registry is said, and a moved tag is moved under each of them."""
    app = f"a/{name}"
    world.other.push(app, "1.0", manifest(1), OCI_MANIFEST)
    first = world.get(path(f"other.example/{app}"))
    assert "tlog-first-seen" in first.headers
    asked, _, query = spelling.format(app).partition("?")
    target = f"{path(asked)}?{query}" if query else path(asked)
    again = world.get(target)
    assert (again.status, again.headers["tlog-uuid"]) == (200, first.headers["tlog-uuid"])
    assert "tlog-first-seen" not in again.headers
    world.other.push(app, "1.0", manifest(2), OCI_MANIFEST)
    assert world.get(target).code == "TAG_INVALID"
    assert len(digests_logged(world.dev.url, Tag.parse(f"other.example/{app}:1.0"))) == 1


def test_what_is_seen_in_one_namespace_is_nothing_that_another_saw(world: World, name: str) -> None:
    """First-seen poisoning through a mirror: the same path on two registries is two tags, whoever asks first."""
    world.push(name)
    world.other.push(f"library/{name}", "1.0", manifest(2), OCI_MANIFEST)
    theirs = world.get(f"/v2/library/{name}/manifests/1.0?ns=other.example")
    ours = world.get(f"/v2/library/{name}/manifests/1.0?ns=docker.io")
    assert (theirs.status, ours.status) == (200, 200)
    assert theirs.headers["docker-content-digest"] != ours.headers["docker-content-digest"]
    assert (theirs.headers["oci-namespace"], ours.headers["oci-namespace"]) == ("other.example", "docker.io")
    assert "tlog-first-seen" in ours.headers
    record = json.loads(world.get(f"/sightings/library/{name}:1.0?ns=other.example").body)
    assert str(record).count(f"other.example/library/{name}") > 0


def test_a_nested_alias_is_a_repository_and_no_way_around(world: World, name: str) -> None:
    """`/v2/r/r/HOST/x` is the repository r/HOST/x of Docker Hub: the alias is taken off once."""
    asked = world.other.count()
    answer = world.get(path(f"r/r/other.example/{name}"))
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert world.registry.requests[-1].path.startswith("/v2/r/r/other.example/")
    assert world.other.count() == asked
