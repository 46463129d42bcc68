"""Clients that Debian does not have, or not new enough: built by `go install`, once, and kept outside of the tree.

    python3 -m tests.e2e.gotools                what is missing, the quickest first; each takes 1 to 10 minutes
    python3 -m tests.e2e.gotools crane oras     only these

They are in ${XDG_CACHE_HOME:-~/.cache}/tlogistry/go-tools/NAME-VERSION/. Where modules come from is the machine's own business
(`go env`); their checksums are checked as `go` does. Needs nothing but the standard library, so that `.ci/run` can start it
before anything is set up, in the background: a test waits for a build that is under way (`wait`), and starts none.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD_S = 2400  # for one tool, on a machine that does other things besides
WAIT_S = 3600  # for a build that was started by somebody else
PROGRESS_S = 20
ASK_S = 60
OLDEST_GO = (1, 26)
POLL_S = 0.5
LOG_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Tool:
    """One module at one version, and the commands in it that are wanted."""

    name: str
    version: str
    packages: tuple[str, ...]
    is_test: bool = False  # its tests are the command, of one package that is the module itself

    @property
    def folder(self) -> Path:
        return place() / f"{self.name}-{self.version}"

    @property
    def commands(self) -> tuple[str, ...]:
        return tuple(package.rpartition("/")[2] for package in self.packages)

    @property
    def built(self) -> bool:
        """A folder has this name only when everything is in it."""
        return self.folder.is_dir()

    def command(self, name: str | None = None) -> Path:
        return self.folder / (name or self.commands[0])


SUITE = "github.com/opencontainers/distribution-spec/conformance"

# The quickest first.
TOOLS = {
    tool.name: tool
    for tool in (
        Tool("regctl", "v0.11.7", ("github.com/regclient/regclient/cmd/regctl",)),
        Tool("crane", "v0.22.1", ("github.com/google/go-containerregistry/cmd/crane",)),
        Tool("oras", "v1.3.6", ("oras.land/oras/cmd/oras",)),
        # The conformance suites: of the spec's main branch, and the one that was released with 1.1.
        Tool("suite-main", "v0.0.0-20260831232431-97274622c111", (SUITE,)),
        Tool("suite-1.1", "v0.0.0-20231101194043-f2182352d4cc", (SUITE,), is_test=True),
        Tool(
            "containerd",
            "v2.4.2",
            ("github.com/containerd/containerd/v2/cmd/containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
        ),
        Tool("helm", "v4.3.1", ("helm.sh/helm/v4/cmd/helm",)),
        Tool("cosign", "v3.1.3", ("github.com/sigstore/cosign/v3/cmd/cosign",)),
    )
}


def place() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tlogistry" / "go-tools"


@cache
def go() -> bool:
    """Whether there is a Go that can build all of these; no newer one is fetched (GOTOOLCHAIN)."""
    if shutil.which("go") is None:
        return False
    said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, timeout=ASK_S, check=False).stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_GO


def missing(name: str) -> str | None:
    """A sentence that says what to do, or None once the tool is there. Waits for a build that is under way."""
    tool = TOOLS[name]
    until = time.monotonic() + WAIT_S
    while not tool.built and _is_building() and time.monotonic() < until:
        time.sleep(POLL_S)
    if tool.built:
        return None
    if not go():
        return f"{name} {tool.version} is not there, and neither is `go` 1.26 to build it with"
    return f"{name} {tool.version} is not built yet; `python3 -m tests.e2e.gotools {name}` does it, once"


def build(tool: Tool) -> float:
    """Seconds that it took. Raises CalledProcessError or TimeoutExpired; nothing half-made is left under the final name."""
    started = time.monotonic()
    unfinished = tool.folder.with_name(f".{tool.folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    log = tool.folder.with_name(f"{tool.folder.name}.log")
    # The newest toolchain that a module asks for is not fetched: this is the one that the machine has.
    env = {**os.environ, "GOBIN": str(unfinished), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    command = ["go", "install", "-v", *(f"{package}@{tool.version}" for package in tool.packages)]
    where: str | None = None
    if tool.is_test:  # `go test` takes no version, so it is started where the module is
        download = ["go", "mod", "download", "-json", f"{tool.packages[0]}@{tool.version}"]
        where = json.loads(subprocess.run(download, env=env, capture_output=True, check=True, timeout=BUILD_S).stdout)[
            "Dir"
        ]
        command = ["go", "test", "-c", "-v", "-o", str(unfinished / tool.commands[0]), "."]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=env, cwd=where, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            while True:
                try:
                    code = process.wait(PROGRESS_S)
                    break
                except subprocess.TimeoutExpired:
                    seconds = time.monotonic() - started
                    packages = log.read_bytes().count(b"\n")
                    say(f"{tool.name} {tool.version}: {seconds:.0f} s, {packages} lines of go's")
                    if seconds > BUILD_S:
                        raise
        finally:
            process.kill()
            process.wait()
    if code != 0:
        raise subprocess.CalledProcessError(code, command, log.read_text(errors="replace")[-LOG_CHARACTERS:])
    unfinished.rename(tool.folder)
    return time.monotonic() - started


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command


@contextmanager
def _building() -> Iterator[None]:
    """One at a time on one machine; the other waits."""
    place().mkdir(parents=True, exist_ok=True)
    with (place() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_building() -> bool:
    try:
        lock = (place() / "lock").open()
    except FileNotFoundError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def main(names: list[str]) -> int:
    """Build what is missing of these, or of all. What fails is said, and the others are built all the same."""
    if unknown := set(names) - set(TOOLS):
        say(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
        return 2
    if not go():
        say("there is no `go` 1.26 on the PATH: the tests that need its tools will be skipped")
        return 0
    failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and what it builds ends with it
    with _building():
        for tool in TOOLS.values():
            if tool.built or (names and tool.name not in names):
                continue
            try:
                say(f"{tool.name} {tool.version}: built in {build(tool):.0f} s")
            except (subprocess.SubprocessError, OSError) as error:
                failed += 1
                say(f"{tool.name} {tool.version}: not built: {error}\n{getattr(error, 'output', '') or ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
