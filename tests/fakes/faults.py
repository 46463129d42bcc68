"""What a fake server can be told to do wrong, and what it keeps of a request. Values only; `server.py` acts on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping


@dataclass(frozen=True)
class Status:
    """A bare status, with headers and a body if wanted."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Hang:
    """Takes the request and says nothing."""


@dataclass(frozen=True)
class Held:
    """Nothing before `until` is set; then the right answer, or `then`."""

    until: threading.Event
    then: Status | None = None


@dataclass(frozen=True)
class DripHead:
    """One byte of the headers each second."""


@dataclass(frozen=True)
class DripBody:
    """The right headers at once, then one byte of the body each second."""


@dataclass(frozen=True)
class EndlessBody:
    """A body that never ends: with a Content-Length of 1 TiB, chunked, or until the connection closes."""

    framing: Literal["length", "chunked", "close"] = "chunked"


@dataclass(frozen=True)
class Html:
    """200 and an outage page."""


@dataclass(frozen=True)
class DigestHeader:
    """The right answer with this Docker-Content-Digest, or without any if None."""

    value: str | None


@dataclass(frozen=True)
class Redirect:
    """To `location`, exactly as it is written here."""

    location: str
    code: int = 307


@dataclass(frozen=True)
class CutShort:
    """The right headers, half of the body, and the connection closes."""


@dataclass(frozen=True)
class Drop:
    """Closes the connection without an answer."""


@dataclass(frozen=True)
class Raw:
    """These bytes, and the connection closes, unless `keep`."""

    content: bytes
    keep: bool = False


Fault = (
    Status | Hang | Held | DripHead | DripBody | EndlessBody | Html | DigestHeader | Redirect | CutShort | Drop | Raw
)


@dataclass(frozen=True)
class Seen:
    """A request that came in. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    connection: int
