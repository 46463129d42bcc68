"""The contract of the record store. Implementations share a contract test (`tests/store/contract.py`), not code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag
    from lib.sighting.sighting import Bundle

BUNDLE_MAX_BYTES = 262_144  # ours are about 6 KiB


class RecordStore(Protocol):
    """Write-once: get and create, no update, no delete. Trusted for absence only: whatever it returns is verified.

    Atomicity: of several creates for one tag, on any number of instances, exactly one wins, and every caller is told
    the winner. Durability: when a create returns, its winner survives a crash of the process and of the host; and a
    winner that was told once is the answer from then on. Concurrency: safe from any thread and process, without a lock
    of the caller's. Retries: an implementation may repeat a create whose answer was lost, because repeating cannot make
    a second truth; the caller retries nothing: its client's next request does. Absence: None and nothing else; every
    failure, a value that cannot be read included, raises StoreUnavailable. A failed create may have happened.
    """

    def sighting(self, tag: Tag) -> Bundle | None:
        """The record's bundle, exactly as it was put; None if there is none."""

    def put_sighting(self, tag: Tag, bundle: Bundle) -> Bundle:
        """Create the record; returns the winner, which may be an earlier one."""

    def claim(self, tag: Tag) -> Digest | None:
        """The digest that is promised to be signed for `tag`; None if nobody promised."""

    def put_claim(self, tag: Tag, digest: Digest) -> tuple[Digest, bool]:
        """Create the claim; returns the winner and whether it is this call's (after a lost answer it may say False)."""
