"""Where the credentials are kept, and for how long they are believed."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lib.config import BaseUrl, SecretName
from lib.telemetry import Telemetry
from lib.upstream.credentials import MAX_BYTES, Credential, Realms
from lib.upstream.keyring import AGAIN_S, REFRESH_S, REST_S, RETRY_S, Keyring
from lib.upstream.secret import ManagedSecret, SecretFile, SecretUnavailable
from tests.clock import Clock
from tests.fakes.secret_manager import FakeSecretManager
from tests.upstream.support import HeldSecret, soon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lib.upstream.secret import Secret

ROOT = Path(__file__).parents[2]
NAME = "projects/my-project/secrets/upstream"
OLD = Credential("my-user", "hunter2-old")
NEW = Credential("my-user", "hunter2-new")


def content(**accounts: Credential) -> dict[str, Any]:
    """The secret's content; a registry's dot is written as an underscore."""
    return {
        name.replace("_", "."): {"username": one.username, "password": one.password} for name, one in accounts.items()
    }


# A file


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    secret = SecretFile(path)
    for text in (b"{}", b"other"):
        path.write_bytes(text)
        assert secret.read() == text
    assert str(secret) == str(path)


def test_a_file_is_not_read_beyond_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * (4 * MAX_BYTES))
    assert len(SecretFile(path).read()) == MAX_BYTES + 1


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reasons = {
        "missing": "No such file or directory",
        ".": "Is a directory",
        "pipe": "not a regular file",  # and does not wait for a writer
        "a\0b": "no file can have this name",
        "x" * 300: "File name too long",
    }
    for name, reason in reasons.items():
        with pytest.raises(SecretUnavailable, match=reason):
            SecretFile(tmp_path / name).read()


# Secret Manager


@pytest.fixture
def manager() -> Iterator[FakeSecretManager]:
    with FakeSecretManager() as fake:
        yield fake


def managed(manager: FakeSecretManager, name: str = NAME) -> ManagedSecret:
    return ManagedSecret(SecretName.parse(name), BaseUrl.parse(manager.url))


def test_the_newest_version_is_read_unless_one_is_named(manager: FakeSecretManager) -> None:
    manager.add(NAME, b"first")
    newest, named = managed(manager), managed(manager, f"{NAME}/versions/1")
    assert (newest.read(), named.read()) == (b"first", b"first")
    manager.add(NAME, b"second")
    assert (newest.read(), named.read()) == (b"second", b"first")
    assert manager.requests == [f"/v1/{NAME}/versions/{v}:access" for v in ("latest", "1", "latest", "1")]
    assert str(newest) == f"{NAME}/versions/latest"


ERRORS = {
    "NOT_FOUND": "there is no such secret, or it has no version yet",
    "PERMISSION_DENIED": "permission denied: the service account needs roles/secretmanager.secretAccessor on it",
    "FAILED_PRECONDITION": "this version is disabled or destroyed",
    "UNAVAILABLE": r"no answer from Secret Manager \(ServiceUnavailable\)",
    "INTERNAL": r"no answer from Secret Manager \(InternalServerError\)",
}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_of_secret_manager_is_one_call_and_a_reason(manager: FakeSecretManager, error: str) -> None:
    manager.error = error
    with pytest.raises(SecretUnavailable, match=ERRORS[error]):
        managed(manager).read()
    assert len(manager.requests) == 1


def test_a_missing_secret_and_a_destroyed_version_are_told_apart(manager: FakeSecretManager) -> None:
    with pytest.raises(SecretUnavailable, match=ERRORS["NOT_FOUND"]):
        managed(manager).read()
    manager.destroy(NAME, manager.add(NAME, b"x"))
    with pytest.raises(SecretUnavailable, match=ERRORS["FAILED_PRECONDITION"]):
        managed(manager).read()


def _answer(payload: bytes) -> bytes:
    return json.dumps({"name": "x", "payload": {"data": base64.b64encode(payload).decode()}}).encode()


RAW: dict[str, tuple[int, dict[str, str], bytes]] = {
    "no JSON": (200, {}, b"<html>"),
    "no UTF-8": (200, {}, b"\xff"),
    "no base64": (200, {}, b'{"payload": {"data": 5}}'),
    "over the cap": (200, {}, _answer(b"x" * 4 * MAX_BYTES)),
    "an error page": (502, {"Content-Type": "text/html"}, b"<html>hunter2</html>"),
    "an empty error": (500, {}, b""),
}


@pytest.mark.parametrize("what", RAW)
def test_an_answer_that_is_none_is_a_reason_without_its_text(manager: FakeSecretManager, what: str) -> None:
    manager.raw = RAW[what]
    with pytest.raises(SecretUnavailable, match=r"no answer from Secret Manager \(\w+\)") as caught:
        managed(manager).read()
    assert "hunter2" not in str(caught.value)


def test_secret_manager_leads_nowhere_else(manager: FakeSecretManager) -> None:
    with FakeSecretManager() as elsewhere:
        elsewhere.add(NAME, b"{}")
        manager.raw = (307, {"Location": f"{elsewhere.url}/v1/{NAME}/versions/latest:access"}, b"")
        with pytest.raises(SecretUnavailable, match="no answer from Secret Manager"):
            managed(manager).read()
        assert elsewhere.requests == []


def test_without_a_service_account_there_is_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(SecretUnavailable, match="no service account: this is not Google Cloud"):
        ManagedSecret(SecretName.parse(NAME), None).read()


def test_the_client_library_is_imported_only_when_it_is_configured() -> None:
    code = (
        "import sys, main, lib.upstream.secret\n"
        "print(sorted(name for name in sys.modules if 'secretmanager' in name or name in ('grpc', 'google.api_core')))"
    )
    done = _python(code)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_a_configured_secret_costs_nothing_before_it_is_needed(manager: FakeSecretManager) -> None:
    code = (
        "import sys, threading, main\n"
        "print(sorted(name for name in sys.modules if 'secretmanager' in name), threading.active_count())"
    )
    done = _python(code, TLOGISTRY_CREDENTIALS_SECRET=NAME, TLOGISTRY_SECRET_MANAGER_ENDPOINT=manager.url)
    assert (done.stdout, done.returncode) == ("[] 1\n", 0), done.stderr
    assert manager.requests == []


def _python(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    who = '[{"email": "a@example.com", "issuer": "https://accounts.google.com"}]'
    keep = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**keep, "TLOGISTRY_IDENTITIES": who, "TLOGISTRY_LOG_FORMAT": "line", **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# The keyring


class Held:
    """A keyring on a clock of the test's, and what it logged."""

    def __init__(self, secret: Secret) -> None:
        self.clock = Clock()
        self.lines = io.StringIO()
        realms = Realms({"reg.example": BaseUrl.parse("http://127.0.0.1:5000")})
        self.keyring = Keyring(secret, realms, self.clock.now, Telemetry("json", self.lines))

    def get(self, registry: str = "docker.io") -> Credential | None:
        return self.keyring.get(registry, soon(30))

    def refused(self, credential: Credential) -> Credential | None:
        return self.keyring.refused("docker.io", credential, soon(30))

    @property
    def log(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.lines.getvalue().splitlines()]

    @property
    def warnings(self) -> list[str]:
        return [line["message"] for line in self.log if line["severity"] == "WARNING"]


def test_nothing_is_read_before_it_is_needed_and_then_once_for_all() -> None:
    secret = HeldSecret(content(docker_io=OLD, ghcr_io=NEW))
    held = Held(secret)
    assert secret.reads == 0
    for _ in range(10):
        assert (held.get(), held.get("ghcr.io"), held.get("quay.io")) == (OLD, NEW, None)
    assert secret.reads == 1
    assert held.log == [
        {
            "severity": "INFO",
            "message": "upstream credentials read",
            "source": "a secret in memory",
            "registries": "docker.io, ghcr.io",
        }
    ]


def test_a_rotated_secret_is_found_when_it_is_read_again() -> None:
    secret = HeldSecret(content(docker_io=OLD))
    held = Held(secret)
    assert held.get() == OLD
    secret.content = content(docker_io=NEW)
    held.clock.advance(REFRESH_S - 1)
    assert held.get() == OLD
    held.clock.advance(1)
    assert held.get() == NEW
    secret.content = {}
    held.clock.advance(REFRESH_S)
    assert held.get() is None
    assert secret.reads == 3
    assert held.warnings == []


FAILURES: dict[str, tuple[object, str]] = {
    "missing or not permitted": (SecretUnavailable("permission denied"), "permission denied"),
    "bad JSON": (b'{"docker.io": hunter2', "not JSON"),
    "another format": ({"docker.io": "x:hunter2"}, "entry 1 is not an object"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_secret_that_cannot_be_used_is_one_warning_and_no_account(what: str) -> None:
    failure, reason = FAILURES[what]
    secret = HeldSecret(failure)
    held = Held(secret)
    for reads in range(1, 4):
        for _ in range(20):
            assert held.get() is None
        assert secret.reads == reads  # not once a request
        held.clock.advance(RETRY_S)
    (line,) = held.log
    assert line["severity"] == "WARNING"
    assert line["message"] == "upstream credentials not read; everything is asked anonymously"
    assert line["source"] == "a secret in memory"
    assert line["reason"].startswith(reason)
    assert "hunter2" not in held.lines.getvalue()
    secret.content = content(docker_io=NEW)
    assert held.get() == NEW


@pytest.mark.parametrize("what", FAILURES)
def test_a_secret_that_can_no_longer_be_used_leaves_what_was_read_before(what: str) -> None:
    secret = HeldSecret(content(docker_io=OLD))
    held = Held(secret)
    assert held.get() == OLD
    secret.content = FAILURES[what][0]
    for _ in range(5):
        held.clock.advance(REFRESH_S)
        assert held.get() == OLD
    assert held.warnings == ["upstream credentials not read; the ones that were read before stay"]
    secret.content = content(docker_io=NEW)
    held.clock.advance(RETRY_S)
    assert held.get() == NEW
    secret.content = FAILURES[what][0]
    held.clock.advance(REFRESH_S)
    assert held.get() == NEW
    assert len(held.warnings) == 2  # it is news again


def test_another_failure_is_another_warning() -> None:
    secret = HeldSecret(SecretUnavailable("first"))
    held = Held(secret)
    for text in ("first", "first", "second", "second"):
        secret.content = SecretUnavailable(text)
        held.get()
        held.clock.advance(RETRY_S)
    assert [line["reason"] for line in held.log] == ["first", "second"]


def test_refused_credentials_are_read_again_at_once() -> None:
    secret = HeldSecret(content(docker_io=OLD))
    held = Held(secret)
    assert held.get() == OLD
    secret.content = content(docker_io=NEW)
    held.clock.advance(AGAIN_S)
    assert held.refused(OLD) == NEW
    assert held.get() == NEW
    assert secret.reads == 2


def test_refused_credentials_that_are_still_the_same_rest() -> None:
    """Registries lock an account, or an address, after failed log-ins."""
    secret = HeldSecret(content(docker_io=OLD, ghcr_io=OLD))
    held = Held(secret)
    held.get()
    held.clock.advance(AGAIN_S)
    assert held.refused(OLD) is None
    assert secret.reads == 2
    assert held.get() is None
    assert held.get("ghcr.io") == OLD
    held.clock.advance(REST_S - 1)
    assert held.get() is None
    held.clock.advance(1)
    assert held.get() == OLD


def test_resting_credentials_wake_when_the_secret_is_rotated() -> None:
    secret = HeldSecret(content(docker_io=OLD))
    held = Held(secret)
    held.get()
    assert held.refused(OLD) is None
    secret.content = content(docker_io=NEW)
    held.clock.advance(REFRESH_S)
    assert held.get() == NEW


def test_a_realm_that_refuses_everything_does_not_make_us_read_all_the_time() -> None:
    secret = HeldSecret(content(docker_io=OLD))
    held = Held(secret)
    held.get()
    held.clock.advance(AGAIN_S)
    for number in range(50):
        fresh = Credential("my-user", f"hunter2-{number}")
        secret.content = content(docker_io=fresh)
        held.refused(OLD)
    assert secret.reads == 2


def test_credentials_that_are_never_sent_are_said_to_be_so_once() -> None:
    held = Held(HeldSecret(content(docker_io=OLD, gcr_io=OLD, reg_example=OLD)))
    for _ in range(3):
        held.get()
        held.clock.advance(REFRESH_S)
    assert [(line["message"], line["registry"]) for line in held.log if line["severity"] == "WARNING"] == [
        ("upstream credentials for a registry without a pinned realm are never sent", "gcr.io")
    ]


class HangingSecret:
    """Does not answer before it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.reads = 0

    def read(self) -> bytes:
        self.reads += 1
        self.go_on.wait(60)
        return json.dumps(content(docker_io=OLD)).encode()

    def __str__(self) -> str:
        return "a secret that hangs"


@contextmanager
def hanging() -> Iterator[tuple[HangingSecret, Held]]:
    secret = HangingSecret()
    try:
        yield secret, Held(secret)
    finally:
        secret.go_on.set()


def test_a_secret_that_hangs_delays_one_request_and_is_used_when_it_comes() -> None:
    with hanging() as (secret, held):
        started = time.monotonic()
        assert held.keyring.get("docker.io", soon(0.2)) is None  # waits, but not for longer than its own request may
        for _ in range(50):
            assert held.keyring.get("docker.io", soon(600)) is None  # others do not wait at all
        assert time.monotonic() - started < 60
        assert secret.reads == 1
        secret.go_on.set()
        until = time.monotonic() + 30
        while held.get() is None:
            assert time.monotonic() < until
        assert held.get() == OLD
        assert secret.reads == 1


def test_a_secret_manager_that_hangs_is_given_up(manager: FakeSecretManager) -> None:
    manager.hangs = True
    secret = ManagedSecret(SecretName.parse(NAME), BaseUrl.parse(manager.url), call_s=0.3)
    with pytest.raises(SecretUnavailable, match=r"no answer from Secret Manager \(\w+\)"):
        secret.read()


def test_a_keyring_over_secret_manager(manager: FakeSecretManager) -> None:
    held = Held(managed(manager))
    assert held.get() is None
    manager.add(NAME, json.dumps(content(docker_io=OLD)).encode())
    held.clock.advance(RETRY_S)
    assert held.get() == OLD
    manager.add(NAME, json.dumps(content(docker_io=NEW)).encode())
    held.clock.advance(REFRESH_S)
    assert held.get() == NEW
    manager.error = "PERMISSION_DENIED"
    held.clock.advance(REFRESH_S)
    assert held.get() == NEW
    assert len(held.warnings) == 2
    assert "hunter2" not in held.lines.getvalue()
