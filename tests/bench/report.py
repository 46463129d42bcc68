"""The page, the tables on it, and whether what was to be reached was reached. Pure: measurements in, text out."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.latency import (
    DELAY_MS,
    FIRST_FRESH,
    FIRST_HELD,
    FLOOR,
    FRESH_TURNS,
    GET,
    HEAD,
    WARM_S,
    Row,
    percentile,
)
from tests.bench.load import CLIENTS, PULLS, REQUESTS, Cost, Memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECORDED_MAX = 1.1  # times the direct request
FIRST_MAX = 1.5  # times its own calls
CPU_MAX_S = 1.0
MEMORY_MAX_MB = 128.0
FLAT_MB = 4.0  # how much a stream of 1 GiB may leave behind: a few buffers
HELLO, RELAY, SERVICE = "nothing but an answer", "one upstream call, no check", "tlogistry"
IDLE, PULLING, STREAMING = "after its first request", f"{PULLS} pulls at once", "streaming 1 GiB"
WORDS = {"index": "search"}


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was measured. `costs` and `memory` are keyed by the names above."""

    date: str
    machine: str
    busy: float  # share of the processors that other work took before it began, 0 to 1
    rows: Sequence[Row]
    costs: Mapping[str, Sequence[Cost]]
    memory: Mapping[str, Memory]
    stream_mb_s: float

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def cpu_s(self, name: str) -> float:
        return median(cost.cpu_s for cost in self.costs[name])


@dataclass(frozen=True, slots=True)
class Target:
    """Something to reach."""

    text: str
    measured: str
    met: bool


def targets(results: Results) -> list[Target]:
    """In the order of the tables."""
    found = []
    for name in (HEAD, GET):
        row = results.row(name)
        ratio = f"{row.ratio:.3f} x"
        found.append(Target(f"{name}: at most {RECORDED_MAX} x direct", ratio, row.ratio <= RECORDED_MAX))
        upstream, log = sum(row.upstream_calls.values()), sum(row.log_calls.values())
        calls = f"{upstream:g} and {log:g}"
        found.append(Target(f"{name}: 1 upstream call, 0 log calls", calls, (upstream, log) == (1, 0)))
    for name in (FIRST_HELD, FIRST_FRESH):
        row = results.row(name)
        text = f"{name}: at most {FIRST_MAX} x its own calls one after the other"
        found.append(Target(text, f"{row.ratio:.3f} x", row.ratio <= FIRST_MAX))
    held = results.row(FIRST_HELD).log_calls.get("certificate", 0)
    found.append(Target(f"{FIRST_HELD}: no call for a certificate", f"{held:g}", held == 0))
    cpu_s, floor_s = results.cpu_s(SERVICE), results.cpu_s(HELLO)
    found.append(
        Target(
            f"{REQUESTS:,} HEADs by recorded tags: at most {CPU_MAX_S:.1f} CPU seconds",
            f"{cpu_s:.2f} s, {cpu_s / floor_s:.1f} x {HELLO}",
            cpu_s <= CPU_MAX_S,
        )
    )
    for name, memory in results.memory.items():
        met = memory.highest <= MEMORY_MAX_MB
        found.append(Target(f"memory {name}: at most {MEMORY_MAX_MB:.0f} MB", f"{memory.highest:.1f} MB", met))
    grown = results.memory[STREAMING].last - results.memory[STREAMING].first
    text = f"memory {STREAMING}: flat, at most {FLAT_MB:.0f} MB more at its end"
    found.append(Target(text, f"{grown:+.1f} MB", grown <= FLAT_MB))
    return found


def tables(results: Results) -> str:
    """The four tables, with a heading each."""
    times = [
        (
            row.name,
            *(f"{percentile(part, percent):.1f}" for part in (row.direct, row.proxied) for percent in (50, 95)),
            f"{row.ratio:.2f}",
            _calls(row.upstream_calls),
            _calls(row.log_calls),
        )
        for row in results.rows
    ]
    costs = [
        (
            name,
            f"{results.cpu_s(name):.2f}",
            f"{min(cost.cpu_s for cost in measured):.2f} to {max(cost.cpu_s for cost in measured):.2f}",
            f"{results.cpu_s(name) / results.cpu_s(HELLO):.1f}",
            f"{median(cost.per_s for cost in measured):.0f}",
        )
        for name, measured in results.costs.items()
    ]
    memory = [
        (name, *(f"{mb:.0f}" for mb in (found.first, found.highest, found.last)))
        for name, found in results.memory.items()
    ]
    reached = [(target.text, target.measured, "met" if target.met else "**not met**") for target in targets(results)]
    heads = f"CPU s for {REQUESTS:,}"
    return "\n".join(
        (
            f"## One request, {DELAY_MS} ms for each call\n",
            "Milliseconds. Calls are those of one request through tlogistry; the others go to log, CA and metadata server.\n",
            _table(
                ("request", "direct p50", "p95", "proxied p50", "p95", "ratio of p50", "upstream calls", "other calls"),
                times,
            ),
            f"\n## Many requests, no delay: HEAD by recorded tags, {CLIENTS} clients\n",
            _table(("function", heads, "lowest to highest", "times the first line", "requests/s"), costs),
            "\n## Memory, MB\n",
            _table(("when", "first sample", "highest", "last"), memory),
            f"\nThe 1 GiB went through at {results.stream_mb_s:.0f} MB/s, its digest checked by the client.",
            "\n## What was to be reached\n",
            _table(("to reach", "measured", ""), reached),
        )
    )


def _calls(calls: Mapping[str, float]) -> str:
    return ", ".join(f"{number:g} {WORDS.get(kind, kind)}" for kind, number in sorted(calls.items())) or "0"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (header, rule, *lines)
    )


def _floor(results: Results) -> str:
    def more(name: str) -> float:
        row = results.row(name)
        return percentile(row.proxied, 50) - percentile(row.direct, 50)

    return f"it takes {more(FLOOR):.1f} ms longer than a direct request, and tlogistry's HEAD {more(HEAD):.1f} ms."


def page(results: Results) -> str:
    """docs/performance.md."""
    return f"""# What a pull costs

Written by `make bench` on {results.date}; change the measurement (`tests/bench/`), not this page.
On {results.machine}. Before it began, other work took {results.busy:.0%} of the processors.

![Direct and through tlogistry, side by side](performance.svg)

The service ran under functions-framework and gunicorn as it is deployed, with the SQLite store, the local Sigstore and a
registry in processes of their own on loopback, without TLS. Direct and proxied requests took turns in the same run, with the
same client. A first sighting has no direct counterpart: beside it stands the sum of its own calls, made one after the other
by a client of their own (manifest, search and append; for a new instance also identity token and certificate), without any
verification. `copy` is the readable copy, which goes out beside the append. The metadata server is on an instance's own host,
so its answers are not delayed. A new instance's first sighting is asked for {WARM_S:g} s after the instance has answered
`/livez`, and nothing else; {FRESH_TURNS} of them were started, one after the other.

{tables(results)}

The first line of the first table is a proxy under the same framework that asks the upstream once and checks nothing:
{_floor(results)}

CPU seconds are those of master and worker together, the median of {len(results.costs[SERVICE])} rounds. The first two lines
are the least that any function under this framework costs, measured in the same run: a machine that is slow or busy shows
there, too. The {CLIENTS} clients, the registry and the service shared the machine's processors, so requests/s is a floor, not
a capacity.

Memory is what the worker has resident and what the master has to itself; pages that both share count once. MB is 10^6 bytes.
"""
