"""Recorders that are wrong in one thing each: by one step overridden, or by one collaborator that does not keep its contract.

The first four, and a store whose claims expire (`Rules.expiring`), go against the reasons that the recorder's docstring gives;
the others show that each promise of `promises.py` can be broken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.errors import LogUnavailable, RecordInvalid, StoreUnavailable
from lib.recorder import Moved, Recorder, Same
from lib.sighting.sighting import NothingFound, Record
from tests.interleavings.collaborators import DIGESTS, NUMBERS, Place, Unexplained

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag
    from lib.recorder import Verdict
    from lib.sighting.sighting import Bundle, Found, NotSearchable, Sighting, Signer, TransparencyLog
    from tests.interleavings.collaborators import Collaborators


def made(
    collaborators: Collaborators,
    kind: type[Recorder] = Recorder,
    *,
    log: TransparencyLog | None = None,
    signer: Signer | None = None,
) -> Recorder:
    """A recorder, with one thing put in place of the real one."""
    return kind(
        store=collaborators,
        log=log or collaborators,
        signer=signer or collaborators,
        verifier=collaborators,
        runtime=collaborators,
        telemetry=collaborators.telemetry,
    )


class OwnDigest:
    """Signs what its instance's request observed, not what was claimed."""

    def __init__(self, signer: Signer, observed: int) -> None:
        self._signer, self._observed = signer, DIGESTS[observed]

    def sign(
        self,
        tag: Tag,
        digest: Digest,  # noqa: ARG002 - what is wrong with it
        before_append: Callable[[], None],
        deadline: Deadline,
    ) -> Record:
        return self._signer.sign(tag, self._observed, before_append, deadline)


def own_digest(collaborators: Collaborators, observed: int) -> Recorder:
    return made(collaborators, signer=OwnDigest(collaborators, observed))


class Skipping:
    """A search that takes an error of the log for nothing found."""

    def __init__(self, log: TransparencyLog, error: type[LogUnavailable]) -> None:
        self._log, self._error = log, error

    def search(
        self, tag: Tag, candidates: tuple[Digest, ...], deadline: Deadline
    ) -> Found | NothingFound | NotSearchable:
        try:
            return self._log.search(tag, candidates, deadline)
        except self._error:
            return NothingFound()


def unexplained_entry_skipped(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, log=Skipping(collaborators, Unexplained))


class CompareBeforePut(Recorder):
    """Answers by the record in its hand, and stores it then, whoever has won."""

    def _put(self, tag: Tag, record: Record, generation: int) -> tuple[Record, bool]:
        super()._put(tag, record, generation)
        return record, True


def compare_before_put(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, CompareBeforePut)


class Answered:
    """A search that was made before."""

    def __init__(self, found: Found | NothingFound | NotSearchable) -> None:
        self._found = found

    def search(self, *_: object, **__: object) -> Found | NothingFound | NotSearchable:
        return self._found


class SearchBeforeClaim(Recorder):
    """Searches the log first, and claims then."""

    def _make(self, deadline: Deadline, tag: Tag, observed: Digest) -> tuple[Sighting, bool]:
        self._log = Answered(self._log.search(tag, (observed,), deadline))
        return super()._make(deadline, tag, observed)


def search_before_claim(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, SearchBeforeClaim)


# --- more than those five ---------------------------------------------------------------------------------------------


class NoLastLook:
    """Does not ask before it appends."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def sign(
        self,
        tag: Tag,
        digest: Digest,
        before_append: Callable[[], None],  # noqa: ARG002 - what is wrong with it
        deadline: Deadline,
    ) -> Record:
        return self._signer.sign(tag, digest, lambda: None, deadline)


def no_last_look(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, signer=NoLastLook(collaborators))


def failed_search_is_nothing_found(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, log=Skipping(collaborators, LogUnavailable))


class ClaimBlocks(Recorder):
    """Leaves somebody else's claim to whoever made it."""

    def _poll(self, deadline: Deadline, tag: Tag) -> Sighting | None:
        finished = super()._poll(deadline, tag)
        if finished is None:
            msg = "somebody else is at it"
            raise StoreUnavailable(msg)
        return finished


def claim_blocks(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, ClaimBlocks)


class ClaimIsEvidence(Recorder):
    """Takes a claim for a record."""

    def _poll(self, deadline: Deadline, tag: Tag) -> Sighting | None:  # noqa: ARG002 - as it is overridden
        claimed = self._store.claim(tag)
        return Place(0, NUMBERS[claimed]).sighting() if claimed is not None else None


def claim_is_evidence(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, ClaimIsEvidence)


class EverybodyIsFirst(Recorder):
    """Says "first seen" whenever it has signed."""

    def _put(self, tag: Tag, record: Record, generation: int) -> tuple[Record, bool]:
        winner, _ = super()._put(tag, record, generation)
        return winner, True


def everybody_is_first(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, EverybodyIsFirst)


class Unverified(Recorder):
    """Believes the store."""

    def _verified(self, tag: Tag, bundle: Bundle) -> Record:
        try:
            return super()._verified(tag, bundle)
        except RecordInvalid:
            return Place.proven_by(bundle).record()


def unverified(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, Unverified)


class MovedIsServed(Recorder):
    """Serves what the upstream has now under the record of what it had."""

    def observe(self, tag: Tag, digest: Digest, deadline: Deadline, admit: Callable[[], None] | None = None) -> Verdict:
        return Same(super().observe(tag, digest, deadline, admit).sighting, first_seen=False)


def moved_is_served(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, MovedIsServed)


class SameIsRefused(Recorder):
    """Says of every tag that it moved."""

    def observe(self, tag: Tag, digest: Digest, deadline: Deadline, admit: Callable[[], None] | None = None) -> Verdict:
        return Moved(super().observe(tag, digest, deadline, admit).sighting, digest)


def same_is_refused(collaborators: Collaborators, _observed: int) -> Recorder:
    return made(collaborators, SameIsRefused)
