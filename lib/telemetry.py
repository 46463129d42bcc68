"""What the service says of itself: one line an event, on standard output; and what it gathers about a request until then.

Two forms. `json`: one object a line as Cloud Logging reads it (`severity`, `message`, `logging.googleapis.com/trace`). `line`:
one short line for people, which `make run` prints.

    {"severity": "NOTICE", "message": "first seen", "requestId": "5a…", "logging.googleapis.com/trace": "projects/p/traces/06…",
     "tag": "alpine:3.16.0", "verdict": "first seen", "status": 200, "upstreamStatus": 200,
     "ms": {"total": 212.4, "upstream": 31.2, "store": 4.0, "log": 12.9, "sign": 160.3}}

Redaction is by construction: callers pass named fields, never headers, tokens or URLs with a query. Untrusted text is a
field's value, so that it can never start a line of its own.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import getrandbits
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Severity = Literal["DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL"]
FIELD_MAX = 2000  # characters of one value; a line must stay a line
NOT_FOR_PEOPLE = frozenset({"requestId", "ms", "verdict", "upstreamStatus"})
#   X-Cloud-Trace-Context: TRACE_ID/SPAN_ID;o=OPTIONS       TRACE_ID: 32 hex digits; SPAN_ID: decimal
CLOUD_TRACE = re.compile(r"([0-9a-f]{32})(?:/([0-9]{1,20}))?(?:;o=[0-9]+)?", re.ASCII | re.IGNORECASE)
#   traceparent: version "-" trace-id "-" parent-id "-" trace-flags         (W3C Trace Context, 3.2)
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a request belongs in the platform's traces: ids in lower-case hex, of 32 and 16 digits."""

    trace_id: str
    span_id: str | None

    @classmethod
    def parse(cls, header: Callable[[str, str], str]) -> Trace | None:
        """From `X-Cloud-Trace-Context`, else from `traceparent`; None if neither says anything that we understand.

        `header(name, default)` reads one header of the request.
        """
        cloud = CLOUD_TRACE.fullmatch(header("X-Cloud-Trace-Context", ""))
        if cloud is not None:
            span = int(cloud[2]) if cloud[2] else 0
            return cls(cloud[1].lower(), f"{span:016x}" if 0 < span < 1 << 64 else None)
        parent = TRACEPARENT.fullmatch(header("traceparent", ""))
        return cls(parent[1], parent[2]) if parent is not None else None


@dataclass(slots=True)
class Request:
    """What is gathered about one request, by every thread that works for it. Times are in milliseconds."""

    trace: Trace | None
    id: str = field(default_factory=lambda: f"{getrandbits(64):016x}")  # a name, no secret
    upstream_status: int | None = None
    stages: Counter[str] = field(default_factory=Counter)  # of floats
    started: float = field(default_factory=time.perf_counter)

    def milliseconds(self) -> dict[str, float]:
        """The whole so far, and each stage's share; stages may run beside each other."""
        total = (time.perf_counter() - self.started) * 1000
        return {"total": round(total, 1), **{name: round(spent, 1) for name, spent in dict(self.stages).items()}}


_current: ContextVar[Request | None] = ContextVar("request", default=None)


class Telemetry:
    """Logs and counters. One instance a process; safe from any thread."""

    def __init__(
        self, log_format: Literal["json", "line"], stream: TextIO | None = None, project: str | None = None
    ) -> None:
        """Write to `stream`, or to standard output as it is at each call; `project` is Google Cloud's, for trace names."""
        self._format = log_format
        self._stream = stream
        self._project = project
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()

    @contextmanager
    def request(self, header: Callable[[str, str], str]) -> Iterator[Request]:
        """Everything inside, and in threads that run in a copy of its context, belongs to one request of a client."""
        request = Request(Trace.parse(header))
        token = _current.set(request)
        try:
            yield request
        finally:
            _current.reset(token)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage of the request."""
        request = _current.get()
        if request is None:
            yield
            return
        before = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                request.stages[name] += (time.perf_counter() - before) * 1000  # type: ignore[assignment]

    def upstream_status(self, status: int) -> None:
        """The last HTTP status that the registry answered this request with."""
        request = _current.get()
        if request is not None:
            request.upstream_status = status

    def log(self, severity: Severity, message: str, **fields: object) -> None:
        """One event. `message` is ours; whatever came from outside is a field."""
        if self._format == "json":
            line = {"severity": severity, "message": message, **self._of_request(), **_clipped(fields)}
            text = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()  # half a character
        else:
            text = _line(severity, message, fields)
        stream = self._stream if self._stream is not None else sys.stdout
        with self._lock:
            stream.write(text + "\n")
            stream.flush()

    def _of_request(self) -> dict[str, str]:
        request = _current.get()
        if request is None:
            return {}
        named = {"requestId": request.id}
        if request.trace is not None and self._project:
            named["logging.googleapis.com/trace"] = f"projects/{self._project}/traces/{request.trace.trace_id}"
            if request.trace.span_id is not None:
                named["logging.googleapis.com/spanId"] = request.trace.span_id
        return named

    def count(self, name: str) -> None:
        """Add one to a counter."""
        with self._lock:
            self._counters[name] += 1

    def counters(self) -> Mapping[str, int]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._counters)


def _clipped(fields: dict[str, object]) -> dict[str, object]:
    return {key: _value(value) for key, value in fields.items() if value is not None}


def _value(value: object) -> object:
    if isinstance(value, (int, float, bool)):
        return value
    if isinstance(value, dict):
        return {str(key): _value(inner) for key, inner in value.items()}
    return str(value)[:FIELD_MAX]


def _line(severity: str, message: str, fields: dict[str, object]) -> str:
    """`moved  alpine:3.16.0  status=403  reason=got …`; anything unprintable in a value is escaped."""
    shown = "  ".join(
        f"{key}={_printable(value)}" if key != "tag" else _printable(value)
        for key, value in _clipped(fields).items()
        if key not in NOT_FOR_PEOPLE
    )
    prefix = "" if severity in {"INFO", "NOTICE", "DEBUG"} else f"{severity.lower()}: "
    return f"{prefix}{message}  {shown}".rstrip()


def _printable(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
