"""Hypothesis strategies for the language of registries: canonical values, and the other spellings of the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from lib.oci.digest import Digest
from lib.oci.reference import HOST, HUB, HUB_ALIASES, NAME_MAX, PATH, TAG, Repository, Tag, canonical_registry

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

_LABELS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PORTS = st.integers(1, 65535).filter(lambda port: port != 443)
PATH_MAX = 100  # shorter than any limit, with every host that is made here


def sha256_digests() -> st.SearchStrategy[Digest]:
    return st.binary(max_size=16).map(Digest.of)


def digests() -> st.SearchStrategy[Digest]:
    return sha256_digests() | st.binary(max_size=16).map(lambda data: Digest.of(data, "sha512"))


def hosts() -> st.SearchStrategy[str]:
    """Lower-case names with at least one dot; the last label begins with a letter, so nobody reads a number."""
    label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True, alphabet=_LABELS + "-")
    last = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=6)
    named = st.builds(lambda labels, end: ".".join([*labels, end]), st.lists(label, min_size=1, max_size=4), last)
    return st.sampled_from(["localhost", "ghcr.io", "quay.io", "127.0.0.1", "10.0.0.8", "a.b"]) | named


def registries() -> st.SearchStrategy[str]:
    """Canonical: host names, with or without a port, and Docker Hub."""
    folded = hosts().map(canonical_registry)
    return st.one_of(
        st.just(HUB), folded, st.builds("{}:{}".format, hosts() | st.text(_LABELS, min_size=1), _PORTS)
    ).filter(
        lambda text: HOST.fullmatch(text) is not None and not text.partition(":")[0].isdigit() and text[:2] != "0x"
    )


def repositories() -> st.SearchStrategy[Repository]:
    """Canonical; on Docker Hub also with a first component that looks like a registry host."""
    path = st.from_regex(PATH, fullmatch=True).filter(lambda text: len(text) <= PATH_MAX)
    looks_like_a_host = st.builds("{}/{}".format, st.sampled_from(["localhost", "ghcr.io", "a.b", "library"]), path)
    return st.one_of(
        st.builds(lambda registry, path: Repository.parse(f"{registry}/{path}"), registries(), path),
        st.builds(lambda path: Repository.parse(f"{HUB}/{path}"), path | looks_like_a_host),
    )


def tag_names() -> st.SearchStrategy[str]:
    return st.from_regex(TAG, fullmatch=True)


def tags() -> st.SearchStrategy[Tag]:
    return st.builds(Tag.of, repositories(), tag_names())


@st.composite
def spellings(draw: DrawFn, repository: Repository) -> str:
    """Another way to write `repository`: case, port and dot of the host, Hub's other names, `library/` left out."""
    registry, path = repository.registry, repository.path
    if registry == HUB:
        registry = draw(st.sampled_from(sorted(HUB_ALIASES)))
        official = path.removeprefix("library/")
        if "/" not in official:
            path = draw(st.sampled_from([path, official]))
    host, colon, port = registry.partition(":")
    host = "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in host) + draw(
        st.sampled_from(["", "."])
    )
    ending = f"{colon}{port}" or draw(st.sampled_from(["", ":443"]))
    text = f"{host}{ending}/{path}"
    return draw(st.sampled_from([text, repository.familiar])) if len(text) <= NAME_MAX else text
