"""A thousand requests as the internet sends them: by tag, digest and blob, right and wrong, with headers of every kind.

Random, from a seed. Each knows what it is: of a well-formed request by tag the tag in its familiar form, and what may be said
of it. Each secret in them, and each of the registry's, holds one of the words of `SECRETS`, or is in `Registry.tokens`.
"""

from __future__ import annotations

import http.client
import random
import socket
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lib.oci.digest import Digest
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from tests.fakes.registry import (
    CutShort,
    DigestHeader,
    Drop,
    EndlessBody,
    FakeRegistry,
    Html,
    Raw,
    Redirect,
    Status,
    image,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fakes.registry import Fault

USER, PASSWORD = "robot-secret-of-the-hub", "password-secret-of-the-hub"
CLIENT, PRESIGNED, QUERY = "client-secret", "presigned-secret", "query-secret"
SECRETS = (USER, PASSWORD, CLIENT, PRESIGNED, QUERY)
STORAGE = f"https://storage.example.com/blob?X-Amz-Signature={PRESIGNED}"
TAGS = 120  # that are there
MOVING = 20  # and point to two images in turn
ANSWER_S = 120

SERVED = frozenset({"first seen", "same"})
UNSURE = frozenset({"could not tell"})
# What a registry does to /v2/faulty/<name>/manifests/<tag>, and what is said of it.
FAULTS: Mapping[str, tuple[Fault, frozenset[str]]] = {
    "error": (Status(500), UNSURE),
    "busy": (Status(429, {"Retry-After": "7"}), frozenset({"rate limited"})),
    "forbidden": (Status(403), frozenset({"not public"})),
    "unauthorized": (Status(401), frozenset({"not public"})),
    "teapot": (Status(418, {}, f"<!-- {PRESIGNED} -->".encode()), UNSURE),
    "outage-page": (Html(), UNSURE),
    "dropped": (Drop(), UNSURE),
    "cut-short": (CutShort(), UNSURE),
    "no-digest": (DigestHeader(None), SERVED),
    "lie": (DigestHeader(f"sha256:{'0' * 64}"), SERVED),
    "no-digest-at-all": (DigestHeader(f"{PRESIGNED}\x7f"), SERVED),
    "metadata-server": (Redirect(f"http://169.254.169.254/computeMetadata/v1/?token={PRESIGNED}"), UNSURE),
    "insecure": (Redirect(f"http://storage.example.com/?sig={PRESIGNED}"), UNSURE),
    "userinfo": (Redirect(f"https://{USER}:{PASSWORD}@storage.example.com/"), UNSURE),
    "nowhere": (Redirect(f"//[{PRESIGNED}"), UNSURE),
    "endless": (EndlessBody("length"), frozenset({"no manifest"})),
    "nonsense": (Raw(f"SSH-2.0-{PRESIGNED}\r\n\r\n".encode()), UNSURE),
}
UNCHALLENGED, DEAD = "quay.io", "ghcr.io"  # one answers 401 and does not say how to do better; one does not listen
NOT_REGISTRIES = ("127.0.0.1:5000", "localhost", "registry.internal", "10.0.0.8", "metadata.google.internal", "a.b:81")


class Registry(FakeRegistry):
    """Knows every token that it has given out."""

    def __init__(self) -> None:
        super().__init__(token_field="token", accounts={USER: PASSWORD})
        self.tokens: list[str] = []

    def issue(self, repository: str, account: str | None = None) -> str:
        token = super().issue(repository, account)
        self.tokens.append(token)
        return token


@dataclass(frozen=True)
class Request:
    """`tag` is None for everything but a well-formed request by tag; `trace` is what a line should be filed under."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    tag: str | None = None
    verdicts: frozenset[str] = frozenset()
    trace: str | None = None

    def send(self, port: int) -> int:
        """The status of the answer, which is read to its end."""
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        head = "".join(f"{line}\r\n" for line in [*lines, "Connection: close", f"Content-Length: {len(self.body)}", ""])
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as sock:
            sock.sendall(head.encode("latin-1") + self.body)
            response = http.client.HTTPResponse(sock, method=self.method)
            response.begin()
            with suppress(http.client.IncompleteRead):  # the registry's stream broke off, and so ours
                response.read()
            return response.status


class Traffic:
    """Fills a registry, and makes requests for what it has and has not."""

    def __init__(self, registry: Registry, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - to be the same each time
        one, two = (registry.push("there/app", None, image(text), OCI_MANIFEST) for text in ("one", "two"))
        for number in range(TAGS):
            if number < MOVING:
                registry.alternate("there/app", f"v{number}", one, two, two)
            else:
                registry.move("there/app", f"v{number}", one)
        registry.push("library/official", "1", image("official"), OCI_MANIFEST)
        registry.push("there/app", f"sha256-{'a' * 64}.sig", image("signature"), OCI_MANIFEST)
        registry.push("private/app", "v1", image("private"), OCI_MANIFEST)
        registry.private.add("private/app")
        for name, (fault, _) in FAULTS.items():
            registry.push(f"faulty/{name}", "v1", image(name), OCI_MANIFEST)
            registry.fault(f"/v2/faulty/{name}/manifests/*", fault)
        self._manifest = one
        self._blob = registry.push_blob("there/app", b"layer" * 100)
        self._elsewhere = registry.push_blob("there/elsewhere", b"elsewhere")
        registry.fault("/v2/there/elsewhere/blobs/*", Redirect(STORAGE))
        registry.fault("/v2/there/broken/blobs/*", Status(502))
        registry.push_blob("there/short", b"layer" * 100)
        registry.fault("/v2/there/short/blobs/*", CutShort())

    def requests(self, count: int) -> list[Request]:
        return [self._request() for _ in range(count)]

    def by_tag(self, names: list[str]) -> list[Request]:
        """One for each of these tags of `there/app`, which somebody else pushes."""
        return [self._with_headers(self._tagged("there/app", name, SERVED | UNSURE)) for name in names]

    def _request(self) -> Request:
        kinds = [self._there] * 9 + [self._faulty] * 4 + [self._absent] * 3 + [self._by_digest] * 3 + [self._other] * 4
        kinds += [self._wrong] * 3 + [self._method, self._part]
        return self._with_headers(self._random.choice(kinds)())

    def _tagged(self, repository: str, tag: str, verdicts: frozenset[str]) -> Request:
        origin = self._random.choice(["", "", "", "", "", "", "", f"http://{CLIENT}@localhost"])
        target = f"{origin}/v2/{repository}/manifests/{tag}"
        familiar = Tag.parse(f"{repository}:{tag}").familiar
        return Request(self._random.choice(["GET", "HEAD"]), target, tag=familiar, verdicts=verdicts)

    def _there(self) -> Request:
        number = self._random.randrange(self._random.choice([MOVING, TAGS]))
        verdicts = SERVED | {"moved"} if number < MOVING else SERVED
        if self._random.random() < 0.1:
            spelling = self._random.choice(["official", "library/official", "docker.io/official"])
            return self._tagged(spelling, "1", SERVED)
        spelling = self._random.choice(["", "", "docker.io/", "index.docker.io/", "Docker.IO/", "docker.io:443/"])
        return self._tagged(f"{spelling}there/app", f"v{number}", verdicts)

    def _faulty(self) -> Request:
        name = self._random.choice(list(FAULTS))
        return self._tagged(f"faulty/{name}", "v1", FAULTS[name][1])

    def _absent(self) -> Request:
        """Or not public, or nothing that may be asked for."""
        cases = [
            ("there/app", f"absent{self._random.randrange(1000)}", "not found"),
            ("nobody/app", "v1", "not found"),
            ("there/app", f"sha256-{'b' * 64}", "not found"),
            ("there/app", f"sha256-{'a' * 64}.sig", "passed through"),
            ("private/app", "v1", "not public"),
            (f"{UNCHALLENGED}/app", "v1", "not public"),
            (f"{DEAD}/app", "v1", "could not tell"),
            (f"{self._random.choice(NOT_REGISTRIES)}/app", "v1", "refused"),
        ]
        repository, tag, verdict = self._random.choice(cases)
        return self._tagged(repository, tag, frozenset({verdict}))

    def _by_digest(self) -> Request:
        absent = Digest.of(self._random.randbytes(8))
        targets = [
            f"there/app/manifests/{self._manifest}",
            f"there/app/manifests/{absent}",
            f"there/app/manifests/{Digest.of(b'', 'sha512')}",
            f"there/app/manifests/sha256:{CLIENT}",
            f"private/app/manifests/{self._manifest}",
            f"faulty/error/manifests/{absent}",
            f"faulty/endless/manifests/{absent}",
            f"{DEAD}/app/manifests/{absent}",
            f"there/app/blobs/{self._blob}",
            f"there/app/blobs/{absent}",
            *[f"there/elsewhere/blobs/{self._elsewhere}"] * 2,
            f"there/broken/blobs/{absent}",
            f"{UNCHALLENGED}/app/blobs/{absent}",
        ]
        return Request(self._random.choice(["GET", "HEAD"]), f"/v2/{self._random.choice(targets)}")

    def _part(self) -> Request:
        wanted = self._random.choice(["bytes=0-9", "bytes=-9", "bytes=9999-", f"bytes={CLIENT}"])
        repository = self._random.choice(["app", "app", "app", "short"])
        return Request("GET", f"/v2/there/{repository}/blobs/{self._blob}", {"Range": wanted})

    def _other(self) -> Request:
        targets = [
            "/v2/",
            "/v2",
            "/livez",
            "/readyz",
            "/sightings/never/seen:v1",
            "/sightings/there",
            "/sightings/a:-b",
        ]
        targets += [f"/sightings/there/app:v{self._random.randrange(TAGS)}" for _ in range(3)]
        return Request(self._random.choice(["GET", "HEAD"]), self._random.choice(targets))

    def _wrong(self) -> Request:
        targets = [
            "/",
            "*",
            "/robots.txt",
            "/favicon.ico",
            "/healthz",
            "/v2/there/app/tags/list?n=5",
            f"/v2/there/app/referrers/{self._manifest}?artifactType=text/spdx",
            "/v2/there/app/tags/list?n=-5",
            "/v2/there%2Fapp/manifests/v30",
            "/v2/there/app/manifests/v30/",
            "/v2/there//app/manifests/v30",
            "/v2/there/../there/app/manifests/v30",
            "/v2/%2e%2e/app/manifests/v30",
            "/v2/There/app/manifests/v30",
            "/v2/there/app/manifests/-v30",
            f"/v2/there/app/manifests/{'v' * 129}",
            f"/v2/{'a/' * 200}app/manifests/v30",
            f"/v2/there/app/manifests/{'v' * 5000}",
            "/v2/quay.io/there/app/manifests/v30?ns=ghcr.io",
            '/v2/there/app/manifests/v30%0d%0a{"severity":"CRITICAL"}',
            "/v2/there/app/manifests/v30%00",
            '/v2/there/app/manifests/%22,%22severity%22:%22CRITICAL"',
            "/v2/there/app/manifests/%ff%fe",
            "/v2/there/app/manifests/\xff\xe9",
            "/v2/there/app/manifests/v30#fragment",
        ]
        return Request(self._random.choice(["GET", "HEAD"]), self._random.choice(targets))

    def _method(self) -> Request:
        method = self._random.choice(["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "FOO"])
        target = self._random.choice(["/v2/there/app/manifests/v30", "/v2/there/app/blobs/uploads/", "/readyz"])
        return Request(method, target, body=CLIENT.encode())

    def _with_headers(self, request: Request) -> Request:
        host = self._random.choice(["localhost:8080", "tlogistry.example.com", f"{CLIENT}_", "[::1]", "@"])
        others = {
            "Authorization": self._random.choice([f"Bearer {CLIENT}", f"Basic {CLIENT}", CLIENT]),
            "Cookie": f"session={CLIENT}",
            "X-Registry-Auth": CLIENT,
            "User-Agent": self._random.choice(["curl/8", f"{CLIENT}\xe9", "a" * 3000]),
            "Accept": self._random.choice(["*/*", "application/json", CLIENT]),
            "If-Range": f'"{CLIENT}"',
            "X-Forwarded-For": "203.0.113.9, 169.254.1.1",
        }
        some = {name: value for name, value in others.items() if self._random.random() < 0.4}
        traced, trace = self._trace()
        headers = {"Host": host, **some, **traced, **request.headers}
        target, body = request.target, request.body
        if "?" not in target and "#" not in target and target != "*" and self._random.random() < 0.3:
            target += f"?token={QUERY}&X-Amz-Signature={QUERY}"
        if not body and self._random.random() < 0.05:
            body = CLIENT.encode()
        return replace(request, target=target, headers=headers, body=body, trace=trace)

    def _trace(self) -> tuple[dict[str, str], str | None]:
        """Headers, and the trace that they name, which no other request's do."""
        trace, span = f"{self._random.getrandbits(128):032x}", self._random.getrandbits(64)
        other = f"00-{self._random.getrandbits(128):032x}-{span:016x}-01"
        cloud, parent = "X-Cloud-Trace-Context", "traceparent"
        return self._random.choice(
            [
                ({cloud: f"{trace}/{span};o=1"}, trace),
                ({cloud: trace.upper()}, trace),
                ({parent: f"00-{trace}-{span:016x}-01"}, trace),
                ({cloud: f"{trace}/{span}", parent: other}, trace),
                ({cloud: CLIENT, parent: f"00-{trace}-{span:016x}-00"}, trace),
                ({cloud: f"{trace[:-1]}/{span};o=1"}, None),
                ({parent: f"00-{trace}-{CLIENT}"}, None),
                ({}, None),
                ({}, None),
            ]
        )
