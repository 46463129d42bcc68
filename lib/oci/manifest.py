"""Manifests: what counts as one, and the digest of its bytes (image-spec "manifest", "index"; Docker's schema 2).

    {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [ … ]}

Anything that is not exactly that is never compared or recorded: neither what is no manifest at all, a 200 outage page for
instance (could not tell), nor a manifest that can be read in two ways or is of a kind that is not served (a definite answer).
The bytes are kept as they came: a manifest that is written again has another digest. Not here: what the manifest refers to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.errors import ManifestInvalid, NoManifest
from lib.oci.digest import Digest
from lib.oci.marks import marks

if TYPE_CHECKING:
    from lib.oci.digest import Algorithm

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_TYPES = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
# The digest of a tag depends on Accept: one list for everybody, and to change it is to change recorded digests.
ACCEPT = ", ".join(MEDIA_TYPES)
MAX_BYTES = 4 * 1024 * 1024  # containerd's own cap
MAX_MARKS = 160_000  # 4 MiB of the tersest descriptors with a platform have 156,000; parsed, they take up to 50 MiB
# What says nothing about the type, which is then the body's to say: registry.access.redhat.com, object stores
NO_TYPES = frozenset({None, "", "text/plain", "application/json", "application/octet-stream", "binary/octet-stream"})
# image-spec, "image manifest" and "image index"; Go, in which most clients are written, reads them in any case
FIELDS = {
    name.casefold(): name
    for name in (
        "schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "manifests", "subject", "annotations"
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manifest:
    """The bytes, which of the four types they are, and their digest."""

    content: bytes
    media_type: str
    digest: Digest

    @classmethod
    def parse(cls, content: bytes, content_type: str | None, algorithm: Algorithm = "sha256") -> Manifest:
        """`content_type` is the answer's header; the body's own `mediaType` goes before it, and both must agree.

        Raises ManifestInvalid; NoManifest if it does not even claim to be one.
        """
        if len(content) > MAX_BYTES:
            msg = f"the manifest is longer than {MAX_BYTES} bytes"
            raise ManifestInvalid(msg)
        if marks(content) > MAX_MARKS:
            msg = f"the manifest has more than {MAX_MARKS} values"
            raise ManifestInvalid(msg)
        document = _object(content)
        if "schemaVersion" not in document:
            msg = "not a manifest: there is no schemaVersion"
            raise NoManifest(msg)
        version = document["schemaVersion"]
        if type(version) is not int or version != 2:  # noqa: PLR2004 - the spec's own number; True and 2.0 are not it
            msg = "not a manifest: schemaVersion is not 2"
            raise ManifestInvalid(msg)
        media_type = _media_type(document, content_type)
        is_index = isinstance(document.get("manifests"), list)
        is_image = isinstance(document.get("config"), dict) and isinstance(document.get("layers"), list)
        mixed = "manifests" in document and ("layers" in document or "config" in document)
        if is_index == is_image or mixed or is_index != (media_type in INDEX_TYPES):
            msg = "not a manifest: it must have either manifests, or config and layers, as its media type says"
            raise ManifestInvalid(msg)
        return cls(content, media_type, Digest.of(content, algorithm))


def essence(content_type: str | None) -> str | None:
    """A Content-Type without its parameters, lower case."""
    return content_type.partition(";")[0].strip().lower() if content_type is not None else None


def _media_type(document: dict[str, object], content_type: str | None) -> str:
    """CVE-2021-41190: the same bytes under another type mean another thing, so the type is pinned too."""
    header = essence(content_type)
    said = document.get("mediaType", header)
    if not isinstance(said, str) or said not in MEDIA_TYPES:
        msg = "not a manifest: the media type is none of the four that are served"
        raise ManifestInvalid(msg)
    if header not in NO_TYPES and header != said:
        msg = "not a manifest: Content-Type and mediaType name different types"
        raise ManifestInvalid(msg)
    return said


def _object(content: bytes) -> dict[str, object]:
    """Strict JSON: two parsers must not see two documents. Raises ManifestInvalid, NoManifest."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        if len({key for key, _ in items}) != len(items):
            msg = "not a manifest: a key is there twice"
            raise ManifestInvalid(msg)
        return dict(items)

    def constant(name: str) -> object:
        msg = f"{name} is not JSON"
        raise ValueError(msg)

    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        msg = "not a manifest: not JSON"
        raise NoManifest(msg) from error
    if not isinstance(document, dict):
        msg = "not a manifest: not a JSON object"
        raise NoManifest(msg)
    if any(FIELDS.get(key.casefold(), key) != key for key in document):
        msg = "not a manifest: a key in another case, which some clients read and others do not"
        raise ManifestInvalid(msg)
    return document
