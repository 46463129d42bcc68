"""The lists of a fake registry: tags and referrers, with the pages and the habits that real ones have.

Strict: a parameter that was not offered, or one given twice, raises `Wrong`; nobody asks a registry for what he made up.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from lib.oci.manifest import OCI_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.fakes.habits import Habits

UNSUPPORTED = b'{"errors": [{"code": "UNSUPPORTED"}]}'


class Wrong(Exception):
    """A query that a client should not send."""


class Listing(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Cursors:
    """Opaque places in lists: made here, and known again."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def make(self, place: int) -> str:
        cursor = f"gAAAAAB{secrets.token_urlsafe(9)}+/=="  # must be escaped in a query
        self._places[cursor] = place
        return cursor

    def find(self, cursor: str) -> int:
        if cursor not in self._places:
            msg = "a cursor that was not given out"
            raise Wrong(msg)
        return self._places[cursor]


def _parameters(query: str, allowed: Iterable[str]) -> dict[str, str]:
    msg = f"the query {query}"
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise Wrong(msg) from error
    parameters = dict(pairs)
    if len(parameters) < len(pairs) or not set(parameters) <= set(allowed):
        raise Wrong(msg)
    return parameters


def tags(  # the registry's side of distribution-spec end-8
    repository: str, names: Iterable[str], query: str, habits: Habits, cursors: Cursors, base_url: str
) -> Listing:
    """A page of tags."""
    cursor = habits.tags_paging == "cursor"
    asked = _parameters(query, ("n", "last", "next_page") if cursor else ("n", "last"))
    number = asked.get("n")
    if number is not None and not (number.isdecimal() and number.isascii()):
        msg = f"n={number}"
        raise Wrong(msg)
    sized = number is not None and not (habits.tags_any_size and int(number) == 0)
    n = int(number) if number is not None and sized else habits.tags_page
    if habits.tags_too_many is not None and n > habits.tags_too_many:
        return Listing(400, {"Content-Type": "application/json"}, UNSUPPORTED)
    listed = sorted([*names, *habits.tags_digests])
    n = min(n, habits.tags_page)
    start = 0
    if habits.tags_paging == "none":
        n = len(listed)
    elif cursor and "next_page" in asked:
        start = cursors.find(asked["next_page"])
    elif "last" in asked and not cursor:
        start = next((at for at, name in enumerate(listed) if name > asked["last"]), len(listed))
    page, more = listed[start : start + n], start + n < len(listed)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if more and page:
        following = {"next_page": cursors.make(start + n)} if cursor else {"last": page[-1]}
        size = "0" if habits.tags_any_size and not sized else str(n)
        target = f"/v2/{repository}/tags/list?" + urlencode({**following, "n": size})
        headers["Link"] = f'<{base_url if habits.absolute_links else ""}{target}>; rel="next"'
    body = {"name": repository, "tags": [*[None] * habits.tags_nulls, *page] or None, **habits.tags_more}
    return Listing(200, headers, json.dumps(body).encode())


def referrers(
    repository: str,
    subject: str,
    manifests: Mapping[str, tuple[bytes, str]],
    query: str,
    habits: Habits,
    cursors: Cursors,
    base_url: str,
) -> Listing:
    """A page of what refers to `subject`, among `manifests` by digest (distribution-spec end-12)."""
    asked = _parameters(query, ("artifactType", "nextToken"))
    if habits.referrers == 0:
        return Listing(200, {"Content-Type": "text/html"}, b"<html><body>A single page application.</body></html>")
    if habits.referrers != 200:
        return Listing(habits.referrers, {"Content-Type": "application/json"}, UNSUPPORTED)
    found = [
        {"mediaType": media_type, "digest": digest, "size": len(content), **refers}
        for digest, (content, media_type) in manifests.items()
        if (refers := _refers(content, subject)) is not None
    ]
    headers = {"Content-Type": OCI_INDEX}
    wanted = asked.get("artifactType")
    if wanted is not None and habits.referrers_filter:
        found = [one for one in found if one.get("artifactType") == wanted]
        headers["OCI-Filters-Applied"] = "artifactType"
    start = cursors.find(asked["nextToken"]) if "nextToken" in asked else 0
    end = start + habits.referrers_page
    if end < len(found):
        following = {"nextToken": cursors.make(end), **({"artifactType": wanted} if wanted is not None else {})}
        target = f"/v2/{repository}/referrers/{quote(subject, safe=':')}?{urlencode(following)}"
        headers["Link"] = f'<{base_url if habits.absolute_links else ""}{target}>; rel="next"'
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": found[start:end],
        "annotations": {"page": str(start)},
    }
    return Listing(200, headers, json.dumps(body, indent=1).encode())


def _refers(content: bytes, subject: str) -> dict[str, str] | None:
    """What a descriptor says of the kind of a manifest that refers to `subject`; None if it does not."""
    try:
        manifest = json.loads(content)
    except ValueError:
        return None
    if not isinstance(manifest, dict) or manifest.get("subject", {}).get("digest") != subject:
        return None
    kind = manifest.get("artifactType") or manifest.get("config", {}).get("mediaType")
    return {"artifactType": kind} if kind is not None else {}
