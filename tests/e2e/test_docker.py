"""What a user of Docker sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.images import DOCKER, OCI, make, push

if TYPE_CHECKING:
    from tests.e2e.engines import Docker, Registry
    from tests.e2e.images import Kind
    from tests.e2e.service import Service


def test_a_tag_that_moved_is_blocked(docker_io: Registry, docker: Docker, service: Service) -> None:
    name, tag = "my-user/my-app", "v1.2.3"
    reference = f"{service.host}/{name}:{tag}"
    old = push(docker_io.url, name, tag, make("first"))

    first = docker.pull(reference)
    assert first.code == 0, first.text
    assert f"Digest: {old}" in first.out
    assert f"Downloaded newer image for {reference}" in first.out

    second = docker.pull(reference)
    assert second.code == 0, second.text
    assert f"Image is up to date for {reference}" in second.out

    new = push(docker_io.url, name, tag, make("moved"))
    blocked = docker.pull(reference)
    assert blocked.code == 1
    words = f'Error response from daemon: tag invalid: tag "{name}:{tag}" mismatch; got "{new}", want "{old}"'
    assert words in blocked.err.splitlines()

    for digest in (new, old):
        by_digest = docker.pull(f"{service.host}/{name}@{digest}")
        assert by_digest.code == 0, by_digest.text
        assert f"Digest: {digest}" in by_digest.out

    push(docker_io.url, name, tag, make("first"))  # moved back
    again = docker.pull(reference)
    assert again.code == 0, again.text


@pytest.mark.parametrize("multi", [False, True], ids=["single", "multi-platform"])
@pytest.mark.parametrize("kind", [OCI, DOCKER], ids=lambda kind: kind.name)
def test_every_form_of_image(docker_io: Registry, docker: Docker, service: Service, kind: Kind, multi: bool) -> None:
    name = f"forms/{kind.name}-{multi}".lower()
    reference = f"{service.host}/{name}:v1"
    old = push(docker_io.url, name, "v1", make("first", kind, multi=multi))
    first = docker.pull(reference)
    assert first.code == 0, first.text
    assert f"Digest: {old}" in first.out

    new = push(docker_io.url, name, "v1", make("moved", kind, multi=multi))
    blocked = docker.pull(reference)
    assert blocked.code == 1
    assert f'tag invalid: tag "{name}:v1" mismatch; got "{new}", want "{old}"' in blocked.err


@pytest.mark.parametrize(
    ("asked", "registry", "repository", "tag"),
    [
        ("alpine:3.16.0", "docker_io", "library/alpine", "3.16.0"),
        ("debian:bullseye-20220622", "docker_io", "library/debian", "bullseye-20220622"),
        ("ghcr.io/distroless/static:20220707", "ghcr_io", "distroless/static", "20220707"),
    ],
)
def test_which_registry_a_name_means(
    docker: Docker,
    service: Service,
    request: pytest.FixtureRequest,
    asked: str,
    registry: str,
    repository: str,
    tag: str,
) -> None:
    upstream: Registry = request.getfixturevalue(registry)
    old = push(upstream.url, repository, tag, make(asked))
    first = docker.pull(f"{service.host}/{asked}")
    assert first.code == 0, first.text
    assert f"Digest: {old}" in first.out

    new = push(upstream.url, repository, tag, make("moved"))
    blocked = docker.pull(f"{service.host}/{asked}")
    assert f'tag invalid: tag "{asked}" mismatch; got "{new}", want "{old}"' in blocked.err


def test_a_restart_forgets_nothing(docker_io: Registry, docker: Docker, service: Service) -> None:
    reference = "my-user/kept:v1"
    old = push(docker_io.url, "my-user/kept", "v1", make("first"))
    assert docker.pull(f"{service.host}/{reference}").code == 0
    before = service.get(f"/sightings/{reference}").json()
    assert before["digest"] == old

    service.restart()

    assert service.get(f"/sightings/{reference}").json() == before
    same = service.by_tag(reference)
    assert (same.headers["Tlog-Logindex"], same.headers["Tlog-Integratedtime"]) == (
        str(before["logIndex"]),
        before["integratedTime"],
    )
    assert same.headers["Tlog-First-Seen"] is None
    new = push(docker_io.url, "my-user/kept", "v1", make("moved"))
    blocked = docker.pull(f"{service.host}/{reference}")
    assert f'mismatch; got "{new}", want "{old}"' in blocked.err


def test_an_image_that_is_not_there(docker: Docker, service: Service) -> None:
    said = docker.pull(f"{service.host}/my-user/nobody:v1")
    assert said.code == 1
    assert "not found" in said.err


def test_a_line_for_each_request_by_tag_says_the_verdict(docker_io: Registry, service: Service) -> None:
    push(docker_io.url, "my-user/lines", "v1", make("first"))
    service.by_tag("my-user/lines:v1")
    assert "first seen" in service.line("my-user/lines:v1")
    service.by_tag("my-user/lines:v1")
    assert "same" in service.line("my-user/lines:v1")
    push(docker_io.url, "my-user/lines", "v1", make("moved"))
    service.by_tag("my-user/lines:v1")
    assert "moved" in service.line("my-user/lines:v1")
