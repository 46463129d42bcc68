"""One answer for each outcome at an upstream (docs/request-handling.md, "Errors"): by tag, by digest, blobs, tags, referrers.

Whatever happened there: nothing is recorded, nothing of the upstream's own words is repeated, and who was asked is named.
"""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lib.devsigstore.server import DevSigstore
from lib.oci.manifest import DOCKER_LIST, MAX_BYTES, OCI_INDEX, OCI_MANIFEST
from tests.fakes.profiles import PRIVATE_HEADERS
from tests.fakes.registry import (
    CutShort,
    Drop,
    EndlessBody,
    FakeRegistry,
    Hang,
    Html,
    Raw,
    Redirect,
    Status,
)
from tests.framework import Function
from tests.profiles.conftest import manifest
from tests.upstream.test_transport import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.registry import Fault
    from tests.framework import Answer

DEADLINE_S = 4  # of the service: hanging costs a test this long
UNRESOLVABLE = f"{'a' * 64}.example"  # no label is that long, so no name server needs to be asked
BEARER = 'Bearer realm="{realm}",service="fake-registry",scope="repository:{name}:pull",error="invalid_token"'
SECRET = b'{"errors": [{"code": "DENIED", "message": "upstream-secret", "detail": "<script>upstream-secret</script>"}]}'
LIMITS = {
    "RateLimit-Limit": "100;w=21600",
    "RateLimit-Remaining": "0;w=21600",
    "Docker-RateLimit-Source": "203.0.113.7",
}
KINDS = ("tag", "digest", "blob", "tags", "referrers")
NOT_PUBLIC = "not public, or not there"
_numbers = iter(range(10**6))


class World:
    """A registry, with names beside it that lead to nobody good, and the service."""

    def __init__(self, registry: FakeRegistry, dev: DevSigstore, function: Function) -> None:
        self.registry, self.dev, self.function = registry, dev, function

    def ask(self, method: str, path: str) -> Answer:
        answer = self.function.ask(method, path)
        for name in (*(name.lower() for name in PRIVATE_HEADERS), "www-authenticate"):
            assert name not in answer.headers
        assert b"upstream-secret" not in answer.body
        assert "upstream-secret" not in str(answer.headers)
        return answer

    def recorded(self, repository: str) -> bool:
        return self.function.ask("GET", f"/sightings/{repository}:1.0").status == 200


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("outcomes")
    with (
        DevSigstore(folder) as dev,
        FakeRegistry(token_field="token") as registry,
        FakeRegistry(tls=certificate(folder, "somebody.else.example")) as stranger,
        socket.create_server(("127.0.0.1", 0)) as closed,
    ):
        port = closed.getsockname()[1]
        closed.close()
        registry.headers = PRIVATE_HEADERS
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_DEADLINE": str(DEADLINE_S),
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps(
                {
                    "up.example": registry.base_url,
                    "token.example": registry.token_url.removesuffix("/token"),
                    "tls.example": stranger.base_url,
                    "refused.example": f"http://127.0.0.1:{port}",
                    "dns.example": f"http://{UNRESOLVABLE}",
                }
            ),
        }
        with Function(settings) as function:
            yield World(registry, dev, function)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    running.registry.heal()
    yield running
    running.registry.heal()


@pytest.fixture
def repository(world: World) -> str:
    """A repository of the test's own."""
    return f"org/app{next(_numbers)}"


@dataclass(frozen=True)
class Outcome:
    """What the upstream does, and what the client gets: a status and code for each of KINDS that differs from `others`."""

    name: str
    fault: Fault
    others: tuple[int, str] = (503, "UNAVAILABLE")
    kinds: tuple[tuple[str, int, str], ...] = ()
    host: str = "127.0.0.1"

    def expected(self, kind: str) -> tuple[int, str]:
        return next(((status, code) for one, status, code in self.kinds if one == kind), self.others)

    def __str__(self) -> str:
        return self.name


def refusing(status: int, challenge: str | None, **headers: str) -> Status:
    found = {"Content-Type": "application/json", **headers}
    if challenge is not None:
        found["WWW-Authenticate"] = challenge
    return Status(status, found, SECRET)


ABSENT = (("blob", 404, "BLOB_UNKNOWN"), ("tags", 404, "NAME_UNKNOWN"))
PASSED = (("referrers", 404, "MANIFEST_UNKNOWN"),)
OUTCOMES = [
    Outcome("401 after a token", refusing(401, BEARER), (404, "NAME_UNKNOWN")),
    Outcome("401 for Basic", refusing(401, 'Basic realm="x"'), (404, "NAME_UNKNOWN")),
    Outcome("401 without a challenge", refusing(401, None), (404, "NAME_UNKNOWN")),
    Outcome("403", refusing(403, None), (404, "NAME_UNKNOWN")),
    Outcome("403 with a challenge", refusing(403, BEARER), (404, "NAME_UNKNOWN")),
    Outcome("404", refusing(404, None), (404, "MANIFEST_UNKNOWN"), ABSENT),
    Outcome("429", refusing(429, None, **LIMITS), (429, "TOOMANYREQUESTS")),
    Outcome("429 that says when", refusing(429, None, **{"Retry-After": "7"}), (429, "TOOMANYREQUESTS")),
    Outcome("500", refusing(500, None)),
    Outcome("502 as HTML", Status(502, {"Content-Type": "text/html"}, b"<html>upstream-secret")),
    Outcome("503 with Retry-After", refusing(503, None, **{"Retry-After": "7"})),
    Outcome("418", refusing(418, None)),
    Outcome("a redirect to nowhere", Status(302)),
    Outcome("a redirect to a metadata server", Redirect("http://169.254.169.254/v2/x"), host=""),
    Outcome("closes the connection", Drop()),
    Outcome("no HTTP", Raw(b"SSH-2.0-upstream-secret\r\n\r\n")),
]
HANGING = [Outcome("hangs", Hang())]
NAMES = [
    Outcome("a certificate of somebody else", Hang(), host="tls.example"),
    Outcome("a port that nobody listens on", Hang(), host="refused.example"),
    Outcome("a name that nobody has", Hang(), host="dns.example"),
]


def everything(registry: str, repository: str, digest: str) -> dict[str, str]:
    name = f"{registry}/{repository}"
    return {
        "tag": f"/v2/{name}/manifests/1.0",
        "digest": f"/v2/{name}/manifests/{digest}",
        "blob": f"/v2/{name}/blobs/{digest}",
        "tags": f"/v2/{name}/tags/list",
        "referrers": f"/v2/{name}/referrers/{digest}",
    }


def ask_all(world: World, paths: dict[str, str]) -> dict[str, tuple[Answer, Answer]]:
    """HEAD and GET of each kind, all at once: what hangs does so only once."""
    with ThreadPoolExecutor(2 * len(paths)) as pool:
        asked = {
            kind: [pool.submit(world.ask, method, path) for method in ("HEAD", "GET")] for kind, path in paths.items()
        }
        return {kind: (head.result(), got.result()) for kind, (head, got) in asked.items()}


def check(world: World, outcome: Outcome, paths: dict[str, str], host: str) -> dict[str, Answer]:
    before = dict(world.dev.calls)
    answers = ask_all(world, paths)
    for kind, (head, got) in answers.items():
        status, code = outcome.expected(kind)
        assert (kind, got.status, got.code) == (kind, status, code)
        assert (kind, head.status) == (kind, status)
        assert host in got.message, kind
        assert status != 503 or paths[kind].split("/")[2] in got.message, "the name that the client knows"
        assert "tlog-uuid" not in got.headers
        assert got.headers["cache-control"] == "no-store"
        if outcome.others[1] == "NAME_UNKNOWN":
            assert NOT_PUBLIC in got.message
        assert ("retry-after" in got.headers) == (status in {429, 503})
        assert got.headers["x-content-type-options"] == "nosniff"
    assert dict(world.dev.calls) == before
    return {kind: got for kind, (_, got) in answers.items()}


@pytest.mark.parametrize("recorded", [False, True], ids=["new", "recorded"])
@pytest.mark.parametrize("outcome", [*OUTCOMES, *HANGING], ids=str)
def test_an_outcome_is_told_and_not_recorded(world: World, repository: str, outcome: Outcome, recorded: bool) -> None:
    digest = world.registry.push(repository, "1.0", manifest(1), OCI_MANIFEST)
    paths = everything("up.example", repository, f"sha256:{'9' * 64}")
    if recorded:
        assert world.ask("GET", paths["tag"]).headers["tlog-first-seen"] == "true"
        assert world.ask("HEAD", paths["tag"]).headers["docker-content-digest"] == digest
    fault = outcome.fault
    if isinstance(fault, Status) and "WWW-Authenticate" in fault.headers:
        challenge = fault.headers["WWW-Authenticate"].format(realm=world.registry.token_url, name=repository)
        fault = Status(fault.code, {**fault.headers, "WWW-Authenticate": challenge}, fault.body)
    world.registry.fault(f"/v2/{repository}/*", fault)
    host = f"127.0.0.1:{world.registry.port}" if outcome.host else ""
    answers = check(world, outcome, paths, host)
    assert world.recorded(f"up.example/{repository}") == recorded
    if outcome.others[0] == 429:
        for answer in answers.values():
            assert answer.headers["retry-after"] == ("7" if "when" in outcome.name else "60")
            for name, value in LIMITS.items() if "when" not in outcome.name else ():
                assert answer.headers[name.lower()] == value
    if outcome.name == "500":
        world.registry.heal()
        assert ("tlog-first-seen" in world.ask("GET", paths["tag"]).headers) == (not recorded)


@pytest.mark.parametrize("outcome", NAMES, ids=str)
def test_who_cannot_be_asked_is_named(world: World, repository: str, outcome: Outcome) -> None:
    target = "" if outcome.host == "dns.example" else "127.0.0.1:"  # where inside a registry is mapped to is not told
    check(world, outcome, everything(outcome.host, repository, f"sha256:{'9' * 64}"), target)
    assert not world.recorded(f"{outcome.host}/{repository}")


@pytest.mark.parametrize("status", [401, 403, 429, 500, 404])
def test_a_token_service_that_gives_no_token(world: World, repository: str, status: int) -> None:
    world.registry.push(repository, "1.0", manifest(1), OCI_MANIFEST)
    world.registry.fault("/token", Status(status, {**LIMITS, "WWW-Authenticate": "Basic"}, SECRET))
    expected = {
        401: (404, "NAME_UNKNOWN"),
        403: (404, "NAME_UNKNOWN"),
        429: (429, "TOOMANYREQUESTS"),
    }.get(status, (503, "UNAVAILABLE"))
    paths = everything("up.example", repository, f"sha256:{'9' * 64}")
    answers = check(world, Outcome("token", Hang(), expected), paths, "127.0.0.1:")
    if status == 429:
        assert {answer.headers["ratelimit-limit"] for answer in answers.values()} == {"100;w=21600"}


# --- 200, and yet no manifest ----------------------------------------------------------------------------------------------

SCHEMA_1 = {"schemaVersion": 1, "name": "x", "tag": "1.0", "fsLayers": [], "history": [], "signatures": []}
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": f"sha256:{'0' * 64}"}
IMAGE = {"schemaVersion": 2, "config": DESCRIPTOR, "layers": []}
INDEX = {"schemaVersion": 2, "manifests": []}
SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

REFUSED: dict[str, tuple[bytes, str]] = {
    "schema 1": (json.dumps(SCHEMA_1).encode(), SIGNED),
    "schema 1 as JSON": (json.dumps(SCHEMA_1).encode(), "application/json"),
    "schema 1 as an image": (json.dumps(SCHEMA_1).encode(), OCI_MANIFEST),
    "both shapes": (json.dumps({**IMAGE, **INDEX}).encode(), OCI_INDEX),
    "both shapes, as an image": (json.dumps({**IMAGE, **INDEX, "mediaType": OCI_MANIFEST}).encode(), OCI_MANIFEST),
    "an image as an index": (json.dumps(IMAGE).encode(), OCI_INDEX),
    "an index as an image": (json.dumps(INDEX).encode(), OCI_MANIFEST),
    "header and body differ": (json.dumps({**INDEX, "mediaType": OCI_INDEX}).encode(), DOCKER_LIST),
    "an unknown type": (json.dumps({**IMAGE, "mediaType": "application/vnd.other+json"}).encode(), OCI_MANIFEST),
    "no type": (json.dumps(IMAGE).encode(), "text/plain"),
    "neither shape": (b'{"schemaVersion": 2}', OCI_MANIFEST),
    "schema 3": (json.dumps({**IMAGE, "schemaVersion": 3}).encode(), OCI_MANIFEST),
    "a key twice": (json.dumps(IMAGE).encode()[:-1] + b', "schemaVersion": 2}', OCI_MANIFEST),
    "too large": (manifest(1, filler="x" * MAX_BYTES), OCI_MANIFEST),
}
NO_MANIFEST: dict[str, Fault] = {
    "a page of HTML": Html(),
    "an error as 200": Status(200, {"Content-Type": "application/json"}, SECRET),
    "truncated JSON": Status(200, {"Content-Type": OCI_MANIFEST}, manifest(1)[:-20]),
    "a list": Status(200, {"Content-Type": OCI_MANIFEST}, b"[]"),
    "nothing": Status(200, {"Content-Type": OCI_MANIFEST}),
    "cut short": CutShort(),
    "no length and no end": Raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"),
}


@pytest.mark.parametrize("recorded", [False, True], ids=["new", "recorded"])
@pytest.mark.parametrize("what", REFUSED)
def test_a_manifest_that_is_not_served_is_the_clients_to_know_and_never_recorded(
    world: World, repository: str, what: str, recorded: bool
) -> None:
    tag = f"/v2/up.example/{repository}/manifests/1.0"
    if recorded:
        world.registry.push(repository, "1.0", manifest(1), OCI_MANIFEST)
        assert world.ask("GET", tag).status == 200
    digest = world.registry.push(repository, "1.0", *REFUSED[what])
    paths = {"tag": tag, "digest": f"/v2/up.example/{repository}/manifests/{digest}"}
    check(world, Outcome(what, Hang(), (400, "MANIFEST_INVALID")), paths, f"127.0.0.1:{world.registry.port}")
    assert world.recorded(f"up.example/{repository}") == recorded


@pytest.mark.parametrize("what", NO_MANIFEST)
def test_what_is_no_manifest_at_all_says_nothing_about_a_tag(world: World, repository: str, what: str) -> None:
    digest = world.registry.push(repository, "1.0", manifest(1), OCI_MANIFEST)
    world.registry.fault(f"/v2/{repository}/manifests/*", NO_MANIFEST[what])
    paths = {kind: path for kind, path in everything("up.example", repository, digest).items() if "manifests" in path}
    check(world, Outcome(what, Hang()), paths, f"127.0.0.1:{world.registry.port}")
    assert not world.recorded(f"up.example/{repository}")


@pytest.mark.parametrize("fault", [Html(), EndlessBody(), CutShort()], ids=repr)
def test_what_is_no_list_is_not_passed_on(world: World, repository: str, fault: Fault) -> None:
    digest = world.registry.push(repository, "1.0", manifest(1), OCI_MANIFEST)
    for kind in ("tags", "referrers"):
        world.registry.fault(f"/v2/{repository}/{kind}/*", fault)
    paths = everything("up.example", repository, digest)
    told = PASSED if isinstance(fault, Html) else ()
    outcome = Outcome("no list", fault, kinds=told)
    check(world, outcome, {kind: paths[kind] for kind in ("tags", "referrers")}, f"127.0.0.1:{world.registry.port}")


@pytest.mark.parametrize("status", [400, 404, 406])
def test_referrers_keep_the_status_that_clients_wait_for(world: World, repository: str, status: int) -> None:
    digest = world.registry.push(repository, "1.0", manifest(1), OCI_MANIFEST)
    world.registry.fault(f"/v2/{repository}/referrers/*", Status(status, {}, SECRET))
    answer = world.ask("GET", everything("up.example", repository, digest)["referrers"])
    assert answer.status == status
    assert answer.code in {"MANIFEST_UNKNOWN", "UNSUPPORTED"}
