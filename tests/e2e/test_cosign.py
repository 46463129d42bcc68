"""Signed images through the service, with real signatures: `cosign verify` before and after another signature is added.

Each signature is stored by rewriting a tag: cosign's own `sha256-<hex>.sig` and `.att`, or the referrers tag `sha256-<hex>` of
the distribution-spec, where the registry has no referrers API (as distribution 2.8, GHCR and others). A service that froze
these tags would hide every signature but the first, and one that exempted more would open a way around itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import requests

from tests.e2e import images
from tests.e2e.clients import Client
from tests.e2e.conftest import need_go
from tests.e2e.gotools import TOOLS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.engines import Registry
    from tests.e2e.processes import Said
    from tests.e2e.service import Service
    from tests.fakes.registry import FakeRegistry

pytestmark = pytest.mark.e2e

SEARCHED = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Way:
    """How a signature is stored: the words for `cosign sign`, and the end of the tag that holds it."""

    bundle: str
    end: str


WAYS = {"cosign's own tag": Way("false", ".sig"), "referrers tag": Way("true", "")}


class Cosign(Client):
    """With key pairs, and without a network: no log, no trust root from outside."""

    def key(self, name: str) -> str:
        """A new pair, NAME.key and NAME.pub."""
        said = self.run("generate-key-pair", "--output-key-prefix", name)
        assert said.code == 0, said.text
        return name

    def sign(self, key: str, reference: str, way: Way) -> None:
        self._make("sign", "--key", f"{key}.key", *self._stored(way), reference)

    def attest(self, key: str, reference: str, way: Way, statement: dict[str, str]) -> None:
        (self.folder / "statement.json").write_text(json.dumps(statement))
        self._make("attest", "--key", f"{key}.key", "--predicate", "statement.json", *self._stored(way), reference)

    def verify(self, key: str, reference: str, *words: str, command: str = "verify") -> Said:
        offline = ("--insecure-ignore-tlog=true", "--allow-http-registry", *words)
        return self.run(command, "--key", f"{key}.pub", *offline, reference)

    def _stored(self, way: Way) -> tuple[str, ...]:
        local = ("--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "--yes")
        return (f"--new-bundle-format={way.bundle}", *local)

    def _make(self, *words: str) -> None:
        said = self.run(*words)
        assert said.code == 0, said.text


@pytest.fixture(scope="module")
def cosign(workshop: Path) -> Cosign:
    need_go("cosign")
    made = Cosign(workshop / "signers", TOOLS["cosign"].command(), COSIGN_PASSWORD="")
    for name in ("alice", "bob", "mallory"):
        made.key(name)
    return made


def fallback(digest: str, end: str) -> str:
    return digest.replace(":", "-") + end


def digest_of(base: str, repository: str, tag: str) -> str | None:
    """What a tag points to, asked over HTTP."""
    answer = requests.get(f"{base}/v2/{repository}/manifests/{tag}", headers={"Accept": SEARCHED}, timeout=60)
    return answer.headers["Docker-Content-Digest"] if answer.ok else None


@pytest.mark.parametrize("way", WAYS)
def test_signatures_are_found_through_us_before_and_after_another_is_added(
    cosign: Cosign, docker_io: Registry, service: Service, way: str
) -> None:
    how = WAYS[way]
    name = f"signed{'-bundle' if how.end == '' else ''}"
    digest = images.push(docker_io.url, f"library/{name}", "1.0", images.make(name))
    there, here = f"{docker_io.host}/library/{name}@{digest}", f"{service.host}/{name}:1.0"
    tag = fallback(digest, how.end)

    assert cosign.verify("alice", here).code != 0, "nobody has signed"
    cosign.sign("alice", there, how)
    first = digest_of(service.url, name, tag)
    assert first == digest_of(docker_io.url, f"library/{name}", tag) is not None
    assert cosign.verify("alice", here).code == 0
    assert cosign.verify("bob", here).code != 0, "bob has not signed"

    cosign.sign("bob", there, how)
    second = digest_of(service.url, name, tag)
    assert second == digest_of(docker_io.url, f"library/{name}", tag) != first, "the tag was rewritten"
    for key in ("alice", "bob"):
        said = cosign.verify(key, here)
        assert said.code == 0, said.text
        assert digest in said.text
    assert cosign.verify("mallory", here).code != 0

    assert service.get(f"/sightings/{name}:{tag}").status == 404, "it is not recorded"
    assert service.get(f"/sightings/{name}:1.0").json()["digest"] == digest, "what it signs is"
    recorded = service.query("SELECT tag FROM sighting WHERE tag LIKE ?", f"%/{name}:%")
    assert recorded == [(f"docker.io/library/{name}:1.0",)]


@pytest.mark.parametrize("way", WAYS)
def test_a_moved_image_is_refused_however_well_it_is_signed(
    cosign: Cosign, docker_io: Registry, service: Service, way: str
) -> None:
    how = WAYS[way]
    name = f"moved{'-bundle' if how.end == '' else ''}"
    old = images.push(docker_io.url, f"library/{name}", "1.0", images.make(f"{name} old"))
    cosign.sign("alice", f"{docker_io.host}/library/{name}@{old}", how)
    assert cosign.verify("alice", f"{service.host}/{name}:1.0").code == 0
    new = images.push(docker_io.url, f"library/{name}", "1.0", images.make(f"{name} new"))
    cosign.sign("alice", f"{docker_io.host}/library/{name}@{new}", how)
    refused = cosign.verify("alice", f"{service.host}/{name}:1.0")
    assert refused.code != 0
    assert "TAG_INVALID" in refused.text
    assert old in refused.text
    assert new in refused.text
    for digest in (old, new):
        assert cosign.verify("alice", f"{service.host}/{name}@{digest}").code == 0, "by digest both are verified"


@pytest.mark.parametrize("end", [".att", ""], ids=["cosign's own tag", "referrers tag"])
def test_attestations_are_found_through_us_before_and_after_another_is_added(
    cosign: Cosign, docker_io: Registry, service: Service, end: str
) -> None:
    how = Way("false" if end else "true", end)
    name = f"attested{'' if end else '-bundle'}"
    digest = images.push(docker_io.url, f"library/{name}", "1.0", images.make(name))
    there, here = f"{docker_io.host}/library/{name}@{digest}", f"{service.host}/{name}:1.0"
    for number, key in enumerate(("alice", "bob"), start=1):
        cosign.attest(key, there, how, {"number": str(number)})
        assert digest_of(service.url, name, fallback(digest, end)) is not None
        said = cosign.verify(key, here, command="verify-attestation")
        assert said.code == 0, said.text
    assert cosign.verify("alice", here, command="verify-attestation").code == 0
    assert cosign.verify("mallory", here, command="verify-attestation").code != 0
    assert service.get(f"/sightings/{name}:{fallback(digest, end)}").status == 404


def test_signatures_are_found_by_the_referrers_api_of_a_registry_that_has_one(
    cosign: Cosign, docker_io: Registry, counted: tuple[FakeRegistry, Service]
) -> None:
    """The same bundles, in a registry where no tag names them."""
    registry, service = counted
    name, repository, how = "referred", "library/referred", WAYS["referrers tag"]
    image = images.make(name)
    digest = images.push(docker_io.url, repository, "1.0", image)
    images.hold(registry, repository, "1.0", image)
    there, here = f"{docker_io.host}/{repository}@{digest}", f"{service.host}/{name}:1.0"
    for count, key in enumerate(("alice", "bob"), start=1):
        cosign.sign(key, there, how)
        assert _copy_referrers(docker_io.url, repository, digest, registry) == count
        for signer in ("alice", "bob")[:count]:
            said = cosign.verify(signer, here)
            assert said.code == 0, said.text
    assert cosign.verify("mallory", here).code != 0
    assert registry.manifest(repository, fallback(digest, "")) is None, "there is no such tag"
    assert registry.count("GET", f"/v2/{repository}/referrers/*") > 0


def _copy_referrers(base: str, repository: str, subject: str, registry: FakeRegistry) -> int:
    """All that a registry's referrers tag names, without the tag. How many there are."""
    path = f"{base}/v2/{repository}"
    headers = {"Accept": SEARCHED}
    listed = requests.get(f"{path}/manifests/{fallback(subject, '')}", headers=headers, timeout=60).json()["manifests"]
    for one in listed:
        manifest = requests.get(f"{path}/manifests/{one['digest']}", headers=headers, timeout=60)
        for blob in (manifest.json()["config"], *manifest.json()["layers"]):
            registry.push_blob(repository, requests.get(f"{path}/blobs/{blob['digest']}", timeout=60).content)
        registry.push(repository, None, manifest.content, one["mediaType"])
    return len(listed)
