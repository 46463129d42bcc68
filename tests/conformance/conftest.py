"""One service for all rules, in front of a registry with everything in it that the suites ask for."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

from lib.devsigstore.server import DevSigstore
from lib.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.fakes.habits import Habits
from tests.fakes.registry import FakeRegistry
from tests.framework import Answer, Function
from tests.handlers.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
TYPE_A = "application/vnd.nhl.peanut.butter.bagel"  # of 1.1.1's referrers: two of this type
TYPE_B = "application/vnd.nba.strawberry.jam.croissant"  # and three of this
TAGS = ("test0", "test1", "test2", "test3")
PAGE = 3  # tags, and referrers, that the registry gives at once
NOWHERE = "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"  # sha256("hello world"), which is not there


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor(media_type: str, content: bytes, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content), **more}


def image(number: int, **more: object) -> tuple[bytes, bytes, bytes]:
    """A manifest of one layer, its configuration and its layer."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "author": str(number)}).encode()
    layer = f"layer {number}".encode()
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(CONFIG, config)}
    return json.dumps({**document, "layers": [descriptor(LAYER, layer)], **more}).encode(), config, layer


@dataclass(frozen=True)
class Content:
    """What the registry holds of one repository; `manifests[i]` is what `TAGS[i]` points to."""

    manifests: tuple[bytes, ...]
    blobs: tuple[bytes, ...]
    index: bytes
    referrers: tuple[dict[str, Any], ...]  # of manifests[0], as descriptors


def fill(registry: FakeRegistry, repository: str) -> Content:
    made = [image(number) for number in range(len(TAGS))]
    blobs = [blob for _, config, layer in made for blob in (config, layer)]
    for (manifest, _, _), tag in zip(made, TAGS, strict=True):
        registry.push(repository, tag, manifest, OCI_MANIFEST)
    for blob in blobs:
        registry.push_blob(repository, blob)
    platforms = [descriptor(OCI_MANIFEST, manifest) for manifest, _, _ in made[:2]]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": platforms}).encode()
    registry.push(repository, None, index, OCI_INDEX)
    subject, referrers = descriptor(OCI_MANIFEST, made[0][0]), []
    for number, kind in enumerate((TYPE_A, TYPE_A, TYPE_B, TYPE_B, TYPE_B)):
        manifest, config, layer = image(100 + number, subject=subject, artifactType=kind)
        for blob in (config, layer):
            registry.push_blob(repository, blob)
        registry.push(repository, None, manifest, OCI_MANIFEST)
        referrers.append(descriptor(OCI_MANIFEST, manifest, artifactType=kind))
    return Content(tuple(manifest for manifest, _, _ in made), tuple(blobs), index, tuple(referrers))


class Site:
    """The service, and one way to name the repository `org/conformance` or, on Docker Hub, `library/conformance`."""

    def __init__(self, function: Function, name: str, query: str, content: Content) -> None:
        self.port, self.name, self.query, self.content = function.port, name, query, content

    def ask(self, method: str, rest: str, *headers: tuple[str, str], body: bytes = b"", **parameters: str) -> Answer:
        query = "&".join([*(f"{key}={value}" for key, value in parameters.items()), *filter(None, [self.query])])
        return self.follow(method, f"/v2/{self.name}/{rest}{'?' if query else ''}{query}", *headers, body=body)

    def get(self, rest: str, *headers: tuple[str, str], **parameters: str) -> Answer:
        return self.ask("GET", rest, *headers, body=b"", **parameters)

    def head(self, rest: str, *headers: tuple[str, str], **parameters: str) -> Answer:
        return self.ask("HEAD", rest, *headers, body=b"", **parameters)

    def follow(self, method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> Answer:
        """Exactly this target."""
        sizes = [("Content-Length", str(len(body)))] if body else []
        return exchange(self.port, method, target, [*headers, *sizes], body)

    def pages(self, rest: str, **parameters: str) -> list[Answer]:
        """The page that is asked for, and all that follow by `Link`."""
        target = f"/v2/{self.name}/{rest}"
        found = [self.get(rest, **parameters)]
        while "link" in found[-1].headers:
            address, _, relation = found[-1].headers["link"].partition(">; ")
            assert (address[0], relation) == ("<", 'rel="next"')
            assert address[1:].startswith(f"{target}?"), "relative, and on our own path"
            found.append(self.follow("GET", urljoin(target, address[1:])))
            assert len(found) < 20
        return found


WAYS = {
    "docker hub": ("conformance", ""),
    "host in the path": ("registry.example/org/conformance", ""),
    "alias": ("r/registry.example/org/conformance", ""),
    "ns": ("org/conformance", "ns=registry.example"),
    "ns and host": ("registry.example/org/conformance", "ns=registry.example"),
}


@dataclass(frozen=True)
class World:
    """The service, Docker Hub and another registry; and what each holds."""

    function: Function
    hub: FakeRegistry
    other: FakeRegistry
    at_hub: Content
    at_other: Content

    def site(self, way: str) -> Site:
        name, query = WAYS[way]
        return Site(self.function, name, query, self.at_hub if way == "docker hub" else self.at_other)


@contextmanager
def running(folder: Path, habits: Habits) -> Iterator[World]:
    """A world whose registries have these habits."""
    with (
        DevSigstore(folder) as dev,
        FakeRegistry(token_field="token", habits=habits) as hub,
        FakeRegistry(habits=habits) as other,
    ):
        mapping = {"docker.io": hub.base_url, "registry.example": other.base_url}
        mapping["auth.docker.io"] = hub.token_url.removesuffix("/token")
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps(mapping),
        }
        at_hub, at_other = fill(hub, "library/conformance"), fill(other, "org/conformance")
        with Function(settings) as function:
            yield World(function, hub, other, at_hub, at_other)
            lines = list(function.lines)
        assert not [line for line in lines if "Traceback" in line]


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For the rules: lists come in pages that are shorter than they are."""
    with running(tmp_path_factory.mktemp("rules"), Habits(tags_page=PAGE, referrers_page=PAGE)) as made:
        yield made


@pytest.fixture(params=WAYS)
def site(world: World, request: pytest.FixtureRequest) -> Site:
    world.hub.heal()
    world.other.heal()
    return world.site(request.param)
