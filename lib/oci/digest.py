"""Digests: content identifiers of the OCI image-spec ("Descriptors", Digests).

    digest    ::= algorithm ":" encoded
    sha256    ::= 64 lower-case hex digits          sha512 ::= 128 lower-case hex digits

Only the two registered algorithms. Not here: which of them a tag is recorded by (`lib/sighting/statement.py`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from lib.errors import DigestInvalid

Algorithm = Literal["sha256", "sha512"]
MAX_LENGTH = len("sha512:") + 128
PATTERN = re.compile(r"sha256:([0-9a-f]{64})|sha512:([0-9a-f]{128})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Digest:
    """An algorithm and its lower-case hex value."""

    algorithm: Algorithm
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """`sha256:…` or `sha512:…`, in full. Raises DigestInvalid for everything else."""
        match = PATTERN.fullmatch(text) if len(text) <= MAX_LENGTH else None
        if match is None:
            msg = "not a digest: expected sha256: or sha512: and lower-case hex digits"
            raise DigestInvalid(msg)
        return cls("sha256", match[1]) if match[1] else cls("sha512", match[2])

    @classmethod
    def of(cls, data: bytes, algorithm: Algorithm = "sha256") -> Digest:
        """The digest of `data`."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def matches(self, data: bytes) -> bool:
        """Whether this is the digest of `data`."""
        return Digest.of(data, self.algorithm) == self

    def __str__(self) -> str:
        """`algorithm:encoded`; `parse` is its inverse."""
        return f"{self.algorithm}:{self.encoded}"
