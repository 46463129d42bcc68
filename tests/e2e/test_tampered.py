"""Somebody with access to the store's file changes a record: it is never served, and a log line says which check failed."""

from __future__ import annotations

import base64
import http.client
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from lib.config import Identity, TrustFile
from lib.devsigstore.identity import ISSUER
from lib.devsigstore.server import DevSigstore
from lib.oci.digest import Digest
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import Tag
from lib.recorder import Threads
from lib.sighting.signer import KeylessSigner
from lib.sighting.statement import statement
from lib.sighting.trust import TrustSource
from lib.sighting.verifier import SightingVerifier
from lib.telemetry import Telemetry
from tests.e2e.service import Service
from tests.fakes.registry import FakeRegistry, image
from tests.sigstore import DevIdentity, Parts, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.service import Answer, Extra

MALLORY = "mallory@not-for-production.invalid"
OLD, NEW = image("old"), image("new")


class Stored(NamedTuple):
    """A record as the service has stored it, and what a forger can lay hands on."""

    service: Service
    tag: Tag
    bundle: bytes
    elsewhere: Path


def signed_by(service: Service, email: str, tag: Tag, digest: Digest) -> bytes:
    """A genuine bundle from the service's own local Sigstore, which gives a certificate to any identity."""
    path = Path(service.env["TLOGISTRY_TRUST"])
    runtime, telemetry = Threads(), Telemetry("line", io.StringIO())
    trust = TrustSource(TrustFile(path, path.read_text()), runtime.now, telemetry)
    verifier = SightingVerifier(trust, (Identity(email, ISSUER),))
    signer = KeylessSigner(
        trust=trust,
        identity=DevIdentity(service.dev, email),
        verifier=verifier,
        telemetry=telemetry,
        clock=runtime.now,
        start=runtime.start,
    )
    return bytes(signer.sign(tag, digest, lambda: None, seconds(20)).bundle)


def altered(stored: Stored, change: Callable[[dict[str, Any]], None]) -> bytes:
    parsed = json.loads(stored.bundle)
    change(parsed)
    return json.dumps(parsed).encode()


def _other_digest(stored: Stored) -> bytes:
    payload = base64.b64encode(statement(stored.tag, Digest.of(NEW))).decode()
    return altered(stored, lambda parsed: parsed["dsseEnvelope"].update(payload=payload))


def _other_tag(stored: Stored) -> bytes:
    service = stored.service
    ((bundle,),) = service.query("SELECT bundle FROM sighting WHERE tag = ?", str(Tag.parse("tampered/other:v1")))
    return bytes(bundle)


def _truncated(stored: Stored) -> bytes:
    return stored.bundle[: len(stored.bundle) // 2]


def _other_identity(stored: Stored) -> bytes:
    return signed_by(stored.service, MALLORY, stored.tag, Digest.of(NEW))


def _other_log(stored: Stored) -> bytes:
    with DevSigstore(stored.elsewhere) as dev:
        parts = Parts(dev, stored.elsewhere / "store.sqlite")
        parts.recorder().observe(stored.tag, Digest.of(NEW), seconds(20))
        return bytes(parts.store.sighting(stored.tag) or b"")


def _other_index(stored: Stored) -> bytes:
    return altered(stored, lambda parsed: parsed["verificationMaterial"]["tlogEntries"][0].update(logIndex="7777"))


def _without_promise(stored: Stored) -> bytes:
    return altered(stored, lambda parsed: parsed["verificationMaterial"]["tlogEntries"][0].pop("inclusionPromise"))


def _without_entry(stored: Stored) -> bytes:
    return altered(stored, lambda parsed: parsed["verificationMaterial"].update(tlogEntries=[]))


def _empty(stored: Stored) -> bytes:
    del stored
    return b""


# How the record is forged, and what the log line says of it.
FORGERIES: dict[str, tuple[Callable[[Stored], bytes], str]] = {
    "other-digest": (_other_digest, "signature"),
    "other-tags-bundle": (_other_tag, "not the canonical statement of docker.io/tampered/other-tags-bundle:v1"),
    "truncated": (_truncated, "InvalidBundle"),
    "other-identity": (_other_identity, f"signed by {MALLORY}"),
    "other-sigstore": (_other_log, "certificate"),
    "other-index": (_other_index, "inclusion promise"),
    "without-promise": (_without_promise, "must contain an inclusion promise"),
    "without-entry": (_without_entry, "InvalidBundle"),
    "empty": (_empty, "InvalidBundle"),
}


def tamper(service: Service, tag: Tag, bundle: bytes) -> None:
    """The store's triggers refuse it; whoever can write to the file can drop them."""
    service.query("DROP TRIGGER IF EXISTS sighting_once")
    service.query("UPDATE sighting SET bundle = ? WHERE tag = ?", bundle, str(tag))


class Tampered(NamedTuple):
    """The service whose store was changed, what was in it, and an instance that has verified nothing yet."""

    service: Service
    registry: FakeRegistry
    true: dict[str, bytes]
    fresh: Extra


@pytest.fixture(scope="module")
def tampered(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tampered]:
    """One tag for each forgery, recorded by the service and then forged in its store."""
    with FakeRegistry() as registry:
        service = Service(workshop / "tampered", {"docker.io": registry.base_url})
        service.start()
        try:
            true: dict[str, bytes] = {}
            for name in ("other", *FORGERIES):
                registry.push(f"tampered/{name}", "v1", OLD, OCI_MANIFEST)
                assert service.by_tag(f"tampered/{name}:v1").headers["Tlog-First-Seen"] == "true"
                query = "SELECT bundle FROM sighting WHERE tag = ?"
                ((true[name],),) = service.query(query, str(Tag.parse(f"tampered/{name}:v1")))
            for name, (forge, _) in FORGERIES.items():
                tag = Tag.parse(f"tampered/{name}:v1")
                elsewhere = tmp_path_factory.mktemp(name)
                tamper(service, tag, forge(Stored(service, tag, true[name], elsewhere)))
            with service.instance() as fresh:
                yield Tampered(service, registry, true, fresh)
        finally:
            service.kill()


def assert_refused(answer: Answer) -> None:
    assert answer.status == http.client.SERVICE_UNAVAILABLE
    assert not answer.body or answer.error["code"] == "UNAVAILABLE"  # a HEAD has none
    assert int(answer.headers["Retry-After"]) > 0
    for header in ("Docker-Content-Digest", "ETag", "Tlog-Logindex", "Tlog-Uuid", "Tlog-First-Seen"):
        assert answer.headers[header] is None


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_is_never_served_and_the_line_says_which_check_failed(tampered: Tampered, name: str) -> None:
    reference, fresh = f"tampered/{name}:v1", tampered.fresh
    appended = tampered.service.calls()["append"]
    for content in (NEW, OLD):  # what the forger wants served, and what was really recorded
        tampered.registry.push(f"tampered/{name}", "v1", content, OCI_MANIFEST)
        for method in ("GET", "HEAD"):
            assert_refused(fresh.by_tag(reference, method))
    assert_refused(fresh.get(f"/sightings/{reference}"))
    said = [line for line in fresh.lines() if "stored record does not verify" in line and reference in line]
    assert said, fresh.lines()
    assert all(FORGERIES[name][1] in line for line in said), said[0]
    assert any("could not tell" in line and reference in line and "reason=" in line for line in fresh.lines())
    assert tampered.service.calls()["append"] == appended, "and nothing is logged in its place"


def test_a_record_that_nobody_touched_is_served_beside_them(tampered: Tampered) -> None:
    answer = tampered.fresh.by_tag("tampered/other:v1")
    assert (answer.status, answer.digest) == (http.client.OK, str(Digest.of(OLD)))


def test_the_record_comes_back_when_the_store_is_put_right(tampered: Tampered) -> None:
    """A refusal is not remembered: nobody can block a tag for longer than the store is wrong."""
    name = "other-digest"
    tampered.registry.push(f"tampered/{name}", "v1", OLD, OCI_MANIFEST)
    assert_refused(tampered.fresh.by_tag(f"tampered/{name}:v1"))
    tamper(tampered.service, Tag.parse(f"tampered/{name}:v1"), tampered.true[name])
    answer = tampered.fresh.by_tag(f"tampered/{name}:v1")
    assert (answer.status, answer.digest) == (http.client.OK, str(Digest.of(OLD)))


def test_a_restarted_service_believes_the_file_as_little(tampered: Tampered) -> None:
    """What it verified itself it believes for ten minutes; after a restart it looks again."""
    service = tampered.service
    service.restart()
    tampered.registry.push("tampered/other-identity", "v1", NEW, OCI_MANIFEST)
    assert_refused(service.by_tag("tampered/other-identity:v1"))
    assert f"signed by {MALLORY}" in service.line("stored record does not verify", "tampered/other-identity:v1")
