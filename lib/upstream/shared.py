"""Around the registries: what many ask for at once is asked for once, and what is not there is not asked for again at once.

    head, manifest      concurrent requests for one reference become one call (`flight.py`); tokens do so in `token.py`
    NotFound, NotPublic kept for `Limits.absent_s` seconds, save for tags that tools write just before they read them
    no hint             where a HEAD says no digest, or another one than that of the bytes that the GET after it gets, the
                        repository is not asked by HEAD for a while

Rate limits are the reason: Docker Hub counts an address's pulls, and everybody behind this service has the same one. An answer
that others are given may have been asked for a moment before they came. Not here: manifests that are kept (`lib/handlers/`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib.errors import NotFound, NotPublic, UpstreamAnswer
from lib.oci.reference import Tag
from lib.upstream.flight import Flights
from lib.upstream.limits import Limits
from lib.upstream.upstream import NO_HINT, Hint

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.manifest import Manifest
    from lib.oci.query import Page, Pairs
    from lib.oci.reference import Repository
    from lib.upstream.upstream import BlobRedirect, BlobStream, ReferrersPage, TagsPage, Upstream


class SharedUpstream:
    """An Upstream. Safe from any thread."""

    def __init__(self, upstream: Upstream, limits: Limits | None = None) -> None:
        """`upstream` is asked."""
        limits = limits if limits is not None else Limits()
        self._upstream = upstream
        self._heads = Flights[Hint](limits)
        self._manifests = Flights["Manifest"](limits)
        self._absent = Absent(limits)
        self._headless = Headless(limits)

    def head(self, tag: Tag, deadline: Deadline) -> Hint:
        """See Upstream."""
        self._absent.check(tag.repository, tag, deadline)
        if self._headless.knows(tag.repository, deadline):
            return NO_HINT

        def ask() -> Hint:
            with self._absent.noting(tag.repository, tag, deadline):
                hint = self._upstream.head(tag, deadline)
            self._headless.said(tag, hint.digest)
            return hint

        return self._heads.share(tag, ask, deadline)

    def manifest(self, repository: Repository, reference: Tag | Digest, deadline: Deadline) -> Manifest:
        """See Upstream."""
        self._absent.check(repository, reference, deadline)

        def ask() -> Manifest:
            with self._absent.noting(repository, reference, deadline):
                manifest = self._upstream.manifest(repository, reference, deadline)
            self._headless.served(repository, reference, manifest.digest, deadline)
            return manifest

        return self._manifests.share((repository, reference), ask, deadline)

    def blob(  # noqa: PLR0913 - the contract's
        self,
        repository: Repository,
        digest: Digest,
        *,
        head: bool,
        range_: str | None,
        if_range: str | None,
        deadline: Deadline,
    ) -> BlobRedirect | BlobStream:
        """See Upstream. Never shared: an address may be signed for one client, and a stream has one reader."""
        return self._upstream.blob(repository, digest, head=head, range_=range_, if_range=if_range, deadline=deadline)

    def tags(self, repository: Repository, page: Page, deadline: Deadline) -> TagsPage:
        """See Upstream. Never shared."""
        return self._upstream.tags(repository, page, deadline)

    def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None, more: Pairs, deadline: Deadline
    ) -> ReferrersPage:
        """See Upstream. Never shared: a signature that was just pushed must be seen."""
        return self._upstream.referrers(repository, digest, artifact_type, more, deadline)


class Absent:
    """What an upstream said is not there, for some seconds. Bounded; safe from any thread."""

    def __init__(self, limits: Limits) -> None:
        """`limits` says how many, and how long."""
        self._limits = limits
        self._lock = threading.Lock()
        self._said: OrderedDict[Hashable, tuple[UpstreamAnswer, float]] = OrderedDict()

    def check(self, repository: Repository, reference: Tag | Digest, deadline: Deadline) -> None:
        """Raise NotFound or NotPublic again, if the upstream said so a moment ago."""
        with self._lock:
            said = self._said.get((repository, reference))
        if said is not None and deadline.clock() < said[1]:
            raise said[0].again()

    @contextmanager
    def noting(self, repository: Repository, reference: Tag | Digest, deadline: Deadline) -> Iterator[None]:
        """Note what the call inside raises. Tags that tools rewrite are read right after they were written."""
        try:
            yield
        except (NotFound, NotPublic) as error:
            if not isinstance(reference, Tag) or not reference.moves_by_design:
                self._note((repository, reference), error, deadline.clock() + self._limits.absent_s)
            raise

    def _note(self, key: Hashable, error: UpstreamAnswer, until: float) -> None:
        with self._lock:
            self._said[key] = (error.again(), until)
            self._said.move_to_end(key)
            while len(self._said) > self._limits.absent:
                self._said.popitem(last=False)


class Headless:
    """Repositories whose HEAD is no help although a GET works, for some minutes. Bounded; safe from any thread.

    A refused HEAD alone says nothing: registries answer so for what is not there, and for what is not public.
    """

    def __init__(self, limits: Limits) -> None:
        """`limits` says how many, and how long."""
        self._limits = limits
        self._lock = threading.Lock()
        self._until: OrderedDict[Repository, float] = OrderedDict()  # 0.0: only suspected
        self._claims: OrderedDict[Tag, Digest] = OrderedDict()

    def knows(self, repository: Repository, deadline: Deadline) -> bool:
        """Whether a HEAD there was of no help lately."""
        with self._lock:
            return deadline.clock() < self._until.get(repository, 0.0)

    def said(self, tag: Tag, digest: Digest | None) -> None:
        """What a HEAD said that the tag points to; None: nothing."""
        with self._lock:
            if digest is None:
                self._until[tag.repository] = 0.0
            else:
                self._claims[tag] = digest
                self._claims.move_to_end(tag)
            for memory in (self._until, self._claims):
                while len(memory) > self._limits.absent:
                    memory.popitem(last=False)

    def served(self, repository: Repository, reference: Tag | Digest, digest: Digest, deadline: Deadline) -> None:
        """A GET there gave a manifest with this digest."""
        with self._lock:
            claimed = self._claims.pop(reference, digest) if isinstance(reference, Tag) else digest
            if claimed != digest or self._until.get(repository) == 0.0:
                self._until[repository] = deadline.clock() + self._limits.headless_s
