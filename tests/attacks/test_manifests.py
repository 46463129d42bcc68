"""Manifests that mean two things, or nothing, and what they could make of a first sighting."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from lib.errors import UpstreamUnavailable
from lib.handlers.manifests import HeldManifests
from lib.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Manifest
from lib.oci.reference import Repository, Tag
from tests.fakes.registry import DigestHeader, EndlessBody, FakeRegistry, Raw, Redirect, Status, image
from tests.handlers.test_http import manifest, path
from tests.sigstore import digests_logged
from tests.upstream.support import ALPINE, asking, soon

if TYPE_CHECKING:
    from tests.fakes.registry import Fault
    from tests.handlers.test_http import World

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": "sha256:" + "0" * 64}
INDEX = {"schemaVersion": 2, "manifests": []}
IMAGE = {"schemaVersion": 2, "config": CONFIG, "layers": []}


def text(document: object) -> bytes:
    return json.dumps(document).encode()


# What a registry could answer 200 with: contents and Content-Type.
POISON: dict[str, tuple[bytes, str]] = {
    "both shapes as an index": (text({**IMAGE, **INDEX, "mediaType": OCI_INDEX}), OCI_INDEX),
    "both shapes as an image": (text({**INDEX, **IMAGE, "mediaType": OCI_MANIFEST}), OCI_MANIFEST),
    "both shapes without a type of its own": (text({**INDEX, **IMAGE}), DOCKER_MANIFEST),
    "an index that also has layers": (text({**INDEX, "layers": []}), DOCKER_LIST),
    "an image served as an index": (text(IMAGE), OCI_INDEX),
    "an index served as an image": (text(INDEX), OCI_MANIFEST),
    "two types: image, header index": (text({**IMAGE, "mediaType": OCI_MANIFEST}), OCI_INDEX),
    "two types: OCI, header Docker": (text({**IMAGE, "mediaType": OCI_MANIFEST}), DOCKER_MANIFEST),
    "manifests twice": (b'{"schemaVersion":2,"manifests":[],"manifests":[{}]}', OCI_INDEX),
    "config twice": (b'{"schemaVersion":2,"config":{},"layers":[],"config":{"x":1}}', OCI_MANIFEST),
    "mediaType twice": (f'{{"mediaType":"{OCI_INDEX}","mediaType":"{OCI_MANIFEST}"}}'.encode(), OCI_MANIFEST),
    "a key twice, once escaped": (b'{"schemaVersion":2,"layers":[],"l\\u0061yers":[],"config":{}}', OCI_MANIFEST),
    "schema 1": (text({"schemaVersion": 1, "name": "x", "tag": "1.0", "fsLayers": [], "history": []}), SCHEMA_1),
    "schema 1 under another type": (text({**IMAGE, "schemaVersion": 1}), OCI_MANIFEST),
    "an artifact manifest": (text({"mediaType": "application/vnd.oci.artifact.manifest.v1+json"}), OCI_MANIFEST),
    "an error": (text({"errors": [{"code": "TOOMANYREQUESTS"}]}), "application/json"),
    "a page under our type": (b"<!doctype html><title>Sorry</title>", OCI_MANIFEST),
    "two documents": (text(IMAGE) + text(IMAGE), OCI_MANIFEST),
    "half a document": (text(IMAGE)[:-1], OCI_MANIFEST),
    "nothing": (b"", OCI_MANIFEST),
    "UTF-16": (json.dumps(IMAGE).encode("utf-16"), OCI_MANIFEST),
}
# What does not even claim to be a manifest may be one tomorrow: 503. The others are 400, and stay so.
OUTAGES = {
    "an artifact manifest", "an error", "a page under our type", "two documents", "half a document", "nothing", "UTF-16",
}  # fmt: skip


@pytest.mark.parametrize("recorded", [False, True], ids=["new", "recorded"])
@pytest.mark.parametrize("poison", POISON)
def test_a_200_that_is_no_manifest_or_two_is_refused_and_poisons_no_first_sighting(
    world: World, name: str, poison: str, *, recorded: bool
) -> None:
    """CVE-2021-41190, GHSA-mc8v-mgrf-8f4m, GHSA-77vh-xpmg-72qh: one digest, two meanings. Nothing of it is recorded."""
    good = world.push(name)
    if recorded:
        assert world.get(path(name)).status == 200
    content, media_type = POISON[poison]
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    served = Status(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, content)
    world.registry.fault(f"/v2/library/{name}/manifests/*", served)
    calls = dict(world.dev.calls)
    for reference in ("1.0", digest):
        for answer in (world.get(path(name, reference)), world.head(path(name, reference))):
            assert answer.status == (503 if poison in OUTAGES else 400)
            assert ("retry-after" in answer.headers) == (poison in OUTAGES)
            assert "docker-content-digest" not in answer.headers
            if answer.body:
                assert answer.code == ("UNAVAILABLE" if poison in OUTAGES else "MANIFEST_INVALID")
    assert dict(world.dev.calls) == calls
    world.registry.heal()
    after = world.get(path(name))
    assert (after.status, after.headers["docker-content-digest"]) == (200, good)
    assert ("tlog-first-seen" in after.headers) == (not recorded)


def test_the_same_bytes_under_another_type_are_refused(world: World, name: str) -> None:
    """CVE-2021-41190, its second shape: the digest stays, and the Content-Type makes another thing of it."""
    content = text(INDEX)
    world.registry.push(f"library/{name}", "1.0", content, OCI_INDEX)
    assert world.get(path(name)).headers["content-type"] == OCI_INDEX
    for repository in (name, f"{name}-other"):
        digest = world.registry.push(f"library/{repository}", "1.0", content, OCI_MANIFEST)
        for reference in ("1.0", digest):
            answer = world.get(path(repository, reference))
            if repository == name:
                assert (answer.status, answer.headers["content-type"]) == (200, OCI_INDEX), "held as it was seen"
            else:
                assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_a_first_sighting_does_not_depend_on_who_asks(world: World, name: str) -> None:
    """First-seen poisoning by Accept or by User-Agent: whoever comes first gets recorded what everybody else will get.

    The fake registry takes another Accept list than ours for a violation.
    """
    for number, accept in enumerate([OCI_MANIFEST, SCHEMA_1, "*/*", "application/json", "text/html;q=0", ""]):
        digest = world.registry.push(f"library/{name}", f"{number}", manifest(number), OCI_MANIFEST)
        first = world.get(path(name, f"{number}"), Accept=accept, **{"User-Agent": "docker/0 (only this one)"})
        assert (first.status, first.headers["docker-content-digest"]) == (200, digest)
    seen = world.registry.requests[-1].headers
    assert (seen["user-agent"], seen["via"]) == ("tlogistry", "1.1 tlogistry")
    assert not world.registry.violations


def test_urls_in_a_manifest_are_never_fetched(world: World, name: str) -> None:
    """CVE-2020-15157 ("ContainerDrip"): foreign layers name any host they like."""
    world.other.forget_requests()
    address = world.other.base_url
    layer = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "size": 9,
        "digest": "sha256:" + "d" * 64,
        "urls": [f"{address}/v2/library/x/blobs/sha256:{'d' * 64}", "http://169.254.169.254/latest/meta-data/"],
    }
    index = {**INDEX, "mediaType": OCI_INDEX, "manifests": [{**layer, "mediaType": OCI_MANIFEST}]}
    for tag, document in (("image", {**IMAGE, "layers": [layer], "subject": layer}), ("index", index)):
        media_type = OCI_INDEX if tag == "index" else OCI_MANIFEST
        digest = world.registry.push(f"library/{name}", tag, text(document), media_type)
        for reference in (tag, digest):
            assert world.get(path(name, reference)).body == text(document)
            assert world.head(path(name, reference)).status == 200
    assert world.get(f"/v2/{name}/blobs/{layer['digest']}").code == "BLOB_UNKNOWN"
    assert world.other.count() == 0


def test_what_one_repository_has_is_not_served_for_another(world: World, name: str) -> None:
    """CVE-2026-35172, GHSA-f2g3-hh2r-cwgc: nothing is found by its digest alone."""
    digest = world.push(name)
    blob = world.registry.push_blob(f"library/{name}", b"theirs")
    for _ in range(2):
        assert world.get(path(name)).status == 200
    assert world.get(f"/v2/{name}/blobs/{blob}").body == b"theirs"
    assert world.get(path(f"{name}-other", digest)).code == "MANIFEST_UNKNOWN"
    assert world.get(f"/v2/{name}-other/blobs/{blob}").code == "BLOB_UNKNOWN"


def test_bytes_that_are_held_for_one_repository_are_not_found_for_another() -> None:
    """GHSA-f2g3-hh2r-cwgc, where the bytes are kept."""
    held, found = HeldManifests(), Manifest.parse(image("a"), OCI_MANIFEST)
    held.put(Repository.parse("ghcr.io/a/b"), found, 0.0)
    assert held.get(Repository.parse("ghcr.io/a/b"), found.digest) == found
    for other in ("a/b", "ghcr.io/a/c", "quay.io/a/b"):
        assert held.get(Repository.parse(other), found.digest) is None


@pytest.mark.parametrize(
    "spelling", ["OTHER.example", "other.example:443", "other.example.", "Other.Example.:443", "other.example%3A443"]
)
def test_a_second_spelling_of_a_registry_is_not_a_second_first_sighting(world: World, name: str, spelling: str) -> None:
    """Alias bypass: case, default port and trailing dot of any registry, and a moved tag is moved under each of them."""
    world.other.push(name, "1.0", manifest(1), OCI_MANIFEST)
    first = world.get(path(f"other.example/{name}"))
    assert "tlog-first-seen" in first.headers
    again = world.get(path(f"{spelling}/{name}"))
    assert (again.status, again.headers["tlog-uuid"]) == (200, first.headers["tlog-uuid"])
    assert "tlog-first-seen" not in again.headers
    world.other.push(name, "1.0", manifest(2), OCI_MANIFEST)
    assert world.get(path(f"{spelling}/{name}")).code == "TAG_INVALID"
    assert len(digests_logged(world.dev.url, Tag.parse(f"other.example/{name}:1.0"))) == 1


LIES: dict[str, Fault] = {
    "endless, with a length": EndlessBody("length"),
    "endless, until the end of the connection": EndlessBody("close"),
    "compressed": Raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b"),
    "two lengths": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    "a length and chunks": Raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "not modified": Status(304),
    "partial": Status(206, {"Content-Type": OCI_MANIFEST}, manifest(9)),
    "no content": Status(204),
    "redirect to storage": Redirect("https://cdn.example/manifest"),
    "redirect nowhere": Redirect(""),
}


@pytest.mark.parametrize("recorded", [False, True], ids=["new", "recorded"])
@pytest.mark.parametrize("lie", LIES)
def test_an_upstream_that_lies_is_never_a_mismatch_and_never_recorded(
    world: World, name: str, lie: str, *, recorded: bool
) -> None:
    """What tests/handlers/test_http.py does not ask for already."""
    world.push(name)
    if recorded:
        assert world.get(path(name)).status == 200
    calls = dict(world.dev.calls)
    world.registry.fault(f"/v2/library/{name}/manifests/*", LIES[lie])
    answer = world.get(path(name))
    refused = (400, "MANIFEST_INVALID") if lie.startswith("endless") else (503, "UNAVAILABLE")
    assert (answer.status, answer.code) == refused
    assert "tlog-uuid" not in answer.headers
    assert dict(world.dev.calls) == calls


def test_a_manifest_that_is_larger_in_memory_is_refused_before_it_is_parsed(world: World, name: str) -> None:
    """4 MiB of `[{},{},…]` are 170 MiB of objects, and several at once more than an instance has."""
    for members in (b'"manifests":[%s{}]' % (b"{}," * 1_390_000), b",".join(b'"%x":0' % n for n in range(400_000))):
        content = b'{"schemaVersion":2,%s}' % members
        world.registry.fault(f"/v2/library/{name}/manifests/*", Status(200, {"Content-Type": OCI_INDEX}, content))
        for reference in ("1.0", "sha256:" + hashlib.sha256(content).hexdigest()):
            answer = world.get(path(name, reference))
            assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
            assert "values" in answer.message
        world.registry.fault(f"/v2/library/{name}/referrers/*", Status(200, {"Content-Type": OCI_INDEX}, content))
        assert world.get(f"/v2/{name}/referrers/sha256:{'5' * 64}").code == "MANIFEST_UNKNOWN"
        world.registry.heal()


@pytest.mark.parametrize("where", ["manifests/*", "tags/list"])
def test_a_body_in_chunks_of_one_byte_is_not_read_to_its_end(world: World, name: str, where: str) -> None:
    """Each chunk costs microseconds, so that 4 MiB of them were 13 seconds of a processor."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {OCI_MANIFEST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    world.registry.fault(f"/v2/library/{name}/{where}", Raw(head + b"1\r\n \r\n" * 1_000_000 + b"0\r\n\r\n"))
    answer = world.get(f"/v2/{name}/{where.replace('*', '1.0')}")
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert "too many small chunks" in answer.message


def test_a_token_in_chunks_of_one_byte_is_not_read_to_its_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.fault("/token*", Raw(head + b"1\r\n \r\n" * 60_000 + b"0\r\n\r\n"))
        with pytest.raises(UpstreamUnavailable, match="too many small chunks"):
            asked.registries.manifest(ALPINE.repository, ALPINE, soon(20))


def test_a_loop_of_redirects_between_two_registries_ends(world: World, name: str) -> None:
    here, there = f"/v2/library/{name}/manifests/1.0", f"/v2/there/{name}/manifests/1.0"
    world.registry.fault(here, Redirect(world.other.base_url + there))
    world.other.fault(there, Redirect(world.registry.base_url + here))
    before = world.registry.count() + world.other.count()
    answer = world.get(path(name))
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert world.registry.count() + world.other.count() - before == 6
    world.other.heal()


def test_a_digest_header_that_promises_the_recorded_digest_is_not_believed_for_other_bytes(
    world: World, name: str
) -> None:
    """The header can lie on HEAD and GET alike; whoever asks for bytes gets the recorded ones, or a refusal."""
    old = world.push(name)
    assert world.get(path(name)).status == 200
    new = world.push(name, 2)
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", DigestHeader(old))
    held = world.get(path(name))
    assert (held.status, held.body) == (200, manifest(1)), "from the bytes that we hashed when it was recorded"
    by_digest = world.get(path(name, new))
    assert (by_digest.headers["docker-content-digest"], by_digest.body) == (new, manifest(2))
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", DigestHeader(old), method="GET")
    world.registry.fault(f"/v2/library/{name}/manifests/1.0", Status(405), method="HEAD")
    refused = world.get(path(name))
    assert (refused.status, refused.message) == (403, f'tag "{name}:1.0" mismatch; got "{new}", want "{old}"')
    assert world.line("digest header", f"{name}:1.0", old, new)
