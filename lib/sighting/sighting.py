"""What a signed, logged claim is once it has been verified: value types only.

A `Bundle` is the text of a Sigstore bundle (v0.3 JSON), untrusted until a verifier has turned it into a `Sighting`. A
`Sighting` holds nothing that nobody signed: its log index and time come from the signed entry timestamp (Rekor v1), or from
the inclusion proof and the timestamp authority (Rekor v2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from datetime import datetime

    from lib.oci.digest import Digest
    from lib.oci.reference import Tag

Bundle = NewType("Bundle", bytes)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A verified record: tag `tag` pointed to `digest`.

    `log_index` is the entry's index over all shards, `uuid` its lower-case hex id in the log, `integrated_time` an aware UTC
    time; `bundle` is the evidence, byte for byte as stored.
    """

    tag: Tag
    digest: Digest
    log_index: int
    uuid: str
    integrated_time: datetime
    bundle: Bundle
