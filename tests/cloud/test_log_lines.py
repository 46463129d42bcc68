"""What the deployed bundle prints for a thousand random requests: docs/request-handling.md, "Log lines"."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from lib import VERSION
from lib.devsigstore.identity import EMAIL, ISSUER
from lib.oci.manifest import OCI_MANIFEST
from tests.cloud.deployment import THREADS, Deployment
from tests.cloud.traffic import DEAD, PASSWORD, SECRETS, UNCHALLENGED, USER, Registry, Request, Traffic
from tests.e2e.test_race import together
from tests.fakes.registry import image
from tests.fakes.secret_manager import FakeSecretManager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from tests.cloud.deployment import Revision
    from tests.firestore import FirestoreEmulator

SEED = 20261125
REQUESTS = 1000
WITH_FAULTS = {"metadata:before": 15, "fulcio:before": 15, "index:before": 15, "log:before": 15}  # of new tags
CLIENTS = 12
SECRET = "projects/demo-tlogistry/secrets/registry-accounts"
JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.")
TRACE = "logging.googleapis.com/trace"
SEVERITIES = {"DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL"}
BROKEN = "stream broken off"
NOBODYS = {"started", "upstream credentials read"}  # lines that belong to no request
STATUS = {
    "first seen": 200,
    "same": 200,
    "moved": 403,
    "could not tell": 503,
    "rate limited": 429,
    "not found": 404,
    "not public": 404,
    "no manifest": 400,
    "refused": 400,
    "passed through": 200,
}


class Played(NamedTuple):
    """What was asked and answered, what was printed, and every secret that was in play."""

    answered: list[tuple[Request, int]]
    text: str
    lines: list[dict[str, Any]]
    secrets: set[str]
    project: str
    revision: str

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "verdict" in line]


def play(function: Revision, requests: list[Request]) -> list[tuple[Request, int]]:
    """Send them all, some at a time."""
    answered: list[tuple[Request, int]] = []
    left = iter(requests)
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                request = next(left, None)
            if request is None:
                return
            answered.append((request, request.send(function.port)))

    together([client] * CLIENTS)
    return answered


@pytest.fixture(scope="module")
def played(workshop: Path, programs: Path, emulator: FirestoreEmulator, sigstore: DevSigstore) -> Iterator[Played]:
    with Registry() as registry, Registry() as unchallenged, FakeSecretManager() as manager:
        unchallenged.challenge = "none"
        account = {"username": USER, "password": PASSWORD}
        manager.add(SECRET, json.dumps({"docker.io": account}).encode())
        upstreams = {"docker.io": registry.base_url, UNCHALLENGED: unchallenged.base_url, DEAD: "http://127.0.0.1:9"}
        deployment = Deployment(
            workshop / "lines",
            programs,
            emulator.url,
            sigstore,
            upstreams,
            TLOGISTRY_CREDENTIALS_SECRET=SECRET,
            TLOGISTRY_SECRET_MANAGER_ENDPOINT=manager.url,
        )
        traffic = Traffic(registry, SEED)
        with deployment.revision() as function:
            answered = play(function, traffic.requests(REQUESTS - sum(WITH_FAULTS.values())))
            for fault, count in WITH_FAULTS.items():
                tags = [f"{fault.partition(':')[0]}{number}" for number in range(count)]
                for tag in tags:
                    registry.push("there/app", tag, image(tag), OCI_MANIFEST)
                function.restart()  # no certificate in hand
                sigstore.faults.set(fault)
                try:
                    answered += play(function, traffic.by_tag(tags))
                finally:
                    sigstore.faults.set("")
        assert registry.pulled_by_account > 0
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        secrets = {*SECRETS, *registry.tokens, *unchallenged.tokens, basic}
        text = function.text()
        lines = [json.loads(line) for line in text.split("\n") if line]
        yield Played(answered, text, lines, secrets, deployment.database.project, function.name)


def test_a_thousand_requests_were_answered_and_of_every_kind(played: Played) -> None:
    assert len(played.answered) == REQUESTS
    assert {line["verdict"] for line in played.verdicts} == STATUS.keys()
    statuses = Counter(status for _, status in played.answered)
    assert statuses.keys() >= {200, 206, 307, 400, 403, 404, 405, 416, 429, 503}
    assert not any(line["severity"] == "CRITICAL" for line in played.lines)


def test_every_line_is_one_object_with_severity_and_message(played: Played) -> None:
    for line in played.lines:
        assert isinstance(line, dict)
        assert line["severity"] in SEVERITIES
        assert isinstance(line["message"], str)
        assert line["message"]
        assert re.fullmatch(r"[0-9a-f]{16}", line.get("requestId", "")) or line["message"] in NOBODYS, line


def test_a_well_formed_request_by_tag_makes_exactly_one_line_with_a_verdict(played: Played) -> None:
    asked = Counter(request.tag for request, _ in played.answered if request.tag is not None)
    assert Counter(line["tag"] for line in played.verdicts) == asked
    assert len({line["requestId"] for line in played.verdicts}) == asked.total() > REQUESTS // 2


def test_the_line_says_what_was_answered(played: Played) -> None:
    """By the trace that a request names, each can be found; the others by their numbers."""
    by_trace = {line[TRACE]: line for line in played.verdicts if TRACE in line}
    traced = 0
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    for request, status in played.answered:
        if request.tag is None:
            continue
        statuses[request.tag][status] += 1
        if request.trace is not None:
            line = by_trace.pop(f"projects/{played.project}/traces/{request.trace}")
            assert (line["tag"], line["status"]) == (request.tag, status)
            assert line["verdict"] in request.verdicts, (request, line)
            traced += 1
    assert by_trace == {}, "whoever names no trace is filed under none"
    assert traced > REQUESTS // 4
    said: dict[str, Counter[int]] = defaultdict(Counter)
    for line in played.verdicts:
        said[line["tag"]][line["status"]] += 1
    assert said == statuses


def test_the_fields_of_a_line_with_a_verdict(played: Played) -> None:
    for line in played.verdicts:
        assert line["status"] == STATUS[line["verdict"]], line
        assert line["message"] == line["verdict"]
        want = {"first seen": "NOTICE", "moved": "NOTICE", "could not tell": "WARNING"}.get(line["verdict"], "INFO")
        assert line["severity"] == want, line
        assert all(isinstance(spent, (int, float)) and spent >= 0 for spent in line["ms"].values())
        assert line["ms"].keys() <= {"total", "upstream", "store", "log", "sign"}
        assert line["ms"]["total"] > 0
        assert ("reason" in line) == (line["verdict"] in {"moved", "could not tell", "refused", "no manifest"}), line
        assert "path" not in line


def test_the_registrys_status_is_there_where_the_registry_answered(played: Played) -> None:
    by_verdict: dict[str, set[int | None]] = defaultdict(set)
    for line in played.verdicts:
        by_verdict[line["verdict"]].add(line.get("upstreamStatus"))
    assert by_verdict.pop("refused") == {None}
    for statuses in by_verdict.values():
        statuses.discard(None)  # another request's answer, or one of a moment before
    for verdict in ("first seen", "same", "moved", "passed through"):
        assert by_verdict[verdict] == {200}, verdict
    assert by_verdict["not found"] == {404}
    assert by_verdict["rate limited"] == {429}
    assert by_verdict["not public"] == {401, 403}
    assert {200, 418, 500} <= by_verdict["could not tell"]


def test_what_could_not_be_answered_makes_one_line_and_what_could_none(played: Played) -> None:
    lines = [line for line in played.lines if line["message"] == "not answered"]
    failed = [status for request, status in played.answered if request.tag is None and status >= 500]
    assert Counter(line["status"] for line in lines) == Counter(failed)
    for line in lines:
        assert line["severity"] == "WARNING"
        assert line["path"].startswith("/")
        assert {"tag", "verdict"}.isdisjoint(line)
    broken = [line for line in played.lines if line["message"] == BROKEN]
    assert broken, "a stream that breaks off after 200"
    known = {line["requestId"] for line in [*lines, *broken, *played.verdicts]}
    for line in played.lines:
        assert line["message"] in NOBODYS or line["requestId"] in known, "it leads to a line that says how it ended"


def test_no_line_holds_a_secret_that_was_in_play(played: Played) -> None:
    assert len(played.secrets) > 20
    for secret in played.secrets:
        assert secret not in played.text
    assert JWT.search(played.text) is None, "an identity token"
    assert "dev-not-for-production" not in played.text, "the metadata server's access token"
    assert "?" not in "".join(str(line.get("path", "")) for line in played.lines)


def test_the_first_line_of_an_instance_says_what_it_is(played: Played) -> None:
    started = [line for line in played.lines if line["message"] == "started"]
    assert len(started) == 1 + len(WITH_FAULTS), "one for each start"
    assert played.lines[0] == started[0]
    for line in started:
        assert line["severity"] == "INFO"
        assert (line["version"], line["revision"]) == (VERSION, played.revision)
        assert line["trust"] == "trust-config.json"
        assert line["identities"] == f"{EMAIL} of {ISSUER}"
        assert line["store"].startswith(f"projects/{played.project}/databases/")
        assert set(line["upstreams"]) == {"docker.io", UNCHALLENGED, DEAD}
        assert (line["deadline"], line["logSearch"], line["threads"]) == (30.0, "on", THREADS)
        assert line["credentials"] == f"{SECRET}/versions/latest"
        assert line["newTags"].keys() == {"perClient", "perDomain", "total", "perDay"}
        assert line["allow"] == "all registries"
