"""What a user of podman and skopeo sees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.images import make, push

if TYPE_CHECKING:
    from tests.e2e.clients import Containers
    from tests.e2e.engines import Registry
    from tests.e2e.service import Service


def test_podman_is_told_why_a_moved_tag_is_blocked(docker_io: Registry, podman: Containers, service: Service) -> None:
    reference = f"{service.host}/my-user/podman:v1"
    old = push(docker_io.url, "my-user/podman", "v1", make("first", multi=True))
    for _ in range(2):
        said = podman.pull(reference)
        assert said.code == 0, said.text

    new = push(docker_io.url, "my-user/podman", "v1", make("moved", multi=True))
    blocked = podman.pull(reference)
    assert blocked.code != 0
    assert f'tag "my-user/podman:v1" mismatch; got "{new}", want "{old}"' in blocked.text.replace('\\"', '"')

    by_digest = podman.pull(f"{service.host}/my-user/podman@{new}")
    assert by_digest.code == 0, by_digest.text


def test_skopeo_inspects_what_is_recorded_and_nothing_else(
    docker_io: Registry, skopeo: Containers, service: Service
) -> None:
    reference = f"{service.host}/my-user/skopeo:v1"
    old = push(docker_io.url, "my-user/skopeo", "v1", make("first"))
    seen = skopeo.inspect(reference)
    assert seen.code == 0, seen.text
    assert json.loads(seen.out)["Digest"] == old

    new = push(docker_io.url, "my-user/skopeo", "v1", make("moved"))
    blocked = skopeo.inspect(reference)
    assert blocked.code != 0
    assert f'tag "my-user/skopeo:v1" mismatch; got "{new}", want "{old}"' in blocked.text.replace('\\"', '"')
