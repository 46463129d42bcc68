"""Hypothesis strategies for the language of registries."""

from __future__ import annotations

from hypothesis import strategies as st

from lib.errors import NameInvalid
from lib.oci.digest import Digest
from lib.oci.reference import PATH, TAG, Repository, Tag

_ALNUM = "abcdefghijklmnopqrstuvwxyz0123456789"


def sha256_digests() -> st.SearchStrategy[Digest]:
    return st.binary(max_size=16).map(Digest.of)


def digests() -> st.SearchStrategy[Digest]:
    return st.builds(Digest.of, st.binary(max_size=16), st.sampled_from(["sha256", "sha512"]))


def registries() -> st.SearchStrategy[str]:
    """Host names as people type them: any case, dot, port."""
    label = st.text(_ALNUM, min_size=1, max_size=8).filter(lambda text: not text.isdigit())
    host = st.lists(label, min_size=2, max_size=4).map(".".join)
    return st.one_of(
        st.sampled_from(["docker.io", "index.docker.io", "registry-1.docker.io", "localhost", "localhost:5000", "GHCR.io"]),
        st.builds(lambda name, end: name + end, host, st.sampled_from(["", ".", ":443", ".:443", ":8443"])),
    ).filter(lambda text: not text.rpartition(".")[2].startswith("0x"))


def paths() -> st.SearchStrategy[str]:
    return st.from_regex(PATH, fullmatch=True).filter(lambda path: len(path) < 120)


def repositories() -> st.SearchStrategy[Repository]:
    def build(registry: str | None, path: str) -> Repository | None:
        try:
            return Repository.parse(f"{registry}/{path}" if registry else path)
        except NameInvalid:
            return None

    made = st.builds(build, st.none() | registries(), paths())
    return made.filter(lambda repository: repository is not None).map(lambda repository: repository or Repository("", ""))


def tags() -> st.SearchStrategy[Tag]:
    return st.builds(Tag.of, repositories(), st.from_regex(TAG, fullmatch=True))
