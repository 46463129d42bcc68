"""Around the parts of the service: how long each stage of a request takes, and what is made only when it is needed.

`upstream` the registries, `store` what we remember, `log` the search, `sign` certificate and append. They appear as
milliseconds in a request's log line (`lib/telemetry.py`). Only `lib/app.py` knows that these are between its parts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.manifest import Manifest
    from lib.oci.query import Page, Pairs
    from lib.oci.reference import Repository, Tag
    from lib.sighting.sighting import Bundle, Found, NothingFound, NotSearchable, Record, Signer, TransparencyLog
    from lib.store.store import RecordStore
    from lib.telemetry import Telemetry
    from lib.upstream.upstream import BlobRedirect, BlobStream, Hint, ReferrersPage, TagsPage, Upstream

T_co = TypeVar("T_co", covariant=True)


class TimedStore:
    """A RecordStore."""

    def __init__(self, store: RecordStore, telemetry: Telemetry) -> None:
        """Hand everything on to `store`."""
        self._store = store
        self._telemetry = telemetry

    def sighting(self, tag: Tag) -> Bundle | None:
        """See RecordStore."""
        with self._telemetry.stage("store"):
            return self._store.sighting(tag)

    def put_sighting(self, tag: Tag, bundle: Bundle) -> Bundle:
        """See RecordStore."""
        with self._telemetry.stage("store"):
            return self._store.put_sighting(tag, bundle)

    def claim(self, tag: Tag) -> Digest | None:
        """See RecordStore."""
        with self._telemetry.stage("store"):
            return self._store.claim(tag)

    def put_claim(self, tag: Tag, digest: Digest) -> tuple[Digest, bool]:
        """See RecordStore."""
        with self._telemetry.stage("store"):
            return self._store.put_claim(tag, digest)


class TimedLog:
    """A TransparencyLog."""

    def __init__(self, log: TransparencyLog, telemetry: Telemetry) -> None:
        """Hand everything on to `log`."""
        self._log = log
        self._telemetry = telemetry

    def search(
        self, tag: Tag, candidates: tuple[Digest, ...], deadline: Deadline
    ) -> Found | NothingFound | NotSearchable:
        """See TransparencyLog."""
        with self._telemetry.stage("log"):
            return self._log.search(tag, candidates, deadline)


class OnFirstUse(Generic[T_co]):
    """Something that is made, and whose modules are imported, when it is asked for first. Safe from any thread."""

    def __init__(self, make: Callable[[], T_co]) -> None:
        """`make` is called once, unless it raises."""
        self._make = make
        self._made: T_co | None = None
        self._lock = threading.Lock()

    def make(self) -> None:
        """Make it now, if it is not made. Raises what `make` raises."""
        self.get()

    def get(self) -> T_co:
        """It. Raises what `make` raises."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make()
        return self._made


class TimedSigner:
    """A Signer, made when the first sighting needs it: a start that only checks does not wait for that."""

    def __init__(self, signer: OnFirstUse[Signer], telemetry: Telemetry) -> None:
        """Hand everything on to `signer`."""
        self._signer = signer
        self._telemetry = telemetry

    def sign(self, tag: Tag, digest: Digest, before_append: Callable[[], None], deadline: Deadline) -> Record:
        """See Signer."""
        with self._telemetry.stage("sign"):
            return self._signer.get().sign(tag, digest, before_append, deadline)


class TimedUpstream:
    """An Upstream."""

    def __init__(self, upstream: Upstream, telemetry: Telemetry) -> None:
        """Hand everything on to `upstream`."""
        self._upstream = upstream
        self._telemetry = telemetry

    def head(self, tag: Tag, deadline: Deadline) -> Hint:
        """See Upstream."""
        with self._telemetry.stage("upstream"):
            return self._upstream.head(tag, deadline)

    def manifest(self, repository: Repository, reference: Tag | Digest, deadline: Deadline) -> Manifest:
        """See Upstream."""
        with self._telemetry.stage("upstream"):
            return self._upstream.manifest(repository, reference, deadline)

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
        """See Upstream. A stream's own time is not in it."""
        with self._telemetry.stage("upstream"):
            return self._upstream.blob(
                repository, digest, head=head, range_=range_, if_range=if_range, deadline=deadline
            )

    def tags(self, repository: Repository, page: Page, deadline: Deadline) -> TagsPage:
        """See Upstream."""
        with self._telemetry.stage("upstream"):
            return self._upstream.tags(repository, page, deadline)

    def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None, more: Pairs, deadline: Deadline
    ) -> ReferrersPage:
        """See Upstream."""
        with self._telemetry.stage("upstream"):
            return self._upstream.referrers(repository, digest, artifact_type, more, deadline)
