"""Programs under test: started with a log file of their own, waited for with a deadline, ended by their own process id."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TAIL_CHARACTERS = 6000
EVERY_S = 0.02
SECRETIVE = ("proxy", "docker_", "container", "registry_", "tlogistry_", "gce_", "google_", "gunicorn", "functions_")


class StartFailed(AssertionError):
    """A program under test did not come up; the message ends with what it printed."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would make a program behave otherwise than on a fresh machine."""
    kept = {name: value for name, value in os.environ.items() if not any(word in name.lower() for word in SECRETIVE)}
    return {**kept, **more}


def run(
    command: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    cwd: Path | None = None,
    *,
    merged: bool = False,
) -> Said:
    """Run a command to its end. `merged`: all that it prints is in `out`, in the order in which a user sees it."""
    done = subprocess.run(
        [str(part) for part in command],
        env=environment() if env is None else dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        timeout=timeout,
        check=False,
    )
    return Said(done.returncode, done.stdout.decode(errors="replace"), (done.stderr or b"").decode(errors="replace"))


def wait_until(ready: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time. An OSError while asking (nobody listens yet) counts as "not yet"."""
    until = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if ready():
                return True
        if time.monotonic() > until:
            return False
        time.sleep(EVERY_S)


class Process:
    """One running program. It gets a SIGTERM when the tests themselves die, however suddenly."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.log = log
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                [*_until_we_die(), *(str(part) for part in command)],
                env=environment() if env is None else dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Raises StartFailed if the program ends, or is not ready in time."""
        if not wait_until(lambda: not self.alive() or ready(), seconds) or not self.alive():
            how = "was not ready in time" if self.alive() else f"ended with exit code {self._popen.returncode}"
            msg = f"{self.log.stem} {how}\n{self.printed()[-TAIL_CHARACTERS:]}"
            raise StartFailed(msg)

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, seconds: float) -> int:
        """The exit code; raises subprocess.TimeoutExpired."""
        return self._popen.wait(seconds)

    def end(self, seconds: float = 10) -> int:
        """SIGTERM, and SIGKILL if that is not enough. The exit code."""
        if self.alive():
            self._popen.terminate()
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()


def _until_we_die() -> tuple[str, ...]:
    return ("setpriv", "--pdeathsig", "TERM", "--") if shutil.which("setpriv") else ()


def children(pid: int) -> list[int]:
    """All descendants of a process, nearest first."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one)
    return found[1:]


def unmount_under(folder: Path) -> None:
    """Whatever an engine left mounted; the last mounted first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{folder}/"):
            run(["umount", "--lazy", point])
