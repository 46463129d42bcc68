"""What is deployed works alone: nothing but the files that Terraform zips and the packages of requirements.txt."""

from __future__ import annotations

import ast
import http.client
import json
from typing import TYPE_CHECKING

import pytest

from tests.cloud.bundle import TRUST, zipped
from tests.cloud.deployment import Deployment
from tests.e2e.images import DOCKER, OCI, make, push
from tests.e2e.processes import run
from tests.fakes.secret_manager import FakeSecretManager
from tests.terraform.configuration import ROOT, bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from tests.cloud.deployment import Revision
    from tests.e2e.engines import Docker, Registry
    from tests.e2e.images import Kind
    from tests.firestore import FirestoreEmulator

SECRET = "projects/demo-tlogistry/secrets/registry-accounts"
ACCOUNTS = {"docker.io": {"username": "our-robot", "password": "hunter2-of-docker-hub"}}


@pytest.fixture(scope="module")
def deployment(
    workshop: Path,
    programs: Path,
    emulator: FirestoreEmulator,
    sigstore: DevSigstore,
    docker_io: Registry,
) -> Iterator[Deployment]:
    with FakeSecretManager() as manager:
        manager.add(SECRET, json.dumps(ACCOUNTS).encode())
        yield Deployment(
            workshop / "bundle",
            programs,
            emulator.url,
            sigstore,
            {"docker.io": docker_io.url},
            TLOGISTRY_CREDENTIALS_SECRET=SECRET,
            TLOGISTRY_SECRET_MANAGER_ENDPOINT=manager.url,
        )


@pytest.fixture(scope="module")
def function(deployment: Deployment) -> Iterator[Revision]:
    with deployment.revision() as running:
        yield running


def refusal(name: str, got: str, want: str) -> str:
    return f'Error response from daemon: tag invalid: tag "{name}" mismatch; got "{got}", want "{want}"'


def test_docker_pulls_a_tag_is_refused_when_it_moved_and_a_restart_forgets_nothing(
    docker_io: Registry, docker: Docker, function: Revision
) -> None:
    name, tag = "my-user/my-app", "v1.2.3"
    reference = f"{function.host}/{name}:{tag}"
    old = push(docker_io.url, name, tag, make("first"))
    first = docker.pull(reference)
    assert first.code == 0, first.text
    assert f"Digest: {old}" in first.out
    before = function.get(f"/sightings/{name}:{tag}").json()
    assert before["digest"] == old

    new = push(docker_io.url, name, tag, make("moved"))
    blocked = docker.pull(reference)
    assert blocked.code == 1
    assert refusal(f"{name}:{tag}", new, old) in blocked.err.splitlines()

    function.restart()
    blocked = docker.pull(reference)
    assert blocked.code == 1
    assert refusal(f"{name}:{tag}", new, old) in blocked.err.splitlines()
    assert function.get(f"/sightings/{name}:{tag}").json() == before

    push(docker_io.url, name, tag, make("first"))  # moved back
    function.restart()
    same = function.by_tag(f"{name}:{tag}", "HEAD")
    assert (same.status, same.digest) == (http.client.OK, old)
    assert same.headers["Tlog-First-Seen"] is None
    assert (same.headers["Tlog-Uuid"], same.headers["Tlog-Logindex"]) == (before["uuid"], str(before["logIndex"]))
    again = docker.pull(reference)
    assert again.code == 0, again.text


@pytest.mark.parametrize("multi", [False, True], ids=["single", "multi-platform"])
@pytest.mark.parametrize("kind", [OCI, DOCKER], ids=lambda kind: kind.name)
def test_every_form_of_image(docker_io: Registry, docker: Docker, function: Revision, kind: Kind, multi: bool) -> None:
    name = f"forms/{kind.name}-{multi}".lower()
    old = push(docker_io.url, name, "v1", make("first", kind, multi=multi))
    first = docker.pull(f"{function.host}/{name}:v1")
    assert first.code == 0, first.text
    assert f"Digest: {old}" in first.out
    new = push(docker_io.url, name, "v1", make("moved", kind, multi=multi))
    assert refusal(f"{name}:v1", new, old) in docker.pull(f"{function.host}/{name}:v1").err.splitlines()


def test_the_secret_was_read_and_is_in_no_line(docker_io: Registry, function: Revision) -> None:
    push(docker_io.url, "my-user/with-account", "v1", make("first"))
    assert function.by_tag("my-user/with-account:v1").status == http.client.OK
    (read, *_) = [one for one in function.records() if one["message"] == "upstream credentials read"]
    assert read["registries"] == "docker.io"
    for secret in ("our-robot", "hunter2-of-docker-hub"):
        assert secret not in function.text()


def test_the_zip_is_the_same_each_time() -> None:
    assert zipped() == zipped()


def test_the_function_writes_nothing_beside_itself(function: Revision, deployment: Deployment) -> None:
    """On Cloud Run that would be memory, and lost."""
    assert function.live()
    found = {path.relative_to(deployment.function).as_posix() for path in deployment.function.rglob("*")}
    files = {name for name in found if (deployment.function / name).is_file() and "__pycache__" not in name}
    assert files == {*bundle(), TRUST}


def test_nothing_of_this_checkout_can_be_reached(deployment: Deployment, programs: Path) -> None:
    """Or a missing file or package would not be missed."""
    code = f"""
import sys, importlib.util
sys.path.append({str(deployment.function)!r})
import lib
print(lib.__file__, [importlib.util.find_spec(name) for name in ("tests", "pytest", "lib.cli")])
"""
    said = run([programs / "python", "-I", "-c", code])
    assert said.out == f"{deployment.function / 'lib' / '__init__.py'} [None, None, None]\n", said.text


def packages() -> set[str]:
    """Every module that is not ours and that a file of the bundle imports anywhere, in functions and for types, too."""
    found: set[str] = set()
    for name in bundle():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse((ROOT / name).read_text(), name)):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module is not None:
                    found.add(node.module)
    return {name for name in found if name.split(".")[0] != "lib"}


def test_every_package_that_is_imported_anywhere_is_in_its_environment(programs: Path) -> None:
    """What only a day in the cloud would import, too."""
    names = sorted(packages())
    assert {"google.auth", "sigstore.sign", "google.cloud.secretmanager_v1"} <= set(names)
    said = run([programs / "python", "-I", "-c", f"import importlib; [importlib.import_module(n) for n in {names}]"])
    assert said.code == 0, said.text
