"""What tests need of Firestore: the emulator, which is Google's own (one process, any number of databases), and its answers."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import requests

from lib.config import BaseUrl, FirestoreDatabase
from lib.errors import StoreUnavailable, TlogistryError
from tests.e2e.processes import Process, StartFailed
from tests.store.contract import SECOND, TAG, TWO, WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from lib.store.store import RecordStore

JAR = Path("/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
OWNER = {"Authorization": "Bearer owner"}
START_S = 60

PATIENT = {"call_s": 120.0, "attempt_s": 60.0}  # the machine may be busy, and a lost answer is not what is tested
HASTY = {"call_s": 1.0, "attempt_s": 0.4}  # where no answer is expected

READ = "2026-11-25T19:59:13.237077Z"


def need_emulator() -> None:
    """Skip, naming the package, where the emulator cannot run."""
    if not JAR.is_file():
        pytest.skip(
            "the Firestore emulator is not installed; it is in Google's package google-cloud-cli-firestore-emulator"
        )
    if shutil.which("java") is None:
        pytest.skip("java is not installed; it is in the Debian package default-jre-headless")


class FirestoreEmulator:
    """Runs until the block ends. Its log is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "firestore.log"
        for attempt in range(3):  # a free port may be taken by somebody else before it is used
            self.url = BaseUrl("http", "127.0.0.1", _free_port())
            try:
                self.start()
            except StartFailed:
                if attempt == 2:
                    raise
            else:
                return

    def start(self) -> None:
        """Empty, and where it was before, if it was killed."""
        listen = (f"--host={self.url.host}", f"--port={self.url.port}")
        self._process = Process(["java", "-Xmx1g", "-Duser.language=en", "-cp", JAR, MAIN, "start", *listen], self._log)
        try:
            self._process.wait_until(lambda: requests.get(str(self.url), timeout=5).text == "Ok\n", START_S)
            self._process.wait_until(self._has_served, START_S)
        except StartFailed:
            self._process.end()
            raise

    def _has_served(self) -> bool:
        """One of each call that the store makes: Java loads what they need by the first, for seconds on a busy machine."""
        documents = f"{self.url}/v1/{new_database()}/documents"
        name = documents.removeprefix(f"{self.url}/v1/") + "/warm/up"
        calls: dict[str, dict[str, object]] = {
            "/warm?documentId=up": {"fields": {}},
            ":batchGet": {"documents": [name]},
        }
        return all(
            requests.post(documents + path, json=body, headers=OWNER, timeout=START_S).ok
            for path, body in calls.items()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        self._process.end()

    def freeze(self) -> None:
        """It listens, and says nothing."""
        self._process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.signal(signal.SIGCONT)

    def kill(self) -> None:
        """It and everything in it are gone."""
        self._process.signal(signal.SIGKILL)
        self._process.wait(10)

    def wipe(self, database: FirestoreDatabase) -> None:
        """The database is empty."""
        answer = requests.delete(f"{self.url}/emulator/v1/{database}/documents", timeout=60)
        answer.raise_for_status()

    def plant(self, name: str, fields: Mapping[str, object]) -> None:
        """A document that is not the store's own work; replaces what is there."""
        answer = requests.patch(f"{self.url}/v1/{name}", json={"fields": fields}, headers=OWNER, timeout=60)
        answer.raise_for_status()

    def documents(self, database: FirestoreDatabase, collection: str) -> list[dict[str, object]]:
        """Everything in a collection."""
        found: list[dict[str, object]] = []
        page = ""
        while True:
            url = f"{self.url}/v1/{database}/documents/{collection}?pageSize=300&pageToken={page}"
            answer = requests.get(url, headers=OWNER, timeout=60)
            answer.raise_for_status()
            found += answer.json().get("documents", [])
            page = answer.json().get("nextPageToken", "")
            if not page:
                return found


def new_database() -> FirestoreDatabase:
    """The emulator makes a database when it is named for the first time."""
    return FirestoreDatabase("demo-tlogistry", f"t-{uuid.uuid4().hex}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def outcomes(store: RecordStore) -> list[object]:
    """What the store's four calls come to, each in a thread that is waited for: a call that does not end is no error."""
    calls: list[Callable[[], object]] = [
        lambda: store.claim(TAG),
        lambda: store.sighting(TAG),
        lambda: store.put_claim(TAG, TWO),
        lambda: store.put_sighting(TAG, SECOND),
    ]
    results: list[object] = ["did not end"] * len(calls)

    def run(number: int) -> None:
        try:
            results[number] = calls[number]()
        except TlogistryError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(calls))]
    for thread in threads:
        thread.start()
        thread.join(WAIT_S)
    return results


def all_unavailable(store: RecordStore) -> list[str]:
    """The messages of four StoreUnavailable, and nothing else."""
    results = outcomes(store)
    assert [type(result) for result in results] == [StoreUnavailable] * 4, results
    return [str(result) for result in results]


def google_error(code: int, status: str, message: str = "internals of Google", reason: str = "") -> dict[str, object]:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else []
    return {"error": {"code": code, "message": message, "status": status, "details": details}}
