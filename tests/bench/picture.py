"""The picture of the page: for each kind of request a bar for direct and one for proxied, as long as its p50. SVG 1.1."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tests.bench.latency import DELAY_MS, FLOOR, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.latency import Row

WIDTH = 820
LEFT = 260  # where bars begin
RIGHT = 210  # left free for the numbers
BAR = 15
ROW = 50
TOP = 76
DIRECT, PROXIED, INK = "#9aa5b1", "#2563eb", "#1f2933"


def svg(rows: Sequence[Row]) -> str:
    """All rows but that of the floor, one scale."""
    rows = [row for row in rows if row.name != FLOOR]
    longest = max(percentile(times, 50) for row in rows for times in (row.direct, row.proxied))
    scale = (WIDTH - LEFT - RIGHT) / longest
    height = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" role="img">',
        "<title>Milliseconds for one request, directly and through tlogistry</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 26, f"Milliseconds for one request, each call to upstream and log delayed by {DELAY_MS} ms", 15),
        f'<rect x="16" y="42" width="12" height="12" fill="{DIRECT}"/>',
        _text(34, 53, "direct; for a first sighting its own calls one after the other"),
        f'<rect x="{WIDTH - 330}" y="42" width="12" height="12" fill="{PROXIED}"/>',
        _text(WIDTH - 312, 53, "through tlogistry"),
        _text(WIDTH - 16, 53, "ratio", anchor="end"),
    ]
    for number, row in enumerate(rows):
        y = TOP + ROW * number
        parts.append(_text(LEFT - 12, y + BAR + 5, row.name, anchor="end"))
        for offset, times, colour in ((0, row.direct, DIRECT), (BAR + 3, row.proxied, PROXIED)):
            parts.extend(_bar(y + offset, times, colour, scale))
        parts.append(_text(WIDTH - 16, y + BAR + 5, f"{row.ratio:.2f} x", anchor="end"))
    return "\n".join((*parts, "</svg>", ""))


def _bar(y: int, times: tuple[float, ...], colour: str, scale: float) -> list[str]:
    p50, p95 = (percentile(times, percent) for percent in (50, 95))
    return [
        f'<rect x="{LEFT}" y="{y}" width="{p50 * scale:.1f}" height="{BAR}" fill="{colour}"/>',
        _text(round(LEFT + p50 * scale) + 6, y + BAR - 3, f"{p50:.1f} (p95 {p95:.1f})"),
    ]


def _text(x: int, y: int, text: str, size: int = 13, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{INK}" text-anchor="{anchor}">{escape(text)}</text>'
