#!/usr/bin/env python3
"""Pull one tag twice through a running tlogistry and check what came: `scripts/smoke.py HOST IMAGE:TAG`.

Plain HTTP as a container engine speaks it, so no engine is needed, and no package: for a deployment from a laptop, and the last
step of cloudbuild.yaml. Loopback hosts are asked by http, as Docker does, all others by https. What it checks:

    1. `/livez` and `/v2/` answer; this is waited for, because a new deployment takes a moment to be reachable
    2. the tag, HEAD and GET, twice: 200, the same record each time, a Content-Length above 0 on HEAD (Docker needs it, and
       proxies on the way have dropped it), bytes of that length whose sha256 is the digest in the headers, and
       Tlog-First-Seen on the first answer at most
    3. the same bytes by digest; of an index one of its images too
    4. the image's configuration: HEAD of the blob, then its bytes through whatever redirect was given, against their digest
    5. a name that ends in z reaches the service (Google's front end keeps some such paths for itself)

It makes a record if the tag was never asked for. It does not verify the record: README.md says how stock tools do.
Exit codes: 0 all well; 1 something is not as it should be, in one line on standard error; 2 usage.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import ipaddress
import json
import re
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

READ_S = 60.0  # seconds without a byte: a first sighting may take the service's deadline, 30 s by default
TOTAL_S = 120.0  # seconds for one answer
WAIT_S = 120  # seconds for a new deployment to be reachable: roles take up to a minute or two to take hold
AGAIN_S = 2.0
MANIFEST_MAX_BYTES = 4 * 1024 * 1024
CONFIG_MAX_BYTES = 8 * 1024 * 1024
REDIRECTS = 5
TEXT_MAX = 300  # characters of a stranger's words in a line of ours

HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?", re.ASCII)
IMAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._:/-]*):([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
RECORD = ("tlog-integratedtime", "tlog-logindex", "tlog-uuid")
SAME = (*RECORD, "docker-content-digest", "content-type", "content-length")


class Failed(Exception):
    """Something is not as it should be; the message is the line that is printed."""


class Unreachable(Failed):
    """No answer at all."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def error(self) -> str:
        """What a refusal says, made fit for one line."""
        try:
            text = str(json.loads(self.body)["errors"][0]["message"])
        except (ValueError, LookupError, TypeError):
            text = self.body.decode("utf-8", "replace")
        return ascii(text[:TEXT_MAX])


def ask(method: str, url: str, accept: str = "*/*", max_bytes: int = MANIFEST_MAX_BYTES) -> Answer:
    """One request on a connection of its own, no redirect followed. Raises Unreachable; Failed for an answer too long."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    until = time.monotonic() + TOTAL_S
    try:
        connection = kind(parts.netloc, timeout=READ_S)
        try:
            connection.request(method, target, headers={"Accept": accept, "User-Agent": "tlogistry-smoke"})
            response = connection.getresponse()
            body = b""
            while chunk := response.read1(65536):
                body += chunk
                if len(body) > max_bytes or time.monotonic() > until:
                    msg = f"{method} {_shown(url)}: more than {max_bytes} bytes, or more than {TOTAL_S:g} seconds"
                    raise Failed(msg)
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, body)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        msg = f"{method} {_shown(url)}: {type(error).__name__}: {str(error)[:TEXT_MAX]!a}"
        raise Unreachable(msg) from error


def _shown(url: str) -> str:
    """A URL without its query, which may be a signature that gives access."""
    return ascii(url.partition("?")[0][:TEXT_MAX])[1:-1]


class Service:
    """A tlogistry at `host`."""

    def __init__(self, host: str) -> None:
        """`host` with its port, if it has one."""
        self.base = f"{'http' if _is_loopback(host) else 'https'}://{host}"

    def ask(self, method: str, path: str, max_bytes: int = MANIFEST_MAX_BYTES) -> Answer:
        """One request; see `ask`."""
        return ask(method, self.base + path, ACCEPT if "/manifests/" in path else "*/*", max_bytes)

    def good(self, method: str, path: str, statuses: tuple[int, ...] = (200,)) -> Answer:
        """One request whose status must be one of these."""
        answer = self.ask(method, path)
        if answer.status not in statuses:
            told = answer if method == "GET" else self.ask("GET", path)
            msg = f"{method} {path}: {answer.status}, expected {' or '.join(map(str, statuses))}: {told.error()}"
            raise Failed(msg)
        return answer

    def wait(self, method: str, path: str, until: float, again: frozenset[int] | None = None) -> None:
        """Until the status is 200. Other statuses are asked again if they are in `again`, or if that is None."""
        while True:
            try:
                answer = self.ask(method, path)
                if answer.status == 200 or (again is not None and answer.status not in again):  # noqa: PLR2004
                    return
                reason = f"{method} {path}: {answer.status}"
            except Unreachable as error:
                reason = str(error)
            if time.monotonic() + AGAIN_S > until:
                msg = f"{reason}, and no better until now"
                raise Failed(msg)
            time.sleep(AGAIN_S)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def smoke(service: Service, name: str, tag: str, wait_s: float) -> Iterator[str]:
    """Make every check, and say what was seen. Raises Failed."""
    until = time.monotonic() + wait_s
    service.wait("GET", "/livez", until)
    service.wait("GET", "/v2/", until)
    yield f"{service.base} answers"

    path = f"/v2/{name}/manifests/{tag}"
    first = _first_head(service, path, until)
    _check_tag(first, f"HEAD {path}", may_be_first=True)
    answers = [first]
    for method in ("GET", "HEAD", "GET"):
        answer = service.good(method, path)
        _check_tag(answer, f"{method} {path}", may_be_first=False)
        for header in SAME:
            if answer.headers[header] != first.headers[header]:
                msg = f"{method} {path}: {header} is {answer.headers[header]!a}, was {first.headers[header]!a}"
                raise Failed(msg)
        answers.append(answer)
    digest, body = first.headers["docker-content-digest"], answers[-1].body
    for answer in (answers[1], answers[3]):
        _check_bytes(answer, digest, f"GET {path}")
    seen = (
        "first seen now" if "tlog-first-seen" in first.headers else f"recorded {first.headers['tlog-integratedtime']}"
    )
    yield f"{name}:{tag} is {digest}, {seen}, log index {first.headers['tlog-logindex']}"

    _check_bytes(service.good("GET", f"/v2/{name}/manifests/{digest}"), digest, f"GET /v2/{name}/manifests/{digest}")
    manifest = _image(service, name, _parsed(body, path))
    config = _digest(manifest.get("config"), path)
    size = _check_blob(service, f"/v2/{name}/blobs/{config}", config)
    yield f"its configuration is {config}, {size} bytes"

    path = f"/v2/{name}/manifests/no-such-tag-z"
    if service.good("GET", path, (404,)).headers.get("content-type") != "application/json":
        msg = f"GET {path}: the 404 is not the service's own: a path that ends in z does not reach it"
        raise Failed(msg)
    yield "a name that ends in z reaches the service"


def _first_head(service: Service, path: str, until: float) -> Answer:
    """The first answer by tag. 503 may be a role that has not taken hold yet, so it is asked again."""
    while True:
        answer = service.ask("HEAD", path)
        if answer.status != 503 or time.monotonic() + AGAIN_S > until:  # noqa: PLR2004 - HTTP's own number
            break
        time.sleep(AGAIN_S)
    if answer.status != 200:  # noqa: PLR2004 - as above
        msg = f"HEAD {path}: {answer.status}, expected 200: {service.ask('GET', path).error()}"
        raise Failed(msg)
    return answer


def _check_tag(answer: Answer, what: str, *, may_be_first: bool) -> None:
    """The headers of an answer by tag."""
    for header in SAME:
        if not answer.headers.get(header):
            msg = f"{what}: no {header}"
            raise Failed(msg)
    if not DIGEST.fullmatch(answer.headers["docker-content-digest"]):
        msg = f"{what}: {answer.headers['docker-content-digest'][:TEXT_MAX]!a} is not a sha256 digest"
        raise Failed(msg)
    length = answer.headers["content-length"]
    if not re.fullmatch(r"[1-9][0-9]{0,9}", length, re.ASCII):
        msg = f"{what}: Content-Length is {length[:TEXT_MAX]!a}"
        raise Failed(msg)
    if "tlog-first-seen" in answer.headers and not may_be_first:
        msg = f"{what}: Tlog-First-Seen again, so the record was not found"
        raise Failed(msg)


def _check_bytes(answer: Answer, digest: str, what: str) -> None:
    found = "sha256:" + hashlib.sha256(answer.body).hexdigest()
    if found != digest:
        msg = f"{what}: the bytes are {found}, not {digest}"
        raise Failed(msg)
    if answer.headers.get("content-length") not in {None, str(len(answer.body))}:
        msg = f"{what}: {len(answer.body)} bytes, but Content-Length is {answer.headers['content-length']!a}"
        raise Failed(msg)


def _parsed(body: bytes, what: str) -> dict[str, object]:
    try:
        manifest = json.loads(body)
    except ValueError as error:
        msg = f"GET {what}: not JSON"
        raise Failed(msg) from error
    if not isinstance(manifest, dict):
        msg = f"GET {what}: not a JSON object"
        raise Failed(msg)
    return manifest


def _digest(descriptor: object, what: str) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        msg = f"GET {what}: the manifest names no sha256 digest where it should"
        raise Failed(msg)
    return digest


def _image(service: Service, name: str, manifest: dict[str, object]) -> dict[str, object]:
    """Of an index, one of its images: linux/amd64, or else the first."""
    images = manifest.get("manifests")
    if not isinstance(images, list):
        return manifest
    wanted = {"os": "linux", "architecture": "amd64"}
    fitting = [image for image in images if isinstance(image, dict) and _platform(image).items() >= wanted.items()]
    digest = _digest(next(iter(fitting or images), None), name)
    path = f"/v2/{name}/manifests/{digest}"
    answer = service.good("GET", path)
    _check_bytes(answer, digest, f"GET {path}")
    return _parsed(answer.body, path)


def _platform(image: dict[str, object]) -> dict[str, object]:
    platform = image.get("platform")
    return platform if isinstance(platform, dict) else {}


def _check_blob(service: Service, path: str, digest: str) -> int:
    """HEAD, then GET through the redirect. Returns the number of bytes."""
    service.good("HEAD", path, (200, 307))
    answer, url = service.ask("GET", path, CONFIG_MAX_BYTES), service.base + path
    for _ in range(REDIRECTS):
        if answer.status not in {301, 302, 303, 307, 308}:
            break
        url = urljoin(url, answer.headers.get("location", ""))
        if urlsplit(url).scheme not in {"https", urlsplit(service.base).scheme}:
            msg = f"GET {path}: redirected to {_shown(url)}, which is not https"
            raise Failed(msg)
        answer = ask("GET", url, max_bytes=CONFIG_MAX_BYTES)
    if answer.status != 200:  # noqa: PLR2004 - HTTP's own number
        msg = f"GET {path}: {answer.status} from {_shown(url)}: {answer.error()}"
        raise Failed(msg)
    _check_bytes(answer, digest, f"GET {path}")
    return len(answer.body)


def main(arguments: list[str]) -> int:
    """Check the service that the arguments name; the exit code."""
    parser = argparse.ArgumentParser(prog="smoke.py", description="Pull a tag twice through a tlogistry and check it.")
    parser.add_argument("host", help="for example tlogistry-abc123-ew.a.run.app, or localhost:8080")
    parser.add_argument("image", help="IMAGE:TAG, for example alpine:3.20")
    parser.add_argument("--wait", type=int, default=WAIT_S, help=f"seconds to wait until it answers (default {WAIT_S})")
    asked = parser.parse_args(arguments)
    image = IMAGE.fullmatch(asked.image)
    if not HOST.fullmatch(asked.host):
        parser.error("HOST is a host name, with a port if need be, and nothing else")
    if image is None:
        parser.error("IMAGE:TAG is a name and a tag, such as alpine:3.20 or ghcr.io/distroless/static:20220707")
    try:
        for line in smoke(Service(asked.host), image[1], image[2], asked.wait):
            sys.stdout.write(f"ok: {line}\n")
            sys.stdout.flush()
    except Failed as failure:
        sys.stderr.write(f"smoke: {failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
