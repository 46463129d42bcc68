"""`python -m tests.bench.cold_start`: from the start of a process to its first answer, beside a hello-world in the same run.

The answer of tlogistry is that of a recorded tag: so the store is read and the record verified, with nothing in memory. On one
machine with warm disk caches; a container that is pulled and started adds its own to both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from tests.bench.client import Client
from tests.bench.latency import path
from tests.bench.programs import Function, Sigstore, Upstream

TURNS = 9
WANTED = 2.0  # times hello-world
TAG = path("recorded")


def first_answer(function: Function, asked: str) -> float:
    """Seconds from the start of the process to the end of its first answer."""
    before = time.perf_counter()
    with function, closing(Client(function.url)) as client:
        client.ask("HEAD", asked)
        return time.perf_counter() - before


def measure(folder: Path, turns: int = TURNS) -> tuple[list[float], list[float]]:
    """Hello-world's seconds and tlogistry's, one after the other in each turn."""
    state = folder / "state"
    state.mkdir()
    hello: list[float] = []
    ours: list[float] = []
    with Upstream(folder / "upstream.log") as upstream, Sigstore(state, folder / "sigstore.log") as sigstore:
        upstream.hand_out(sigstore.token())
        settings = sigstore.settings(upstream.url)
        first_answer(Function(folder / "first.log", settings), TAG)  # records the tag, and compiles what is imported
        for turn in range(turns):
            hello.append(first_answer(Function(folder / f"hello-{turn}.log", {}, "tests/bench/floor.py", "hello"), "/"))
            ours.append(first_answer(Function(folder / f"ours-{turn}.log", settings), TAG))
    return hello, ours


def main() -> int:
    """Print a table; the exit code says whether it could measure."""
    with tempfile.TemporaryDirectory() as folder:
        hello, ours = measure(Path(folder))
    ratio = median(ours) / median(hello)
    for name, seconds in (("hello-world", hello), ("tlogistry, a recorded tag", ours)):
        sys.stdout.write(
            f"{name:26} {median(seconds):.2f} s   lowest {min(seconds):.2f}, highest {max(seconds):.2f} ({TURNS} starts)\n"
        )
    sys.stdout.write(f"{ratio:.2f} x hello-world; to reach: {WANTED:g} x: {'met' if ratio <= WANTED else 'NOT met'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
