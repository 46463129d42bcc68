"""Each configuration of docs/clients.md, read from the page and run: it enforces, or the real registry is asked instead."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e import gotools
from tests.e2e.clients import Client, Containers
from tests.e2e.conftest import need, need_go
from tests.e2e.engines import Docker
from tests.e2e.golden import Transcript
from tests.e2e.images import make, push
from tests.e2e.internet import Internet
from tests.e2e.page import blocks
from tests.e2e.test_clients import engine_version, keep_of_docker, version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.engines import Containerd, Registry
    from tests.e2e.images import Image
    from tests.e2e.processes import Said
    from tests.e2e.service import Service

    Pull = Callable[[str], Said]

pytestmark = pytest.mark.e2e


class World:
    """What a recipe is judged by: what is in the real registries, and who was asked."""

    def __init__(self, service: Service, internet: Internet, registries: dict[str, Registry]) -> None:
        self.service = service
        self._internet = internet
        self._registries = registries

    def recipe(self, heading: str, number: int = 0) -> str:
        """A block of the page under a heading, with the service's real port."""
        return blocks()[heading][number].replace("localhost:8080", self.service.host)

    def push(self, name: str, text: str) -> Image:
        """Put an image under a tag of a real registry; `name` is docker.io/my-user/my-app:v1."""
        registry, _, path = name.partition("/")
        repository, _, tag = path.partition(":")
        image = make(f"{name} {text}", multi=True)
        push(self._registries[registry].url, repository, tag, image)
        return image

    def enforces(self, pull: Pull, name: str) -> Said:
        """It pulls through the service and the real registry is never asked, not even when the tag moved. The refusal."""
        old = self._first(pull, name)
        new = self.push(name, "moved")
        refused = pull(name)
        assert refused.code != 0, refused.text
        words = f'got "{new.digest}", want "{old.digest}"'
        assert "403" in refused.text or words in refused.text.replace('\\"', '"')
        assert self._internet.asked == []
        return refused

    def falls_back(self, pull: Pull, name: str) -> tuple[Image, Said]:
        """It pulls through the service; when the tag moved, it resolves it at the real registry. What it then gets."""
        self._first(pull, name)
        new = self.push(name, "moved")
        said = pull(name)
        assert said.code == 0, said.text
        assert "mismatch" not in said.text, "it did not keep quiet about it"
        assert self._asked_the_real_registry(name)
        assert self.service.by_tag(name).status == 403
        return new, said

    def ignores(self, pull: Pull, name: str) -> Said:
        """The service is not asked at all."""
        self.push(name, "first")
        self._internet.asked.clear()
        said = pull(name)
        assert said.code == 0, said.text
        assert self._asked_the_real_registry(name)
        assert self.service.get(f"/sightings/{name}").status == 404
        return said

    def _first(self, pull: Pull, name: str) -> Image:
        old = self.push(name, "first")
        self._internet.asked.clear()
        said = pull(name)
        assert said.code == 0, said.text
        assert self.service.get(f"/sightings/{name}").json()["digest"] == old.digest
        assert self._internet.asked == []
        return old

    def _asked_the_real_registry(self, name: str) -> bool:
        repository, _, tag = name.removeprefix("docker.io/").partition(":")
        place = f"registry-1.docker.io/v2/{repository}/manifests/{tag}"
        return bool({f"HEAD {place}", f"GET {place}"} & set(self._internet.asked))


@pytest.fixture
def world(service: Service, internet: Internet, docker_io: Registry, ghcr_io: Registry) -> World:
    return World(service, internet, {"docker.io": docker_io, "ghcr.io": ghcr_io})


@pytest.fixture(params=["containerd2", pytest.param("containerd", marks=pytest.mark.long)])
def engine(request: pytest.FixtureRequest) -> Containerd:
    found: Containerd = request.getfixturevalue(request.param)
    return found


def hosts(engine: Containerd, **files: str) -> None:
    """Its certs.d from now on; `_` for a dot."""
    shutil.rmtree(engine.hosts, ignore_errors=True)  # an empty folder of a registry would hide _default
    for name, text in files.items():
        file = engine.hosts / (name if name == "_default" else name.replace("_", ".")) / "hosts.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def by_ctr(engine: Containerd) -> Pull:
    return lambda name: engine.run("images", "pull", "--hosts-dir", str(engine.hosts), name)


# The files hosts.toml of containerd


@pytest.mark.long
def test_hosts_toml_for_one_registry_enforces(engine: Containerd, world: World, request: pytest.FixtureRequest) -> None:
    hosts(engine, docker_io=world.recipe("### One registry"))
    key = request.node.callspec.params["engine"]
    world.enforces(by_ctr(engine), f"docker.io/hosts/{key}-ctr:v1")
    world.enforces(engine.kubelet_pulls, f"docker.io/hosts/{key}-cri:v1")


def test_hosts_toml_for_all_registries_enforces(
    engine: Containerd, world: World, request: pytest.FixtureRequest
) -> None:
    hosts(engine, _default=world.recipe("### All registries"))
    key = request.node.callspec.params["engine"]
    for registry in ("docker.io", "ghcr.io"):
        world.enforces(engine.kubelet_pulls, f"{registry}/hosts-default/{key}:v1")


def test_a_server_without_a_host_table_enforces_on_containerd_2_only(
    engine: Containerd, world: World, request: pytest.FixtureRequest
) -> None:
    hosts(engine, docker_io=world.recipe("### What does not enforce", 0))
    key = request.node.callspec.params["engine"]
    name = f"docker.io/hosts-server/{key}:v1"
    if version(engine.run("--version")).startswith("1."):
        said = world.ignores(by_ctr(engine), name)
        assert "invalid `host` tree" in said.text
    else:
        world.enforces(by_ctr(engine), name)


def test_a_host_table_is_a_mirror_and_falls_back(
    engine: Containerd, world: World, request: pytest.FixtureRequest
) -> None:
    hosts(engine, docker_io=world.recipe("### What does not enforce", 1))
    key = request.node.callspec.params["engine"]
    new, _ = world.falls_back(engine.kubelet_pulls, f"docker.io/hosts-mirror/{key}:v1")
    assert new.digest in engine.run("--namespace", "k8s.io", "images", "list").out


# podman, buildah, skopeo: registries.conf


def by_podman(client: Containers) -> Pull:
    return lambda name: client.run("pull", name)


def by_skopeo(client: Containers) -> Pull:
    return lambda name: client.run("copy", f"docker://{name}", "dir:recipe")


def by_buildah(client: Containers) -> Pull:
    def pull(name: str) -> Said:
        (client.folder / "Containerfile").write_text(f"FROM {name}\n")
        return client.run("build", "--pull-always", ".")

    return pull


CONTAINERS = {"skopeo": by_skopeo, "podman": by_podman, "buildah": by_buildah}


@pytest.fixture(params=["skopeo", *(pytest.param(name, marks=pytest.mark.long) for name in ("podman", "buildah"))])
def containers(request: pytest.FixtureRequest) -> Iterator[tuple[Containers, Pull]]:
    client: Containers = request.getfixturevalue(request.param)
    yield client, CONTAINERS[request.param](client)
    client.registries("")


def test_prefix_and_location_enforce(containers: tuple[Containers, Pull], world: World) -> None:
    client, pull = containers
    client.registries(world.recipe("## podman, buildah, skopeo, CRI-O"))
    for registry in ("docker.io", "ghcr.io"):
        world.enforces(pull, f"{registry}/conf/{client.program}:v1")


def test_a_registries_mirror_falls_back(containers: tuple[Containers, Pull], world: World) -> None:
    client, pull = containers
    client.registries(world.recipe("## podman, buildah, skopeo, CRI-O", 1))
    new, said = world.falls_back(pull, f"docker.io/conf-mirror/{client.program}:v1")
    assert f"Copying blob {new.blobs[0].digest}" in said.text


def test_with_a_certificate_nothing_insecure_is_needed(world: World, workshop: Path) -> None:
    need("skopeo")
    with Internet(workshop / "deployment", {"tags.example.com": world.service.url}) as deployment:
        client = Containers(workshop / "skopeo-tls", "skopeo", **deployment.env)
        conf = world.recipe("## podman, buildah, skopeo, CRI-O").replace("insecure = true\n", "")
        client.registries(conf.replace(world.service.host, "tags.example.com"))
        world.enforces(by_skopeo(client), "docker.io/conf-tls/skopeo:v1")
        assert "GET tags.example.com/v2/docker.io/conf-tls/skopeo/manifests/v1" in deployment.asked


# Docker Engine: registry-mirrors


@pytest.mark.long
def test_docker_registry_mirrors_fall_back(world: World, workshop: Path, internet: Internet) -> None:
    need("dockerd", "docker")
    engine = Docker(workshop / "docker-mirror", world.recipe("## Docker Engine: `registry-mirrors`"), internet.env)
    try:
        name = "docker.io/mirror/docker:v1"
        new, said = world.falls_back(lambda name: engine.pull(name.removeprefix("docker.io/")), name)
        assert f"Digest: {new.digest}" in said.out
        stand_ins = {"mirror/docker": "my-user/my-app", "v1": "v1.2.3", new.digest: "sha256:22ef…"}
        transcript = Transcript(f"Docker Engine {engine_version(engine)}", stand_ins, keep_of_docker)
        transcript.add("after the tag moved", "$ docker pull mirror/docker:v1", said)
        transcript.check("docker-mirror")
    finally:
        engine.end()


# The service cannot tell, or is away


@pytest.mark.long
@pytest.mark.parametrize("state", ["503", "away"])
def test_what_enforces_fails_while_the_service_cannot_answer_and_a_mirror_does_not(
    state: str, world: World, own_service: Service, internet: Internet, containerd: Containerd, skopeo: Containers
) -> None:
    conf = "## podman, buildah, skopeo, CRI-O"
    pulls = {"cri": containerd.kubelet_pulls, "skopeo": by_skopeo(skopeo)}
    if state == "503":
        own_service.fault("log:before")
    else:
        own_service.kill()
    for enforces, hosts_toml, registries in (
        (True, world.recipe("### One registry"), world.recipe(conf)),
        (False, world.recipe("### What does not enforce", 1), world.recipe(conf, 1)),
    ):
        hosts(containerd, docker_io=hosts_toml.replace(world.service.host, own_service.host))
        skopeo.registries(registries.replace(world.service.host, own_service.host))
        for client, pull in pulls.items():
            name = f"docker.io/{state}/{client}-{enforces}:v1".lower()
            world.push(name, "first")
            internet.asked.clear()
            assert (pull(name).code != 0) == enforces
            assert (internet.asked == []) == enforces
    skopeo.registries("")
    hosts(containerd)


# kaniko


def test_what_kaniko_asks_for_is_answered_like_the_name_it_stands_for(world: World, workshop: Path) -> None:
    """It replaces a registry by what stands after the `=`, up to the first slash as host and the rest before the path."""
    need_go("crane")  # the same library (go-containerregistry) makes the requests
    client = Client(workshop / "kaniko", gotools.TOOLS["crane"].command())
    flags = dict(re.findall(r"--registry-map=(\S+?)=(\S+)", world.recipe("## kaniko")))
    assert set(flags) == {"index.docker.io", "ghcr.io"}

    def pull(name: str) -> Said:
        registry, _, path = name.partition("/")
        return client.run("pull", f"{flags[registry.replace('docker.io', 'index.docker.io')]}/{path}", "app.tar")

    for registry in ("docker.io", "ghcr.io"):
        world.enforces(pull, f"{registry}/kaniko/app:v1")


# Kubernetes


def test_an_image_line_of_kubernetes_enforces(engine: Containerd, world: World, request: pytest.FixtureRequest) -> None:
    hosts(engine)
    line = world.recipe("## Kubernetes")
    found = re.search(r"image: (\S+)", line)
    assert found is not None
    prefix = found[1].partition("/my-user/")[0]
    key = request.node.callspec.params["engine"]
    world.enforces(lambda name: engine.kubelet_pulls(name.replace("docker.io", prefix)), f"docker.io/pods/{key}:v1")
