"""Queries: the parameters of a request (distribution-spec "Registry Proxying", "Listing Tags", "Listing Referrers").

    ?ns=ghcr.io                     which registry is meant, as containerd says it to a mirror
    ?n=100&last=3.16.0              a page of tags
    ?artifactType=application/spdx+json
    ?next_page=eyJ…                 whatever a registry puts into the `Link` of a next page

Strict where a parameter means something: a second reading of it would be another answer. Not here: which endpoint takes which
(`endpoint.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from lib.errors import NameInvalid, ParameterInvalid
from lib.oci.reference import canonical_registry

if TYPE_CHECKING:
    from collections.abc import Iterable

Pairs = tuple[tuple[str, str], ...]

QUERY_MAX = 4096  # characters, as sent
PAGE_MAX = 1000  # Amazon's registries refuse more (GGCR#1091); CVE-2023-2253: a huge `n` must cost nobody memory
COUNT = re.compile(r"0|[1-9][0-9]*", re.ASCII)
# RFC 6838, 4.2: type-name "/" subtype-name, each a restricted-name of at most 127
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
# What registries put into their next page's address: the names and values of parameters that only they understand
KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
VALUE = re.compile(r"[ -~]{0,2048}", re.ASCII)
PLACE = re.compile(r"[A-Za-z0-9+/=_.:~-]{1,2048}", re.ASCII)  # where a list goes on: a tag, a digest, or Amazon's token
OPAQUE_MAX = 8


@dataclass(frozen=True, slots=True)
class Query:
    """All parameters in their order; `namespace` is the canonical registry of `ns`, None if there is none."""

    pairs: Pairs
    namespace: str | None

    @classmethod
    def parse(cls, text: str, own: Iterable[str] = ()) -> Query:
        """`own` are our own hosts: a client that names one of them means no registry. Raises NameInvalid, ParameterInvalid."""
        pairs = parse_pairs(text)
        for key, _ in pairs:
            if key != "ns" and key.strip().lower() == "ns":
                msg = "a spelling of ns that is not allowed"
                raise NameInvalid(msg)
        named = [value for key, value in pairs if key == "ns"]
        if len(named) > 1:
            msg = "ns is there twice"
            raise NameInvalid(msg)
        registry = canonical_registry(named[0]) if named else None
        return cls(pairs, None if registry in set(own) else registry)

    def one(self, key: str) -> str | None:
        """The value of a parameter, None if it is absent or empty. Raises ParameterInvalid if it is there twice."""
        values = [value for name, value in self.pairs if name == key]
        if len(values) > 1:
            msg = f"{key} is there twice"
            raise ParameterInvalid(msg)
        return values[0] or None if values else None

    def opaque(self, *known: str) -> Pairs:
        """All others than `ns` and the `known` ones, as a registry put them into a next page's address.

        Raises ParameterInvalid if they cannot be that.
        """
        return opaque(pair for pair in self.pairs if pair[0] not in {"ns", *known})


NO_QUERY = Query((), None)


@dataclass(frozen=True, slots=True)
class Page:
    """Which page of a list: at most `n` after `last`, both None if not said, and what only the registry understands."""

    n: int | None
    last: str | None
    more: Pairs

    @classmethod
    def parse(cls, query: Query) -> Page:
        """`n` is clamped to `PAGE_MAX`. Raises ParameterInvalid."""
        n, last = query.one("n"), query.one("last")
        if n is None and any(key == "n" for key, _ in query.pairs):
            n = ""
        if n is not None and COUNT.fullmatch(n) is None:
            msg = "n is not a number"
            raise ParameterInvalid(msg)
        if last is not None and PLACE.fullmatch(last) is None:
            msg = "last is no place in a list"
            raise ParameterInvalid(msg)
        return cls(min(int(n), PAGE_MAX) if n is not None else None, last, query.opaque("n", "last"))


def artifact_type(query: Query) -> str | None:
    """The media type to filter referrers by, None if any will do. Raises ParameterInvalid."""
    value = query.one("artifactType")
    if value is not None and MEDIA_TYPE.fullmatch(value) is None:
        msg = "artifactType is not a media type"
        raise ParameterInvalid(msg)
    return value


def opaque(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Raises ParameterInvalid unless these can be handed to a registry as they are."""
    found = tuple(pairs)
    if len(found) > OPAQUE_MAX or not all(KEY.fullmatch(key) and VALUE.fullmatch(value) for key, value in found):
        msg = "parameters that no registry has"
        raise ParameterInvalid(msg)
    return found


def parse_pairs(text: str) -> Pairs:
    """A query string as it was sent. Raises ParameterInvalid."""
    if len(text) > QUERY_MAX or not text.isascii():
        msg = "the query is too long, or not ASCII"
        raise ParameterInvalid(msg)
    try:
        return tuple(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=64))
    except ValueError as error:
        msg = "the query cannot be read"
        raise ParameterInvalid(msg) from error


def text(pairs: Iterable[tuple[str, str]]) -> str:
    """As they are sent; `parse_pairs` is its inverse."""
    return urlencode(list(pairs))
