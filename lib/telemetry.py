"""What the service says of itself: one line an event, on standard output.

Two forms. `json`: one object a line with `severity` and `message`, as Cloud Logging reads it. `line`: one short line for
people, which `make run` prints. Redaction is by construction: callers pass named fields, never headers, tokens or URLs with a
query. Untrusted text is a field's value, so that it can never start a line of its own.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

Severity = Literal["DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL"]
FIELD_MAX = 2000  # characters of one value; a line must stay a line


class Telemetry:
    """Logs and counters. One instance a process; safe from any thread."""

    def __init__(self, log_format: Literal["json", "line"], stream: TextIO | None = None) -> None:
        """Write to `stream`, or to standard output as it is at each call."""
        self._format = log_format
        self._stream = stream
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()

    def log(self, severity: Severity, message: str, **fields: object) -> None:
        """One event. `message` is ours; whatever came from outside is a field."""
        if self._format == "json":
            text = json.dumps({"severity": severity, "message": message, **_clipped(fields)}, ensure_ascii=False)
        else:
            text = _line(severity, message, fields)
        stream = self._stream if self._stream is not None else sys.stdout
        with self._lock:
            stream.write(text + "\n")
            stream.flush()

    def count(self, name: str) -> None:
        """Add one to a counter."""
        with self._lock:
            self._counters[name] += 1

    def counters(self) -> Mapping[str, int]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._counters)


def _clipped(fields: dict[str, object]) -> dict[str, object]:
    return {
        key: value if isinstance(value, (int, float, bool)) else str(value)[:FIELD_MAX]
        for key, value in fields.items()
        if value is not None
    }


def _line(severity: str, message: str, fields: dict[str, object]) -> str:
    """`tag blocked  alpine:3.16.0  got=sha256:…`; anything unprintable in a value is escaped."""
    shown = "  ".join(
        f"{key}={_printable(value)}" if key != "tag" else _printable(value)
        for key, value in _clipped(fields).items()
        if key not in {"requestId", "ms"}
    )
    prefix = "" if severity in {"INFO", "NOTICE", "DEBUG"} else f"{severity.lower()}: "
    return f"{prefix}{message}  {shown}".rstrip()


def _printable(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
