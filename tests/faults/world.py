"""The processes of the table: one backend (registry, local Sigstore, store), and services, each behind gates of its own.

with Backend(folder, "sqlite") as backend, Stand(backend, "one", deadline_s=3) as stand:
    subject = backend.subject("append-lost-stays")
    subject.rules["append"] = lost
    stand.ask(subject)      # an Asked: the answer, and how long it took
    stand.kill()            # SIGKILL to every process of it
    stand.start()           # the next one, with nothing in memory
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from lib.config import SETTINGS
from lib.devsigstore.server import DevSigstore
from lib.oci.digest import Digest
from lib.oci.manifest import OCI_MANIFEST
from lib.sighting.statement import statement
from tests.e2e.processes import children, wait_until
from tests.fakes.registry import FakeRegistry, image
from tests.faults.calls import Directory, Subject
from tests.faults.gate import Gate, Reply, passes
from tests.firestore import new_database
from tests.framework import Function

if TYPE_CHECKING:
    from types import TracebackType

    from lib.config import BaseUrl
    from lib.oci.reference import Tag
    from tests.faults.gate import Act, Call
    from tests.framework import Answer

Store = Literal["sqlite", "firestore"]
ASK_S = 60
THREADS = 256  # of which all that are to be killed hold one each, and one registry's may hold some of them only
STOP_S = 20
CONTENTS = (image("first"), image("moved"))
FIRST, MOVED = (str(Digest.of(content)) for content in CONTENTS)
NO_LIMITS = (  # on what costs the log: these tests are floods
    "TLOGISTRY_NEW_TAGS_PER_CLIENT",
    "TLOGISTRY_NEW_TAGS_PER_DOMAIN",
    "TLOGISTRY_NEW_TAGS_TOTAL",
    "TLOGISTRY_NEW_TAGS_PER_DAY",
)


@dataclass(frozen=True)
class Asked:
    """One answer; None if the connection died instead."""

    answer: Answer | None
    seconds: float
    deadline_s: float

    @property
    def status(self) -> int | None:
        return self.answer.status if self.answer is not None else None

    @property
    def digest(self) -> str | None:
        """The digest that is served, whose bytes are looked at."""
        if self.answer is None or self.answer.status != 200:
            return None
        digest = self.answer.headers["docker-content-digest"]
        assert digest == str(Digest.of(self.answer.body)), "the header names other bytes"
        return digest

    @property
    def recorded(self) -> str | None:
        """The digest that is named as the record: served, or in a refusal."""
        if self.answer is not None and self.answer.status == 403:
            return str(json.loads(self.answer.body)["errors"][0]["detail"]["recorded"])
        return self.digest

    def __str__(self) -> str:
        return str(self.status or "---")


class Backend:
    """What the services share. The log's whole content is read from its file once it is closed."""

    def __init__(self, folder: Path, store: Store, emulator: BaseUrl | None = None) -> None:
        self.folder = folder
        self.store = store
        self.emulator = emulator
        self.database = new_database()
        self.file = folder / "store.sqlite"
        self.directory = Directory()
        self.sigstore = folder / "sigstore"
        self.sigstore.mkdir()
        self.dev = DevSigstore(self.sigstore)
        self.registry = FakeRegistry(token_field="token", accounts={})

    def __enter__(self) -> Self:
        self.dev.start()
        self.registry.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.registry.__exit__(kind, value, trace)
        self.dev.stop()

    def subject(self, name: str) -> Subject:
        """A tag, which points to the first digest."""
        subject = self.directory.add(name)
        for content in CONTENTS[::-1]:
            self.registry.push(subject.repository, "v1", content, OCI_MANIFEST)
        return subject

    def move(self, subject: Subject, digest: str) -> None:
        self.registry.move(subject.repository, "v1", digest)


def logged(sigstore: Path, tags: list[Tag]) -> dict[str, set[str]]:
    """Tag -> digests, of every entry in the log of a local Sigstore that has ended, whether its index finds it or not."""
    said = {_hash(tag, digest): (str(tag), digest) for tag in tags for digest in (FIRST, MOVED)}
    found: dict[str, set[str]] = {}
    db = sqlite3.connect(sigstore / "log.sqlite")
    for (text,) in db.execute("SELECT body FROM entry"):
        spec = json.loads(text)["spec"]
        payload = spec["payloadHash"] if "payloadHash" in spec else spec["content"]["payloadHash"]
        tag, digest = said[payload["value"]]  # a KeyError: the log says something that nobody was to sign
        found.setdefault(tag, set()).add(digest)
    db.close()
    return found


def _hash(tag: Tag, digest: str) -> str:
    return sha256(statement(tag, Digest.parse(digest))).hexdigest()


class Stand:
    """One service, as it is deployed, with a gate before each service that it calls."""

    def __init__(self, backend: Backend, name: str, *, deadline_s: float, **settings: str) -> None:
        self.backend = backend
        self.deadline_s = deadline_s
        self.alone: Subject | None = None  # whose calls are those that name no tag
        behind = {"registry": backend.registry.base_url, **dict.fromkeys(("log", "ca", "metadata"), backend.dev.url)}
        if backend.emulator is not None:
            behind["store"] = str(backend.emulator)
        self.gates = {service: Gate(service, url, self._judge, self._saw) for service, url in behind.items()}
        self._token = f'Bearer realm="{self.gates["registry"].url}/token",service="fake-registry"'
        self._settings = {**self._environment(name), **settings}
        self._gates = ExitStack()
        self._function: Function | None = None

    def _environment(self, name: str) -> dict[str, str]:
        backend = self.backend
        environment = dict(backend.dev.environment())
        trust = json.loads(Path(environment["TLOGISTRY_TRUST"]).read_text())
        for service, list_ in (("ca", "caUrls"), ("log", "rekorTlogUrls")):
            for one in trust["signingConfig"][list_]:
                one["url"] = self.gates[service].url
        file = backend.folder / f"trust-{name}.json"
        file.write_text(json.dumps(trust))
        metadata = f"127.0.0.1:{self.gates['metadata'].port}"
        environment |= {
            "TLOGISTRY_TRUST": str(file),
            "GCE_METADATA_HOST": metadata,
            "GCE_METADATA_IP": metadata,
            "TLOGISTRY_DEADLINE": str(self.deadline_s),
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_STORE": f"sqlite:{backend.file}",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": self.gates["registry"].url}),
            **no_limits(),
        }
        if "store" in self.gates:
            environment["FIRESTORE_EMULATOR_HOST"] = f"127.0.0.1:{self.gates['store'].port}"
            environment["TLOGISTRY_STORE"] = f"firestore:{backend.database}"
        return environment

    # Life

    def start(self) -> None:
        self._function = Function(self._settings, threads=THREADS)
        self._function.__enter__()

    def kill(self) -> None:
        """SIGKILL to every process of it, as when the machine's memory is over."""
        assert self._function is not None
        family = self.pids()
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._function.__exit__(None, None, None)
        assert wait_until(lambda: not any(_runs(pid) for pid in family), STOP_S)
        self._function = None

    def kill_worker(self) -> None:
        """SIGKILL to its worker, as by a kernel that is out of memory; wait for the next one, which the server starts."""
        server, *family = self.pids()
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: any(pid not in family for pid in children(server)), STOP_S)

    def pids(self) -> list[int]:
        """The server and its worker."""
        assert self._function is not None
        return [self._function.process.pid, *children(self._function.process.pid)]

    def __enter__(self) -> Self:
        for gate in self.gates.values():
            self._gates.enter_context(gate)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._function is not None:
            self.kill()  # nothing is under way that would be missed
        self._gates.close()

    # Requests

    def ask(self, subject: Subject, method: str = "GET") -> Asked:
        assert self._function is not None
        started = time.monotonic()
        answer: Answer | None = None
        with suppress(OSError, http.client.HTTPException):
            answer = self._function.ask(method, f"/v2/{subject.repository}/manifests/v1", timeout=ASK_S)
        return Asked(answer, time.monotonic() - started, self.deadline_s)

    def _judge(self, call: Call) -> Act:
        subject, kinds = self.backend.directory.find(call)
        subject = subject or self.alone
        act = subject.take(call.gate.name, kinds) if subject is not None else None
        if kinds[0] == "redirected" and subject is not None:
            call.path = call.path.replace("/storage/", "/v2/", 1)
            call.headers["authorization"] = f"Bearer {self.backend.registry.issue(subject.repository)}"
        return act or passes

    def _saw(self, call: Call, reply: Reply) -> Reply:
        """The registry names a token service: it is where the service can reach it, behind this gate."""
        self.backend.directory.saw(call, reply)
        headers = [(name, self._token if name == "WWW-Authenticate" else value) for name, value in reply.headers]
        return reply._replace(headers=headers)


def no_limits() -> dict[str, str]:
    """The settings that switch off the limits on new tags."""
    return {name: "off" for name in NO_LIMITS if name in SETTINGS}


def _runs(pid: int) -> bool:
    """A zombie that its parent has not looked at yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
