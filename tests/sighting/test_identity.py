"""Who signs: the metadata server's answer through google-auth, each case in a process of its own.

google-auth reads where the metadata server is once in a process, at import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lib.devsigstore.identity import ISSUER
from tests.fakes.canned import Answer, CannedServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.devsigstore.server import DevSigstore

ROOT = Path(__file__).parents[2]
OTHER = "somebody-else@not-for-production.invalid"
SCRIPT = """
import json, sys, time
from lib.config import Identity
from lib.deadline import Deadline
from lib.errors import TlogistryError
from lib.sighting.identity import MetadataIdentity
email, issuer, seconds = json.loads(sys.argv[1])
source = MetadataIdentity(Identity(email, issuer))
try:
    token = source.token(Deadline.after(seconds, time.monotonic))
    print(json.dumps({"token": str(token)}))
except TlogistryError as error:
    print(json.dumps({"error": type(error).__name__, "says": str(error)}))
"""


def ask(settings: dict[str, str], email: str, issuer: str = ISSUER, seconds: float = 20) -> dict[str, Any]:
    """What `MetadataIdentity.token` says in a process with these settings."""
    env = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps([email, issuer, seconds])],
        cwd=ROOT,
        env={**env, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert isinstance(said, dict)
    return said


def at(url: str) -> dict[str, str]:
    host = url.removeprefix("http://")
    return {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}


def test_the_service_accounts_token_is_taken(dev: DevSigstore) -> None:
    token = ask(dev.environment(), dev.email)["token"]
    assert dev.issuer.verify(token).email == dev.email


def test_a_token_of_another_account_is_refused_and_both_are_named(dev: DevSigstore) -> None:
    said = ask(dev.environment(OTHER), dev.email)
    assert said["error"] == "SignerUnavailable"
    assert OTHER in said["says"]
    assert dev.email in said["says"]


def test_a_token_of_another_issuer_is_refused(dev: DevSigstore) -> None:
    said = ask(dev.environment(), dev.email, "https://accounts.google.com")
    assert said["error"] == "SignerUnavailable"
    assert ISSUER in said["says"]


def test_a_metadata_server_that_fails_is_unavailable(dev: DevSigstore) -> None:
    dev.faults.set("metadata:before")
    assert ask(dev.environment(), dev.email)["error"] == "SignerUnavailable"


FLAVOR = {"Metadata-Flavor": "Google", "Content-Type": "text/html"}
JSON = {"Metadata-Flavor": "Google", "Content-Type": "application/json"}
ACCOUNT = Answer(200, JSON, b'{"aliases": ["default"], "email": "a@b.invalid", "scopes": []}')
ROOT_PAGE = Answer(200, FLAVOR, b"computeMetadata/\n")
HEADER = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9"  # {"alg":"RS256","typ":"JWT"}


def metadata(identity: Answer, account: Answer = ACCOUNT) -> Callable[[str, str, bytes], Answer]:
    """A metadata server that gives these for the token and for the account."""

    def answer(_: str, path: str, __: bytes) -> Answer:
        if path.startswith("/computeMetadata/v1/instance/service-accounts/default/"):
            return identity if "/identity?" in path else account
        return ROOT_PAGE

    return answer


@pytest.mark.parametrize(
    "token",
    [b"", b"secret", b"a.b.c", b"\xff.\xff.\xff", f"{HEADER}.e30.c2VjcmV0".encode(), f"{HEADER}.W10.c2VjcmV0".encode()],
    ids=lambda token: f"{token[-12:]!r}",
)
def test_what_is_no_token_is_unavailable_and_never_shown(token: bytes) -> None:
    with CannedServer(metadata(Answer(200, FLAVOR, token))) as server:
        said = ask(at(server.url), "a@b.invalid")
    assert said["error"] == "SignerUnavailable"
    assert "secret" not in said["says"]
    assert "c2VjcmV0" not in said["says"]


@pytest.mark.parametrize("body", [b"[]", b"{}", b"7", b"{", b"[" * 50_000, b'"x"'], ids=lambda body: f"{body[:3]!r}")
def test_an_account_that_is_none_is_unavailable(body: bytes) -> None:
    with CannedServer(metadata(Answer(200, FLAVOR, b""), Answer(200, JSON, body))) as server:
        assert ask(at(server.url), "a@b.invalid")["error"] == "SignerUnavailable"


def test_asking_again_ends_with_the_request() -> None:
    """google-auth alone would go on for about half a minute, and everybody who wants to sign would wait."""
    with CannedServer(metadata(Answer(503, FLAVOR, b""))) as server:
        said = ask(at(server.url), "a@b.invalid", seconds=1.5)
        asked = [request.path for request in server.requests if "identity" in request.path]
    assert said["error"] == "DeadlineExceeded"
    assert len(asked) < 5, "its own repetitions"
