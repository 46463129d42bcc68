"""The local Sigstore as a process: it says when it is ready, ends when it is told to, and says in one line why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
import requests

from lib.devsigstore.server import DevSigstore

if TYPE_CHECKING:
    from collections.abc import Iterator

    Process = subprocess.Popen[str]

ROOT = Path(__file__).parents[2]
END_S = 60  # seconds; it takes one, on an idle machine


@contextmanager
def serving(folder: Path | str | None, fault: str = "", stdin: int | IO[str] = subprocess.PIPE) -> Iterator[Process]:
    """The process, whatever it does; killed in the end."""
    env = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "lib.devsigstore.serve",
        *([str(folder)] if folder is not None else []),
    ]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**env, "TLOGISTRY_DEV_FAULT": fault},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: Process) -> str:
    assert process.stdout is not None
    word, url = process.stdout.readline().split()
    assert word == "ready"
    return url


def ended(process: Process) -> tuple[int, str]:
    """Exit code and what was said on standard error."""
    assert process.stderr is not None
    code = process.wait(END_S)
    return code, process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as process:
        url = ready(process)
        assert requests.get(f"{url}/api/v1/log", timeout=20).status_code == 200
        process.send_signal(number)
        assert ended(process) == (0, "")
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/api/v1/log", timeout=20)


def test_the_end_of_its_input_ends_it(tmp_path: Path) -> None:
    """Whoever started it holds the other end: however suddenly that dies, nothing is left running."""
    with serving(tmp_path) as process:
        ready(process)
        assert process.stdin is not None
        process.stdin.write("what is said does not matter\n")
        process.stdin.flush()
        assert process.poll() is None
        process.stdin.close()
        assert ended(process) == (0, "")


def test_a_client_that_waits_does_not_keep_it(tmp_path: Path) -> None:
    with serving(tmp_path, "fulcio:hang") as process:
        url = ready(process)
        with pytest.raises(requests.RequestException):
            requests.post(f"{url}/api/v2/signingCert", json={}, timeout=0.5)
        process.terminate()
        assert ended(process) == (0, "")


def test_it_serves_again_after_it_was_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        url = ready(process)
        process.kill()
        process.wait(END_S)
    with serving(tmp_path) as process:
        assert ready(process) == url
        process.terminate()
        assert ended(process) == (0, "")


def test_the_setting_makes_it_fail_on_purpose(tmp_path: Path) -> None:
    with serving(tmp_path, "log:before") as process:
        assert requests.get(f"{ready(process)}/__dev__/fault", timeout=20).text == "log:before"


def refused(folder: Path | str | None, fault: str = "") -> str:
    """The one line that says why it did not start."""
    with serving(folder, fault, stdin=subprocess.DEVNULL) as process:
        code, said = ended(process)
        assert process.stdout is not None
        assert (code, process.stdout.read()) == (2, "")
    assert said.count("\n") == 1
    assert said.startswith("the local Sigstore cannot start")
    return said


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "missing")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in refused(tmp_path / "file")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Not even by root, as whom tests may run."""
    assert "/proc" in refused("/proc")


def test_a_folder_in_use(tmp_path: Path) -> None:
    with DevSigstore(tmp_path):
        assert "in use by another" in refused(tmp_path)


def test_a_state_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"this is no database at all, and long enough to be read as one" * 50)
    assert "not a database" in refused(tmp_path)


def test_no_folder_at_all() -> None:
    assert "folder" in refused(None)
    assert not (ROOT / "log.sqlite").exists()


@pytest.mark.parametrize("fault", ["nope", "log:before,nope", "delay:x"])
def test_a_fault_that_does_not_exist(tmp_path: Path, fault: str) -> None:
    assert "no such fault" in refused(tmp_path, fault)
