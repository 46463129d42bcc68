"""When things are made: nothing heavy before it is needed, and what a first sighting needs while it waits for others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import lib
from tests.fakes.registry import FakeRegistry
from tests.framework import Function

if TYPE_CHECKING:
    from lib.devsigstore.server import DevSigstore

ROOT = Path(__file__).parents[1]
IDENTITIES = json.dumps([{"email": "a@b.example", "issuer": "https://accounts.google.com"}])
SIGNING = "{'lib.sighting.signer', 'lib.sighting.identity', 'google.oauth2.id_token', 'google.cloud.secretmanager'}"
PROGRAM = f"""
import sys, threading, time
import main, flask
from werkzeug.test import EnvironBuilder
print(sorted({SIGNING} & set(sys.modules)), threading.active_count())
environ = EnvironBuilder(path="/livez").get_environ() | {{"RAW_URI": "/livez"}}
assert main._app.handle(flask.Request(environ)).status_code == 200
until = time.monotonic() + 60
while "lib.sighting.signer" not in sys.modules and time.monotonic() < until:
    time.sleep(0.01)
print(sorted({SIGNING} & set(sys.modules)))
"""
AFTERWARDS = ["google.oauth2.id_token", "lib.sighting.identity", "lib.sighting.signer"]


def test_the_signing_side_is_imported_after_the_first_answer_and_no_thread_is_started_before(tmp_path: Path) -> None:
    """Threads of the master process would be dead in the worker that gunicorn forks."""
    settings = {"TLOGISTRY_LOG_FORMAT": "line", "TLOGISTRY_IDENTITIES": IDENTITIES}
    settings |= {"TLOGISTRY_STORE": f"sqlite:{tmp_path}/store.sqlite", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.stdout.splitlines()[:1] == ["[] 1"], said.stderr
    assert said.stdout.splitlines()[-1] == str(AFTERWARDS), said.stdout


def test_asking_for_tags_that_do_not_exist_costs_no_certificate_and_no_entry(dev: DevSigstore, tmp_path: Path) -> None:
    with FakeRegistry() as fake:
        upstreams = json.dumps({"docker.io": f"http://127.0.0.1:{fake.port}"})
        settings = {**dev.environment(), "TLOGISTRY_UPSTREAMS": upstreams}
        with Function({**settings, "TLOGISTRY_STORE": f"sqlite:{tmp_path}/store.sqlite"}) as function:
            for number in range(20):
                assert function.ask("GET", f"/v2/library/nothing/manifests/{number}").status == 404
    assert dict(dev.calls) == {}


def test_the_version_is_that_of_the_project() -> None:
    assert f'\nversion = "{lib.VERSION}"\n' in (ROOT / "pyproject.toml").read_text()
