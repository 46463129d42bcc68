"""The engines without the service: they pull from the registry, and nobody notices a tag that moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.images import DOCKER, OCI, make, push

if TYPE_CHECKING:
    from tests.e2e.clients import Containers
    from tests.e2e.engines import Containerd, Docker, Registry
    from tests.e2e.images import Kind


@pytest.mark.parametrize("multi", [False, True], ids=["single", "multi-platform"])
@pytest.mark.parametrize("kind", [OCI, DOCKER], ids=lambda kind: kind.name)
def test_docker_pulls_and_does_not_notice_a_moved_tag(
    docker_io: Registry, docker: Docker, kind: Kind, multi: bool
) -> None:
    name = f"direct/docker-{kind.name}-{multi}".lower()
    for text in ("first", "moved"):
        digest = push(docker_io.url, name, "v1", make(text, kind, multi=multi))
        said = docker.pull(f"{docker_io.host}/{name}:v1")
        assert said.code == 0, said.text
        assert f"Digest: {digest}" in said.out


def test_containerd_pulls_and_does_not_notice_a_moved_tag(docker_io: Registry, containerd: Containerd) -> None:
    for text in ("first", "moved"):
        digest = push(docker_io.url, "direct/ctr", "v1", make(text, multi=True))
        said = containerd.pull(f"{docker_io.host}/direct/ctr:v1")
        assert said.code == 0, said.text
        assert digest in containerd.run("images", "list").out


def test_podman_pulls_and_does_not_notice_a_moved_tag(
    docker_io: Registry, podman: Containers, skopeo: Containers
) -> None:
    for text in ("first", "moved"):
        digest = push(docker_io.url, "direct/podman", "v1", make(text, multi=True))
        said = podman.pull(f"{docker_io.host}/direct/podman:v1")
        assert said.code == 0, said.text
        assert digest in skopeo.inspect(f"{docker_io.host}/direct/podman:v1").out
