"""What a signed, logged claim is, and the three boundaries around it: value types and Protocols only.

A `Bundle` is the text of a Sigstore bundle (v0.3 JSON), untrusted until a `Verifier` has turned it into a `Sighting`. A
`Sighting` holds nothing that nobody signed: its log index and time come from the signed entry timestamp (Rekor v1), or from
the inclusion proof and the timestamp authority (Rekor v2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag

Bundle = NewType("Bundle", bytes)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A verified claim: `tag` pointed to `digest` (sha256).

    `log_index` is the entry's index over all shards, `uuid` its lower-case hex id in the log (Rekor v1: 16 digits of tree id
    and 64 of leaf hash; v2: the leaf hash), `integrated_time` an aware UTC time.
    """

    tag: Tag
    digest: Digest
    log_index: int
    uuid: str
    integrated_time: datetime


@dataclass(frozen=True, slots=True)
class Record:
    """A sighting with its evidence, byte for byte as it is stored and served."""

    sighting: Sighting
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Found:
    """The log's earliest sighting of ours that explains itself."""

    record: Record


@dataclass(frozen=True, slots=True)
class NothingFound:
    """The log named no entry of ours. Its index may be incomplete: this is not "never seen"."""


@dataclass(frozen=True, slots=True)
class NotSearchable:
    """The log cannot be searched, or the operator switched the search off."""


class Verifier(Protocol):
    """Turns evidence into a sighting, or refuses it. Pure computation but for one bounded refresh of the trust root."""

    def verify(self, bundle: Bundle, tag: Tag) -> Sighting:
        """The sighting that `bundle` proves about exactly `tag`; raises RecordInvalid, naming the check that failed."""

    def generation(self) -> int:
        """Grows whenever the trust root is replaced: what was verified before is verified again."""


class TransparencyLog(Protocol):
    """The log, read side. The caller retries; nothing here is cached."""

    def search(
        self, tag: Tag, candidates: tuple[Digest, ...], deadline: Deadline
    ) -> Found | NothingFound | NotSearchable:
        """The log's digest for `tag`. `candidates` are digests that may explain entries whose payload the log keeps back.

        Raises LogUnavailable if the log fails, does not verify, or holds an entry of ours that nothing explains.
        """


class Signer(Protocol):
    """Signs a statement keylessly and appends it to the log. Never retries an append: the caller leads afresh."""

    def sign(self, tag: Tag, digest: Digest, before_append: Callable[[], None], deadline: Deadline) -> Record:
        """The verified record of "tag pointed to digest".

        `before_append` is called last before the entry is sent and may refuse by raising. An append that was sent may
        outlive `deadline`. Raises SignerUnavailable, LogUnavailable, RecordInvalid (an orphan: logged, but not verifiable).
        """
