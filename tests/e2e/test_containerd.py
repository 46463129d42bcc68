"""What a user of containerd sees: it resolves a tag by HEAD alone, so a check of GET only would not stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.images import DOCKER, OCI, make, push

if TYPE_CHECKING:
    from tests.e2e.engines import Containerd, Registry
    from tests.e2e.images import Kind
    from tests.e2e.service import Service


@pytest.mark.parametrize("multi", [False, True], ids=["single", "multi-platform"])
@pytest.mark.parametrize("kind", [OCI, DOCKER], ids=lambda kind: kind.name)
def test_a_moved_tag_is_refused(
    docker_io: Registry, containerd: Containerd, service: Service, kind: Kind, multi: bool
) -> None:
    name = f"ctr/{kind.name}-{multi}".lower()
    reference = f"{service.host}/{name}:v1"
    old = push(docker_io.url, name, "v1", make("first", kind, multi=multi))
    for _ in range(2):
        said = containerd.pull(reference)
        assert said.code == 0, said.text
        assert f"{reference} " in (listed := containerd.run("images", "list").out)
        assert old in listed

    new = push(docker_io.url, name, "v1", make("moved", kind, multi=multi))
    blocked = containerd.pull(reference)
    assert blocked.code != 0
    assert "403 forbidden" in blocked.err.lower()  # the command shows no more than the status
    assert new not in containerd.run("images", "list").out

    by_digest = containerd.pull(f"{service.host}/{name}@{new}")
    assert by_digest.code == 0, by_digest.text
