"""Blobs: where the upstream keeps one, or its bytes as they come (distribution-spec "Pulling blobs").

A redirect into another registry's API is followed inside, because clients cannot authenticate there; one to storage is
handed out, resolved and looked at but not fetched. What the upstream serves itself is passed through in constant
memory. A blob is never checked here: the client verifies it by its digest, and so nothing of its headers is passed on
that could matter elsewhere (no Content-Type, no cookies).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lib.errors import UpstreamUnavailable
from lib.upstream.client import anywhere, in_registry, redirect
from lib.upstream.meaning import OK, meaning, refuses_head
from lib.upstream.upstream import BlobRedirect, BlobStream, Chunks

if TYPE_CHECKING:
    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.reference import Repository
    from lib.upstream.answer import Answer
    from lib.upstream.bulkhead import Bulkhead, Place
    from lib.upstream.client import RegistryClient, Site
    from lib.upstream.limits import Limits
    from lib.upstream.transport import Method

PARTIAL = 206
NOT_SATISFIABLE = 416
PASSED_ON = ("Accept-Ranges", "ETag", "Last-Modified")
# RFC 9110, 14.1.2 and 13.1.5, and less: one range of bytes; a strong entity tag or a date.
RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})", re.ASCII)
IF_RANGE = re.compile(r'"[!#-~]{0,256}"|[A-Za-z]{3}, [A-Za-z0-9: ]{1,40}', re.ASCII)
#   Content-Range = bytes-unit SP ( range-resp / unsatisfied-range )
CONTENT_RANGE = re.compile(r"bytes (?:[0-9]{1,18}-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)", re.ASCII)
ANY = {"Accept": "*/*"}


class Blobs:
    """Part of `Registries`."""

    def __init__(self, client: RegistryClient, streams: Bulkhead, limits: Limits) -> None:
        """`streams` are the places for what is being passed through."""
        self._client = client
        self._streams = streams
        self._limits = limits

    def get(  # noqa: PLR0913 - the request's parts
        self,
        site: Site,
        repository: Repository,
        digest: Digest,
        *,
        range_: str | None,
        if_range: str | None,
        place: Place,
        deadline: Deadline,
    ) -> BlobRedirect | BlobStream:
        """`place` is released when a stream starts, which has a place of its own kind."""
        wanted = _range(range_, if_range)
        answer, location = self._ask(site, "GET", _target(repository, digest), {**ANY, **wanted}, deadline)
        if location is not None:
            return location
        if answer.status == NOT_SATISFIABLE and wanted:
            answer.discard(self._limits)
            return BlobStream(NOT_SATISFIABLE, {"Content-Length": "0", **_content_range(answer)}, _nothing())
        if answer.status != OK and not (answer.status == PARTIAL and wanted and _content_range(answer)):
            answer.discard(self._limits)
            raise meaning(answer, f"blob {digest}")
        place.release()
        try:
            stream = self._streams.enter(site.base, deadline)
        except BaseException:
            answer.close()
            raise

        def close() -> None:
            answer.close()
            stream.release()

        headers = _headers(answer, answer.length)
        if answer.status == PARTIAL:
            headers |= _content_range(answer)
        return BlobStream(answer.status, headers, Chunks(answer.stream(), close))

    def head(self, site: Site, repository: Repository, digest: Digest, deadline: Deadline) -> BlobRedirect | BlobStream:
        """By HEAD, or by a GET of one byte where that is refused. A redirect made for GET is not handed out."""
        target = _target(repository, digest)
        answer, location = self._ask(site, "HEAD", target, ANY, deadline)
        if location is not None:
            return location
        if answer.status == OK and answer.length is not None:
            return BlobStream(OK, _headers(answer, answer.length), _nothing())
        if answer.status != OK and not refuses_head(answer.status):
            raise meaning(answer, f"blob {digest}")
        first = {**ANY, "Range": "bytes=0-0"}
        answer, _ = self._client.ask(site, "GET", target, first, deadline, follow=anywhere)
        answer.close()
        if answer.status not in {OK, PARTIAL, NOT_SATISFIABLE}:
            raise meaning(answer, f"blob {digest}")
        length = answer.length if answer.status == OK else _total(answer)
        if length is None:
            msg = f"{answer.host} does not say how long blob {digest} is"
            raise UpstreamUnavailable(msg)
        return BlobStream(OK, _headers(answer, length), _nothing())

    def _ask(
        self, site: Site, method: Method, target: str, headers: dict[str, str], deadline: Deadline
    ) -> tuple[Answer, BlobRedirect | None]:
        answer, url = self._client.ask(site, method, target, headers, deadline, follow=in_registry, renews=False)
        location = redirect(answer, url, self._limits)
        if location is None:
            return answer, None
        answer.discard(self._limits)
        site.guard.check(location.origin)
        return answer, BlobRedirect(str(location))


def _target(repository: Repository, digest: Digest) -> str:
    return f"/v2/{repository.path}/blobs/{digest}"


def _range(range_: str | None, if_range: str | None) -> dict[str, str]:
    """A client's wish for a part. What we do not understand is left out: then the whole blob is the answer."""
    if range_ is None or not RANGE.fullmatch(range_):
        return {}
    if if_range is None:
        return {"Range": range_}
    return {"Range": range_, "If-Range": if_range} if IF_RANGE.fullmatch(if_range) else {}


def _headers(answer: Answer, length: int | None) -> dict[str, str]:
    headers = {name: value for name in PASSED_ON if (value := answer.header(name)) is not None}
    if length is not None:
        headers["Content-Length"] = str(length)
    return headers


def _content_range(answer: Answer) -> dict[str, str]:
    value = answer.header("Content-Range")
    return {"Content-Range": value} if value is not None and CONTENT_RANGE.fullmatch(value) else {}


def _total(answer: Answer) -> int | None:
    match = CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
    return int(match[1]) if match is not None and match[1] != "*" else None


def _nothing() -> Chunks:
    return Chunks(iter(()), lambda: None)
