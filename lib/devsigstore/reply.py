"""One HTTP request and its answer, as the services of the local Sigstore see them; no sockets here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

LOST = -1  # a status: the work is done, and the connection is cut instead of an answer


class Request(NamedTuple):
    """A request whose body was read; `given_up()` says whether the client has gone meanwhile."""

    method: str
    path: str
    query: str
    headers: Message
    body: bytes
    given_up: Callable[[], bool]


class Reply(NamedTuple):
    """An answer; without Content-Type if there is no body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def json(cls, status: int, value: Any, **headers: str) -> Reply:  # noqa: ANN401 - any JSON
        """As JSON, compact as the real services write it."""
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        body = text.encode(errors="replace") + b"\n"  # half a surrogate pair that a refusal repeats
        return cls(status, {"Content-Type": "application/json", **headers}, body)

    @classmethod
    def text(cls, status: int, text: str, kind: str, **headers: str) -> Reply:
        """As text of one type."""
        return cls(status, {"Content-Type": kind, **headers}, text.encode())

    @classmethod
    def empty(cls, status: int, **headers: str) -> Reply:
        """No body and so no type."""
        return cls(status, headers, b"")

    @classmethod
    def lost(cls) -> Reply:
        """No answer at all: the connection is cut."""
        return cls(LOST, {}, b"")

    def plus(self, headers: dict[str, str]) -> Reply:
        """With more headers."""
        return self._replace(headers={**headers, **self.headers})
