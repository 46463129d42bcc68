"""Endpoints: from the request target to what is asked for (distribution-spec "Endpoints", and ours).

    /v2/                                Ping
    /v2/<name>/manifests/<reference>    Manifest        a reference with ":" is a digest, else a tag
    /v2/<name>/blobs/<digest>           Blob
    /sightings/<tag>                    SightingRecord
    /livez                              Livez
    /readyz                             Readyz

Strict on the path as it was sent and as the server decoded it, so that no second spelling of a tag exists and no
upstream can read it differently. Names, tags and digests need no percent-encoding, so a path may hold none, except %3A:
some clients encode the colon of a digest or port. Of the query only `ns` is looked at, and refused: a client that sends
it (containerd) means another registry than the path says. Not here: methods (`lib/app.py`), tags lists and referrers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from lib.errors import NameInvalid, PathInvalid
from lib.oci.digest import Digest
from lib.oci.reference import Repository, Tag

TARGET_MAX = 4096
ORIGIN = re.compile(r"https?://[^/?#]*", re.ASCII | re.IGNORECASE)  # absolute-form (RFC 9112, 3.2.2)
PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._:@~-]+)+/?", re.ASCII)
REFUSED_SEGMENTS = frozenset({".", ".."})


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
class SightingRecord:
    """What was recorded for a tag."""

    tag: Tag


Endpoint = Ping | Livez | Readyz | Manifest | Blob | SightingRecord


def parse(raw_target: str, path: str, query: str) -> Endpoint:
    """`raw_target` as sent, `path` as the server decoded it, `query` undecoded.

    Raises PathInvalid, NameInvalid, TagSyntaxInvalid, DigestInvalid.
    """
    checked = _checked(raw_target, path)
    if any(key.strip().lower() == "ns" for key, _ in parse_qsl(query, keep_blank_values=True)):
        msg = "ns is not supported"
        raise NameInvalid(msg)
    if checked in {"/v2", "/v2/"}:
        return Ping()
    if checked == "/livez":
        return Livez()
    if checked == "/readyz":
        return Readyz()
    if checked.startswith("/sightings/"):
        return SightingRecord(Tag.parse(checked.removeprefix("/sightings/")))
    if checked.startswith("/v2/"):
        name, kind, reference = _split(checked.removeprefix("/v2/"))
        if kind == "manifests":
            repository = Repository.parse(name)
            return Manifest(repository, Digest.parse(reference) if ":" in reference else Tag.of(repository, reference))
        if kind == "blobs":
            return Blob(Repository.parse(name), Digest.parse(reference))
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


def _split(rest: str) -> tuple[str, str, str]:
    """`<name>/<kind>/<reference>` from the right: a name may itself hold "manifests"."""
    head, _, reference = rest.rpartition("/")
    name, _, kind = head.rpartition("/")
    return name, kind, reference
