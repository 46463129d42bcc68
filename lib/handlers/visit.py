"""A request that may hold a thread for long, within the limits of all of those (`lib/crowd.py`).

What is sent after the handler is done, a stream or an answer that a client may take its time to read, gives its place back when
it is sent, fails or is closed. Not here: which requests these are (`lib/app.py`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from lib.errors import Overloaded
from lib.upstream.upstream import Chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lib.crowd import Visit
    from lib.handlers.response import Response

    Aside = Callable[[], AbstractContextManager[None]]  # inside it something else than the registry is waited for

AT_ONCE = 32 * 1024  # bytes: with the smallest window seen the kernel takes 37 KiB of a client who reads nothing


def visiting(
    visit: Visit,
    answer: Callable[[Aside], Response],
    *,
    was_answered: Callable[[], bool],
    sends_to: Callable[[], str] | None,
) -> Response:
    """What `answer` gives. `was_answered` is whether the registry said anything yet.

    `sends_to` is the client's address, None if the body is not sent. Raises Overloaded, and what `answer` raises.
    """

    @contextmanager
    def aside() -> Iterator[None]:
        if was_answered():
            visit.answered()  # now: at the end of all it may look as if it had taken long
        with visit.aside():
            yield

    streams = False
    try:
        try:
            given = answer(aside)
        except BaseException:
            if was_answered():
                visit.answered()
            raise
        visit.answered()  # or it was in memory, or another request's answer: in any case nobody waited in vain
        if sends_to is not None and not (isinstance(given.body, bytes) and len(given.body) <= AT_ONCE):
            given = replace(given, body=_stream(given.body, visit, sends_to()))
            streams = True
        return given
    finally:
        if not streams:
            visit.leave()


def _stream(body: bytes | Iterator[bytes], visit: Visit, client: str) -> Chunks:
    """`body`, which gives the place back when it ends. Closed at once if there is no room for it."""
    close = getattr(body, "close", None)

    def end() -> None:
        try:
            if close is not None:
                close()
        finally:
            visit.leave()

    try:
        visit.stream(client)
    except Overloaded:
        end()
        raise
    return Chunks(iter((body,)) if isinstance(body, bytes) else body, end)
