"""Link: where a registry says that its list goes on (RFC 8288, section 3; distribution-spec "Listing Tags").

    Link: </v2/library/alpine/tags/list?n=2&last=3.16.0>; rel="next"

Of the address only the query is used, and only to ask the same registry for the same list again: wherever the rest of it leads,
nobody follows (CVE-2026-85732). Many registries behind proxies name a host, scheme or path that is wrong anyway.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lib.errors import ParameterInvalid
from lib.oci.query import QUERY_MAX, opaque, parse_pairs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lib.oci.query import Pairs

LINE_CHARS = 8192
NO_SIZE = ("n", "0")  # ghcr.io's for "as many as you like"; of a client it would ask for none
#   Link = #link-value        link-value = "<" URI-Reference ">" *( OWS ";" OWS [ link-param ] )
#   link-param = token BWS [ "=" BWS ( token / quoted-string ) ]
PARAMETER = re.compile(r'[ \t]*;[ \t]*([A-Za-z0-9*_.-]*)[ \t]*(?:=[ \t]*(?:"([^"\\]*)"|([^\s",;]*)))?', re.ASCII)
TARGET = re.compile(r"[ \t,]*<([^<>]*)>", re.ASCII)


def next_page(lines: Iterable[str]) -> Pairs | None:
    """The query of the next page, without `ns` and an `n` of 0; None if the list ends here.

    Raises ValueError if a link cannot be read.
    """
    for line in lines:
        for target, relations in list(_links(line)):  # all of it, before any of it is believed
            if "next" in relations:
                return _query(target)
    return None


def _links(line: str) -> Iterable[tuple[str, list[str]]]:
    if len(line) > LINE_CHARS:
        msg = "a Link that is too long"
        raise ValueError(msg)
    position = 0
    while position < len(line):
        target = TARGET.match(line, position)
        if target is None:
            if line[position:].strip(" \t,"):
                msg = "a Link that is not one"
                raise ValueError(msg)
            return
        position = target.end()
        relations: list[str] = []
        while (parameter := PARAMETER.match(line, position)) is not None:
            position = parameter.end()
            if parameter[1].lower() == "rel" and not relations:  # RFC 8288, 3.3: only the first counts
                relations = (parameter[2] if parameter[2] is not None else parameter[3] or "").lower().split()
        yield target[1], relations


def _query(target: str) -> Pairs:
    query = target.partition("#")[0].partition("?")[2]
    if len(query) > QUERY_MAX:
        msg = "a Link that is too long"
        raise ValueError(msg)
    try:
        pairs = opaque(pair for pair in parse_pairs(query) if pair[0].lower().strip() != "ns" and pair != NO_SIZE)
    except ParameterInvalid as error:
        msg = f"a Link with {error}"
        raise ValueError(msg) from error
    if not pairs:
        msg = "a Link to the page that it is on"
        raise ValueError(msg)
    return pairs
