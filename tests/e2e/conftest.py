"""The engines and registries, each started once for all tests; when a test fails, what they printed is shown."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.engines import Containerd, Docker, Podman, Registry, Skopeo, missing
from tests.e2e.processes import unmount_under

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The ends of all logs, beside a failure."""
    report = yield
    folder = item.config.stash.get(LOGS, None)
    if report.failed and folder is not None:
        for log in sorted(folder.glob("**/*.log")):
            report.sections.append((f"the end of {log.relative_to(folder)}", log.read_text(errors="replace")[-SHOWN_CHARACTERS:]))
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
def containerd(workshop: Path) -> Iterator[Containerd]:
    need("containerd", "ctr")
    engine = Containerd(workshop / "ctd")
    yield engine
    engine.end()


@pytest.fixture(scope="session")
def podman(workshop: Path) -> Podman:
    need("podman")
    return Podman(workshop / "podman")


@pytest.fixture(scope="session")
def skopeo(workshop: Path) -> Skopeo:
    need("skopeo")
    return Skopeo(workshop / "skopeo")
