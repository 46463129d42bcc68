"""`python -m tests.bench.soak --seconds 900 --out build/soak.png`: the service under everything at once, for a while.

80 clients, each of one kind: warm tags, new tags, manifests by digest, blobs, lists of tags, tags that moved, and two upstreams
that nobody can rely on: one that hangs half of the time, in turns of some seconds, and one that lies. The service is a process
of its own with as many threads as `make run` gives it; so are the local Sigstore and the registries.

It says how far it is, and at the end: answers by kind, what was unexpected by kind, p50 and p99 of warm tags while that
upstream hangs and while it does not, and whether memory and descriptors stayed flat, all of it also as a picture. Flat means:

    the median of the last third is at most RISE_MB, or RISE_DESCRIPTORS, above the median of the middle third

What is kept of manifests is filled up before the clients come, and the first third is warm-up. A run shorter than JUDGED_S does
not say. Exit code 1: not flat, an answer that nothing explains, or a service that died. How quick it was is reported and not
judged: machines are busy.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if __name__ == "__main__" and not __package__:  # as `python tests/bench/soak.py`
    sys.path.insert(0, str(Path(__file__).parents[2]))

from lib.config import SETTINGS
from lib.handlers.manifests import HELD_BYTES
from tests.bench.latency import percentile
from tests.bench.mix import KINDS, TIMEOUT_S, WARM_TAGS, Caller, Kind, Results, Sample, Seen
from tests.bench.programs import Function, Program, Sigstore
from tests.bench.registries import BIG_BYTES, NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SECONDS = 900
MOST_S = 86_400.0
THREADS = "128"  # as `make run`
RISE_MB = (
    15.0  # of a new tag 2 KiB are kept until there are 10,000, and the heap of 128 threads takes minutes to settle
)
RISE_DESCRIPTORS = 16.0
JUDGED_S = 120  # shorter, the first third is not warm
SAMPLES = 450
SAY_EVERY_S = 10.0
HANG_S = 20.0  # a turn of hanging, and then one of answering; shorter in short runs


class Service(Function):
    def __init__(self, log: Path, settings: Mapping[str, str]) -> None:
        super().__init__(log, settings)
        self._env["THREADS"] = THREADS

    def descriptors(self) -> int:
        """Of the worker, and of the master."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.pids)


class Registries(Program):
    """The process of `registries.py`."""

    def __init__(self, log: Path) -> None:
        super().__init__(["-m", "tests.bench.registries"], log, {})

    def upstreams(self) -> dict[str, str]:
        named = dict(zip(NAMES, self.printed().split()[1:], strict=True))
        return {"docker.io" if name == "good" else f"{name}.example": url for name, url in named.items()}

    def hang(self, *, on: bool) -> None:
        with closing(
            http.client.HTTPConnection(urlsplit(self.upstreams()["hanging.example"]).netloc, timeout=10)
        ) as one:
            one.request("PUT", f"/__soak__/hang/{int(on)}")
            one.getresponse().read()


# --- one run ----------------------------------------------------------------------------------------------------------


class Soak:
    """Everything that runs, from the first process to the last sample."""

    def __init__(self, stack: ExitStack, seconds: float, say: Callable[[str], None]) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlogistry-soak-")))
        (folder / "state").mkdir()
        self._registries = stack.enter_context(Registries(folder / "registries.log"))
        sigstore = stack.enter_context(Sigstore(folder / "state", folder / "sigstore.log"))
        settings = {
            **sigstore.settings(sigstore.url),
            "TLOGISTRY_UPSTREAMS": json.dumps(self._registries.upstreams()),
            **{name: "off" for name in SETTINGS if name.startswith("TLOGISTRY_NEW_TAGS_")},
        }
        self._service = stack.enter_context(Service(folder / "service.log", settings))
        self._say = say
        self._results = Results(seconds)
        self._over = threading.Event()
        self._hanging = False

    def run(self) -> Results:
        results = self._results
        tags = [
            *(f"big{number}" for number in range(HELD_BYTES // BIG_BYTES + 1)),
            *(f"w{number}" for number in range(WARM_TAGS)),
        ]
        with closing(Caller(self._service.url)) as caller:
            for tag in tags:
                caller.ask("GET", f"/v2/library/soak/manifests/{tag}")
        self._started = time.monotonic()
        clients = [
            threading.Thread(target=self._client, args=(kind, number), daemon=True)
            for kind in KINDS
            for number in range(kind.clients)
        ]
        for client in clients:
            client.start()
        try:
            self._watch()
        finally:
            self._over.set()
            self._registries.hang(on=False)
        for client in clients:
            client.join(TIMEOUT_S)
        if any(client.is_alive() for client in clients):
            results.surprise("a client that got no answer at all")
        return results

    def _at(self) -> float:
        return time.monotonic() - self._started

    def _client(self, kind: Kind, number: int) -> None:
        rng = random.Random(f"{kind.name} {number}")  # noqa: S311 - which tag is asked for next
        with closing(Caller(self._service.url)) as caller:
            while not self._over.wait(rng.uniform(0.5, 1.5) * kind.pause_s):
                at, hanging = self._at(), self._hanging
                try:
                    reply, wrong = kind.ask(caller, rng, self._results)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    self._results.surprise(f"{kind.name}: {type(error).__name__}")
                    caller.close()
                    continue
                self._results.seen.append(Seen(at, kind.name, reply.ms, hanging))
                if wrong is not None:
                    self._results.surprise(f"{kind.name}: {wrong}")

    def _watch(self) -> None:
        """Samples, turns of the hanging upstream, lines of progress."""
        results = self._results
        turn = min(HANG_S, results.seconds / 6)
        every = max(0.2, results.seconds / SAMPLES)
        said = 0.0
        while (at := self._at()) < results.seconds:
            hang = int(at / turn) % 2 == 1
            if hang != self._hanging:
                self._registries.hang(on=hang)
                self._hanging = hang
            with suppress(FileNotFoundError, ProcessLookupError):
                results.samples.append(Sample(at, self._service.memory(), self._service.descriptors(), hang))
            if len(self._service.pids) < 2:
                results.surprise("the service has no worker any more")
                return
            if at - said >= SAY_EVERY_S:
                said = at
                self._say(self._progress(at))
            time.sleep(every)

    def _progress(self, at: float) -> str:
        last = self._results.samples[-1]
        recent = tuple(one.ms for one in self._results.seen[-2000:] if one.kind == "warm tag") or (0.0,)
        return (
            f"{at:4.0f} of {self._results.seconds:.0f} s  {len(self._results.seen)} answers, "
            f"{sum(self._results.unexpected.values())} unexpected, warm tags p50 {percentile(recent, 50):.1f} ms "
            f"p99 {percentile(recent, 99):.1f} ms, {last.mb:.0f} MB, {last.descriptors} descriptors"
            f"{', an upstream hangs' if last.hanging else ''}"
        )


# --- what is said of it -----------------------------------------------------------------------------------------------


class Flat(NamedTuple):
    """The medians of the middle and the last third, and whether that is flat; None: too short to say."""

    middle: float
    last: float
    limit: float
    judged: bool

    @property
    def well(self) -> bool:
        return not self.judged or self.last - self.middle <= self.limit

    @property
    def words(self) -> str:
        if not self.judged:
            return f"not judged: shorter than {JUDGED_S} s"
        return "flat" if self.well else "NOT FLAT"


def flat(values: Sequence[tuple[float, float]], seconds: float, limit: float) -> Flat:
    """`values` are (seconds after the start, value)."""
    middle = [value for at, value in values if seconds / 3 <= at < seconds * 2 / 3] or [0.0]
    last = [value for at, value in values if at >= seconds * 2 / 3] or [0.0]
    return Flat(statistics.median(middle), statistics.median(last), limit, seconds >= JUDGED_S)


def judged(results: Results) -> tuple[Flat, Flat]:
    """Memory in MB, and descriptors."""
    memory = flat([(one.at, one.mb) for one in results.samples], results.seconds, RISE_MB)
    descriptors = flat([(one.at, one.descriptors) for one in results.samples], results.seconds, RISE_DESCRIPTORS)
    return memory, descriptors


def well(results: Results) -> bool:
    return not results.unexpected and all(one.well for one in judged(results))


def report(results: Results) -> str:
    memory, descriptors = judged(results)
    lines = [f"{len(results.seen)} answers in {results.seconds:.0f} s to {sum(kind.clients for kind in KINDS)} clients"]
    for kind in KINDS:
        times = tuple(one.ms for one in results.seen if one.kind == kind.name)
        if times:
            lines.append(
                f"  {kind.name:<18}{len(times):>8} answers   "
                f"p50 {percentile(times, 50):8.1f} ms   p99 {percentile(times, 99):8.1f} ms"
            )
    for hanging, when in ((False, "no upstream hangs"), (True, "one upstream hangs")):
        times = results.warm(hanging=hanging)
        if times:
            p50, p99 = percentile(times, 50), percentile(times, 99)
            lines.append(f"warm tags while {when}: p50 {p50:.1f} ms, p99 {p99:.1f} ms ({len(times)} answers)")
    for name, unit, one in (("memory", " MB", memory), ("descriptors", "", descriptors)):
        lines.append(
            f"{name}: median of the middle third {one.middle:.1f}{unit}, of the last {one.last:.1f}{unit}, "
            f"at most {one.limit:g}{unit} more: {one.words}"
        )
    total = sum(results.unexpected.values())
    lines.append(f"unexpected answers: {total}")
    lines.extend(f"  {count:>6}  {what}" for what, count in results.unexpected.most_common())
    lines.append("PASS" if well(results) else "FAIL")
    return "\n".join(lines)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= MOST_S:
        msg = f"must be 1 to {MOST_S:.0f}"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def main(arguments: list[str]) -> int:
    from tests.bench.plot import draw  # noqa: PLC0415 - takes a second, and what is wrong with the arguments is said before

    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.soak", description="The service under everything at once, for a while."
    )
    parser.add_argument("--seconds", type=_seconds, default=SECONDS, help=f"how long (default {SECONDS})")
    parser.add_argument("--out", type=Path, default=Path("build/soak.png"), help="the picture (default build/soak.png)")
    asked = parser.parse_args(arguments)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything that was started ends
    with ExitStack() as stack:
        results = Soak(stack, asked.seconds, say).run()
    draw(results, asked.out)
    say(report(results))
    say(f"written: {asked.out}")
    return 0 if well(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
