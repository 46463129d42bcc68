"""Digests: two algorithms, one spelling."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import DigestInvalid
from lib.oci.digest import Digest
from tests.strategies import digests

HEX64, HEX128 = "0123456789abcdef" * 4, "0123456789abcdef" * 8


@given(digests())
def test_parse_and_format_are_inverse(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(st.text(max_size=200) | st.from_regex(r"sha(256|512):[0-9a-fA-F]{60,130}"))
def test_whatever_parses_has_one_spelling(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except DigestInvalid:
        return
    assert str(digest) == text


@pytest.mark.parametrize(("algorithm", "encoded"), [("sha256", HEX64), ("sha512", HEX128)])
def test_registered_algorithms(algorithm: str, encoded: str) -> None:
    digest = Digest.parse(f"{algorithm}:{encoded}")
    assert (digest.algorithm, digest.encoded) == (algorithm, encoded)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        "sha256:totallywrong",
        "sha256:baddigeststring",
        HEX64,
        f"sha256:{HEX64[:-1]}",
        f"sha256:{HEX64}0",
        f"sha256:{HEX128}",
        f"sha512:{HEX64}",
        f"sha512:{HEX128}0",
        f"sha256:{HEX64.upper()}",
        f"SHA256:{HEX64}",
        f"Sha256:{HEX64}",
        f"sha384:{HEX64}{HEX64[:32]}",
        f"md5:{HEX64[:32]}",
        f"sha256+b64:{HEX64}",
        f"sha256-{HEX64}",
        f"sha256:{HEX64}\n",
        f" sha256:{HEX64}",
        f"sha256:{HEX64} ",
        f"sha256:{HEX64[:-1]}\u0661",
        f"sha256:{HEX64[:-1]}\uff11",
        f"sha256:0x{HEX64[2:]}",
        f"sha256:{HEX64},sha512:{HEX128}",
        "sha256:" + "0" * 1_000_000,
    ],
    ids=lambda text: ascii(text[:24]) + f" of {len(text)}",
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DigestInvalid, match="not a digest"):
        Digest.parse(text)


@given(st.binary(max_size=64))
def test_it_is_the_hash_of_the_bytes(data: bytes) -> None:
    assert str(Digest.of(data)) == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert str(Digest.of(data, "sha512")) == f"sha512:{hashlib.sha512(data).hexdigest()}"


@given(digests(), st.binary(max_size=16))
def test_it_matches_its_own_bytes_only(digest: Digest, data: bytes) -> None:
    assert Digest.of(data, digest.algorithm).matches(data)
    assert not digest.matches(data + b"another")
