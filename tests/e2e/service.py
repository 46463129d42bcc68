"""The service as a user starts it, and further instances beside it.

service = Service(folder, {"docker.io": registry.url})
service.start()                                     # what `make run` runs
service.get("/v2/library/alpine/manifests/3.16.0")  # an Answer
service.fault("log:before")                         # the local log fails from now on
with service.instance() as other: …                 # a second process that shares store, log and identity
service.kill()                                      # SIGKILL to every process of it
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import sqlite3
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.e2e.engines import free_port
from tests.e2e.processes import Process, StartFailed, children, environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message

ROOT = Path(__file__).parents[2]
COMMAND = ("-m", "lib", "run")  # what `make run` runs once everything is installed
START_S = 60
STOP_S = 20
ASK_S = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def digest(self) -> str | None:
        return self.headers["Docker-Content-Digest"]

    @property
    def error(self) -> dict[str, Any]:
        """The one error of a refusal."""
        (error,) = self.json()["errors"]
        assert isinstance(error, dict)
        return error


def ask(base: str, method: str, path: str, body: bytes | None = None, timeout: float = ASK_S) -> Answer:
    """One request on a connection of its own, with no more headers than curl sends."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=timeout)
    try:
        connection.request(method, path, body, {"Accept": "*/*", "User-Agent": "tests"})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Instance:
    """Anything that answers like the service."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.host = f"localhost:{port}"

    def get(self, path: str, timeout: float = ASK_S) -> Answer:
        return ask(self.url, "GET", path, timeout=timeout)

    def head(self, path: str, timeout: float = ASK_S) -> Answer:
        return ask(self.url, "HEAD", path, timeout=timeout)

    def by_tag(self, reference: str, method: str = "GET", timeout: float = ASK_S) -> Answer:
        """`my-user/my-app:v1.2.3`, asked for like a client does."""
        repository, _, tag = reference.rpartition(":")
        return ask(self.url, method, f"/v2/{repository}/manifests/{tag}", timeout=timeout)

    def live(self) -> bool:
        with suppress(http.client.HTTPException):
            return self.get("/livez", timeout=2).status == http.client.OK
        return False


class Service(Instance):
    """`python -m lib run` with a state folder of its own. It keeps port and state when it is started again."""

    def __init__(self, folder: Path, upstreams: Mapping[str, str], **settings: str) -> None:
        super().__init__(free_port())
        folder.mkdir()
        self.folder = folder
        self.state = folder / "state"
        self._settings = {"TLOGISTRY_UPSTREAMS": json.dumps(dict(upstreams)), **settings}
        self._starts = 0
        self._instances = 0
        self.process: Process | None = None

    # Life

    def start(self, **more: str) -> None:
        """Start, and wait until it answers; `more` settings are for this time only."""
        self._starts += 1
        log = self.folder / f"run-{self._starts}.log"
        settings = {**self._settings, "TLOGISTRY_STATE": str(self.state), "PORT": str(self.port), **more}
        self.process = Process([sys.executable, *COMMAND], log, environment(**settings), cwd=ROOT)
        try:
            self.process.wait_until(self.live, START_S)
        except StartFailed:
            self.kill()
            raise

    def stop(self) -> int:
        """SIGTERM, as from a service manager. The exit code."""
        assert self.process is not None
        family = children(self.process.pid)
        code = self.process.end(STOP_S)
        assert wait_until(lambda: not any(_exists(pid) for pid in family), STOP_S), "something is still running"
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL to every process, as when the machine's memory is over."""
        if self.process is None:
            return
        family = children(self.process.pid)
        for pid in (self.process.pid, *family):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)
        wait_until(lambda: not any(_exists(pid) for pid in family), STOP_S)
        self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    # What it printed and wrote

    def lines(self) -> list[str]:
        """What it has printed since it was started last."""
        return (self.folder / f"run-{self._starts}.log").read_text(errors="replace").splitlines()

    def line(self, *words: str) -> str:
        """The last line with all of these words in it."""
        found = [line for line in self.lines() if all(word in line for word in words)]
        assert found, f"no line with {words}:\n" + "\n".join(self.lines())
        return found[-1]

    @property
    def env(self) -> dict[str, str]:
        """What another instance needs to share trust, identities and metadata server."""
        lines = (self.state / "env").read_text().splitlines()
        words = [word for line in lines for word in shlex.split(line, comments=True) if "=" in word]
        return dict(word.split("=", 1) for word in words)

    @property
    def store(self) -> Path:
        return self.state / "store.sqlite"

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Look into the store, or tamper with it, as anybody with access to the file could."""
        with sqlite3.connect(self.store, timeout=10) as db:
            rows = db.execute(sql, values).fetchall()
        db.close()
        return rows

    def lose_store(self) -> None:
        for path in self.state.glob("store.sqlite*"):
            path.unlink()

    # The local Sigstore

    @property
    def dev(self) -> str:
        """The local Sigstore's URL."""
        return f"http://{self.env['GCE_METADATA_HOST']}"

    def fault(self, text: str) -> None:
        """Let the local Sigstore fail from now on; empty: work again."""
        assert ask(self.dev, "PUT", "/__dev__/fault", text.encode()).status == http.client.OK

    def calls(self) -> dict[str, int]:
        """How often each of its services was called."""
        counted = ask(self.dev, "GET", "/__dev__/calls").json()
        assert isinstance(counted, dict)
        return counted

    # Further instances

    @contextmanager
    def instance(self, **more: str) -> Iterator[Extra]:
        """The bare function server on the same store, log and identity, as a second instance in the cloud would be."""
        self._instances += 1
        port = free_port()
        settings = {**self.env, "TLOGISTRY_STORE": f"sqlite:{self.store}", "TLOGISTRY_LOG_FORMAT": "line"}
        settings |= {**self._settings, "PORT": str(port), "HOST": "127.0.0.1", "THREADS": "64", **more}
        server = Path(sys.executable).with_name("functions-framework")
        log = self.folder / f"instance-{self._instances}.log"
        process = Process([server, "--target", "tlogistry"], log, environment(**settings), cwd=ROOT)
        extra = Extra(port, process)
        try:
            process.wait_until(extra.live, START_S)
            yield extra
        finally:
            extra.kill() if extra.killed else process.end(STOP_S)


class Extra(Instance):
    """A further instance."""

    def __init__(self, port: int, process: Process) -> None:
        super().__init__(port)
        self.process = process
        self.killed = False

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        self.killed = True
        for pid in (self.process.pid, *children(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def lines(self) -> list[str]:
        return self.process.printed().splitlines()


def _exists(pid: int) -> bool:
    """Whether it runs; a zombie that its parent has not looked at yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
