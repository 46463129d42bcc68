"""What curl shows: the headers, the record, and evidence that stock tools accept."""

from __future__ import annotations

import http.client
import json
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.e2e.images import make, push
from tests.e2e.processes import run
from tests.e2e.service import ask

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.engines import Registry
    from tests.e2e.processes import Said
    from tests.e2e.service import Service

NAMES = (
    "Content-Type",
    "Content-Length",
    "Docker-Content-Digest",
    "ETag",
    "Tlog-Integratedtime",
    "Tlog-Logindex",
    "Tlog-Uuid",
)


@pytest.mark.parametrize("first_method", ["HEAD", "GET"])
def test_the_first_answer_says_so_and_only_the_first(docker_io: Registry, service: Service, first_method: str) -> None:
    name = f"headers/{first_method.lower()}"
    image = make(first_method)
    push(docker_io.url, name, "v1", image)
    answers = [service.by_tag(f"{name}:v1", method) for method in (first_method, "HEAD", "GET", "HEAD")]

    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.headers["Tlog-First-Seen"] for answer in answers] == ["true", None, None, None]
    for answer in answers:
        assert [answer.headers[name] for name in NAMES] == [answers[0].headers[name] for name in NAMES]
    headers = answers[0].headers
    assert headers["Docker-Content-Digest"] == image.digest
    assert headers["ETag"] == f'"{image.digest}"'
    assert headers["Content-Type"] == image.tagged.media_type
    assert headers["Content-Length"] == str(len(image.tagged.data))
    assert answers[2].body == image.tagged.data
    assert answers[3].body == b""
    seen = datetime.strptime(headers["Tlog-Integratedtime"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - seen).total_seconds()) < 60
    assert re.fullmatch(r"[0-9]+", headers["Tlog-Logindex"])
    assert re.fullmatch(r"[0-9a-f]{80}", headers["Tlog-Uuid"])


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_refusal_carries_its_evidence(docker_io: Registry, service: Service, method: str) -> None:
    name = f"headers/refused-{method.lower()}"
    old = push(docker_io.url, name, "v1", make("first"))
    first = service.by_tag(f"{name}:v1")
    new = push(docker_io.url, name, "v1", make("moved"))
    refused = service.by_tag(f"{name}:v1", method)

    assert refused.status == http.client.FORBIDDEN
    assert refused.headers["Content-Type"] == "application/json"
    assert int(refused.headers["Content-Length"]) > 0
    assert refused.digest is None
    for header in ("Tlog-Integratedtime", "Tlog-Logindex", "Tlog-Uuid"):
        assert refused.headers[header] == first.headers[header]
    if method == "GET":
        assert refused.error["code"] == "TAG_INVALID"
        assert refused.error["message"] == f'tag "{name}:v1" mismatch; got "{new}", want "{old}"'
        assert refused.error["detail"]["recorded"] == old
        assert refused.error["detail"]["offered"] == new
        assert refused.error["detail"]["logIndex"] == int(first.headers["Tlog-Logindex"])


def test_asking_for_a_record_never_makes_one(docker_io: Registry, service: Service) -> None:
    push(docker_io.url, "headers/unseen", "v1", make("first"))
    assert service.get("/sightings/headers/unseen:v1").status == http.client.NOT_FOUND
    assert service.by_tag("headers/unseen:v1").headers["Tlog-First-Seen"] == "true"


def test_the_record_as_json(docker_io: Registry, service: Service) -> None:
    digest = push(docker_io.url, "library/busybox", "1.35.0", make("busybox", multi=True))
    headers = service.by_tag("busybox:1.35.0", "HEAD").headers
    for spelling in (
        "busybox:1.35.0",
        "library/busybox:1.35.0",
        "docker.io/busybox:1.35.0",
        "index.docker.io/library/busybox:1.35.0",
    ):
        answer = service.get(f"/sightings/{spelling}")
        assert answer.status == http.client.OK
        record = answer.json()
        assert record["tag"] == "docker.io/library/busybox:1.35.0"
        assert record["digest"] == digest
        assert record["logIndex"] == int(headers["Tlog-Logindex"])
        assert record["uuid"] == headers["Tlog-Uuid"]
        assert record["integratedTime"] == headers["Tlog-Integratedtime"]
        assert record["bundle"]["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"


def test_another_spelling_is_not_another_first_sighting(docker_io: Registry, service: Service) -> None:
    push(docker_io.url, "library/nginx", "1.23.0", make("nginx"))
    spellings = (
        "nginx",
        "library/nginx",
        "docker.io/nginx",
        "index.docker.io/library/nginx",
        "REGISTRY-1.docker.io/nginx",
    )
    answers = [service.by_tag(f"{spelling}:1.23.0") for spelling in spellings]
    assert [answer.headers["Tlog-First-Seen"] for answer in answers] == ["true", None, None, None, None]
    assert len({answer.headers["Tlog-Uuid"] for answer in answers}) == 1


@pytest.fixture(scope="module")
def evidence(docker_io: Registry, service: Service, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle as `/sightings/…` serves it, in a file, and the digest it is about."""
    digest = push(docker_io.url, "headers/evidence", "v1", make("evidence"))
    service.by_tag("headers/evidence:v1", "HEAD")
    path = tmp_path_factory.mktemp("evidence") / "bundle.sigstore.json"
    path.write_text(json.dumps(service.get("/sightings/headers/evidence:v1").json()["bundle"]))
    return path, digest


def sigstore_verifies(service: Service, bundle: Path, digest: str, other: dict[str, str] | None = None) -> Said:
    """The stock command line, with the local trust configuration."""
    (identity,) = json.loads(service.env["TLOGISTRY_IDENTITIES"])
    expected = {**identity, **(other or {})}
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "sigstore",
        "--trust-config",
        service.state / "trust-config.json",
        "verify",
        "identity",
    ]
    command += [
        "--bundle",
        bundle,
        "--cert-identity",
        expected["email"],
        "--cert-oidc-issuer",
        expected["issuer"],
        digest,
    ]
    return run(command)


def test_the_sigstore_command_accepts_the_bundle(service: Service, evidence: tuple[Path, str]) -> None:
    said = sigstore_verifies(service, *evidence)
    assert said.code == 0, said.text


@pytest.mark.parametrize(
    "other",
    [{"email": "somebody-else@not-for-production.invalid"}, {"issuer": "https://accounts.google.com"}],
    ids=["email", "issuer"],
)
def test_the_sigstore_command_refuses_another_identity(
    service: Service, evidence: tuple[Path, str], other: dict[str, str]
) -> None:
    said = sigstore_verifies(service, *evidence, other)
    assert said.code == 1, said.text


def test_the_sigstore_command_refuses_another_digest(service: Service, evidence: tuple[Path, str]) -> None:
    said = sigstore_verifies(service, evidence[0], f"sha256:{'0' * 64}")
    assert said.code == 1, said.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/", 200),
        ("HEAD", "/v2/", 200),
        ("GET", "/livez", 200),
        ("GET", "/no/such/path", 404),
        ("GET", "/robots.txt", 404),
        ("PUT", "/v2/library/alpine/manifests/3.16.0", 405),
        ("POST", "/v2/library/alpine/blobs/uploads/", 405),
        ("DELETE", "/v2/library/alpine/manifests/3.16.0", 405),
        ("GET", "/v2/library%2Falpine/manifests/3.16.0", 404),
        ("GET", "/v2//library/alpine/manifests/3.16.0", 404),
        ("GET", "/v2/Library/alpine/manifests/3.16.0", 400),
        ("GET", "/v2/library/alpine/manifests/-3.16.0", 404),
        ("GET", "/v2/library/alpine/manifests/sha256:abc", 400),
        ("GET", "/v2/quay.io/library/alpine/manifests/3.16.0?ns=ghcr.io", 400),
    ],
)
def test_other_paths_and_methods(service: Service, method: str, path: str, status: int) -> None:
    answer = ask(service.url, method, path)
    assert answer.status == status
    if status >= 400 and method != "HEAD":
        assert answer.headers["Content-Type"] == "application/json"
        assert set(answer.error) >= {"code", "message"}
    if status == http.client.METHOD_NOT_ALLOWED:
        assert answer.headers["Allow"] == "GET, HEAD"


def test_an_unwanted_upload_is_refused_before_it_is_read(service: Service) -> None:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=20)
    connection.putrequest("PUT", "/v2/library/alpine/blobs/uploads/x")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders(b"x" * 1000)
    response = connection.getresponse()
    assert response.status == http.client.METHOD_NOT_ALLOWED
    connection.close()
