"""The log's index is open to everybody: what a thousand forged entries under a tag's key can do, which is nothing."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from lib.devsigstore.identity import EMAIL, ISSUER
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.statement import PAYLOAD_TYPE, statement, tag_key
from tests.handlers.test_http import path

if TYPE_CHECKING:
    from lib.devsigstore.server import DevSigstore
    from tests.handlers.test_http import World

FORGED = 1000
FULCIO_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")


class Forger:
    """Logs statements in our name, with a key and a certificate of its own making. The log takes them, as Rekor does."""

    def __init__(self, dev: DevSigstore) -> None:
        self._url = f"{dev.url}/api/v1/log/entries"
        self._session = requests.Session()
        self._session.trust_env = False
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sigstore")])
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name).issuer_name(name).public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1)).not_valid_after(now + dt.timedelta(minutes=10))
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(EMAIL)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(FULCIO_ISSUER, ISSUER.encode()), critical=False)
            .sign(self._key, hashes.SHA256())
        )  # fmt: skip

    def log(self, tag: Tag, digest: Digest) -> None:
        """One dsse entry that says "tag pointed to digest"."""
        payload = statement(tag, digest)
        signed = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(self._key.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()}],
        }
        verifier = base64.b64encode(self._certificate.public_bytes(Encoding.PEM)).decode()
        content = {"envelope": json.dumps(envelope), "verifiers": [verifier]}
        entry = {"kind": "dsse", "apiVersion": "0.0.1", "spec": {"proposedContent": content}}
        answer = self._session.post(self._url, json=entry, timeout=10)
        assert answer.status_code == requests.codes.created, answer.text

    def close(self) -> None:
        self._session.close()


def found(dev: DevSigstore, tag: Tag) -> int:
    """How many entries the index has under the tag's key."""
    key = {"hash": f"sha256:{tag_key(tag)}"}
    answer = requests.post(f"{dev.url}/api/v1/index/retrieve", json=key, timeout=10)
    return len(answer.json())


@pytest.mark.slow
def test_a_thousand_forged_entries_cost_six_calls_and_block_nothing(world: World, name: str) -> None:
    """Log flooding costs an attacker nothing, so it must not cost a tag its first sighting, nor us more than six calls."""
    tag = Tag.parse(f"{name}:1.0")
    old = world.push(name)
    forger = Forger(world.dev)
    for number in range(FORGED):
        forger.log(tag, Digest.of(f"forged {number}".encode()))
    forger.close()
    assert found(world.dev, tag) == FORGED

    before = dict(world.dev.calls)
    first = world.get(path(name))
    calls = {kind: count - before.get(kind, 0) for kind, count in world.dev.calls.items()}
    assert (first.status, first.headers["docker-content-digest"]) == (200, old)
    assert first.headers["tlog-first-seen"] == "true"
    assert (calls["index"], calls["append"], calls["copy"]) == (1, 1, 1)
    assert calls["retrieve"] <= 5
    assert world.line("flood", f"{name}:1.0", f"notLookedAt={FORGED - 50}")

    new = world.push(name, 2)
    refused = world.get(path(name))
    assert (refused.status, refused.message) == (403, f'tag "{name}:1.0" mismatch; got "{new}", want "{old}"')
    assert refused.headers["tlog-uuid"] == first.headers["tlog-uuid"]


def test_a_few_forged_entries_are_looked_at_and_believed_in_nothing(world: World, name: str) -> None:
    """The same within the limits: every forged entry is read, and none makes a record or a refusal."""
    tag = Tag.parse(f"{name}:1.0")
    old = world.push(name)
    forger = Forger(world.dev)
    for digest in (Digest.parse(old), *(Digest.of(f"forged {number}".encode()) for number in range(12))):
        forger.log(tag, digest)
    forger.close()
    before = world.dev.calls["retrieve"]
    first = world.get(path(name))
    assert (first.status, first.headers.get("tlog-first-seen")) == (200, "true")
    assert world.dev.calls["retrieve"] - before == 2
    assert found(world.dev, tag) == 13 + 2, "ours is a new one, with its readable copy"
