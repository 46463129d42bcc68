"""A request that may hold a thread for long, within the limits of all of those (`lib/crowd.py`).

A stream's bytes are sent after the handler is done: its place is given back when the stream ends, fails or is closed. Not here:
which requests these are (`lib/app.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lib.errors import Overloaded
from lib.upstream.upstream import Chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lib.crowd import Crowd, Visit
    from lib.handlers.response import Response


def visiting(
    crowd: Crowd, upstream: str, answer: Callable[[], Response], *, was_answered: Callable[[], bool]
) -> Response:
    """What `answer` gives; `was_answered` is whether the registry said anything before that failed.

    Raises Overloaded, and what `answer` raises.
    """
    visit = crowd.enter(upstream)
    streams = False
    try:
        try:
            given = answer()
        except BaseException:
            if was_answered():
                visit.answered()
            raise
        visit.answered()  # or it was in memory, or another request's answer: in any case nobody waited in vain
        if not isinstance(given.body, bytes):
            given = replace(given, body=_stream(given.body, visit))
            streams = True
        return given
    finally:
        if not streams:
            visit.leave()


def _stream(body: Iterator[bytes], visit: Visit) -> Chunks:
    """`body`, which gives the place back when it ends. Closed at once if there is no room for it."""
    close = getattr(body, "close", None)

    def end() -> None:
        try:
            if close is not None:
                close()
        finally:
            visit.leave()

    try:
        visit.stream()
    except Overloaded:
        end()
        raise
    return Chunks(body, end)
