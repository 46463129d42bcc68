"""Many ask for the same new tags at once while the upstream alternates: one digest for each tag, for everybody."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections import Counter, defaultdict
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import pytest
import requests

from lib.devsigstore.server import DevSigstore
from lib.errors import Unavailable
from lib.oci.digest import Digest
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from lib.recorder import Same
from lib.sighting.statement import statement
from tests.fakes.registry import FakeRegistry, image
from tests.framework import Function
from tests.sigstore import Parts, digests_logged, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

PROCESSES = 4
THREADS = 16  # at each of them
TAGS = 200
BARE_TAGS = 50
UNAVAILABLE_AT_MOST = 0.02  # of all answers
REPOSITORY = "race/app"
CONTENTS = (image("one"), image("two"))


class Got(NamedTuple):
    """What one request for a tag was answered: how, which digest, and the log entry that is named for it."""

    tag: str
    status: int
    digest: str | None
    entry: str | None
    first: bool


def ask_for_all(port: int, method: str, tags: Iterable[str]) -> list[Got]:
    """Ask one instance for every tag, one after the other over one connection, as one client does."""
    got = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    for tag in tags:
        path = f"/v2/{REPOSITORY}/manifests/{tag}"
        try:
            connection.request(method, path)
            response = connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):  # it was idle for too long
            connection.close()
            connection.request(method, path)
            response = connection.getresponse()
        body, headers = response.read(), response.headers
        digest, entry = headers["Docker-Content-Digest"], headers["Tlog-Uuid"]
        match response.status, method:
            case 200, "GET":
                assert str(Digest.of(body)) == digest
            case 403, "GET":
                (error,) = json.loads(body)["errors"]
                assert error["code"] == "TAG_INVALID"
                assert error["detail"]["uuid"] == entry
                digest = error["detail"]["recorded"]
            case 503, _:
                assert int(headers["Retry-After"]) > 0
        got.append(Got(tag, response.status, digest, entry, headers["Tlog-First-Seen"] is not None))
    connection.close()
    return got


def together(work: list[Callable[[], None]]) -> None:
    """Run all of it, from the same moment on, each in a thread of its own; the first failure is the test's."""
    start = threading.Barrier(len(work))
    failures: list[BaseException] = []

    def run(one: Callable[[], None]) -> None:
        start.wait()
        try:
            one()
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def assert_logged(dev: DevSigstore, tag: Tag, entry: str, digest: str) -> None:
    """The entry that is named is in the log and says so, and no entry for the tag says anything else."""
    answer = requests.get(f"{dev.url}/api/v1/log/entries/{entry}", timeout=10)
    assert answer.status_code == requests.codes.ok, f"the log has no entry {entry}"
    ((_, logged),) = answer.json().items()
    said = sha256(statement(tag, Digest.parse(digest))).hexdigest()
    assert json.loads(base64.b64decode(logged["body"]))["spec"]["payloadHash"]["value"] == said
    assert digests_logged(dev.url, tag) == {said}


@pytest.mark.slow
def test_sixteen_threads_at_each_of_four_processes_agree_on_two_hundred_new_tags(tmp_path: Path) -> None:
    tags = [f"v{number}" for number in range(TAGS)]
    got: list[Got] = []
    with DevSigstore(tmp_path) as dev, FakeRegistry() as registry, ExitStack() as stack:
        digests = [registry.push(REPOSITORY, None, content, OCI_MANIFEST) for content in CONTENTS]
        for number, tag in enumerate(tags):
            registry.alternate(REPOSITORY, tag, *(digests if number % 2 else reversed(digests)))
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": registry.base_url}),
        }
        ports = [stack.enter_context(Function(settings)).port for _ in range(PROCESSES)]

        def client(port: int, method: str) -> Callable[[], None]:
            return lambda: got.extend(ask_for_all(port, method, tags))

        together([client(port, ("GET", "HEAD")[number % 2]) for port in ports for number in range(THREADS)])

        by_tag = defaultdict(list)
        for one in got:
            by_tag[one.tag].append(one)
        for tag, answers in by_tag.items():
            assert {one.status for one in answers} >= {200, 403}, "the upstream alternates, so both were offered"
            (digest,) = {one.digest for one in answers if one.digest is not None}
            (entry,) = {one.entry for one in answers if one.status != http.client.SERVICE_UNAVAILABLE}
            assert sum(one.first for one in answers) <= 1
            assert digest is not None
            assert entry is not None, "every refusal names an entry"
            assert_logged(dev, Tag.parse(f"{REPOSITORY}:{tag}"), entry, digest)
    statuses = Counter(one.status for one in got)
    assert statuses.keys() <= {200, 403, 503}
    assert statuses.total() == PROCESSES * THREADS * TAGS
    assert statuses[503] <= UNAVAILABLE_AT_MOST * statuses.total()


@pytest.mark.slow
def test_the_bare_recorder_agrees_as_well(tmp_path: Path) -> None:
    """The same without HTTP in between, so that more of them meet at the same step."""
    digests = [Digest.of(content) for content in CONTENTS]
    tags = [Tag.parse(f"{REPOSITORY}:v{number}") for number in range(BARE_TAGS)]
    same: dict[Tag, set[tuple[str, str]]] = defaultdict(set)
    moved: dict[Tag, set[str]] = defaultdict(set)
    unavailable: list[Unavailable] = []
    with DevSigstore(tmp_path) as dev:

        def observer(number: int) -> Callable[[], None]:
            recorder = recorders[number % PROCESSES]

            def observe() -> None:
                for turn, tag in enumerate(tags):
                    try:
                        verdict = recorder.observe(tag, digests[(number // PROCESSES + turn) % 2], seconds(30))
                    except Unavailable as error:
                        unavailable.append(error)
                        continue
                    sighting = verdict.sighting
                    if isinstance(verdict, Same):
                        same[tag].add((str(sighting.digest), sighting.uuid))
                    else:
                        moved[tag].add(sighting.uuid)

            return observe

        recorders = [Parts(dev, tmp_path / "store.sqlite").recorder() for _ in range(PROCESSES)]
        together([observer(number) for number in range(PROCESSES * THREADS)])
        for tag in tags:
            ((digest, entry),) = same[tag]
            assert moved[tag] == {entry}
            assert_logged(dev, tag, entry, digest)
    assert len(unavailable) <= UNAVAILABLE_AT_MOST * PROCESSES * THREADS * BARE_TAGS
