"""The token for Firestore: asked for once, in time, and told to nobody else; an account that fails is no empty store.

google-auth is real, and so are the token end point of a key file and the metadata server: small servers on loopback.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lib.config import FirestoreDatabase
from lib.errors import StoreUnavailable
from lib.store.access import GoogleAccess
from lib.store.rest import ATTEMPTS, Calls
from tests.e2e.processes import environment
from tests.fakes.front import Front, answers, drips, hangs, lost
from tests.store.contract import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.front import Exchange, Fault

DATABASE = FirestoreDatabase("my-project", "records")
SECRET = "ya29.the-secret-token"
ANSWER = [{"missing": "a document", "readTime": ""}]
REFUSED = answers(401, {"error": {"code": 401, "message": "internals", "status": "UNAUTHENTICATED"}})


def token(text: str = SECRET, expires_in: int = 3600) -> Fault:
    return answers(200, {"access_token": text, "expires_in": expires_in, "token_type": "Bearer"})


@pytest.fixture(scope="session")
def private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def tokens() -> Iterator[Front]:
    """The token end point."""
    with Front("http://127.0.0.1:9") as server:
        server.always = token()
        yield server


@pytest.fixture
def firestore() -> Iterator[Front]:
    with Front("http://127.0.0.1:9") as server:
        server.always = answers(200, ANSWER)
        yield server


@pytest.fixture
def account(tokens: Front, private_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service account's key file, as the environment names it."""
    path = tmp_path / "account.json"
    content = {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": "tlogistry@my-project.iam.gserviceaccount.com",
        "token_uri": f"{tokens.url}/token?secret=query",
    }
    path.write_text(json.dumps(content))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


@pytest.fixture
def calls(account: Path, firestore: Front) -> Calls:
    return Calls(firestore.url, DATABASE, GoogleAccess(), call_s=60, attempt_s=30)


def ask(calls: Calls) -> object:
    return calls.post(":batchGet", {"documents": ["a document"]}, "datastore.entities.get")


def sent(firestore: Front) -> list[str]:
    return [seen.headers.get("authorization", "") for seen in firestore.seen]


def test_one_token_is_asked_for_by_all_threads_and_calls(calls: Calls, tokens: Front, firestore: Front) -> None:
    assert not tokens.seen, "not before the first call"
    start = threading.Barrier(16)
    results: list[object] = []

    def run() -> None:
        start.wait(WAIT_S)
        results.extend(ask(calls) for _ in range(3))

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert results == [ANSWER] * 48
    assert len(tokens.seen) == 1
    assert set(sent(firestore)) == {f"Bearer {SECRET}"}


def test_only_the_scope_of_firestore_is_asked_for(calls: Calls, tokens: Front) -> None:
    ask(calls)
    assertion = tokens.seen[0].body.decode().split("assertion=")[1].split(".")[1]
    assert b"https://www.googleapis.com/auth/datastore" in _b64url(assertion)
    assert b"cloud-platform" not in _b64url(assertion)


def test_an_expired_token_is_replaced(calls: Calls, tokens: Front, firestore: Front) -> None:
    tokens.faults = [token("first", expires_in=1), token("second")]
    ask(calls)
    ask(calls)
    ask(calls)
    assert sent(firestore) == ["Bearer first", "Bearer second", "Bearer second"]


def test_a_refused_token_is_replaced_and_the_call_repeated(calls: Calls, tokens: Front, firestore: Front) -> None:
    tokens.faults = [token("revoked"), token("good")]
    firestore.faults = [REFUSED]
    assert ask(calls) == ANSWER
    assert ask(calls) == ANSWER
    assert sent(firestore) == ["Bearer revoked", "Bearer good", "Bearer good"]


def test_an_account_that_is_refused_for_good_is_unavailable_after_a_few_attempts(
    calls: Calls, tokens: Front, firestore: Front
) -> None:
    firestore.always = REFUSED
    with pytest.raises(StoreUnavailable, match="the access token was refused"):
        ask(calls)
    assert len(firestore.seen) == ATTEMPTS
    assert len(tokens.seen) <= ATTEMPTS


PASSING = {
    "429": answers(429, {"error": "rate_limited"}),
    "500": answers(500, b"<html>"),
    "503": answers(503, {"error": "internal_failure"}),
    "lost": lost,
}
LASTING = {
    "400": answers(400, {"error": "invalid_grant", "error_description": "internals of Google"}),
    "403": answers(403, b"<html>internals of Google"),
    "404": answers(404),
    "html": answers(200, b"<html>internals of Google"),
    "empty": answers(200, {}),
    "list": answers(200, []),
    "null": answers(200, None),
    "no-expiry": answers(200, {"access_token": SECRET, "expires_in": "soon"}),
    "redirect": answers(302, Location="/elsewhere"),
    "too-long": answers(200, {"access_token": "x" * 100_000, "expires_in": 3600}),
}
SILENT = {"hangs": hangs, "drips": drips}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_fault_of_the_token_end_point_that_passes_is_repeated_here_and_not_by_google_auth(
    calls: Calls, tokens: Front, fault: Fault
) -> None:
    tokens.faults = [fault] * (ATTEMPTS - 1)
    assert ask(calls) == ANSWER
    assert len(tokens.seen) == ATTEMPTS


@pytest.mark.parametrize("fault", {**PASSING, **LASTING}.values(), ids={**PASSING, **LASTING}.keys())
def test_without_a_token_the_store_is_unavailable_and_nobody_is_asked_anonymously(
    calls: Calls, tokens: Front, firestore: Front, fault: Fault
) -> None:
    tokens.always = fault
    with pytest.raises(StoreUnavailable, match="no access token"):
        ask(calls)
    assert len(tokens.seen) <= ATTEMPTS
    assert not firestore.seen
    tokens.always = token()
    assert ask(calls) == ANSWER, "and it works again"


@pytest.mark.parametrize("fault", SILENT.values(), ids=SILENT.keys())
def test_a_token_end_point_that_does_not_come_to_an_end_is_unavailable_to_all_threads(
    account: Path, tokens: Front, firestore: Front, fault: Fault
) -> None:
    tokens.always = fault
    calls = Calls(firestore.url, DATABASE, GoogleAccess(), call_s=1, attempt_s=1)
    results: list[object] = []

    def run() -> None:
        try:
            results.append(ask(calls))
        except StoreUnavailable as error:
            results.append(str(error))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(results) == 8, "some are still waiting"
    assert all("no access token" in str(result) for result in results)
    assert not firestore.seen


@pytest.mark.parametrize("fault", [*PASSING.values(), *LASTING.values()], ids=[*PASSING, *LASTING])
def test_a_message_holds_no_token_no_key_and_no_url(calls: Calls, tokens: Front, fault: Fault) -> None:
    tokens.always = fault
    with pytest.raises(StoreUnavailable) as caught:
        ask(calls)
    message = str(caught.value)
    assert not [word for word in (SECRET, "PRIVATE", "://", "query", "internals", "127.0.0.1") if word in message]


def test_a_key_file_that_is_not_there_is_unavailable_and_its_path_not_told(
    firestore: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(StoreUnavailable, match="no access token") as caught:
        ask(Calls(firestore.url, DATABASE, GoogleAccess(), call_s=5, attempt_s=1))
    assert str(tmp_path) not in str(caught.value)
    assert not firestore.seen


ON_CLOUD_RUN = """
import sys, threading
from lib.config import FirestoreDatabase
from lib.store.access import GoogleAccess
from lib.store.rest import Calls
calls = Calls(sys.argv[1], FirestoreDatabase("my-project", "records"), GoogleAccess(), 60, 30)
for _ in range(3):
    print(calls.post(":batchGet", {"documents": ["a document"]}, "datastore.entities.get"))
print(threading.active_count())
"""


def test_the_metadata_servers_token_is_used_and_no_other_service_is_asked(firestore: Front, tmp_path: Path) -> None:
    """In a process of its own: google-auth reads where the metadata server is when it is imported."""
    with Front("http://127.0.0.1:9") as metadata:
        metadata.always = _metadata
        address = metadata.url.removeprefix("http://")
        run = subprocess.run(
            [sys.executable, "-c", ON_CLOUD_RUN, firestore.url],
            env=environment(
                GCE_METADATA_HOST=address, GCE_METADATA_IP=address, CLOUDSDK_CONFIG=str(tmp_path), HOME=str(tmp_path)
            ),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.splitlines() == [str(ANSWER)] * 3 + ["1"], "and no thread was left behind"
        (asked,) = [seen.path for seen in metadata.seen if "/token" in seen.path]
        assert asked.endswith("/default/token?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdatastore")
        assert all(seen.headers["metadata-flavor"] == "Google" for seen in metadata.seen)
    assert sent(firestore) == [f"Bearer {SECRET}"] * 3


def _metadata(exchange: Exchange) -> None:
    flavour = {"Metadata-Flavor": "Google", "Content-Type": "application/json"}
    path = exchange.path.partition("?")[0]
    if path.endswith("/token"):
        body: object = {"access_token": SECRET, "expires_in": 3600, "token_type": "Bearer"}
    elif path.endswith("/default/"):
        body = {"email": "tlogistry@my-project.iam.gserviceaccount.com", "scopes": ["all"], "aliases": ["default"]}
    else:
        body = {}
    answers(200, body, **flavour)(exchange)


def _b64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
