"""An HTTP/1.1 answer: its head as http.client reads it, its body as RFC 9112 frames it.

The body is read here, because http.client is lenient where an upstream may be hostile: it takes a chunk of size -1 for
"read everything", ends quietly where a body is cut short, and lets the first of two lengths win.
"""

from __future__ import annotations

import io
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from lib.deadline import Deadline
from lib.errors import TlogistryError, Unavailable, UpstreamUnavailable
from lib.upstream.large import LARGE_BYTES, PARSED_BYTES, PARSING, READING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.client import HTTPResponse

    from lib.upstream.connection import TimedReader
    from lib.upstream.limits import Limits

T = TypeVar("T")

CHUNK_BYTES = 64 * 1024
# Each chunk costs us microseconds whatever it holds. Servers send 512 bytes and more; some flush a small one now and then.
SMALL_CHUNKS = 4096
CHUNK_MEAN_BYTES = 256  # of all chunks beyond those
LINE_BYTES = 1024  # of a chunk's size line, or of a trailer
TRAILERS = 32
LENGTH = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
#   chunk-size [ chunk-ext ] CRLF          chunk-size ::= 1*HEXDIG
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
PRINTABLE = re.compile(r"[\t -~]*", re.ASCII)
FIRST_FINAL = 200  # below are interim answers, which nobody asked for
BODILESS = frozenset({204, 304})


class TooLong(UpstreamUnavailable):
    """The body is longer than it may be."""


class Answer:
    """Status, headers, and a body that must be used once: by `read`, `parsed`, `chunks`, `stream`, `discard` or `close`."""

    def __init__(  # noqa: PLR0913 - made in one place, `Transport`
        self,
        response: HTTPResponse,
        raw: TimedReader,
        source: io.BufferedReader,
        *,
        host: str,
        head: bool,
        done: Callable[[bool], None],
    ) -> None:
        """`done(keep)` takes the connection back. Raises UpstreamUnavailable if the head is malformed."""
        self.status = response.status
        self.host = host
        self._response = response  # its finaliser closes `source`, so it must live as long as we do
        self._raw = raw
        self._source = source
        self._done: Callable[[bool], None] | None = done
        self._keep = not response.will_close
        self._chunked, self.length = self._framing()
        if head or self.status in BODILESS:
            self._finish(keep=self._keep)

    def _framing(self) -> tuple[bool, int | None]:
        """Chunked or not, and the length if known (RFC 9112, 6.3). Strict: two readings of it would be two answers."""
        headers = self._response.headers
        coding = [value.lower() for value in headers.get_all("Transfer-Encoding", [])]
        lengths = set(headers.get_all("Content-Length", []))
        well_formed = (
            self.status >= FIRST_FINAL
            and not headers.defects
            and coding in ([], ["chunked"])
            and len(lengths) <= (0 if coding else 1)
            and all(LENGTH.fullmatch(length) for length in lengths)
        )
        if not well_formed:
            msg = f"the answer of {self.host} is not valid HTTP"
            raise UpstreamUnavailable(msg)
        if any(value.lower() != "identity" for value in headers.get_all("Content-Encoding", [])):
            msg = f"the answer of {self.host} is compressed, which was not asked for"
            raise UpstreamUnavailable(msg)
        return bool(coding), int(lengths.pop()) if lengths else None

    def header(self, name: str) -> str | None:
        """The value, of several joined as RFC 9110 5.3 says; None if absent, or if it cannot be passed on as it is."""
        values = self._response.headers.get_all(name, [])
        value = ", ".join(values)
        return value if values and PRINTABLE.fullmatch(value) else None

    def header_lines(self, name: str) -> list[str]:
        """Each line of a header that may come several times."""
        return [value for value in self._response.headers.get_all(name, []) if PRINTABLE.fullmatch(value)]

    def read(self, max_bytes: int) -> bytes:
        """The whole body. Raises TooLong, UpstreamUnavailable if it is cut short, DeadlineExceeded."""
        return self._whole(max_bytes, lambda: None)

    def parsed(self, max_bytes: int, deadline: Deadline, parse: Callable[[bytes], T]) -> T:
        """What `parse` makes of the whole body; if that is large, when its turn has come (`large.py`).

        Raises as `read` and `parse` do, and Overloaded.
        """
        with ExitStack() as places:
            content = self._whole(max_bytes, lambda: places.enter_context(READING.enter(self.host, deadline)))
            if len(content) > PARSED_BYTES:
                places.enter_context(PARSING.enter(self.host, deadline))
            try:
                return parse(content)
            except TlogistryError as error:
                failed = error.again()  # a traceback would keep the document, and others are let in now
            del content
        raise failed

    def _whole(self, max_bytes: int, grows: Callable[[], None]) -> bytes:
        """`grows` is called once if there are more than LARGE_BYTES."""
        if self.length is not None and self.length > max_bytes:
            self.close()
            raise self._too_long(max_bytes)
        content = io.BytesIO()  # gives its bytes away without a copy
        try:
            small = True
            for chunk in self.chunks():
                size = content.tell() + len(chunk)
                if size > max_bytes:
                    raise self._too_long(max_bytes)
                if small and size > LARGE_BYTES:
                    small = False
                    grows()
                content.write(chunk)
            return content.getvalue()
        finally:
            content.close()
            self.close()

    def stream(self) -> Iterator[bytes]:
        """The body without the deadline of the request, which may be shorter than a layer takes; see `TimedReader`."""
        self._raw.stream()
        return self.chunks()

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces as they come. Raises UpstreamUnavailable if it is cut short, DeadlineExceeded."""
        if self._done is None:
            return
        keep = False
        try:
            if self._chunked:
                yield from self._chunked_body()
            elif self.length is not None:
                yield from self._exactly(self.length)
            else:
                while piece := self._source.read1(CHUNK_BYTES):
                    yield piece
            keep = self._keep and (self._chunked or self.length is not None)
        finally:
            self._finish(keep=keep)

    def _exactly(self, count: int) -> Iterator[bytes]:
        left = count
        while left > 0:
            piece = self._source.read1(min(left, CHUNK_BYTES))
            if not piece:
                raise self._cut_short()
            left -= len(piece)
            yield piece

    def _chunked_body(self) -> Iterator[bytes]:
        chunks = content = 0
        while True:
            match = CHUNK_SIZE.fullmatch(self._source.readline(LINE_BYTES))
            if match is None:
                raise self._cut_short()
            size = int(match[1], 16)
            if size == 0:
                break
            chunks, content = chunks + 1, content + size
            if chunks > SMALL_CHUNKS + content // CHUNK_MEAN_BYTES:
                msg = f"{self.host} sends its answer in too many small chunks"
                raise UpstreamUnavailable(msg)
            yield from self._exactly(size)
            if self._source.readline(LINE_BYTES) != b"\r\n":
                raise self._cut_short()
        for _ in range(TRAILERS):
            if self._source.readline(LINE_BYTES) == b"\r\n":
                return
        raise self._cut_short()

    def discard(self, limits: Limits) -> None:
        """Done with the body: its connection is kept if the rest is short and there soon."""
        if self._done is None:
            return
        if not self._keep:
            self.close()
            return
        self._raw.shorten(Deadline.after(limits.drain_s, self._raw.clock))
        try:
            self.read(limits.drain_bytes)
        except Unavailable:
            self.close()

    def close(self) -> None:
        """Give the connection up, unless the body has been read; may be called more than once."""
        self._finish(keep=False)

    def _finish(self, *, keep: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._raw.ended = True
            done(keep and not self._source.peek(1))  # bytes beyond the end would be taken for the next answer

    def _too_long(self, max_bytes: int) -> TooLong:
        return TooLong(f"the answer of {self.host} is longer than {max_bytes} bytes")

    def _cut_short(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(f"the answer of {self.host} is malformed or was cut short")
