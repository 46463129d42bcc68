"""Manifests: by digest passed through, by tag only together with what was recorded.

A request by tag asks two questions: what does the upstream serve, and what have we said about it? HEAD takes the same road as
GET, because Docker, containerd and BuildKit resolve by HEAD. A tag that is recorded costs the upstream one call:

    HEAD, or GET with the recorded bytes at hand:   HEAD upstream; its digest header is only a hint
        the hint is the record                          answer with the record's digest (a client verifies what it GETs)
        other bytes that it showed us lately            the tag has moved
        anything else                                   fall through: the bytes decide
    everything else:                                GET upstream, hash, observe

A tag that is being recorded by another request is waited for first, and then is a recorded one. A manifest by digest that we
hold costs the upstream nothing, for as long as it showed it to us lately. Not here: the algorithm of the record
(`lib/recorder.py`).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from contextlib import nullcontext
from typing import TYPE_CHECKING

from lib.handlers.response import IMMUTABLE, NO_STORE, Response, manifest_headers, moved, sighting_headers
from lib.oci.digest import Digest
from lib.recorder import Moved, Same

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.deadline import Deadline
    from lib.handlers.visit import Aside
    from lib.oci.manifest import Manifest
    from lib.oci.reference import Repository, Tag
    from lib.recorder import Recorder
    from lib.sighting.sighting import Sighting
    from lib.upstream.upstream import Upstream

HELD_BYTES = 16 * 1024 * 1024  # manifests kept in memory, by repository and digest; most are under 10 KiB
SHOWN_S = 300.0  # how long a repository may have turned private before a digest of it is no longer served


class HeldManifests:
    """Manifests that we fetched and hashed, kept for answers about the same repository. Bounded, oldest out first.

    Each with when the upstream last showed it to us, or said that a tag points to it, in monotonic seconds.
    """

    def __init__(self, max_bytes: int = HELD_BYTES) -> None:
        """`max_bytes` bounds the sum of the contents."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[tuple[Repository, Digest], tuple[Manifest, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, repository: Repository, digest: Digest, since: float = -math.inf) -> Manifest | None:
        """The manifest, if it is held for this very repository, because another one's must not leak, and was shown `since`."""
        with self._lock:
            manifest, shown = self._held.get((repository, digest), (None, 0.0))
            if manifest is None or shown < since:
                return None
            self._held.move_to_end((repository, digest))
            return manifest

    def put(self, repository: Repository, manifest: Manifest, now: float) -> None:
        """Keep it, at the cost of the oldest."""
        with self._lock:
            key = (repository, manifest.digest)
            if key not in self._held:
                self._bytes += len(manifest.content)
            self._held[key] = manifest, now
            self._held.move_to_end(key)
            while self._bytes > self._max_bytes:
                _, (dropped, _) = self._held.popitem(last=False)
                self._bytes -= len(dropped.content)


class Manifests:
    """The handler of `/v2/<name>/manifests/<reference>`."""

    def __init__(self, upstream: Upstream, recorder: Recorder) -> None:
        """Both are shared by all requests."""
        self._upstream = upstream
        self._recorder = recorder
        self._held = HeldManifests()

    def handle(  # noqa: PLR0913 - the request's parts
        self,
        repository: Repository,
        reference: Tag | Digest,
        *,
        head: bool,
        host: str,
        deadline: Deadline,
        aside: Aside = nullcontext,
        admit: Callable[[Tag], None] | None = None,
    ) -> Response:
        """`host` is how the client addressed us, for the command in a refusal.

        Inside `aside` the recorder is waited for, and not the registry. `admit` is asked before a tag is recorded, once the
        upstream has served it, and may raise. Raises TlogistryError.
        """
        if isinstance(reference, Digest):
            return self._by_digest(repository, reference, deadline)
        if reference.moves_by_design:
            manifest = self._upstream.manifest(repository, reference, deadline)
            return _answer(manifest, {"Cache-Control": NO_STORE}, verdict="passed through")
        return self._by_tag(
            reference,
            head=head,
            host=host,
            deadline=deadline,
            aside=aside,
            admit=(lambda: admit(reference)) if admit else None,
        )

    def _by_digest(self, repository: Repository, digest: Digest, deadline: Deadline) -> Response:
        now = deadline.clock()
        manifest = self._held.get(repository, digest, since=now - SHOWN_S)
        if manifest is None:
            manifest = self._upstream.manifest(repository, digest, deadline)
            self._held.put(repository, manifest, now)
        return _answer(manifest, {"Cache-Control": IMMUTABLE})

    def _by_tag(  # noqa: PLR0913 - the request's parts
        self,
        tag: Tag,
        *,
        head: bool,
        host: str,
        deadline: Deadline,
        aside: Aside,
        admit: Callable[[], None] | None,
    ) -> Response:
        known = self._recorder.recall(tag)
        if known is None:
            with aside():
                known = self._recorder.awaited(tag, deadline)
        if known is not None:
            answer = self._by_hint(tag, known, head=head, host=host, deadline=deadline)
            if answer is not None:
                return answer
        manifest = self._upstream.manifest(tag.repository, tag, deadline)
        # Before it is recorded: those who wait for that need the manifest at once.
        self._held.put(tag.repository, manifest, deadline.clock())
        with aside():
            verdict = self._recorder.observe(tag, manifest.digest, deadline, admit)
        match verdict:
            case Moved():
                return moved(verdict, host)
            case Same(sighting, first_seen):
                headers = {**sighting_headers(sighting, first_seen=first_seen), "Cache-Control": NO_STORE}
                return _answer(manifest, headers, verdict="first seen" if first_seen else "same")

    def _by_hint(self, tag: Tag, known: Sighting, *, head: bool, host: str, deadline: Deadline) -> Response | None:
        """The answer that a HEAD upstream is enough for, or None: fetch and hash."""
        held = self._held.get(tag.repository, known.digest)
        if held is None and not head:
            return None
        hint = self._upstream.head(tag, deadline)
        if hint.digest != known.digest:
            now = deadline.clock()
            offered = self._held.get(tag.repository, hint.digest, since=now - SHOWN_S) if hint.digest else None
            if offered is None:
                return None
            self._held.put(tag.repository, offered, now)
            return moved(Moved(known, offered.digest), host)
        headers = {**sighting_headers(known, first_seen=False), "Cache-Control": NO_STORE}
        if held is not None:
            self._held.put(tag.repository, held, deadline.clock())
            return _answer(held, headers, verdict="same")
        if hint.media_type is None or hint.length is None:
            return None
        return Response(
            200, {**manifest_headers(hint.media_type, hint.length, known.digest), **headers}, verdict="same"
        )


def _answer(manifest: Manifest, headers: dict[str, str], verdict: str | None = None) -> Response:
    base = manifest_headers(manifest.media_type, len(manifest.content), manifest.digest)
    return Response(200, {**base, **headers}, manifest.content, verdict)
