"""WWW-Authenticate: the Bearer challenge of a registry (RFC 9110, 11.6.1; distribution "Token Authentication").

    Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"

There may be several challenges, in one line or in many, in any order, with parameters in any order and case. Werkzeug
parses a challenge; here a line is cut into challenges, which Werkzeug does not do. Only Bearer is for an anonymous
client: whoever offers only Basic or Negotiate is not public.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from werkzeug.datastructures import WWWAuthenticate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINE_CHARS = 8192
VALUE_CHARS = 4096
#   WWW-Authenticate = #challenge        challenge = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
#   auth-param = token BWS "=" BWS ( token / quoted-string )
ELEMENT = re.compile(r'[ \t]*((?:[^",]|"(?:[^"\\]|\\.)*")*)(?:,|$)', re.ASCII)
SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ ]+(?![ =])|[ ]*$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Challenge:
    """Where to get a token, and for what. All of it is the upstream's word: `realm` is not yet a URL."""

    realm: str
    service: str | None
    scope: str | None

    @classmethod
    def find(cls, lines: Iterable[str]) -> Challenge | None:
        """The first Bearer challenge with a realm in all header lines, or None."""
        for line in lines:
            for text in _challenges(line):
                offered = WWWAuthenticate.from_header(text)
                if offered is None or offered.type != "bearer":
                    continue
                given = {key.lower(): value for key, value in offered.parameters.items() if value}
                realm = given.get("realm")
                if realm and all(len(value) <= VALUE_CHARS for value in given.values()):
                    return cls(realm, given.get("service"), given.get("scope"))
        return None


def _challenges(line: str) -> Iterator[str]:
    """`Basic realm="a, b", Bearer realm=…,service=…` in two."""
    if len(line) > LINE_CHARS:
        return
    collected: list[str] = []
    position = 0
    while position < len(line):
        match = ELEMENT.match(line, position)
        if match is None:
            return  # a quote that never ends: what follows cannot be told apart
        position = match.end()
        element = match[1].rstrip(" \t")
        if SCHEME.match(element) and collected:
            yield ", ".join(collected)
            collected.clear()
        if element:
            collected.append(element)
    if collected:
        yield ", ".join(collected)
