"""Tags that are meant to move, and nothing else that looks like them.

cosign keeps signatures, attestations and SBOMs under `sha256-<hex>.sig|.att|.sbom` and rewrites the tag with each one; the
referrers tag schema of the distribution-spec ("Unavailable Referrers API") does the same with `<algorithm>-<encoded>`, cut to
32 and 64 characters. Frozen, they would hide every later signature. What is in them is verified by its own signature. Whatever
else could be made to pass for one would be a tag that anybody may move unseen.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from lib.devsigstore.server import DevSigstore
from tests.fakes.registry import FakeRegistry, image
from tests.framework import Answer, Function

if TYPE_CHECKING:
    from collections.abc import Iterator

OCI = "application/vnd.oci.image.manifest.v1+json"
HEX = "0123456789abcdef" * 4

MOVING = tuple(f"{algorithm}-{HEX}{end}" for algorithm in ("sha256", "sha512") for end in ("", ".sig", ".att", ".sbom"))
NEAR_MISSES = (
    # another length, another case, another digit
    f"sha256-{HEX[:-1]}", f"sha256-{HEX}0", f"sha256-{HEX[:40]}", f"sha256-{HEX.upper()}", f"sha256-{HEX[:-1]}g",
    f"SHA256-{HEX}", f"Sha256-{HEX}.sig", f"sha256-{HEX[:-1]}.sig", f"sha256-{HEX}0.sig", f"sha512-{HEX[:-1]}",
    f"sha512-{HEX}0", f"sha512-{HEX}{HEX[:57]}",
    # another algorithm, or none that there is
    f"sha1-{HEX[:40]}", f"sha384-{HEX}", f"sha3-{HEX}", f"md5-{HEX[:32]}", f"blake3-{HEX}", f"sha-256-{HEX}",
    f"sha2-{HEX}", HEX,
    # another separator
    f"sha256_{HEX}", f"sha256.{HEX}", f"sha256{HEX}", f"sha256--{HEX}", f"sha256-{HEX}-sig", f"sha256-{HEX}_sig",
    # another ending
    f"sha256-{HEX}.", f"sha256-{HEX}.si", f"sha256-{HEX}.sigs", f"sha256-{HEX}.SIG", f"sha256-{HEX}.sig.",
    f"sha256-{HEX}.sig.sig", f"sha256-{HEX}.sig.att", f"sha256-{HEX}..sig", f"sha256-{HEX}.cosign",
    f"sha256-{HEX}.sbom.json", f"sha256-{HEX}.exe", f"sha256-{HEX}.sig-2", f"sha256-{HEX}.provenance",
    # another beginning
    f"_sha256-{HEX}", f"v-sha256-{HEX}", f"1.0-sha256-{HEX}.sig", f"xsha256-{HEX}", f"0sha256-{HEX}.att",
    # what people call a moving tag is none
    "latest", "sig", "1.0.sig", "stable", "sha256", "sha256-abc", "sha256-abc.sig",
)  # fmt: skip
NAMES = ("{}", "docker.io/library/{}", "r/docker.io/library/{}", "library/{}?ns=docker.io")

_numbers = itertools.count()


class World:
    """The service, the registry, and the local Sigstore."""

    def __init__(self, registry: FakeRegistry, dev: DevSigstore, function: Function) -> None:
        self.registry, self.dev, self.function = registry, dev, function


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("moving")
    with DevSigstore(folder) as dev, FakeRegistry() as registry:
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": registry.base_url}),
        }
        with Function(settings) as function:
            yield World(registry, dev, function)


@pytest.fixture
def name() -> str:
    return f"signed{next(_numbers)}"


def ask(world: World, method: str, name: str, reference: str) -> Answer:
    path, _, query = name.partition("?")
    return world.function.ask(method, f"/v2/{path}/manifests/{reference}?{query}")


@pytest.mark.parametrize("tag", MOVING)
def test_it_is_neither_recorded_nor_blocked_however_it_is_asked_for(world: World, name: str, tag: str) -> None:
    calls = dict(world.dev.calls)
    for turn in range(3):
        content = image(f"{name} {turn}")
        digest = world.registry.push(f"library/{name}", tag, content, OCI)
        for spelling in NAMES:
            for method in ("HEAD", "GET"):
                answer = ask(world, method, spelling.format(name), tag)
                assert answer.status == 200
                assert answer.headers["docker-content-digest"] == digest
                assert answer.headers["cache-control"] == "no-store"
                assert not [header for header in answer.headers if header.startswith("tlog-") or header == "warning"]
                assert answer.body == (content if method == "GET" else b"")
    assert world.function.ask("GET", f"/sightings/{name}:{tag}").status == 404
    assert dict(world.dev.calls) == calls


@pytest.mark.parametrize("tag", MOVING)
def test_one_that_is_not_there_is_not_there_and_then_it_is(world: World, name: str, tag: str) -> None:
    """As when the first signature is made: an absence that was remembered for long would hide it."""
    other = world.registry.push(f"library/{name}", "1.0", image(name), OCI)
    answer = ask(world, "GET", name, tag)
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    world.registry.move(f"library/{name}", tag, other)
    assert ask(world, "GET", name, tag).status == 200, "at once"


@pytest.mark.parametrize("tag", NEAR_MISSES)
def test_a_near_miss_is_recorded_and_blocked(world: World, name: str, tag: str) -> None:
    old = world.registry.push(f"library/{name}", tag, image(f"{name} old"), OCI)
    first = ask(world, "GET", name, tag)
    assert (first.status, first.headers.get("tlog-first-seen")) == (200, "true")
    assert json.loads(world.function.ask("GET", f"/sightings/{name}:{tag}").body)["digest"] == old
    world.registry.push(f"library/{name}", tag, image(f"{name} new"), OCI)
    for spelling in NAMES:
        for method in ("HEAD", "GET"):
            answer = ask(world, method, spelling.format(name), tag)
            assert answer.status == 403
    assert answer.code == "TAG_INVALID"


def test_what_it_signs_stays_blocked(world: World, name: str) -> None:
    """A signature that moves opens nothing for the image's own tag."""
    old = world.registry.push(f"library/{name}", "1.0", image(f"{name} old"), OCI)
    assert ask(world, "GET", name, "1.0").status == 200
    new = world.registry.push(f"library/{name}", "1.0", image(f"{name} new"), OCI)
    for digest in (old, new):
        world.registry.push(f"library/{name}", digest.replace(":", "-") + ".sig", image(f"{name} {digest}"), OCI)
        assert ask(world, "GET", name, digest.replace(":", "-") + ".sig").status == 200
    assert ask(world, "GET", name, "1.0").status == 403


def test_only_a_tag_is_exempt_not_a_repository_of_that_name(world: World) -> None:
    name = f"sha256-{HEX}"
    world.registry.push(f"library/{name}", "1.0", image("one"), OCI)
    assert ask(world, "GET", name, "1.0").headers["tlog-first-seen"] == "true"
    world.registry.push(f"library/{name}", "1.0", image("two"), OCI)
    assert ask(world, "GET", name, "1.0").status == 403
