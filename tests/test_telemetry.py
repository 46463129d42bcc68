"""Log lines: one a line, whatever strangers put into them."""

from __future__ import annotations

import contextlib
import contextvars
import io
import json
import threading

import pytest

from lib.telemetry import Telemetry, Trace


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


def test_half_a_character_of_a_stranger_can_be_written() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    Telemetry("json", stream).log("INFO", "m", value="\ud800")
    stream.seek(0)
    assert json.loads(stream.read())["value"] == "\ud800"


NO_HEADERS: dict[str, str] = {}
CLOUD = "105445AA7843bc8bf206b12000100000"
PARENT = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"X-Cloud-Trace-Context": f"{CLOUD}/1;o=1"}, Trace(CLOUD.lower(), "0000000000000001")),
        ({"X-Cloud-Trace-Context": CLOUD}, Trace(CLOUD.lower(), None)),
        ({"X-Cloud-Trace-Context": f"{CLOUD}/0"}, Trace(CLOUD.lower(), None)),
        ({"X-Cloud-Trace-Context": f"{CLOUD}/99999999999999999999;o=0"}, Trace(CLOUD.lower(), None)),
        ({"traceparent": f"00-{PARENT}-b7ad6b7169203331-01"}, Trace(PARENT, "b7ad6b7169203331")),
        ({"X-Cloud-Trace-Context": "x", "traceparent": f"00-{PARENT}-b7ad6b7169203331-01"}, Trace(PARENT, "b7ad6b7169203331")),
        ({"X-Cloud-Trace-Context": f"{CLOUD}/../x"}, None),
        ({"X-Cloud-Trace-Context": f"{CLOUD}\n"}, None),
        ({"traceparent": "00-zz-b7ad6b7169203331-01"}, None),
        ({}, None),
    ],
    ids=repr,
)  # fmt: skip
def test_where_a_request_belongs_is_read_from_two_headers(headers: dict[str, str], trace: Trace | None) -> None:
    assert Trace.parse(headers.get) == trace


def test_lines_of_one_request_carry_its_id_and_trace() -> None:
    stream = io.StringIO()
    telemetry = Telemetry("json", stream, "my-project")
    telemetry.log("INFO", "outside")
    with telemetry.request({"X-Cloud-Trace-Context": f"{CLOUD}/1;o=1"}.get) as request:
        telemetry.log("INFO", "inside")
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(telemetry.log, "INFO", "in a thread of its own"))
        thread.start()
        thread.join()
    outside, *inside = map(json.loads, stream.getvalue().splitlines())
    assert outside.keys() == {"severity", "message"}
    assert [line["message"] for line in inside] == ["inside", "in a thread of its own"]
    for line in inside:
        assert line["requestId"] == request.id
        assert line["logging.googleapis.com/trace"] == f"projects/my-project/traces/{CLOUD.lower()}"
        assert line["logging.googleapis.com/spanId"] == "0000000000000001"


def test_stages_of_one_request_are_added_up_and_another_ones_are_not() -> None:
    telemetry = Telemetry("json", io.StringIO())
    with telemetry.request(NO_HEADERS.get) as other:
        pass
    with telemetry.request(NO_HEADERS.get) as request:
        for _ in range(2):
            with telemetry.stage("store"):
                pass
        with contextlib.suppress(ValueError), telemetry.stage("upstream"):
            raise ValueError
        telemetry.upstream_status(429)
    with telemetry.stage("store"):
        pass
    assert request.milliseconds().keys() == {"total", "store", "upstream"}
    assert (request.upstream_status, other.upstream_status) == (429, None)
    assert other.milliseconds().keys() == {"total"}
    assert request.id != other.id
