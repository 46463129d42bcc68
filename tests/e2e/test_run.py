"""`make run` as its user meets it: what it says, what it refuses to start with, and that it leaves nothing behind."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.engines import free_port
from tests.e2e.images import make, push
from tests.e2e.processes import Process, Said, children, environment, wait_until
from tests.e2e.service import COMMAND, ROOT, START_S, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.engines import Registry

CHECK = ("-m", "lib", "check")
STOP_S = 20
PUBLIC = '{"trustedRoot": {}, "signingConfig": {"caUrls": [{"url": "https://fulcio.sigstage.dev"}]}}'
ONE_IDENTITY = '[{"email": "a@b.example", "issuer": "https://b.example"}]'


@pytest.fixture
def alone(workshop: Path, docker_io: Registry, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service of this test's own, not started yet."""
    service = Service(workshop / f"run-{abs(hash(request.node.name)):x}", {"docker.io": docker_io.url})
    yield service
    service.kill()


def command(*arguments: str, **settings: str) -> Said:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def gone(pids: list[int]) -> bool:
    """Whether none of them runs; a zombie does not."""

    def runs(pid: int) -> bool:
        with suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    return wait_until(lambda: not any(runs(pid) for pid in pids), STOP_S)


def family(service: Service) -> list[int]:
    assert service.process is not None
    return [service.process.pid, *children(service.process.pid)]


def half(service: Service, words: str) -> int:
    """The process of one half: the first whose command line has `words` in it."""
    for pid in family(service)[1:]:
        if words in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
            return pid
    pytest.fail(f"no process with {words}")


# What it says


def test_it_says_in_a_few_lines_what_it_is(alone: Service) -> None:
    alone.start()
    assert wait_until(lambda: "what came of it" in "\n".join(alone.lines()), 10)
    said = "\n".join(alone.lines())
    assert len(alone.lines()) < 12
    for word in (
        f"http://localhost:{alone.port}",
        "LOCAL DEVELOPMENT log, NOT FOR PRODUCTION",
        f"{alone.state}/",
        "TLOGISTRY_UPSTREAMS=",
        "Ctrl-C",
    ):
        assert word in said


def test_one_line_for_each_request_by_tag_with_its_verdict(docker_io: Registry, service: Service) -> None:
    push(docker_io.url, "run/lines", "v1", make("first"))
    before = len(service.lines())
    service.by_tag("run/lines:v1")
    service.by_tag("run/lines:v1", "HEAD")
    push(docker_io.url, "run/lines", "v1", make("moved"))
    service.by_tag("run/lines:v1")
    service.by_tag("run/lines:none")
    service.get("/v2/")
    words = ["first seen  run/lines:v1", "same  run/lines:v1", "moved  run/lines:v1", "not found  run/lines:none"]
    assert wait_until(lambda: len(service.lines()) >= before + 4, 5)
    for line, word in zip(service.lines()[before:], words, strict=True):
        assert line.startswith(word)


def test_the_log_search_brake_is_said_at_start(alone: Service) -> None:
    alone.start(TLOGISTRY_LOG_SEARCH="off")
    assert wait_until(lambda: "what came of it" in "\n".join(alone.lines()), 10)
    assert "TLOGISTRY_LOG_SEARCH=off" in alone.line("LOCAL DEVELOPMENT")


def test_it_listens_on_127_0_0_1_only(service: Service) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", service.port), timeout=5)
    assert service.live()


def test_the_env_file_is_there_while_it_runs(alone: Service) -> None:
    alone.start()
    assert {"TLOGISTRY_TRUST", "TLOGISTRY_IDENTITIES", "GCE_METADATA_HOST", "GCE_METADATA_IP"} <= alone.env.keys()
    sourced = subprocess.run(
        ["/bin/sh", "-c", f". {alone.state}/env && env"], capture_output=True, text=True, check=True, env={}, timeout=10
    )
    assert f"TLOGISTRY_STORE=sqlite:{alone.store}" in sourced.stdout
    alone.stop()
    assert sorted(path.name for path in alone.state.iterdir() if path.suffix not in {".sqlite-wal", ".sqlite-shm"}) == [
        "lock",
        "log.sqlite",
        "trust-config.json",
    ]


# What it refuses to start with


@contextmanager
def taken_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


@pytest.mark.parametrize("what", [CHECK, COMMAND], ids=["check", "run"])
@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({"PORT": "eighty"}, ["PORT: "]),
        ({"PORT": "0"}, ["PORT: "]),
        ({"PORT": "65536"}, ["PORT: "]),
        ({"TLOGISTRY_UPSTREAMS": "{"}, ["TLOGISTRY_UPSTREAMS: "]),
        ({"TLOGISTRY_UPSTREAM": "{}"}, ["TLOGISTRY_UPSTREAM: no such setting"]),
        ({"TLOGISTRY_TRUST": "nowhere.json", "TLOGISTRY_IDENTITIES": ONE_IDENTITY}, ["TLOGISTRY_TRUST: "]),
        ({"TLOGISTRY_DEV_FAULT": "log:never"}, ["TLOGISTRY_DEV_FAULT: "]),
        (
            {"TLOGISTRY_DEADLINE": "soon", "TLOGISTRY_STORE": "mysql:x", "TLOGISTRY_LOG_SEARCH": "maybe", "PORT": "-1"},
            ["TLOGISTRY_STORE: ", "TLOGISTRY_DEADLINE: ", "TLOGISTRY_LOG_SEARCH: ", "PORT: "],
        ),
        (
            {
                "TLOGISTRY_TRUST": "production",
                "TLOGISTRY_IDENTITIES": ONE_IDENTITY,
                "TLOGISTRY_UPSTREAMS": '{"docker.io": "http://127.0.0.1:5000"}',
            },
            ["TLOGISTRY_UPSTREAMS: not together with the public Sigstore"],
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_bad_settings_are_all_told_at_once(
    tmp_path: Path, what: tuple[str, ...], settings: dict[str, str], problems: list[str]
) -> None:
    said = command(*what, **{"PORT": str(free_port()), "TLOGISTRY_STATE": str(tmp_path / "state"), **settings})
    assert (said.code, said.out) == (2, "")
    lines = said.err.splitlines()
    assert len(lines) == len(problems), said.err
    for problem in problems:
        assert any(line.startswith(f"tlogistry: {problem}") for line in lines), said.err


def test_a_mapping_with_a_configuration_that_names_a_public_sigstore_is_refused(tmp_path: Path) -> None:
    trust = tmp_path / "trust.json"
    trust.write_text(PUBLIC)
    said = command(
        *CHECK,
        PORT=str(free_port()),
        TLOGISTRY_STATE=str(tmp_path / "state"),
        TLOGISTRY_TRUST=str(trust),
        TLOGISTRY_IDENTITIES=ONE_IDENTITY,
        TLOGISTRY_UPSTREAMS='{"docker.io": "http://127.0.0.1:5000"}',
    )
    assert said.code == 2
    assert "it would sign false statements about public registries" in said.err


@pytest.mark.parametrize("what", [CHECK, COMMAND], ids=["check", "run"])
def test_a_taken_port(tmp_path: Path, what: tuple[str, ...]) -> None:
    with taken_port() as port:
        said = command(*what, PORT=port, TLOGISTRY_STATE=str(tmp_path / "state"))
    expected = f"tlogistry: port {port} on 127.0.0.1 cannot be used: Address already in use (PORT chooses another)\n"
    assert (said.code, said.out, said.err) == (2, "", expected)


@pytest.mark.parametrize("what", [CHECK, COMMAND], ids=["check", "run"])
def test_a_state_folder_that_cannot_be_written(tmp_path: Path, what: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    for state in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        said = command(*what, PORT=str(free_port()), TLOGISTRY_STATE=str(state))
        assert (said.code, said.out) == (2, "")
        (line,) = said.err.splitlines()
        assert line.startswith(f"tlogistry: the state folder {state} cannot be written: ")


@pytest.mark.parametrize("what", [CHECK, COMMAND], ids=["check", "run"])
def test_a_state_folder_in_use(service: Service, what: tuple[str, ...]) -> None:
    said = command(*what, PORT=str(free_port()), TLOGISTRY_STATE=str(service.state))
    expected = (
        f"tlogistry: the state folder {service.state} is in use by another process (TLOGISTRY_STATE chooses another)\n"
    )
    assert (said.code, said.out, said.err) == (2, "", expected)
    assert service.live()


def test_a_trust_configuration_that_is_none_is_one_line(tmp_path: Path) -> None:
    """Only the service itself can tell, because that needs sigstore."""
    trust = tmp_path / "trust.json"
    trust.write_text('{"trustedRoot": {}, "signingConfig": {}}')
    said = command(
        *COMMAND,
        PORT=str(free_port()),
        TLOGISTRY_STATE=str(tmp_path / "state"),
        TLOGISTRY_TRUST=str(trust),
        TLOGISTRY_IDENTITIES=ONE_IDENTITY,
    )
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith("tlogistry: TLOGISTRY_TRUST: ")


def test_the_check_needs_nothing_installed(tmp_path: Path) -> None:
    said = command("-S", *CHECK, PORT=str(free_port()), TLOGISTRY_STATE=str(tmp_path / "state"))
    assert (said.code, said.text) == (0, "")


# Its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_and_the_next_start_works(alone: Service, number: signal.Signals) -> None:
    alone.start()
    pids = family(alone)
    assert alone.process is not None
    alone.process.signal(number)
    assert alone.process.wait(STOP_S) == 0
    assert gone(pids)
    assert not (alone.state / "env").exists()
    assert "Traceback" not in "\n".join(alone.lines())
    alone.start()


@pytest.mark.parametrize("words", ["lib.devsigstore.serve", "functions_framework"], ids=["sigstore", "service"])
def test_the_death_of_either_half_ends_the_other(alone: Service, words: str) -> None:
    alone.start()
    pids = family(alone)
    os.kill(half(alone, words), signal.SIGKILL)
    assert alone.process is not None
    assert alone.process.wait(STOP_S) == 1
    assert gone(pids)
    assert "was killed by SIGKILL" in alone.line("tlogistry:", "Sig" if "sigstore" in words else "service")
    alone.start()


def test_whoever_kills_the_starter_ends_both_halves(alone: Service, docker_io: Registry) -> None:
    push(docker_io.url, "run/killed", "v1", make("first"))
    alone.start()
    assert alone.by_tag("run/killed:v1").headers["Tlog-First-Seen"] == "true"
    pids = family(alone)
    os.kill(pids[0], signal.SIGKILL)
    assert alone.process is not None
    alone.process.wait(STOP_S)
    assert gone(pids)
    alone.start()
    again = alone.by_tag("run/killed:v1")
    assert (again.status, again.headers["Tlog-First-Seen"]) == (http.client.OK, None)


# The shell's environment


def test_the_shells_environment_does_not_leak_into_it(alone: Service, docker_io: Registry, tmp_path: Path) -> None:
    push(docker_io.url, "run/leak", "v1", make("first"))
    (tmp_path / ".netrc").write_text("default login somebody password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    dead = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), dead)
    alone.start(
        **proxies,
        DEBUG="1",
        HOME=str(tmp_path),
        NETRC=str(tmp_path / ".netrc"),
        GOOGLE_APPLICATION_CREDENTIALS="/nowhere/key.json",
        GCE_METADATA_HOST="127.0.0.1:9",
        GCE_METADATA_IP="127.0.0.1:9",
        FUNCTION_TARGET="nothing",
        FUNCTION_SOURCE="/nowhere.py",
        FUNCTION_SIGNATURE_TYPE="event",
        GUNICORN_CMD_ARGS="--bind 0.0.0.0:1",
        REQUESTS_CA_BUNDLE="/nowhere.pem",
    )
    answer = alone.by_tag("run/leak:v1")
    assert (answer.status, answer.headers["Tlog-First-Seen"]) == (http.client.OK, "true"), answer.body
    assert "gunicorn" in answer.headers["Server"]  # not the debugger's server


# Through make


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tree as somebody cloned it, without an environment."""
    tree = tmp_path / "clone"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "tests", "terraform", "docs", "__pycache__"))
    return tree


def test_make_run_says_what_is_wrong_before_it_installs(checkout: Path) -> None:
    with taken_port() as port:
        said = subprocess.run(
            ["make", "run", f"PORT={port}", f"PYTHON={sys.executable}"],
            cwd=checkout,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert said.returncode == 2
    assert said.stderr.splitlines()[0].startswith(f"tlogistry: port {port} on 127.0.0.1 cannot be used")
    assert len(said.stderr.splitlines()) == 2  # the other is make's
    assert not (checkout / ".venv").exists()


def test_make_run_names_a_missing_venv_module(checkout: Path, tmp_path: Path) -> None:
    """As on a Debian without python3-venv: there is `venv`, but no `ensurepip`."""
    (tmp_path / "less").mkdir()
    (tmp_path / "less" / "ensurepip.py").write_text("raise ImportError\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/less exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    said = subprocess.run(
        ["make", "run", f"PORT={free_port()}", f"PYTHON={python}"],
        cwd=checkout,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 2
    line = "tlogistry: this Python has no venv module (on Debian: apt install python3-venv)"
    assert said.stderr.splitlines()[0] == line
    assert not (checkout / ".venv").exists()


def test_ctrl_c_at_make_run_leaves_nothing_running(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv").symlink_to(sys.prefix)
    if not (checkout / ".venv" / "runtime").exists():
        pytest.fail("tests run in the environment that `make test` sets up")
    port = free_port()
    env = environment(PORT=str(port), TLOGISTRY_STATE=str(tmp_path / "state"))
    process = Process(
        ["setsid", "--wait", "make", "run", f"PYTHON={sys.executable}"], tmp_path / "make.log", env, checkout
    )
    try:
        process.wait_until(lambda: "what came of it" in process.printed(), START_S)
        pids = children(process.pid)
        os.killpg(os.getpgid(pids[0]), signal.SIGINT)  # as the terminal does: to everybody in the foreground
        process.wait(STOP_S)
        assert gone(pids)
        assert "Traceback" not in process.printed()
    finally:
        process.end()


# python -m lib adopt


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("adopt",), "the following arguments are required"),
        (("adopt", "alpine", f"sha256:{'0' * 64}"), "there is no tag"),
        (("adopt", "UPPER/x:1", f"sha256:{'0' * 64}"), "not a repository name"),
        (("adopt", "alpine:1", "sha256:0"), "not a digest"),
        (("adopt", "alpine:1", f"sha256:{'0' * 64}"), "TLOGISTRY_IDENTITIES: not set"),
        (("fetch",), "invalid choice"),
        ((), "required: command"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, tuple) else "",
)
def test_a_command_that_cannot_be_understood_is_exit_code_2(arguments: tuple[str, ...], says: str) -> None:
    said = command("-m", "lib", *arguments)
    assert said.code == 2
    assert says in said.err
    assert "Traceback" not in said.text


def test_adopt_completes_a_stuck_tag(docker_io: Registry, service: Service) -> None:
    """The store is lost, the readable copy was never made, the tag has moved: only the operator knows the old digest."""
    old = push(docker_io.url, "run/stuck", "v1", make("first"))
    service.fault("copy:before")
    assert service.by_tag("run/stuck:v1").status == http.client.OK
    service.fault("")
    service.stop()
    service.lose_store()
    new = push(docker_io.url, "run/stuck", "v1", make("moved"))
    service.start()
    stuck = service.by_tag("run/stuck:v1")
    assert stuck.status == http.client.SERVICE_UNAVAILABLE
    assert "cannot be explained" in stuck.error["message"]

    wrong = command("-m", "lib", "adopt", "run/stuck:v1", new, **service.env)
    assert (wrong.code, wrong.out) == (1, "")
    assert "cannot be explained" in wrong.err

    right = command("-m", "lib", "adopt", "run/stuck:v1", old, **service.env)
    assert (right.code, right.err) == (0, "")
    assert right.out.startswith(f"run/stuck:v1 is recorded as {old} (log index ")
    refused = service.by_tag("run/stuck:v1")
    assert refused.status == http.client.FORBIDDEN
    assert refused.error["detail"]["recorded"] == old
