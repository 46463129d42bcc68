"""Endpoints: from the request target to what is asked for (distribution-spec "Endpoints", and ours).

    /v2/                                Ping
    /v2/<name>/manifests/<reference>    Manifest        a reference with ":" is a digest, else a tag
    /v2/<name>/blobs/<digest>           Blob
    /v2/<name>/tags/list                TagsList        ?n= and ?last=
    /v2/<name>/referrers/<digest>       Referrers       ?artifactType=
    /sightings/<tag>                    SightingRecord
    /livez                              Livez
    /readyz                             Readyz

Strict on the path as it was sent and as the server decoded it, so that no second spelling of a tag exists and no
upstream can read it differently. Names, tags and digests need no percent-encoding, so a path may hold none, except %3A:
some clients encode the colon of a digest or port.

`?ns=REGISTRY` says which registry the name is of, for clients that use us as a mirror (distribution-spec "Registry
Proxying"); a path that names another one is refused. `r/<host>/<path>` is `<host>/<path>`, for clients that take a dotted
first component for a registry of their own (kaniko#3313). Neither changes a tag's identity. Not here: methods (`lib/app.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib.errors import NameInvalid, PathInvalid, TagSyntaxInvalid
from lib.oci.digest import Digest
from lib.oci.query import Page, Pairs, Query, artifact_type
from lib.oci.reference import Repository, Tag, canonical_registry, is_host

TARGET_MAX = 4096
ORIGIN = re.compile(r"https?://[^/?#]*", re.ASCII | re.IGNORECASE)  # absolute-form (RFC 9112, 3.2.2)
PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._:@~-]+)+/?", re.ASCII)
REFUSED_SEGMENTS = frozenset({".", ".."})
ALIAS = "r/"
# The one public registry whose repositories begin with a domain: gcr.io/google.com/cloudsdktool/google-cloud-cli
GOOGLE = "google.com"
GCR = re.compile(r"(?:[a-z]+\.)?gcr\.io", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ping:
    """`/v2/`."""


@dataclass(frozen=True, slots=True)
class Livez:
    """`/livez`."""


@dataclass(frozen=True, slots=True)
class Readyz:
    """`/readyz`."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest by tag or digest."""

    repository: Repository
    reference: Tag | Digest


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob by digest."""

    repository: Repository
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagsList:
    """A page of a repository's tags. `name` is the repository as the client wrote it."""

    repository: Repository
    name: str
    page: Page


@dataclass(frozen=True, slots=True)
class Referrers:
    """What refers to a manifest. `name` is the repository as the client wrote it, `more` what only the registry understands."""

    repository: Repository
    name: str
    digest: Digest
    artifact_type: str | None
    more: Pairs


@dataclass(frozen=True, slots=True)
class SightingRecord:
    """What was recorded for a tag."""

    tag: Tag


Endpoint = Ping | Livez | Readyz | Manifest | Blob | TagsList | Referrers | SightingRecord


def parse(raw_target: str, path: str, query: Query) -> Endpoint:  # noqa: PLR0911 - one for each endpoint
    """`raw_target` as sent, `path` as the server decoded it.

    Raises PathInvalid, NameInvalid, TagSyntaxInvalid, DigestInvalid, ParameterInvalid.
    """
    checked = _checked(raw_target, path)
    namespace = query.namespace
    if checked in {"/v2", "/v2/"}:
        return Ping()
    if checked == "/livez":
        return Livez()
    if checked == "/readyz":
        return Readyz()
    if checked.startswith("/sightings/"):
        return SightingRecord(_tag(checked.removeprefix("/sightings/"), namespace))
    if checked.startswith("/v2/"):
        name, kind, reference = _split(checked.removeprefix("/v2/"))
        if kind == "manifests":
            repository = _repository(name, namespace)
            return Manifest(repository, Digest.parse(reference) if ":" in reference else Tag.of(repository, reference))
        if kind == "blobs":
            return Blob(_repository(name, namespace), Digest.parse(reference))
        if kind == "tags" and reference == "list":
            return TagsList(_repository(name, namespace), name, Page.parse(query))
        if kind == "referrers":
            repository, digest = _repository(name, namespace), Digest.parse(reference)
            return Referrers(repository, name, digest, artifact_type(query), query.opaque("artifactType"))
    msg = "no such path"
    raise PathInvalid(msg)


def _checked(raw_target: str, path: str) -> str:
    """The path, once both spellings of it are known to be the same plain one."""
    if len(raw_target) > TARGET_MAX or "#" in raw_target:
        msg = "no such path"
        raise PathInvalid(msg)
    origin = ORIGIN.match(raw_target)
    raw_path = raw_target[origin.end() if origin else 0 :].partition("?")[0]
    plain = raw_path.replace("%3A", ":").replace("%3a", ":")
    segments = plain.split("/")[1:]
    if (
        plain != path
        or PLAIN_PATH.fullmatch(plain) is None
        or any(segment in REFUSED_SEGMENTS for segment in segments)
        or (segments[-1] == "" and plain != "/v2/")
    ):
        msg = "no such path, or a spelling of one that is not allowed"
        raise PathInvalid(msg)
    return plain


def _repository(name: str, namespace: str | None) -> Repository:
    """What a name means, with `ns` or without it. Raises NameInvalid."""
    if name.startswith(ALIAS):
        host, slash, _ = name.removeprefix(ALIAS).partition("/")
        if slash and is_host(host):
            name = name.removeprefix(ALIAS)
    if namespace is None:
        return Repository.parse(name)
    first, slash, _ = name.partition("/")
    if not slash or not is_host(first) or (first == GOOGLE and GCR.fullmatch(namespace)):
        return Repository.of(namespace, name)
    if canonical_registry(first) != namespace:
        msg = "the path names another registry than ns"
        raise NameInvalid(msg)
    return Repository.parse(name)


def _tag(text: str, namespace: str | None) -> Tag:
    """`alpine:3.16.0`. Raises NameInvalid, TagSyntaxInvalid."""
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        msg = "there is no tag"
        raise TagSyntaxInvalid(msg)
    return Tag.of(_repository(name, namespace), tag)


def _split(rest: str) -> tuple[str, str, str]:
    """`<name>/<kind>/<reference>` from the right: a name may itself hold "manifests"."""
    head, _, reference = rest.rpartition("/")
    name, _, kind = head.rpartition("/")
    return name, kind, reference
