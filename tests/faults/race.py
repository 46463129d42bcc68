"""Very many ask for new tags at once, at several processes over one store, while everything goes wrong.

    race = Race(folder, Plan(requests=500, tags=50, processes=3, seed=1))
    race.run()                  # every request has been answered with 200 or 403, or this fails
    race.answers, race.refusals, race.seconds

All requests are made at the same moment: as many connections as there are requests. The upstream's tags move back and forth
between two digests. The log fails, and loses answers, at random; the seed decides what is done to the nth call about a tag. One
process is killed in the middle, and started again. A request that is answered 503, or whose connection dies, is made again
after a moment, as clients do. Of these there are not more at once than a process lets in: the others wait for their turn
here, or refusing them would be all that two cores do.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import resource
import signal
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lib.devsigstore.server import DevSigstore
from lib.oci.digest import Digest
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from tests.e2e.processes import children
from tests.fakes.registry import FakeRegistry
from tests.faults.calls import log_call
from tests.faults.gate import Gate, answers, lost, passes, truncated
from tests.faults.world import CONTENTS, logged, no_limits
from tests.framework import Function

if TYPE_CHECKING:
    from tests.faults.gate import Act, Call

REPOSITORY = "race/app"
THREADS = 16  # of each process
LANES = 12  # second tries that are under way at one process: about as many as it lets in for one registry
DEADLINE_S = 30
AGAIN_S = (0.2, 1.5)  # between two tries of one request
GIVE_UP_S = 900.0  # busy machines
KILL_AT = 0.3  # of all requests answered
DESCRIPTORS = 2000  # besides those of the clients
FAULTS: dict[str, tuple[tuple[float, Act], ...]] = {  # call -> share of the calls, and what is done to them
    "index": ((0.03, answers(500)), (0.03, lost), (0.02, answers(429)), (0.02, truncated)),
    "retrieve": ((0.05, answers(500)), (0.05, lost)),
    "append": (
        (0.06, answers(500)),
        (0.08, lost),
        (0.02, answers(429)),
        (0.03, truncated),
        (0.03, answers(201, b"<p>")),
    ),
    "copy": ((0.05, answers(500)), (0.05, lost)),
}


@dataclass(frozen=True)
class Plan:
    """How many, and the seed of everything that is random."""

    requests: int
    tags: int
    processes: int
    seed: int


class Got(NamedTuple):
    """A request's last answer. `recorded`: the digest that is served, or that a refusal names; a HEAD's refusal names none."""

    tag: str
    status: int
    recorded: str | None
    entry: str | None
    first: bool
    reason: str | None


class Race:
    """One race. What came of it is in `answers` (one for each request), `tries` (by status), `faults` and `log`."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.answers: list[Got] = []
        self.tries: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()  # that were given with a 503, to a GET
        self.log: dict[str, set[str]] = {}
        self.seconds = 0.0
        self._folder = folder
        self._store = folder / "store.sqlite"
        self._calls: Counter[tuple[str, str]] = Counter()
        self._random = random.Random(plan.seed)  # noqa: S311 - no secret
        self._enough = asyncio.Event()  # answers, for the time to have come
        self.tags = [f"v{number}" for number in range(plan.tags)]

    def run(self) -> None:
        _descriptors(self.plan.requests + DESCRIPTORS)
        with ExitStack() as stack:
            dev = stack.enter_context(DevSigstore(self._folder))
            registry = stack.enter_context(FakeRegistry())
            digests = [registry.push(REPOSITORY, None, content, OCI_MANIFEST) for content in CONTENTS]
            for number, tag in enumerate(self.tags):
                here, there = digests if number % 2 else digests[::-1]
                registry.alternate(REPOSITORY, tag, here, there, there, here)
            gate = stack.enter_context(Gate("log", dev.url, self._judge))
            functions = [
                Function(self._settings(dev, gate, registry), threads=THREADS) for _ in range(self.plan.processes)
            ]
            for function in functions:
                stack.enter_context(function)
            started = time.monotonic()
            asyncio.run(self._everybody(functions))
            self.seconds = time.monotonic() - started
        self.log = logged(self._folder, [Tag.parse(f"{REPOSITORY}:{tag}") for tag in self.tags])

    def _settings(self, dev: DevSigstore, gate: Gate, registry: FakeRegistry) -> dict[str, str]:
        settings = dev.environment()
        trust = json.loads(Path(settings["TLOGISTRY_TRUST"]).read_text())
        for one in trust["signingConfig"]["rekorTlogUrls"]:
            one["url"] = gate.url
        file = self._folder / "trust.json"
        file.write_text(json.dumps(trust))
        return {
            **settings,
            "TLOGISTRY_TRUST": str(file),
            "TLOGISTRY_STORE": f"sqlite:{self._store}",
            "TLOGISTRY_DEADLINE": str(DEADLINE_S),
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": registry.base_url}),
            **no_limits(),
        }

    def _judge(self, call: Call) -> Act:
        """The same for the nth call of a kind about a tag, whoever makes it."""
        about, kind = log_call(call)
        self._calls[about, kind] += 1
        seeded = f"{self.plan.seed} {about} {kind} {self._calls[about, kind]}".encode()
        chance = int.from_bytes(sha256(seeded).digest()[:8], "big") / (1 << 64)
        for share, act in FAULTS.get(kind, ()):
            if chance < share:
                self.faults[kind] += 1
                return act
            chance -= share
        return passes

    # Clients

    async def _everybody(self, functions: list[Function]) -> None:
        """Every tag is asked for at all processes at about the same time, and by GET and by HEAD."""
        each = self.plan.requests // self.plan.tags
        order = self._random.sample(self.tags, len(self.tags))
        lanes = [asyncio.Semaphore(LANES) for _ in functions]
        asking = []
        for number, tag in enumerate(order):
            for turn in range(each):
                at = (number + turn) % len(functions)
                method = ("GET", "HEAD")[(number + turn) % 2]
                asking.append(asyncio.ensure_future(self._until_answered(functions[at].port, lanes[at], tag, method)))
        killing = asyncio.ensure_future(self._kill(functions[-1]))
        try:
            self.answers = list(await asyncio.gather(*asking))
            await killing
        finally:
            for one in (*asking, killing):
                one.cancel()

    async def _kill(self, function: Function) -> None:
        """SIGKILL to server and worker, and the next start, at the same port."""
        await self._enough.wait()
        for pid in (function.process.pid, *children(function.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed = function.process
        killed.wait()
        await asyncio.get_running_loop().run_in_executor(None, function.__enter__)
        assert killed.stdout is not None
        killed.stdout.close()

    async def _until_answered(self, port: int, lane: asyncio.Semaphore, tag: str, method: str) -> Got:
        until = time.monotonic() + GIVE_UP_S
        got = await self._ask(port, tag, method)
        while True:
            self.tries["died" if got is None else str(got.status)] += 1
            if got is not None and got.status in {http.client.OK, http.client.FORBIDDEN}:
                if self.tries["200"] + self.tries["403"] >= KILL_AT * self.plan.requests:
                    self._enough.set()
                return got
            assert got is None or got.status == http.client.SERVICE_UNAVAILABLE, got
            self.reasons.update([got.reason] if got is not None and got.reason is not None else [])
            assert time.monotonic() < until, f"{tag} was not answered"
            await asyncio.sleep(self._random.uniform(*AGAIN_S))
            async with lane:
                got = await self._ask(port, tag, method)

    async def _ask(self, port: int, tag: str, method: str) -> Got | None:
        """None if the connection died: its process was killed, or is being started."""
        request = f"{method} /v2/{REPOSITORY}/manifests/{tag} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request.encode())
                answer = await reader.read()
            finally:
                writer.close()
        except OSError:
            return None
        return parse(tag, method, answer)


def parse(tag: str, method: str, answer: bytes) -> Got | None:
    """What an answer says. What it serves is hashed. None if it is not whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if not status or (method == "GET" and len(body) != int(headers["content-length"])):
        return None
    code = int(status.split()[1])
    recorded, reason = headers.get("docker-content-digest"), None
    if method == "GET" and code == http.client.OK:
        assert recorded == str(Digest.of(body)), "the header names other bytes"
    elif method == "GET" and code == http.client.FORBIDDEN:
        (error,) = json.loads(body)["errors"]
        recorded = error["detail"]["recorded"]
        assert error["detail"]["uuid"] == headers["tlog-uuid"]
    elif method == "GET":
        (error,) = json.loads(body)["errors"]
        reason = error["message"]
    return Got(tag, code, recorded, headers.get("tlog-uuid"), "tlog-first-seen" in headers, reason)


def _descriptors(wanted: int) -> None:
    """One for each request that is under way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        assert hard == resource.RLIM_INFINITY or hard >= wanted, (
            f"needs {wanted} open files (ulimit -n), may have {hard}"
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
