"""The URLs that registries name: realms and redirects (RFC 3986, and less than it).

    https://auth.docker.io/token?account=x      ->  Url(BaseUrl("https", "auth.docker.io", 443), "/token?account=x")

Only http and https; visible ASCII without a backslash, so that no two parsers see two hosts; no userinfo; a host name
in ASCII (an internationalised one comes as `xn--`), lower-cased, its trailing dot folded; the fragment is dropped. Not
here: whether it may be asked (`guard.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urljoin

from lib.config import BaseUrl

MAX_CHARS = 8192  # a presigned storage URL has up to 4,000
DEFAULT_PORTS = {"http": 80, "https": 443}
VISIBLE = re.compile(r"[!-\[\]-~]+", re.ASCII)  # without "\", which browsers take for "/"
#   URI = scheme ":" "//" [ userinfo "@" ] host [ ":" port ] path-abempty [ "?" query ] [ "#" fragment ]
SHAPE = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://"
    r"(?P<host>[A-Za-z0-9._-]{1,254}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[1-9][0-9]{0,4})?)?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:\#.*)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Url:
    """An origin, and the request target on it."""

    origin: BaseUrl
    target: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """An absolute URL. Raises ValueError with a reason that repeats nothing of `text`."""
        match = SHAPE.fullmatch(text) if len(text) <= MAX_CHARS and VISIBLE.fullmatch(text) else None
        if match is None:
            msg = "not a plain http or https URL"
            raise ValueError(msg)
        scheme: Literal["http", "https"] = "https" if match["scheme"].lower() == "https" else "http"
        host = match["host"].lower().strip("[]").removesuffix(".")
        port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
        # an empty label ("a..") would be another spelling of a name that a list of hosts has
        if not all(host.split(".")) or port > 65535:  # noqa: PLR2004 - the last port
            msg = "not a plain http or https URL"
            raise ValueError(msg)
        return cls(BaseUrl(scheme, host, port), (match["path"] or "/") + (match["query"] or ""))

    def join(self, reference: str) -> Url:
        """What `reference`, absolute or relative, means on this page (RFC 3986, 5.2). Raises ValueError."""
        if len(reference) > MAX_CHARS or not VISIBLE.fullmatch(reference):
            msg = "not a plain http or https URL"
            raise ValueError(msg)  # before urljoin, which silently drops tabs and newlines
        return Url.parse(urljoin(str(self), reference))

    def with_query(self, pairs: list[tuple[str, str]]) -> Url:
        """The same URL with more parameters after those that it has."""
        more = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in pairs)
        separator = "&" if "?" in self.target else "?"
        return Url(self.origin, f"{self.target}{separator}{more}" if more else self.target)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def __str__(self) -> str:
        """Without the default port: what a client sends as Host is part of what presigned URLs sign."""
        return f"{self.origin.scheme}://{authority(self.origin)}{self.target}"


def authority(origin: BaseUrl) -> str:
    """`host`, or `host:port` if it is not the scheme's own: the Host header, and what messages call an upstream."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host if origin.port == DEFAULT_PORTS[origin.scheme] else f"{host}:{origin.port}"
