"""scripts/smoke.py against the real function, and against services that are wrong in one way each."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lib.devsigstore.server import DevSigstore
from tests.fakes.canned import Answer, CannedServer
from tests.fakes.registry import FakeRegistry, Redirect, Status
from tests.framework import Function
from tests.terraform.configuration import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[str, str, Answer], Answer]

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'


class Done(NamedTuple):
    code: int
    out: list[str]
    err: list[str]


def smoke(*arguments: str) -> Done:
    """Run as a person runs it. The default wait is for the cloud; here only what is up already is asked."""
    command = [sys.executable, str(ROOT / "scripts" / "smoke.py"), "--wait", "0", *arguments]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return Done(done.returncode, done.stdout.splitlines(), done.stderr.splitlines())


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def manifest(config: bytes = CONFIG) -> bytes:
    descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config)}
    layers: list[object] = []
    whole = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {**descriptor, "digest": digest_of(config)},
        "layers": layers,
    }
    return json.dumps(whole).encode()


# --- a service that is right ------------------------------------------------------------------------------------------


class World(NamedTuple):
    registry: FakeRegistry
    storage: CannedServer
    function: Function

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.function.port}"

    def push(self, name: str) -> str:
        self.registry.push_blob(f"library/{name}", CONFIG)
        return self.registry.push(f"library/{name}", "1.0", manifest(), OCI)


def stored(_method: str, path: str, _body: bytes) -> Answer:
    """A registry's storage, which knows its clients by a signature in the URL."""
    return Answer(200, {}, CONFIG) if path == "/good?signature=secret" else Answer(403, {}, b"expired")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("smoke")
    with DevSigstore(folder) as dev, FakeRegistry() as registry, CannedServer(stored) as storage:
        upstreams = {"docker.io": registry.base_url, "storage.example": storage.url}
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_UPSTREAMS": json.dumps(upstreams),
        }
        with Function(settings) as function:
            yield World(registry, storage, function)


def test_a_new_tag_and_then_a_recorded_one(world: World) -> None:
    digest = world.push("new")
    first = smoke(world.host, "new:1.0")
    assert (first.code, first.err) == (0, [])
    assert any(digest in line and "first seen now" in line for line in first.out)
    again = smoke(world.host, "library/new:1.0")
    assert again.code == 0
    assert any(digest in line and ", recorded 20" in line for line in again.out)
    assert all(line.startswith("ok: ") for line in first.out + again.out)


def test_an_index_is_followed_to_an_image(world: World) -> None:
    image = world.push("several")
    other = world.registry.push("library/several", None, manifest(b"{}"), OCI)
    images = [
        {"mediaType": OCI, "size": 2, "digest": other, "platform": {"os": "linux", "architecture": "arm64"}},
        {"mediaType": OCI, "size": 2, "digest": image, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": images}).encode()
    world.registry.push("library/several", "1.0", index, INDEX)
    done = smoke(world.host, "several:1.0")
    assert (done.code, done.err) == (0, [])
    assert any(digest_of(CONFIG) in line for line in done.out)


@pytest.mark.parametrize(("place", "code"), [("good", 0), ("expired", 1)])
def test_a_blob_is_fetched_where_the_registry_sends_us_and_the_signature_is_not_printed(
    world: World, place: str, code: int
) -> None:
    world.push(place)
    world.registry.fault(f"/v2/library/{place}/blobs/*", Redirect(f"{world.storage.url}/{place}?signature=secret"))
    done = smoke(world.host, f"{place}:1.0")
    world.registry.heal()
    assert done.code == code
    assert f"/{place}?signature=secret" in [seen.path for seen in world.storage.requests]
    assert "secret" not in "".join(done.out + done.err)


def test_a_tag_that_moved_fails_with_both_digests(world: World) -> None:
    old = world.push("moved")
    assert smoke(world.host, "moved:1.0").code == 0
    new = world.registry.push("library/moved", "1.0", manifest(b"{}"), OCI)
    done = smoke(world.host, "moved:1.0")
    assert done.code == 1
    (line,) = done.err
    assert line.startswith("smoke: HEAD /v2/moved/manifests/1.0: 403")
    assert old in line
    assert new in line


def test_a_tag_that_is_not_there_fails(world: World) -> None:
    done = smoke(world.host, "nothing:1.0")
    assert done.code == 1
    (line,) = done.err
    assert ": 404, expected 200" in line


def test_an_upstream_that_limits_us_fails(world: World) -> None:
    world.push("limited")
    world.registry.fault("/v2/library/limited/*", Status(429, {"Retry-After": "7"}))
    done = smoke(world.host, "limited:1.0")
    world.registry.heal()
    assert done.code == 1
    (line,) = done.err
    assert ": 429, expected 200" in line


# --- services that are wrong --------------------------------------------------------------------------------------------

BODY = manifest()
RECORD = {"Tlog-Integratedtime": "2026-11-24T06:50:52Z", "Tlog-Logindex": "12", "Tlog-Uuid": "ab" * 40}
TAG = {**RECORD, "Content-Type": OCI, "Docker-Content-Digest": digest_of(BODY), "Content-Length": str(len(BODY))}
JSON = {"Content-Type": "application/json"}


def service(change: Change) -> CannedServer:
    """A service that is right but for one change of its answers."""

    def answer(method: str, path: str, _: bytes) -> Answer:
        if path.endswith("/manifests/1.0"):
            right = Answer(200, TAG, BODY)
        elif "/manifests/sha256:" in path:
            right = Answer(200, {}, BODY)
        elif "/blobs/" in path:
            right = Answer(200, {}, CONFIG)
        elif path in {"/livez", "/v2/"}:
            right = Answer(200, JSON, b"{}")
        else:
            right = Answer(404, JSON, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such tag"}]}')
        return change(method, path, right)

    return CannedServer(answer)


def with_headers(where: str, **headers: str | None) -> Change:
    """Headers changed, or dropped if None, where the request is like `METHOD …path`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def change(method: str, path: str, answer: Answer) -> Answer:
        wanted_method, _, end = where.partition(" ")
        if method != wanted_method or not path.endswith(end):
            return answer
        changed = {**answer.headers, **named}
        return Answer(answer.status, {name: value for name, value in changed.items() if value is not None}, answer.body)

    return change


def with_answer(part: str, wrong: Answer) -> Change:
    """Another answer where the path holds `part`."""
    return lambda _method, path, answer: wrong if part in path else answer


def check(change: Change) -> Done:
    with service(change) as server:
        return smoke(server.url.removeprefix("http://"), "app:1.0")


def test_a_service_that_is_right_passes() -> None:
    assert check(lambda _method, _path, answer: answer).code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_headers("HEAD /1.0", Content_Length="0"), "Content-Length is '0'"),
        (with_headers("HEAD /1.0", Docker_Content_Digest=None), "no docker-content-digest"),
        (with_headers("HEAD /1.0", Tlog_Uuid=None), "no tlog-uuid"),
        (with_headers("GET /1.0", Tlog_Logindex=None), "no tlog-logindex"),
        (with_headers("GET /1.0", Tlog_Integratedtime=None), "no tlog-integratedtime"),
        (with_headers("GET /1.0", Tlog_Logindex="13"), "tlog-logindex is '13', was '12'"),
        (with_headers("GET /1.0", Tlog_First_Seen="true"), "Tlog-First-Seen again"),
        (with_headers("HEAD /1.0", Docker_Content_Digest="sha512:" + "0" * 128), "is not a sha256 digest"),
        (with_headers("GET /1.0", Docker_Content_Digest=digest_of(b"other")), "docker-content-digest is"),
        (
            lambda method, path, answer: with_headers("GET /1.0", Docker_Content_Digest=digest_of(b"other"))(
                method, path, with_headers("HEAD /1.0", Docker_Content_Digest=digest_of(b"other"))(method, path, answer)
            ),
            "the bytes are",
        ),
        (with_answer("/manifests/sha256:", Answer(200, {}, b"{}")), "the bytes are"),
        (with_answer("/blobs/", Answer(200, {}, b"something else")), "the bytes are"),
        (with_answer("/blobs/", Answer(404, JSON, b"{}")), "404, expected 200 or 307"),
        (with_answer("/blobs/", Answer(307, {"Location": "/v2/app/blobs/again"}, b"")), ": 307 from"),
        (with_answer("/blobs/", Answer(307, {"Location": "ftp://storage.example/x"}, b"")), "which is not https"),
        (with_answer("-z", Answer(404, {"Content-Type": "text/html"}, b"<html>")), "does not reach it"),
        (with_answer("/1.0", Answer(403, {"Content-Type": "text/html"}, b"<html>Forbidden")), "403, expected 200"),
        (with_answer("/livez", Answer(404, {}, b"")), "GET /livez: 404"),
        (with_answer("/v2/", Answer(403, {}, b"")), "GET /v2/: 403"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_in_one_line(change: Change, said: str) -> None:
    done = check(change)
    assert done.code == 1
    (line,) = done.err
    assert line.startswith("smoke: ")
    assert said in line


def test_a_new_deployment_is_waited_for() -> None:
    """Roles that have not taken hold yet: Google's 403 before the function, and its own 503 without a store."""
    not_yet = {"GET /v2/": Answer(403, {}, b"<html>"), "HEAD /v2/app/manifests/1.0": Answer(503, JSON, b"")}
    with service(lambda method, path, answer: not_yet.pop(f"{method} {path}", answer)) as server:
        done = smoke(server.url.removeprefix("http://"), "app:1.0", "--wait", "60")
    assert (done.code, done.err, not_yet) == (0, [], {})


def test_words_of_a_stranger_cannot_make_lines_of_their_own() -> None:
    wrong = Answer(403, JSON, json.dumps({"errors": [{"message": "no\nok: all well\x1b[2J"}]}).encode())
    done = check(with_answer("/1.0", wrong))
    assert done.code == 1
    assert len(done.err) == 1
    assert "\x1b" not in done.err[0]


def test_nobody_there() -> None:
    done = smoke("127.0.0.1:9", "app:1.0")
    assert done.code == 1
    assert len(done.err) == 1
    assert "Connection refused" in done.err[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["localhost:8080"], ["localhost:8080", "alpine"], ["https://localhost:8080", "alpine:3.20"],
        ["localhost:8080/v2", "alpine:3.20"], ["localhost:8080", f"alpine@{digest_of(b'')}"],
        ["localhost:8080", "alpine:3.20", "more"],
    ],
)  # fmt: skip
def test_usage(arguments: list[str]) -> None:
    assert smoke(*arguments).code == 2
