"""The engines and registries, each started once for all tests; when a test fails, what they printed is shown."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import gotools
from tests.e2e.clients import Containers
from tests.e2e.engines import Containerd, Docker, Registry, missing
from tests.e2e.internet import Internet
from tests.e2e.processes import unmount_under
from tests.e2e.service import Service
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LOGS = pytest.StashKey[Path]()
SHOWN_CHARACTERS = 3000


def need(*commands: str) -> None:
    """Skip, naming the package; fail where everything is promised to be there (TLOGISTRY_REQUIRE_E2E=1)."""
    sentence = missing(*commands)
    if sentence is None:
        return
    if os.environ.get("TLOGISTRY_REQUIRE_E2E") == "1":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def need_go(name: str) -> None:
    """The same for a client that is built by `go`; promised to be there only where `go` is."""
    sentence = gotools.missing(name)
    if sentence is None:
        return
    if os.environ.get("TLOGISTRY_REQUIRE_E2E") == "1" and gotools.go():
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure, the end of every log that was written to meanwhile."""
    report = yield
    folder = item.config.stash.get(LOGS, None)
    if report.failed and folder is not None:
        for log in sorted(folder.glob("*/*.log")):
            if log.stat().st_mtime >= call.start:
                text = log.read_text(errors="replace")[-SHOWN_CHARACTERS:]
                report.sections.append((f"the end of {log.relative_to(folder)}", text))
    return report


@pytest.fixture(scope="session")
def workshop(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A folder with a short path, gone at the end with everything that was mounted in it."""
    folder = Path(tempfile.mkdtemp(prefix="tl-"))
    pytestconfig.stash[LOGS] = folder
    yield folder
    del pytestconfig.stash[LOGS]
    unmount_under(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def docker_io(workshop: Path) -> Iterator[Registry]:
    """A registry that stands for Docker Hub."""
    need("docker-registry")
    registry = Registry(workshop / "docker.io")
    yield registry
    registry.end()


@pytest.fixture(scope="session")
def ghcr_io(workshop: Path) -> Iterator[Registry]:
    """A registry that stands for ghcr.io."""
    need("docker-registry")
    registry = Registry(workshop / "ghcr.io")
    yield registry
    registry.end()


@pytest.fixture(scope="session")
def docker(workshop: Path) -> Iterator[Docker]:
    need("dockerd", "docker")
    engine = Docker(workshop / "docker")
    yield engine
    engine.end()


@pytest.fixture(scope="session")
def containerd(workshop: Path, internet: Internet) -> Iterator[Containerd]:
    need("containerd", "ctr")
    engine = Containerd(workshop / "ctd", env=internet.env)
    yield engine
    engine.end()


@pytest.fixture(scope="session")
def containerd2(workshop: Path, internet: Internet) -> Iterator[Containerd]:
    """One of the 2.x, which Debian does not have yet."""
    need_go("containerd")
    engine = Containerd(workshop / "ctd2", gotools.TOOLS["containerd"].folder, internet.env)
    yield engine
    engine.end()


@pytest.fixture(scope="session")
def podman(workshop: Path, internet: Internet) -> Containers:
    need("podman")
    return Containers(workshop / "podman", "podman", **internet.env)


@pytest.fixture(scope="session")
def skopeo(workshop: Path, internet: Internet) -> Containers:
    need("skopeo")
    return Containers(workshop / "skopeo", "skopeo", **internet.env)


@pytest.fixture(scope="session")
def buildah(workshop: Path, internet: Internet) -> Containers:
    need("buildah")
    return Containers(workshop / "buildah", "buildah", **internet.env)


@pytest.fixture(scope="session")
def internet(workshop: Path, docker_io: Registry, ghcr_io: Registry) -> Iterator[Internet]:
    """Docker Hub and ghcr.io, for a client that asks them by their names."""
    with Internet(workshop / "internet", {"registry-1.docker.io": docker_io.url, "ghcr.io": ghcr_io.url}) as running:
        yield running


@pytest.fixture(scope="session")
def counted(workshop: Path) -> Iterator[tuple[FakeRegistry, Service]]:
    """A Docker Hub that asks for tokens and keeps every request in mind, and a service in front of it."""
    with FakeRegistry(token_field="token", accounts={}) as registry:
        running = Service(workshop / "counted", {"docker.io": registry.base_url})
        running.start()
        yield registry, running
        running.kill()


@pytest.fixture(scope="session")
def service(workshop: Path, docker_io: Registry, ghcr_io: Registry) -> Iterator[Service]:
    """The service that most tests share; each of them has tags of its own."""
    running = Service(workshop / "service", {"docker.io": docker_io.url, "ghcr.io": ghcr_io.url})
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def own_service(workshop: Path, docker_io: Registry, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service for the tests of one file, which make it fail, and which wait 3 seconds for an answer and no more."""
    name = request.module.__name__.rpartition(".test_")[2]
    running = Service(workshop / name, {"docker.io": docker_io.url}, TLOGISTRY_DEADLINE="3")
    running.start()
    yield running
    running.kill()
