"""Container images out of nothing: one tiny layer, a configuration, a manifest, and how they get into a registry.

    image = make("v1")                        a single OCI manifest for linux/amd64
    image = make("v1", kind=DOCKER, multi=True)   a Docker manifest list of linux/amd64 and linux/arm64
    image = chart("v1"), image = file("v1")   a helm chart, and a file as oras stores it
    push("http://127.0.0.1:5000", "library/alpine", "3.16.0", image)

The same arguments give the same digests.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.fakes.registry import FakeRegistry


@dataclass(frozen=True, slots=True)
class Kind:
    """The media types of one family."""

    name: str
    manifest: str
    index: str
    config: str
    layer: str


OCI = Kind(
    "oci",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
)
DOCKER = Kind(
    "docker",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes with a media type, and their digest."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    def descriptor(self, **more: object) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data), **more}


@dataclass(frozen=True, slots=True)
class Image:
    """`tagged` is what the tag points to; `children` are the platforms' manifests, if it is an index."""

    tagged: Content
    children: tuple[Content, ...]
    blobs: tuple[Content, ...]

    @property
    def digest(self) -> str:
        return self.tagged.digest


def make(text: str, kind: Kind = OCI, *, multi: bool = False) -> Image:
    """An image that holds one file with `text`."""
    if not multi:
        manifest, blobs = _single(text, kind, "amd64")
        return Image(manifest, (), blobs)
    children: list[tuple[Content, str]] = []
    all_blobs: list[Content] = []
    for architecture in ("amd64", "arm64"):
        manifest, blobs = _single(f"{text} {architecture}", kind, architecture)
        children.append((manifest, architecture))
        all_blobs.extend(blobs)
    listed = [child.descriptor(platform={"architecture": name, "os": "linux"}) for child, name in children]
    index = _json(kind.index, {"schemaVersion": 2, "mediaType": kind.index, "manifests": listed})
    return Image(index, tuple(child for child, _ in children), tuple(all_blobs))


def chart(text: str) -> Image:
    """A helm chart, version 1.2.3, as `helm push` stores it (https://helm.sh/docs/topics/registries/)."""
    about = {"apiVersion": "v2", "name": "my-chart", "version": "1.2.3", "description": text}
    layer = gzip.compress(_tar(json.dumps(about).encode(), "my-chart/Chart.yaml"), mtime=0)  # JSON is YAML
    return _artifact(
        _json("application/vnd.cncf.helm.config.v1+json", about),
        Content("application/vnd.cncf.helm.chart.content.v1.tar+gzip", layer),
    )


def file(text: str) -> Image:
    """A file `my-app.txt`, as `oras push` stores it."""
    return _artifact(
        _json("application/vnd.oci.empty.v1+json", {}),
        Content("text/plain", text.encode()),
        artifactType="application/vnd.example.my-app",
    )


def _artifact(config: Content, layer: Content, **more: object) -> Image:
    title = {"org.opencontainers.image.title": "my-app.txt"}
    described = {"config": config.descriptor(), "layers": [layer.descriptor(annotations=title)]}
    manifest = _json(OCI.manifest, {"schemaVersion": 2, "mediaType": OCI.manifest, **more, **described})
    return Image(manifest, (), (layer, config))


def _single(text: str, kind: Kind, architecture: str) -> tuple[Content, tuple[Content, ...]]:
    tar = _tar(text.encode())
    layer = Content(kind.layer, gzip.compress(tar, mtime=0))
    config = _json(
        kind.config,
        {
            "architecture": architecture,
            "os": "linux",
            "created": "2022-07-01T00:00:00Z",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
            "history": [{"created": "2022-07-01T00:00:00Z", "created_by": "tests"}],
        },
    )
    described = {"config": config.descriptor(), "layers": [layer.descriptor()]}
    manifest = _json(kind.manifest, {"schemaVersion": 2, "mediaType": kind.manifest, **described})
    return manifest, (layer, config)


def _tar(data: bytes, name: str = "hello") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def _json(media_type: str, value: dict[str, Any]) -> Content:
    return Content(media_type, json.dumps(value, indent=2).encode())


def hold(registry: FakeRegistry, repository: str, tag: str, image: Image) -> str:
    """Put it into a registry of the tests' own, and the tag on it. Returns the digest."""
    for blob in image.blobs:
        registry.push_blob(repository, blob.data)
    for child in image.children:
        registry.push(repository, None, child.data, child.media_type)
    return registry.push(repository, tag, image.tagged.data, image.tagged.media_type)


def push(registry: str, repository: str, tag: str, image: Image) -> str:
    """Put it there, and the tag on it. Returns the digest."""
    connection = http.client.HTTPConnection(urlsplit(registry).netloc, timeout=30)
    try:
        for blob in image.blobs:
            started = _send(connection, "POST", f"/v2/{repository}/blobs/uploads/", 202)
            place = urlsplit(started["Location"])
            _send(connection, "PUT", f"{place.path}?{place.query}&digest={blob.digest}", 201, blob.data)
        for child in image.children:
            _put_manifest(connection, repository, child.digest, child)
        _put_manifest(connection, repository, tag, image.tagged)
    finally:
        connection.close()
    return image.digest


def _put_manifest(connection: http.client.HTTPConnection, repository: str, reference: str, manifest: Content) -> None:
    path = f"/v2/{repository}/manifests/{reference}"
    _send(connection, "PUT", path, 201, manifest.data, {"Content-Type": manifest.media_type})


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    expected: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> dict[str, str]:
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    assert response.status == expected, f"{method} {path}: {response.status} {text[:500]!r}"
    return dict(response.getheaders())
