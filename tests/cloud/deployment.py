"""A deployment: one bundle, one database, one signing identity, and revisions of it, each a process with nothing in memory.

deployment = Deployment(folder, programs(), emulator.url, dev, {"docker.io": registry.base_url})
with deployment.revision() as one, deployment.revision(TLOGISTRY_DEADLINE="3") as other:
    one.by_tag("library/alpine:3.16.0")     # an Answer
    one.records()                           # what it has logged

The environment of a process has what Cloud Run and `terraform/main.tf` put into it, and what points it to the stand-ins.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lib.devsigstore.identity import ISSUER
from tests.cloud.bundle import TRUST, unpack
from tests.e2e.engines import free_port
from tests.e2e.processes import Process, StartFailed, children
from tests.e2e.service import Instance
from tests.firestore import new_database

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from lib.config import BaseUrl
    from lib.devsigstore.server import DevSigstore

START_S = 120  # eight at once, on two cores
STOP_S = 20
THREADS = 80  # as many as Terraform's variable `concurrency` says by itself


def identities(*emails: str) -> str:
    """The setting: all of these are accepted, the first signs."""
    return json.dumps([{"email": email, "issuer": ISSUER} for email in emails])


class Deployment:
    """Settings are those of Terraform; `settings` are more or others, for all revisions."""

    def __init__(
        self,
        folder: Path,
        programs: Path,
        emulator: BaseUrl,
        dev: DevSigstore,
        upstreams: Mapping[str, str],
        **settings: str,
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.function = folder / "function"
        self.dev = dev
        self.database = new_database()
        self._programs = programs
        self._revisions = 0
        self._settings = {
            # terraform/main.tf
            "GOOGLE_CLOUD_PROJECT": self.database.project,
            "LOG_EXECUTION_ID": "false",
            "MALLOC_ARENA_MAX": "2",
            "THREADS": str(THREADS),
            "TLOGISTRY_DEADLINE": "30",
            "TLOGISTRY_LOG_SEARCH": "on",
            "TLOGISTRY_STORE": f"firestore:{self.database}",
            # the stand-ins
            **dev.environment(),
            "FIRESTORE_EMULATOR_HOST": f"{emulator.host}:{emulator.port}",
            "TLOGISTRY_UPSTREAMS": json.dumps(dict(upstreams)),
            **settings,
        }
        unpack(self.function, Path(dev.environment()["TLOGISTRY_TRUST"]))
        self._settings["TLOGISTRY_TRUST"] = TRUST  # as Terraform has it: relative to main.py

    def revision(self, **more: str) -> Revision:
        """A process that is not started yet; `more` are settings of its own."""
        self._revisions += 1
        name = f"tlogistry-{self._revisions:05}-abc"
        return Revision(name, self.folder, self._programs, {**self._settings, **more})


class Revision(Instance):
    """One process, or one after the other: it keeps its port."""

    def __init__(self, name: str, folder: Path, programs: Path, settings: Mapping[str, str]) -> None:
        super().__init__(free_port())
        home = folder / name
        home.mkdir()
        self.name = name
        self.log = folder / f"{name}.log"
        self._function = folder / "function"
        self._command: list[str | Path] = [programs / "functions-framework", "--target", "tlogistry"]
        self._env = {
            "PATH": f"{programs}{os.pathsep}{os.defpath}",
            "HOME": str(home),
            "HOST": "127.0.0.1",
            # Cloud Run, and the buildpack
            "PORT": str(self.port),
            "K_SERVICE": "tlogistry",
            "K_CONFIGURATION": "tlogistry",
            "K_REVISION": name,
            "FUNCTION_TARGET": "tlogistry",
            "FUNCTION_SIGNATURE_TYPE": "http",
            **settings,
        }
        self.process: Process | None = None

    def begin(self) -> None:
        """Start, and do not wait."""
        self.process = Process(self._command, self.log, self._env, cwd=self._function)

    def ready(self) -> None:
        """Wait until it answers."""
        assert self.process is not None
        try:
            self.process.wait_until(self.live, START_S)
        except StartFailed:
            self.kill()
            raise

    def stop(self) -> None:
        """SIGTERM, as from Cloud Run."""
        assert self.process is not None
        self.process.end(STOP_S)
        self.process = None

    def kill(self) -> None:
        """SIGKILL to it and its worker."""
        if self.process is None:
            return
        for pid in (self.process.pid, *children(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self.process = None

    def restart(self) -> None:
        """A new process, with nothing in memory."""
        self.stop()
        self.begin()
        self.ready()

    def __enter__(self) -> Self:
        self.begin()
        self.ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.stop()

    def text(self) -> str:
        """All that it has printed, standard error included."""
        return self.log.read_text(errors="replace")

    def records(self) -> list[dict[str, Any]]:
        """Every line that it has printed, each an object of JSON."""
        found = [json.loads(line) for line in self.text().splitlines()]
        assert all(isinstance(one, dict) for one in found)
        return found

    def about(self, tag: str) -> list[dict[str, Any]]:
        """The lines about one tag, in its familiar form."""
        return [one for one in self.records() if one.get("tag") == tag]
