"""The statement of a tag sighting: in-toto Statement v1 with the predicate `tag-sighting/v1`.

Normative page, with test vectors: docs/sighting-statement.md. A statement is RFC 8785 canonical JSON and a pure function of
(tag, digest): no clock, no host name, so that its bytes can be recomputed from a log entry and compared.

    {"_type":"https://in-toto.io/Statement/v1",
     "predicate":{"digest":"sha256:686d…","tag":"docker.io/library/alpine:3.16.0"},
     "predicateType":"https://tlogistry.dev/attestation/tag-sighting/v1",
     "subject":[{"digest":{"sha256":"686d…"},"name":"docker.io/library/alpine"},
                {"digest":{"sha256":"<tag key>"},"name":"docker.io/library/alpine:3.16.0"}]}

Not here: signing and envelopes (`signer.py`), and whether anybody may be believed (`verifier.py`).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import rfc8785

from lib.errors import DigestInvalid, InputInvalid, RecordInvalid
from lib.oci.digest import Digest

if TYPE_CHECKING:
    from lib.oci.reference import Tag

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://tlogistry.dev/attestation/tag-sighting/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
TAG_KEY_PREFIX = "tag-sighting/v1 "  # keeps hashes of names apart from hashes of contents
STATEMENT_MAX_BYTES = 4096  # the longest tag's statement is under 2 KiB


def tag_key(tag: Tag) -> str:
    """Lower-case hex sha256 that stands for the tag's name in subject 1 and in the log's index."""
    return hashlib.sha256((TAG_KEY_PREFIX + str(tag)).encode()).hexdigest()


def statement(tag: Tag, digest: Digest) -> bytes:
    """The exact payload bytes that say "tag pointed to digest". The digest must be sha256.

    Raises DigestInvalid for another algorithm: tags are always recorded by sha256.
    """
    if digest.algorithm != "sha256":
        msg = f"a tag is recorded by sha256, not by {digest.algorithm}"
        raise DigestInvalid(msg)
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "predicate": {"digest": str(digest), "tag": str(tag)},
            "predicateType": PREDICATE_TYPE,
            "subject": [
                {"digest": {"sha256": digest.encoded}, "name": str(tag.repository)},
                {"digest": {"sha256": tag_key(tag)}, "name": str(tag)},
            ],
        }
    )


def digest_in(payload: bytes, tag: Tag) -> Digest:
    """The digest that `payload` says of exactly `tag`.

    Nothing is picked out of the JSON and trusted: the digest found is put back into `statement` and the bytes compared, so
    that every accepted payload is the canonical statement of (tag, digest).

    Raises RecordInvalid if it is not such a statement.
    """
    if len(payload) > STATEMENT_MAX_BYTES:
        msg = f"the statement is longer than {STATEMENT_MAX_BYTES} bytes"
        raise RecordInvalid(msg)
    try:
        parsed = json.loads(payload)
        digest = Digest.parse(parsed["predicate"]["digest"])
        said = statement(tag, digest)
    except (ValueError, TypeError, KeyError, RecursionError, InputInvalid) as error:
        msg = f"not a statement of a tag sighting: {error}"
        raise RecordInvalid(msg) from error
    if said != payload:
        msg = f"not the canonical statement of {tag}"
        raise RecordInvalid(msg)
    return digest
