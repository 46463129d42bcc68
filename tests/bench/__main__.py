"""`python -m tests.bench`: measures, says how far it is, writes docs/performance.md and .svg, and ends with the tables.

Takes two to four minutes. The exit code says whether it could measure, not whether the targets are met: the page does.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import load
from tests.bench.latency import DELAY_MS, RECORDED, Latencies, path, percentile
from tests.bench.picture import svg
from tests.bench.programs import ROOT, Function, Sigstore, Upstream
from tests.bench.report import HELLO, IDLE, PULLING, RELAY, SERVICE, STREAMING, Results, page, tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.latency import Row
    from tests.bench.load import Cost, Memory

ROUNDS = 5
FLOOR = "tests/bench/floor.py"
BUSY_S = 2.0
STARTED = time.monotonic()


def say(text: str) -> None:
    sys.stdout.write(f"{time.monotonic() - STARTED:4.0f} s  {text}\n")
    sys.stdout.flush()


class Bench:
    """One run, from the first process to the last number."""

    def __init__(self, stack: ExitStack) -> None:
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlogistry-bench-")))
        (self._folder / "state").mkdir()
        self._upstream = stack.enter_context(Upstream(self._folder / "upstream.log"))
        self._sigstore = stack.enter_context(Sigstore(self._folder / "state", self._folder / "sigstore.log"))
        self._upstream.hand_out(self._sigstore.token())
        self._settings = self._sigstore.settings(self._upstream.url)
        self.memory: dict[str, Memory] = {}
        self._service = self._start(stack, SERVICE, self._settings)
        relayed = {"FLOOR_UPSTREAM": self._upstream.url.removeprefix("http://")}
        self._functions = {
            HELLO: self._start(stack, HELLO, {}, FLOOR, "hello"),
            RELAY: self._start(stack, RELAY, relayed, FLOOR, "relay"),
            SERVICE: self._service,
        }

    def _start(self, stack: ExitStack, name: str, settings: dict[str, str], *more: str) -> Function:
        log = self._folder / f"{name.replace(' ', '-')}.log"
        function = stack.enter_context(Function(log, settings, *more))
        if name == SERVICE:
            load.ask_once(function, path(RECORDED))
            self.memory[IDLE] = load.Memory.of([function.memory()])
        say(f"started: {name}")
        return function

    def costs(self) -> dict[str, list[Cost]]:
        """In rounds, so that a slow minute meets all three alike."""
        load.record(self._service)
        costs: dict[str, list[Cost]] = {name: [] for name in self._functions}
        for number in range(ROUNDS):
            for name, function in self._functions.items():
                costs[name].append(load.heads(function))
            found = ", ".join(f"{name} {measured[-1].cpu_s:.2f} s" for name, measured in costs.items())
            say(f"CPU for {load.REQUESTS:,} HEADs, round {number + 1} of {ROUNDS}: {found}")
        return costs

    def load(self) -> float:
        """Memory, and MB in a second of one stream."""
        self.memory[PULLING] = load.pulls(self._service)
        say(f"memory, {PULLING}: {self.memory[PULLING].highest:.0f} MB")
        self.memory[STREAMING], mb_s = load.stream(self._service)
        say(f"memory, {STREAMING}: {self.memory[STREAMING].highest:.0f} MB")
        return mb_s

    def rows(self) -> list[Row]:
        self._upstream.delay(DELAY_MS)
        self._sigstore.delay(DELAY_MS)
        latencies = Latencies(self._upstream, self._sigstore, self._service)
        steps: list[Callable[[], Row]] = [
            lambda: latencies.floor(self._functions[RELAY]),
            latencies.head,
            latencies.get,
            latencies.by_digest,
            latencies.first_held,
            lambda: latencies.first_fresh(self._folder, self._settings),
        ]
        rows = []
        for step in steps:
            row = step()
            direct, proxied = percentile(row.direct, 50), percentile(row.proxied, 50)
            say(f"{row.name}: direct {direct:.1f} ms, proxied {proxied:.1f} ms, {row.ratio:.2f} x")
            rows.append(row)
        return rows


def machine() -> str:
    """In words."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} cores ({model}), {platform.system()}, Python {platform.python_version()}"


def busy() -> float:
    """The share of the processors that was in use while we did nothing."""

    def ticks() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    idle, total = ticks()
    time.sleep(BUSY_S)
    idle_after, total_after = ticks()
    return 1 - (idle_after - idle) / (total_after - total)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything that was started ends
    occupied = busy()
    say(f"measuring on {machine()}; other work takes {occupied:.0%} of it")
    with ExitStack() as stack:
        bench = Bench(stack)
        costs = bench.costs()
        mb_s = bench.load()
        rows = bench.rows()
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    results = Results(date, machine(), occupied, rows, costs, bench.memory, mb_s)
    (ROOT / "docs/performance.md").write_text(page(results))
    (ROOT / "docs/performance.svg").write_text(svg(rows))
    say("written: docs/performance.md, docs/performance.svg")
    sys.stdout.write(f"\n{tables(results)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
