"""The contract of the upstream, and the values that cross it.

What an upstream says is never trusted: a `Hint` is only a hint, a manifest's digest is computed from its bytes, and a
blob is checked by the client. Not here: anything that opens a connection (`registry.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.manifest import Manifest
    from lib.oci.query import Page, Pairs
    from lib.oci.reference import Repository, Tag


@dataclass(frozen=True, slots=True)
class Hint:
    """What the headers of a HEAD claimed; None for what they did not say in a form that we use.

    `digest` is a sha256 digest, `media_type` one of the four of `lib/oci/manifest.py`, `length` above 0.
    """

    digest: Digest | None
    media_type: str | None
    length: int | None


NO_HINT = Hint(None, None, None)


@dataclass(frozen=True, slots=True)
class BlobRedirect:
    """Where the upstream keeps the blob: an absolute URL for the client, which was not fetched."""

    location: str


class Chunks:
    """The bytes of a stream. `close` works before the first chunk, too, which a generator's would not."""

    def __init__(self, chunks: Iterator[bytes], on_close: Callable[[], None]) -> None:
        """`on_close` is called when the stream ends, fails or is closed; it may be called more than once."""
        self._chunks = chunks
        self._on_close = on_close

    def __iter__(self) -> Chunks:
        """Itself."""
        return self

    def __next__(self) -> bytes:
        """The next bytes. Raises UpstreamUnavailable if the upstream breaks off: a short blob never ends well."""
        try:
            return next(self._chunks)
        except BaseException:
            self._on_close()
            raise

    def close(self) -> None:
        """Give the connection up."""
        self._on_close()


@dataclass(frozen=True, slots=True)
class BlobStream:
    """A blob, or a part of it, that the upstream serves itself.

    `status` is 200, 206, or 416 (without a body, with Content-Range). `headers` holds only what may be passed on.
    Whoever gets one must exhaust `chunks()` or call `close()`.
    """

    status: int
    headers: Mapping[str, str]
    content: Chunks

    def chunks(self) -> Chunks:
        """The one iterator over the body."""
        return self.content

    def close(self) -> None:
        """Give the connection up; may be called more than once."""
        self.content.close()


@dataclass(frozen=True, slots=True)
class TagsPage:
    """Tags in the registry's order, and the parameters of the next page, None if this is the last."""

    tags: tuple[str, ...]
    following: Pairs | None


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """An OCI index as it came, the filters that the registry says it applied, and the parameters of the next page."""

    content: bytes
    filters: str | None
    following: Pairs | None


class Upstream(Protocol):
    """The registries, by their canonical names. Safe from any thread; no content is cached.

    No call is retried, save one on a kept connection that turned out to be dead, and one that was made with an account and
    did not get what it asked for, which is then made anonymously. Every method may raise, besides what
    it says itself: NotFound (absent, the only error that means so), NotPublic, RateLimited; NameInvalid if the registry
    is a host that we do not connect to; UpstreamUnavailable, Overloaded, DeadlineExceeded if it could not tell.
    """

    def head(self, tag: Tag, deadline: Deadline) -> Hint:
        """Ask what the tag points to, in one call. An empty Hint if the registry refuses HEAD."""
        ...

    def manifest(self, repository: Repository, reference: Tag | Digest, deadline: Deadline) -> Manifest:
        """Fetch a manifest. Raises ManifestInvalid, NoManifest; UpstreamUnavailable if the bytes are not those of a Digest."""
        ...

    def blob(  # noqa: PLR0913 - the request's parts
        self,
        repository: Repository,
        digest: Digest,
        *,
        head: bool,
        range_: str | None,
        if_range: str | None,
        deadline: Deadline,
    ) -> BlobRedirect | BlobStream:
        """Find a blob. The deadline holds until the stream starts; from then on it only has to keep moving."""
        ...

    def tags(self, repository: Repository, page: Page, deadline: Deadline) -> TagsPage:
        """List a page of tags."""
        ...

    def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None, more: Pairs, deadline: Deadline
    ) -> ReferrersPage:
        """List what refers to a manifest. Raises NoReferrers if the registry has no such list."""
        ...
