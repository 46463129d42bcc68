"""Log lines: one a line, whatever strangers put into them."""

from __future__ import annotations

import io
import json

from lib.telemetry import Telemetry


def test_json_is_one_object_a_line() -> None:
    stream = io.StringIO()
    Telemetry("json", stream).log("NOTICE", "moved", tag="a:1\nseverity", status=403, reason=None)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line) == {"severity": "NOTICE", "message": "moved", "tag": "a:1\nseverity", "status": 403}


def test_a_line_for_people_stays_one_line() -> None:
    stream = io.StringIO()
    Telemetry("line", stream).log("WARNING", "could not tell", tag="a:1", reason="x\ny\x1b[31m", requestId="r", ms=3.2)
    assert stream.getvalue() == "warning: could not tell  a:1  reason=x\\ny\\x1b[31m\n"


def test_a_long_value_is_cut() -> None:
    stream = io.StringIO()
    Telemetry("json", stream).log("INFO", "m", value="x" * 10_000)
    assert len(stream.getvalue()) < 2200


def test_counters_count() -> None:
    telemetry = Telemetry("json", io.StringIO())
    telemetry.count("orphan")
    telemetry.count("orphan")
    assert telemetry.counters() == {"orphan": 2}
