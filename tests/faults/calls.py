"""Which call is which: of which tag, and which step of the request.

Registry: challenge (the first GET, without a token), token, manifest (with one), redirected, head. Log: index, retrieve,
append, copy. Certificate authority: certificate. Metadata server: identity. Store: sighting, claim, put_claim, poll (a look for
the record of whoever made the claim), claim again (the last look before the append), put_sighting, winner (what is there
after a create that found something). Calls for a certificate or a token name no tag: they are those of `Stand.alone`.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from lib.oci.reference import Tag
from lib.sighting.statement import tag_key

if TYPE_CHECKING:
    from tests.faults.gate import Act, Call, Reply

MANIFEST = re.compile(r"/(v2|storage)/(.+)/manifests/v1", re.ASCII)
SCOPE = re.compile(r"repository:(.+):pull", re.ASCII)
DOCUMENT = re.compile(r"(claims|sightings)/([0-9a-f]{64})", re.ASCII)


class Subject:
    """One tag of one cell: what is done to its calls, and which there were since `begin`."""

    def __init__(self, name: str) -> None:
        self.repository = f"faults/{name}"
        self.reference = f"{self.repository}:v1"
        self.tag = Tag.parse(self.reference)
        self.rules: dict[str, Act] = {}  # call -> what is done to each of them, from now on
        self.once: dict[tuple[str, int], Act] = {}  # call and its number since `begin` -> what is done to this one
        self._news = threading.Condition()
        self._counts: Counter[str] = Counter()
        self.calls: list[tuple[str, str]] = []  # (gate, call)

    def begin(self) -> None:
        """Count from here."""
        with self._news:
            self._counts.clear()
            self.calls = []

    def reached(self, kind: str, seconds: float = 0.0) -> bool:
        """Whether such a call came, or comes within some seconds."""
        with self._news:
            return self._news.wait_for(lambda: self._counts[kind] > 0, seconds)

    def take(self, gate: str, kinds: tuple[str, ...]) -> Act | None:
        """What is to be done to this call. `kinds`: (what it is at first, *(what it is, after which other)*)."""
        with self._news:
            kind = kinds[0]
            for later, after in zip(kinds[1::2], kinds[2::2], strict=True):
                if self._counts[after]:
                    kind = later
            self._counts[kind] += 1
            self.calls.append((gate, kind))
            self._news.notify_all()
            return self.once.get((kind, self._counts[kind])) or self.rules.get(kind)


class Directory:
    """Subjects by everything that a call may name them by. Safe from any thread."""

    def __init__(self) -> None:
        self._named: dict[str, Subject] = {}

    def add(self, name: str) -> Subject:
        subject = Subject(name)
        tag = str(subject.tag)
        for key in (subject.repository, tag, tag_key(subject.tag), sha256(tag.encode()).hexdigest()):
            assert key not in self._named, f"two cells are called {name}"
            self._named[key] = subject
        return subject

    def tags(self) -> list[Tag]:
        """Of all that were ever added."""
        return [subject.tag for subject in {id(one): one for one in self._named.values()}.values()]

    def find(self, call: Call) -> tuple[Subject | None, tuple[str, ...]]:
        """Whose call it is (None: it names no tag), and what it is."""
        key, *kinds = getattr(self, f"_of_{call.gate.name}")(call)
        return self._named.get(key), tuple(kinds)

    def saw(self, call: Call, reply: Reply) -> None:
        """An answer of the index says whose entries are whose."""
        subject, kinds = self.find(call)
        if subject is not None and kinds[0] == "index" and reply.status == 200:
            for uuid in json.loads(reply.body):
                self._named[uuid[-64:]] = subject

    def _of_registry(self, call: Call) -> tuple[str, ...]:
        target = urlsplit(call.path)
        if target.path == "/token":
            scope = SCOPE.fullmatch(parse_qs(target.query)["scope"][0])
            return (scope[1] if scope is not None else "", "token")
        found = MANIFEST.fullmatch(target.path)
        if found is None:
            return ("", "ping")
        if found[1] == "storage":
            return (found[2], "redirected")
        if call.method == "HEAD":
            return (found[2], "head")
        return (found[2], "manifest" if "authorization" in call.headers else "challenge")

    def _of_log(self, call: Call) -> tuple[str, ...]:
        return log_call(call)

    def _of_ca(self, _: Call) -> tuple[str, ...]:
        return ("", "certificate")

    def _of_metadata(self, _: Call) -> tuple[str, ...]:
        return ("", "identity")

    def _of_store(self, call: Call) -> tuple[str, ...]:
        asked = json.loads(call.body)
        if urlsplit(call.path).path.endswith(":batchGet"):
            found = DOCUMENT.search(asked["documents"][0])
            assert found is not None
            if found[1] == "claims":
                return (found[2], "claim", "claim again", "index")
            return (found[2], "sighting", "poll", "claim", "winner", "put_sighting")
        found = re.search(r"(claims|sightings)\?documentId=([0-9a-f]{64})", call.path, re.ASCII)
        assert found is not None
        return (found[2], "put_claim" if found[1] == "claims" else "put_sighting")


def log_call(call: Call) -> tuple[str, str]:
    """What the call names (a tag, its key, an entry), and which it is."""
    path = urlsplit(call.path).path
    if call.method != "POST":
        return ("", "read")
    asked = json.loads(call.body)
    if path.endswith("/index/retrieve"):
        return (asked["hash"].removeprefix("sha256:"), "index")
    if path.endswith("/entries/retrieve"):
        return (asked["entryUUIDs"][0][-64:], "retrieve")
    if asked["kind"] == "dsse":
        payload = json.loads(asked["spec"]["proposedContent"]["envelope"])["payload"]
        return (_tag_in(payload), "append")
    payload = base64.b64decode(asked["spec"]["content"]["envelope"]["payload"])
    return (_tag_in(payload), "copy")


def _tag_in(payload: str | bytes) -> str:
    return str(json.loads(base64.b64decode(payload))["predicate"]["tag"])
