"""The page says what was measured, and says so plainly when a target was missed. Nothing is measured here."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.bench.latency import BY_DIGEST, FIRST_FRESH, FIRST_HELD, FLOOR, GET, HEAD, Row, percentile
from tests.bench.load import Cost, Memory
from tests.bench.picture import svg
from tests.bench.report import HELLO, IDLE, PULLING, RELAY, SERVICE, STREAMING, Results, page, targets

ONE = {"HEAD tag": 1.0}
FIRST = {"index": 1.0, "append": 1.0, "copy": 1.0}


def results(
    *,
    proxied_ms: float = 22.0,
    log_calls: dict[str, float] | None = None,
    cpu_s: float = 0.9,
    first_ms: float = 80.0,
    highest_mb: float = 100.0,
    last_mb: float = 91.0,
) -> Results:
    plain = [Row(name, (20.0,) * 9, (proxied_ms,) * 9, ONE, log_calls or {}) for name in (FLOOR, HEAD, GET, BY_DIGEST)]
    first = [Row(name, (60.0,) * 9, (first_ms,) * 9, {"GET tag": 1.0}, FIRST) for name in (FIRST_HELD, FIRST_FRESH)]
    costs = {name: [Cost(seconds, 900.0)] for name, seconds in ((HELLO, 0.3), (RELAY, 0.6), (SERVICE, cpu_s))}
    memory = {name: Memory(90.0, highest_mb, last_mb) for name in (IDLE, PULLING, STREAMING)}
    return Results("2026-01-02", "2 cores", 0.25, [*plain, *first], costs, memory, 400.0)


def missed(measured: Results) -> list[str]:
    return [target.text for target in targets(measured) if not target.met]


def test_a_run_within_every_target_is_called_met() -> None:
    assert missed(results()) == []
    assert "not met" not in page(results())


@pytest.mark.parametrize(
    ("measured", "words", "shown"),
    [
        pytest.param(results(proxied_ms=22.1), f"{HEAD}: at most 1.1 x direct", "1.105 x", id="slow"),
        pytest.param(
            results(log_calls={"index": 0.01}), f"{GET}: 1 upstream call, 0 log calls", "1 and 0.01", id="a log call"
        ),
        pytest.param(results(first_ms=90.5), f"{FIRST_FRESH}: at most 1.5 x", "1.508 x", id="slow first sighting"),
        pytest.param(results(cpu_s=1.01), "1,000 HEADs by recorded tags: at most 1.0", "1.01 s", id="much CPU"),
        pytest.param(results(highest_mb=128.5), f"memory {PULLING}: at most 128 MB", "128.5 MB", id="much memory"),
        pytest.param(
            results(last_mb=95.0), "memory streaming 1 GiB: flat", "+5.0 MB", id="a stream that leaves memory behind"
        ),
    ],
)
def test_a_missed_target_is_called_not_met_beside_its_number(measured: Results, words: str, shown: str) -> None:
    assert any(text.startswith(words) for text in missed(measured))
    line = next(line for line in page(measured).splitlines() if words in line)
    assert shown in line
    assert line.endswith("| **not met** |")


def test_every_line_of_a_table_has_the_columns_of_its_header() -> None:
    tables = [block.splitlines() for block in page(results()).split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for header, *lines in tables:
        assert {line.count("|") for line in lines} == {header.count("|")}


def test_percentiles_are_times_that_were_measured() -> None:
    times = tuple(float(number) for number in range(100, 0, -1))
    assert (percentile(times, 50), percentile(times, 95), percentile((7.0,), 95)) == (50.0, 95.0, 7.0)


def test_the_picture_is_an_image_with_two_bars_for_each_row_but_the_floors() -> None:
    rows = [row for row in results().rows if row.name != FLOOR]
    image = ET.fromstring(svg(results().rows))  # noqa: S314 - our own text
    space = "{http://www.w3.org/2000/svg}"
    assert image.tag == f"{space}svg"
    bars = [bar for bar in image.findall(f"{space}rect") if bar.get("height") == "15"]
    assert len(bars) == 2 * len(rows)
    assert float(bars[1].get("width", "0")) / float(bars[0].get("width", "1")) == pytest.approx(1.1, abs=0.01)
