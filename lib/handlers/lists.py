"""A repository's tags, and what refers to a manifest: passed through, never compared or recorded.

    {"name": "ghcr.io/distroless/static", "tags": ["20220707", "latest"]}

The name is the one that the client asked for. The next page is a relative address on our own path, because clients follow it in
three ways: relative to what they asked, by path and query alone, or as it is if it stays on one host (oras-go). Here `name` has
the client's spelling and `namespace` its `ns`, so that the next request means the same repository.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.errors import NotFound
from lib.handlers.response import NO_STORE, Response, json_response, unknown_name
from lib.oci import query
from lib.oci.manifest import OCI_INDEX

if TYPE_CHECKING:
    from lib.deadline import Deadline
    from lib.oci.endpoint import Referrers, TagsList
    from lib.oci.query import Pairs
    from lib.upstream.upstream import Upstream


def tags(upstream: Upstream, asked: TagsList, namespace: str | None, deadline: Deadline) -> Response:
    """200 with a page of tags. Raises TlogistryError."""
    try:
        page = upstream.tags(asked.repository, asked.page, deadline)
    except NotFound as missing:
        return unknown_name(missing)
    path = f"/v2/{asked.name}/tags/list"
    headers = {"Cache-Control": NO_STORE, **_link(path, page.following, namespace)}
    return json_response(200, {"name": asked.name, "tags": list(page.tags)}, headers)


def referrers(upstream: Upstream, asked: Referrers, namespace: str | None, deadline: Deadline) -> Response:
    """200 with the registry's index. Raises TlogistryError; NoReferrers if it has no such list."""
    page = upstream.referrers(asked.repository, asked.digest, asked.artifact_type, asked.more, deadline)
    path = f"/v2/{asked.name}/referrers/{asked.digest}"
    headers = {"Content-Type": OCI_INDEX, "Content-Length": str(len(page.content)), "Cache-Control": NO_STORE}
    if page.filters is not None:
        headers["OCI-Filters-Applied"] = page.filters
    return Response(200, {**headers, **_link(path, page.following, namespace)}, page.content)


def _link(path: str, following: Pairs | None, namespace: str | None) -> dict[str, str]:
    if following is None:
        return {}
    pairs = following if namespace is None else (*following, ("ns", namespace))
    return {"Link": f'<{path}?{query.text(pairs)}>; rel="next"'}
