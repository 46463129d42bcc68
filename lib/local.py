"""The local start, NOT FOR PRODUCTION: the service and a local Sigstore on loopback, as one thing that starts and stops.

    Local.from_env      port, state folder and settings, all problems at once; standard library only, because it is asked
                        before anything is installed
    run                 starts both halves, says what it is, and ends both when one ends or a signal comes

Three processes: this one; the local Sigstore (`lib/devsigstore/serve.py`); the service, functions-framework as in the
cloud. Each half has a session of its own, so that Ctrl-C is ours alone to hand on. A fourth, a shell that only waits, holds
a pipe from us: should we be killed, it kills both halves.

We bind the port, because a taken one costs functions-framework five seconds and a traceback, and hand it over as systemd
would: on descriptor 3, with LISTEN_FDS and LISTEN_PID. The service gets an environment that we list, not the shell's:
DEBUG would start a debugger, proxies would catch the metadata server's calls, Google credentials would sign.

With TLOGISTRY_TRUST set there is no local Sigstore: the service uses what that names, and the shell's GCE_METADATA_HOST.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from lib.config import Config
from lib.devsigstore.faults import USER_FAULTS
from lib.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    _Half = subprocess.Popen[str]

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
PORT = 8080
STATE = ".tlogistry"
THREADS = "128"  # more than may wait for one upstream and for the log together, so that the rest goes on
ARENAS = "2"  # of glibc's malloc, as terraform/ has it: else each thread keeps the memory of its largest document
BACKLOG = 512
START_S = 60.0  # seconds; the first start after an installation compiles every module
READY_EVERY_S = 0.05
STOP_S = 5.0  # seconds that requests under way may take to end
STARTED_BY_US = ("GCE_METADATA_HOST", "GCE_METADATA_IP")
PASSED_ON = re.compile(
    r"PATH|HOME|LANG|LC_[A-Z]+|TMPDIR|TZ|SSL_CERT_(FILE|DIR)|XDG_(DATA|CACHE)_HOME|TLOGISTRY_[A-Z_]+"
)
STAND_IN = '{"trustedRoot": {}, "signingConfig": {}}'  # for the local trust configuration, which is not there yet


@dataclass(frozen=True, slots=True)
class Local:
    """A local start that can go ahead: its port is bound, its state folder is locked."""

    state: Path
    listener: socket.socket
    lock: int
    settings: Mapping[str, str]
    own_log: bool
    search: bool

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Local:
        """PORT, TLOGISTRY_STATE, TLOGISTRY_DEV_FAULT and the service's own settings. Raises ConfigInvalid."""
        problems: list[str] = []
        state = Path(env.get("TLOGISTRY_STATE") or STATE)
        own_log = not env.get("TLOGISTRY_TRUST")
        settings = {name: value for name, value in env.items() if PASSED_ON.fullmatch(name) and value}
        settings.setdefault("TLOGISTRY_STORE", f"sqlite:{(state / 'store.sqlite').absolute()}")
        settings.setdefault("TLOGISTRY_LOG_FORMAT", "line")
        settings["THREADS"] = env.get("THREADS") or THREADS
        settings["MALLOC_ARENA_MAX"] = ARENAS
        if not own_log:
            settings.update({name: env[name] for name in STARTED_BY_US if env.get(name)})
        search = _check_settings(settings, problems, own_log=own_log)
        _check_fault(env.get("TLOGISTRY_DEV_FAULT", ""), problems, own_log=own_log)
        lock = _lock(state, problems)
        listener = _listen(env.get("PORT", ""), problems)
        if problems or lock is None or listener is None:
            if lock is not None:
                os.close(lock)
            if listener is not None:
                listener.close()
            raise ConfigInvalid(tuple(problems))
        return cls(state, listener, lock, settings, own_log, search)

    @property
    def port(self) -> int:
        """Where we listen."""
        return int(self.listener.getsockname()[1])

    def close(self) -> None:
        """Let port and folder go."""
        self.listener.close()
        os.close(self.lock)


def _check_settings(settings: Mapping[str, str], problems: list[str], *, own_log: bool) -> bool:
    """What the service will say of its settings, before there is a local trust configuration; whether the log is searched."""
    checked = dict(settings)
    with tempfile.NamedTemporaryFile("w", prefix="tlogistry-", suffix=".json") as stand_in:
        if own_log:
            stand_in.write(STAND_IN)
            stand_in.flush()
            checked["TLOGISTRY_TRUST"] = stand_in.name
            checked.setdefault("TLOGISTRY_IDENTITIES", '[{"email": "a@b.invalid", "issuer": "https://b.invalid"}]')
        try:
            return Config.from_env(checked).log_search
        except ConfigInvalid as error:
            problems.extend(error.problems)
            return True


def _check_fault(text: str, problems: list[str], *, own_log: bool) -> None:
    if text and not own_log:
        problems.append("TLOGISTRY_DEV_FAULT: only for the local log, not together with TLOGISTRY_TRUST")
    elif text and text not in USER_FAULTS:
        problems.append(f"TLOGISTRY_DEV_FAULT: must be one of {', '.join(sorted(USER_FAULTS))}")


def _lock(state: Path, problems: list[str]) -> int | None:
    """The state folder for us alone, as long as this process lives; None, and a problem, if that cannot be."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = state / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        problems.append(
            f"the state folder {state} cannot be written: {error.strerror} (TLOGISTRY_STATE chooses another)"
        )
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        problems.append(f"the state folder {state} is in use by another process (TLOGISTRY_STATE chooses another)")
        return None
    return lock


def _listen(text: str, problems: list[str]) -> socket.socket | None:
    """The port, bound; None, and a problem, if that cannot be."""
    if text and not (re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) and 0 < int(text) < 1 << 16):
        problems.append("PORT: must be 1 to 65535")
        return None
    port = int(text) if text else PORT
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        problems.append(f"port {port} on {HOST} cannot be used: {error.strerror} (PORT chooses another)")
        return None
    return listener


class _Ended(Exception):
    """One half has ended, or a signal has come: `code` is what we exit with."""

    def __init__(self, code: int, why: str = "") -> None:
        super().__init__(why)
        self.code = code
        self.why = why


class _Halves:
    """The processes, and the queue on which their ends and our signals arrive."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[_Ended] = queue.SimpleQueue()
        self._running: list[_Half] = []  # the last one started is the first one ended
        self._stopping = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._events.put(_Ended(0)))

    def start(
        self, name: str, command: list[str], env: Mapping[str, str], *, stdin: int, stdout: int | None = None
    ) -> _Half:
        """A half, in a session of its own; `stdin` and `stdout` as `subprocess.Popen` has them."""
        half = subprocess.Popen(  # noqa: S603 - our own programs
            command, cwd=ROOT, env=dict(env), stdin=stdin, stdout=stdout, text=True, start_new_session=True
        )
        self._running.append(half)
        threading.Thread(target=self._watch, args=(name, half), name=name, daemon=True).start()
        return half

    def _watch(self, name: str, half: _Half) -> None:
        code = half.wait()
        if self._stopping:
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._events.put(_Ended(2 if code == 2 else 1, "" if code == 2 else f"{name} {how}"))  # noqa: PLR2004 - it has said why

    def wait(self, seconds: float | None = None) -> None:
        """Raise _Ended as soon as there is something to raise."""
        with suppress(queue.Empty):
            raise self._events.get(timeout=seconds)

    def guard(self) -> None:
        """Should we be killed, a shell sees the end of the pipe, and kills what we started."""
        groups = " ".join(f"-{half.pid}" for half in self._running)
        read, write = os.pipe()  # the write end is ours, and nobody inherits it
        script = f"read -r _; kill -s KILL -- {groups} 2>/dev/null"
        self._shell = subprocess.Popen(["/bin/sh", "-c", script], stdin=read, start_new_session=True)  # noqa: S603 - ours
        os.close(read)
        self._write = write

    def stop(self) -> None:
        """End everything: politely, and after a while, or at the next signal, not."""
        self._stopping = True
        for half in reversed(self._running):
            with suppress(ProcessLookupError):
                half.terminate()
            if half.stdin is not None:
                half.stdin.close()
            until = time.monotonic() + STOP_S
            while half.poll() is None and time.monotonic() < until and self._events.empty():
                time.sleep(READY_EVERY_S / 5)
            with suppress(ProcessLookupError, PermissionError):  # macOS: of a group that has ended
                os.killpg(half.pid, signal.SIGKILL)  # its own children, too
            half.wait()
        if hasattr(self, "_shell"):
            self._shell.kill()
            self._shell.wait()
            os.close(self._write)


def run(local: Local) -> int:
    """Serve until told to stop; the exit code: 0 after a signal, 2 if the service did not like its settings, else 1."""
    halves = _Halves()
    env_file = local.state / "env"
    try:
        settings = dict(local.settings)
        if local.own_log:
            settings = _start_sigstore(halves, local, settings)
            _write_env(env_file, settings)
        _start_service(halves, local, settings)
        halves.guard()
        _wait_until_it_answers(halves, local.port)
        _print(_banner(local))
        while True:
            halves.wait()
    except _Ended as ended:
        if ended.why:
            sys.stderr.write(f"tlogistry: {ended.why}\n")
        return ended.code
    finally:
        halves.stop()
        env_file.unlink(missing_ok=True)
        local.close()


def _start_sigstore(halves: _Halves, local: Local, settings: dict[str, str]) -> dict[str, str]:
    """The local Sigstore, and the service's settings that point to it."""
    command = [sys.executable, "-m", "lib.devsigstore.serve", str(local.state.absolute())]
    half = halves.start("the local Sigstore", command, settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert half.stdout is not None  # noqa: S101 - we asked for it
    ready = half.stdout.readline()  # its end, if it dies
    if not ready.startswith("ready "):
        halves.wait(STOP_S)
        raise _Ended(1, "the local Sigstore did not start")
    address = ready.split()[1].removeprefix("http://")
    from lib.devsigstore.identity import EMAIL, ISSUER  # noqa: PLC0415 - its cryptography may not be installed in `check`

    settings.setdefault("TLOGISTRY_IDENTITIES", f'[{{"email": "{EMAIL}", "issuer": "{ISSUER}"}}]')
    trust = str((local.state / "trust-config.json").absolute())
    return {**settings, "TLOGISTRY_TRUST": trust, "GCE_METADATA_HOST": address, "GCE_METADATA_IP": address}


def _write_env(path: Path, settings: Mapping[str, str]) -> None:
    """What another instance, or `python -m lib adopt`, needs to use the same trust, identities, metadata and store."""
    names = ("TLOGISTRY_TRUST", "TLOGISTRY_IDENTITIES", "TLOGISTRY_STORE", *STARTED_BY_US)
    lines = [f"export {name}={quote(settings[name])}\n" for name in names]
    path.write_text("".join(["# while `make run` runs: `. .tlogistry/env` in a shell\n", *lines]))


def _start_service(halves: _Halves, local: Local, settings: Mapping[str, str]) -> None:
    server = [sys.executable, "-m", "functions_framework", "--source", str(ROOT / "main.py"), "--target", "tlogistry"]
    script = 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&0 0</dev/null'  # the shell's process id is the server's
    env = {**settings, "HOST": HOST, "PORT": str(local.port), "PYTHONUNBUFFERED": "1"}
    halves.start("the service", ["/bin/sh", "-c", script, "sh", *server], env, stdin=local.listener.fileno())


def _wait_until_it_answers(halves: _Halves, port: int) -> None:
    """The listener accepts from the start, so one request waits for the whole start; raises _Ended if that fails."""
    answered: list[bool] = []

    def ask() -> None:
        connection = http.client.HTTPConnection(HOST, port, timeout=START_S)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/livez")
            answered.append(connection.getresponse().status == http.client.OK)
        connection.close()

    asking = threading.Thread(target=ask, name="ready", daemon=True)
    asking.start()
    while asking.is_alive():
        halves.wait(READY_EVERY_S)
    if answered != [True]:
        halves.wait(STOP_S)
        raise _Ended(1, "the service does not answer")


def _banner(local: Local) -> str:
    log = "a LOCAL DEVELOPMENT log, NOT FOR PRODUCTION: nothing goes to the public one"
    if not local.own_log:
        log = f"the one of TLOGISTRY_TRUST={local.settings['TLOGISTRY_TRUST']}"
    if not local.search:
        log += "; it is not searched (TLOGISTRY_LOG_SEARCH=off)"
    upstreams = local.settings.get("TLOGISTRY_UPSTREAMS")
    return f"""\
tlogistry: public images by tags that cannot move quietly
  try        docker pull localhost:{local.port}/alpine:3.16.0
  listening  http://localhost:{local.port} (on {HOST} only; PORT=… chooses another)
  log        {log}
  state      {local.state}/ (what was seen, the local log and its keys)
  upstreams  {upstreams or "the real registries"}
             others: TLOGISTRY_UPSTREAMS='{{"docker.io": "http://127.0.0.1:5000"}}' make run
  stop       Ctrl-C
Each request by tag, and what came of it:"""


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
