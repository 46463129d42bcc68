"""Blobs: the client is sent to the registry's own storage, or the upstream's stream is passed through in constant memory.

Nothing of a blob is stored or checked here: the client verifies it by its digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.errors import NotFound
from lib.handlers.response import IMMUTABLE, NO_STORE, Response, unknown_blob
from lib.upstream.upstream import BlobRedirect

if TYPE_CHECKING:
    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.reference import Repository
    from lib.upstream.upstream import Upstream

OCTETS = "application/octet-stream"


def blob(  # noqa: PLR0913 - the request's parts
    upstream: Upstream,
    repository: Repository,
    digest: Digest,
    *,
    head: bool,
    range_: str | None,
    if_range: str | None,
    deadline: Deadline,
) -> Response:
    """307 to storage, or 200, 206, 416 with what the upstream streams. Raises TlogistryError."""
    try:
        answer = upstream.blob(repository, digest, head=head, range_=range_, if_range=if_range, deadline=deadline)
    except NotFound as missing:
        return unknown_blob(missing)
    common = {"Docker-Content-Digest": str(digest)}
    if isinstance(answer, BlobRedirect):
        location = {
            "Location": answer.location,
            "Content-Type": OCTETS,
            "Content-Length": "0",
            "Cache-Control": NO_STORE,
        }
        return Response(307, {**common, **location})
    headers = {"Content-Type": OCTETS, **answer.headers, **common}
    if answer.status in {200, 206}:
        headers["Cache-Control"] = IMMUTABLE
    if head:
        answer.close()
        return Response(answer.status, headers)
    return Response(answer.status, headers, answer.chunks())
