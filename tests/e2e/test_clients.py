"""The clients that people use, each through the running service: first pull, second pull, a tag that moved, and by digest.

What each prints is kept in tests/e2e/golden/, with the number of requests that it cost the registry.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import gotools
from tests.e2e.clients import Client
from tests.e2e.conftest import need_go
from tests.e2e.golden import Transcript
from tests.e2e.images import Image, chart, file, hold, make
from tests.e2e.processes import Said, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.clients import Containers
    from tests.e2e.engines import Containerd, Docker
    from tests.e2e.service import Service
    from tests.fakes.registry import FakeRegistry

    Pull = Callable[[str, str], tuple[str, Said]]  # (localhost:PORT/REPOSITORY, :TAG or @DIGEST) -> command and outcome

multi = partial(make, multi=True)
CROWD = 8


@dataclass(frozen=True, slots=True)
class Puller:
    """A client: how it pulls, what it pulls, and which of the lines that it prints are the same in every run."""

    title: str
    pull: Pull
    image: Callable[[str], Image] = multi
    tag: str = "v1.2.3"
    keep: Callable[[str], str] = str
    explains: bool = True  # whether it shows more of a refusal than the status
    asks: int = 1  # how often it asks for the tag in one pull
    signatures: int = 0  # for how many tags of signatures, which are not recorded


def version(said: Said) -> str:
    """Major and minor."""
    found = re.search(r"(\d+\.\d+)\.", said.text)
    assert found is not None, said
    return found[1]


def typed(client: Client, *words: str, **env: str) -> tuple[str, Said]:
    """The command as a user types it, and how it ended."""
    return f"$ {' '.join([Path(client.program).name, *words])}", client.run(*words, **env)


# Engines with a daemon


def docker(request: pytest.FixtureRequest) -> Puller:
    engine: Docker = request.getfixturevalue("docker")

    def pull(name: str, reference: str) -> tuple[str, Said]:
        return f"$ docker pull {name}{reference}", engine.pull(name + reference)

    return Puller(f"Docker Engine {engine_version(engine)}", pull, keep=keep_of_docker)


def keep_of_docker(text: str) -> str:
    """What each layer goes through depends on how quick that is."""
    return re.sub(r".*: (Pulling fs layer|Waiting|Verifying Checksum|Download complete)\n", "", text)


def buildkit(request: pytest.FixtureRequest) -> Puller:
    engine: Docker = request.getfixturevalue("docker")
    client = next((path for path in ("docker", "/usr/bin/docker") if has_buildkit(engine, path)), None)
    if client is None:
        pytest.skip("this docker client has no BuildKit: it is older than 18.09, or newer than 22 and without buildx")

    def pull(name: str, reference: str) -> tuple[str, Said]:
        engine.write("my-app/Dockerfile", f"FROM {name}{reference}\n")
        words = ("build", "--pull", "--progress", "plain", "my-app")
        return f"$ docker {' '.join(words)}", engine.run(*words, program=client, DOCKER_BUILDKIT="1")

    def keep(text: str) -> str:
        kept = r".*(load metadata|ERROR|failed to solve).*|#4 \[1/1\].*"
        return "\n".join(dict.fromkeys(line for line in text.splitlines() if re.fullmatch(kept, line)))

    return Puller(f"BuildKit in Docker Engine {engine_version(engine)}", pull, keep=keep, explains=False)


def engine_version(engine: Docker) -> str:
    return version(engine.run("version", "--format", "{{.Server.Version}}"))


def has_buildkit(engine: Docker, client: str) -> bool:
    """Part of the client from 18.09 to 22, a plugin of its own since then."""
    if client.startswith("/") and not Path(client).exists():
        return False
    number = version(run([client, "--version"]))
    return 18 < float(number) < 23 or engine.run("buildx", "version", program=client).code == 0


def ctr(fixture: str, explains: bool, request: pytest.FixtureRequest) -> Puller:
    engine: Containerd = request.getfixturevalue(fixture)

    def pull(name: str, reference: str) -> tuple[str, Said]:
        command = f"$ ctr images pull --plain-http {name}{reference}"
        return command, engine.run("images", "pull", "--plain-http", name + reference)

    return Puller(f"containerd {version(engine.run('--version'))}", pull, keep=without_progress, explains=explains)


def without_progress(text: str) -> str:
    """Nothing of what ctr draws again and again while it pulls: 1.6 bars, 2.x a tree of them below the image's name."""
    progress = r"\|[^|]*\||elapsed: |\tfetching|\tsaved|──|^application/|level=warning"
    return "\n".join(line for line in text.splitlines() if not re.search(progress, line))


def kubelet(fixture: str, explains: bool, request: pytest.FixtureRequest) -> Puller:
    engine: Containerd = request.getfixturevalue(fixture)

    def pull(name: str, reference: str) -> tuple[str, Said]:
        return f"image: {name}{reference}", engine.kubelet_pulls(name + reference)

    return Puller(f"Kubernetes on containerd {version(engine.run('--version'))}", pull, explains=explains)


# Programs of containers/image


def podman(request: pytest.FixtureRequest) -> Puller:
    client: Containers = request.getfixturevalue("podman")

    def pull(name: str, reference: str) -> tuple[str, Said]:
        return typed(client, "pull", "--tls-verify=false", name + reference)

    return Puller(f"podman {version(client.run('--version'))}", pull)


def skopeo_copy(request: pytest.FixtureRequest) -> Puller:
    client: Containers = request.getfixturevalue("skopeo")

    def pull(name: str, reference: str) -> tuple[str, Said]:
        return typed(client, "copy", "--src-tls-verify=false", f"docker://{name}{reference}", "dir:my-app")

    return Puller(f"skopeo {version(client.run('--version'))} copy", pull)


def skopeo_inspect(request: pytest.FixtureRequest) -> Puller:
    client: Containers = request.getfixturevalue("skopeo")

    def pull(name: str, reference: str) -> tuple[str, Said]:
        return typed(client, "inspect", "--no-tags", "--tls-verify=false", f"docker://{name}{reference}")

    return Puller(f"skopeo {version(client.run('--version'))} inspect", pull)


def buildah(request: pytest.FixtureRequest) -> Puller:
    client: Containers = request.getfixturevalue("buildah")

    def pull(name: str, reference: str) -> tuple[str, Said]:
        (client.folder / "Containerfile").write_text(f"FROM {name}{reference}\n")
        return typed(client, "build", "--pull-always", "--tls-verify=false", ".")

    return Puller(f"buildah {version(client.run('--version'))}", pull)


# Programs built by Go


def go_client(name: str, request: pytest.FixtureRequest) -> tuple[str, Client]:
    need_go(name)
    tool = gotools.TOOLS[name]
    folder = request.getfixturevalue("workshop") / name
    return f"{name} {tool.version[1:].rpartition('.')[0]}", Client(folder, tool.command())


def crane(request: pytest.FixtureRequest) -> Puller:
    title, client = go_client("crane", request)
    return Puller(title, lambda name, reference: typed(client, "pull", name + reference, "my-app.tar"))


def oras(request: pytest.FixtureRequest) -> Puller:
    title, client = go_client("oras", request)
    return Puller(title, lambda name, reference: typed(client, "pull", "--plain-http", name + reference), image=file)


def helm(request: pytest.FixtureRequest) -> Puller:
    title, client = go_client("helm", request)

    def pull(name: str, reference: str) -> tuple[str, Said]:
        (client.folder / "my-chart-1.2.3.tgz").unlink(missing_ok=True)
        if reference.startswith(":"):
            return typed(client, "pull", "--plain-http", f"oci://{name}", "--version", reference[1:])
        return typed(client, "pull", "--plain-http", f"oci://{name}{reference}")

    return Puller(title, pull, image=chart, tag="1.2.3")


def regctl(request: pytest.FixtureRequest) -> Puller:
    title, client = go_client("regctl", request)

    def pull(name: str, reference: str) -> tuple[str, Said]:
        assert client.run("registry", "set", "--tls", "disabled", name.partition("/")[0]).code == 0
        return typed(client, "image", "copy", name + reference, "ocidir://my-app:v1.2.3")

    return Puller(title, pull, explains=False)


def cosign(request: pytest.FixtureRequest) -> Puller:
    title, client = go_client("cosign", request)

    def pull(name: str, reference: str) -> tuple[str, Said]:
        return typed(client, "save", "--dir", "my-app", name + reference)

    return Puller(title, pull, asks=3, signatures=2)


CLIENTS: dict[str, Callable[[pytest.FixtureRequest], Puller]] = {
    "docker": docker,
    "buildkit": buildkit,
    "containerd-1": partial(ctr, "containerd", False),
    "containerd-2": partial(ctr, "containerd2", True),
    "kubernetes-1": partial(kubelet, "containerd", False),
    "kubernetes-2": partial(kubelet, "containerd2", True),
    "podman": podman,
    "buildah": buildah,
    "skopeo-copy": skopeo_copy,
    "skopeo-inspect": skopeo_inspect,
    "crane": crane,
    "oras": oras,
    "helm": helm,
    "regctl": regctl,
    "cosign": cosign,
}

# Another client with the same library is among the others, or they wait before they try again.
LONG = {"buildkit", "containerd-1", "kubernetes-1", "podman", "buildah", "skopeo-inspect"}


@pytest.mark.e2e
@pytest.mark.parametrize("key", [pytest.param(key, marks=pytest.mark.long if key in LONG else ()) for key in CLIENTS])
def test_a_client_pulls_what_was_recorded_and_nothing_else(
    key: str, request: pytest.FixtureRequest, counted: tuple[FakeRegistry, Service]
) -> None:
    client = CLIENTS[key](request)
    registry, service = counted
    repository = f"my-user/{key}-app"
    name, tag = f"{service.host}/{repository}", f":{client.tag}"
    old, new = client.image(f"{key} first"), client.image(f"{key} moved")
    hold(registry, repository, client.tag, old)
    stand_ins = {repository: "my-user/my-app", service.host: "localhost:8080"}
    stand_ins |= {old.digest: "sha256:c899…", new.digest: "sha256:22ef…"}
    transcript = Transcript(client.title, stand_ins, client.keep)

    registry.forget_requests()
    first_command, first = client.pull(name, tag)
    transcript.add("first pull", first_command, first, cost(registry))
    assert first.code == 0, first.text
    assert service.get(f"/sightings/{repository}{tag}").json()["digest"] == old.digest
    assert any(one.path.endswith(old.blobs[0].digest) for one in registry.requests) or key == "skopeo-inspect"

    registry.forget_requests()
    second_command, second = client.pull(name, tag)
    transcript.add("second pull", second_command, second, cost(registry))
    assert second.code == 0, second.text
    assert manifests(registry, "HEAD") <= client.asks
    assert manifests(registry, "GET") == registry.count("GET", "*/manifests/sha256-*") == client.signatures
    assert not registry.token_requests

    hold(registry, repository, client.tag, new)
    registry.forget_requests()
    command, moved = client.pull(name, tag)
    transcript.add("after the tag moved", command, moved)
    assert moved.code != 0
    assert registry.count(pattern="*/blobs/*") == 0
    if client.explains:
        assert f'mismatch; got "{new.digest}", want "{old.digest}"' in moved.text.replace('\\"', '"')
    else:
        assert "403" in moved.text  # nothing more is shown

    command, by_digest = client.pull(name, f"@{old.digest}")
    transcript.add("by digest", command, by_digest)
    assert by_digest.code == 0, by_digest.text
    transcript.check(key)


@pytest.mark.e2e
def test_many_clients_at_once_cost_the_registry_one_token_and_then_no_manifest(
    skopeo: Containers, counted: tuple[FakeRegistry, Service]
) -> None:
    registry, service = counted
    image = multi("at once")
    hold(registry, "my-user/at-once", "v1.2.3", image)
    words = ("inspect", "--raw", "--tls-verify=false", f"docker://{service.host}/my-user/at-once:v1.2.3")
    for tokens, gets in ((1, CROWD + 1), (0, 0)):  # whoever comes before it is recorded may ask for the manifest, too
        registry.forget_requests()
        with ThreadPoolExecutor(CROWD) as threads:
            said = list(threads.map(lambda _: skopeo.run(*words), range(CROWD)))
        assert {one.out for one in said} == {image.tagged.data.decode()}
        assert len(registry.token_requests) == tokens
        assert manifests(registry, "GET") <= gets
        assert manifests(registry, "HEAD") <= CROWD


def manifests(registry: FakeRegistry, method: str) -> int:
    return registry.count(method, "*/manifests/*")


def cost(registry: FakeRegistry) -> str:
    """What the registry was asked since it was told to forget; docs/clients.md has these numbers as a table."""
    return (
        f"manifests HEAD {manifests(registry, 'HEAD')} GET {manifests(registry, 'GET')}"
        f" blobs HEAD {registry.count('HEAD', '*/blobs/*')} GET {registry.count('GET', '*/blobs/*')}"
        f" tokens {len(registry.token_requests)}"
    )
