"""The processes of a measurement: each server in one of its own, and what the kernel says it used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lib.devsigstore.identity import EMAIL, ISSUER
from tests.bench.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

ROOT = Path(__file__).parents[2]
THREADS = 80  # as deployed
START_S = 60.0
STOP_S = 15.0
EVERY_S = 0.02
SAMPLE_S = 0.05
TOKEN = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=sigstore&format=full"
KEPT = ("PATH", "HOME", "LANG", "TMPDIR")
TICKS = os.sysconf("SC_CLK_TCK")


class Program:
    """Runs until the block ends. Its standard input ends with us, which ends those that watch it."""

    def __init__(self, arguments: list[str], log: Path, settings: Mapping[str, str]) -> None:
        self._command = [sys.executable, *arguments]
        self._log = log
        self._env = {name: os.environ[name] for name in KEPT if name in os.environ} | dict(settings)
        self._env["PYTHONUNBUFFERED"] = "1"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + START_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > until:
                msg = f"{self._command} did not start: {self.printed()[-2000:]}"
                raise RuntimeError(msg)
            time.sleep(EVERY_S)

    def _ready(self) -> bool:
        return self.printed().startswith("ready ") and self.printed().endswith("\n")

    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def url(self) -> str:
        return self.printed().split()[1]

    @property
    def pids(self) -> list[int]:
        """The process and its children: gunicorn's master and worker."""
        own = self._process.pid
        workers = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, workers)]


class Function(Program):
    """A function under functions-framework and gunicorn, as it is deployed: one worker, THREADS threads."""

    def __init__(
        self, log: Path, settings: Mapping[str, str], source: str = "main.py", name: str = "tlogistry"
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        more = {"PORT": str(self._port), "HOST": "127.0.0.1", "THREADS": str(THREADS), "FUNCTION_TARGET": name}
        super().__init__(["-m", "functions_framework", "--source", str(ROOT / source)], log, {**settings, **more})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _ready(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            return len(self.pids) > 1
        return False

    def cpu_seconds(self) -> float:
        """User and system time of master and worker so far."""
        total = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self) -> float:
        """MB (10^6 bytes): what the worker has resident, and what the master has to itself.

        Pages that the two share count once; libraries that other programs have mapped, too, count in full, unlike in PSS.
        """
        master, *workers = self.pids
        own = _rollup(master)
        private = own["Private_Clean"] + own["Private_Dirty"]
        return (private + sum(_rollup(worker)["Rss"] for worker in workers)) * 1024 / 1e6

    @contextmanager
    def sampled(self) -> Iterator[list[float]]:
        """Memory while a block runs, every SAMPLE_S: filled when the block has ended, first and last sample included."""
        samples = [self.memory()]
        over = threading.Event()

        def sample() -> None:
            while not over.wait(SAMPLE_S):
                samples.append(self.memory())

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield samples
        finally:
            over.set()
            thread.join()
            samples.append(self.memory())


def _rollup(pid: int) -> dict[str, int]:
    """KiB by name."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


class Upstream(Program):
    """The registry of `upstream.py`."""

    def __init__(self, log: Path) -> None:
        super().__init__(["-m", "tests.bench.upstream"], log, {})

    def delay(self, ms: int) -> None:
        _once(self.url, "PUT", f"/__bench__/delay/{ms}")

    def hand_out(self, token: str) -> None:
        """Be the metadata server of the identity that `token` is for."""
        _once(self.url, "PUT", f"/__bench__/token/{token}")

    def calls(self) -> dict[str, int]:
        return _counts(_once(self.url, "GET", "/__bench__/calls"))


class Sigstore(Program):
    """The local Sigstore."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        super().__init__(["-m", "lib.devsigstore.serve", str(folder)], log, {})

    def delay(self, ms: int) -> None:
        _once(self.url, "PUT", "/__dev__/fault", f"delay:{ms}".encode() if ms else b"")

    def calls(self) -> dict[str, int]:
        return _counts(_once(self.url, "GET", "/__dev__/calls"))

    def token(self) -> str:
        """An identity token, good for an hour."""
        return _once(self.url, "GET", TOKEN, headers={"Metadata-Flavor": "Google"}).decode()

    def settings(self, upstream: str) -> dict[str, str]:
        """Of a service that signs and logs here; `upstream` is its Docker Hub and its metadata server."""
        address = upstream.removeprefix("http://")
        return {
            "TLOGISTRY_TRUST": str(self.folder / "trust-config.json"),
            "TLOGISTRY_IDENTITIES": json.dumps([{"email": EMAIL, "issuer": ISSUER}]),
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": upstream}),
            "TLOGISTRY_STORE": f"sqlite:{self.folder / 'store.sqlite'}",
            "GCE_METADATA_HOST": address,
            "GCE_METADATA_IP": address,
        }


def _once(
    url: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    with closing(Client(url)) as client:
        return client.ask(method, path, body, headers).body


def _counts(content: bytes) -> dict[str, int]:
    counted = json.loads(content)
    return {str(name): int(number) for name, number in counted.items()}
