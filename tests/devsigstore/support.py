"""Things to put into the local log: signed by a certificate of its own authority, or by one that anybody could make."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from lib.sighting.statement import PAYLOAD_TYPE

if TYPE_CHECKING:
    from lib.devsigstore.server import DevSigstore

ENTRIES = "/api/v1/log/entries"
RETRIEVE = "/api/v1/log/entries/retrieve"
INDEX = "/api/v1/index/retrieve"
CERTIFICATE = "/api/v2/signingCert"
TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Hand:
    """A key and the certificate that goes with it: who signs."""

    key: ec.EllipticCurvePrivateKey
    pem: bytes

    @classmethod
    def forged(cls, email: str, issuer: x509.Name) -> Hand:
        """With a certificate that names an authority, which never saw it."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC).replace(microsecond=0)
        certificate = (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .issuer_name(issuer)
            .subject_name(x509.Name([]))
            .not_valid_before(now)
            .not_valid_after(now + timedelta(minutes=10))
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email)]), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate.public_bytes(Encoding.PEM))

    @classmethod
    def certified(cls, dev: DevSigstore, email: str | None = None) -> Hand:
        """With a certificate of the local authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        answer = requests.post(
            dev.url + CERTIFICATE,
            json={"certificateSigningRequest": request(key)},
            headers={"Authorization": f"Bearer {dev.token(email)}"},
            timeout=TIMEOUT_S,
        )
        answer.raise_for_status()
        return cls(key, answer.json()["signedCertificateEmbeddedSct"]["chain"]["certificates"][0].encode())

    def sign(self, payload: bytes) -> bytes:
        """DSSE's signature over an in-toto payload."""
        kind = PAYLOAD_TYPE.encode()
        return self.key.sign(
            b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload), ec.ECDSA(hashes.SHA256())
        )

    def dsse(self, payload: bytes, spaces: int = 0) -> dict[str, Any]:
        """A proposed dsse entry; other white space in the envelope makes another entry."""
        return self.dsse_of(payload, self.sign(payload), spaces)

    def dsse_of(self, payload: bytes, signature: bytes, spaces: int = 0) -> dict[str, Any]:
        """The same with a signature that was made before."""
        envelope = {
            "payload": b64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64(signature)}],
        }
        content = {"envelope": json.dumps(envelope) + " " * spaces, "verifiers": [b64(self.pem)]}
        return {"apiVersion": "0.0.1", "kind": "dsse", "spec": {"proposedContent": content}}

    def intoto(self, payload: bytes) -> dict[str, Any]:
        """A proposed readable copy."""
        signature = b64(b64(self.sign(payload)).encode())
        content = {
            "envelope": {
                "payloadType": PAYLOAD_TYPE,
                "payload": b64(b64(payload).encode()),
                "signatures": [{"sig": signature, "publicKey": b64(self.pem)}],
            },
            "hash": {"algorithm": "sha256", "value": sha256(payload).hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": sha256(payload).hexdigest()},
        }
        return {"apiVersion": "0.0.2", "kind": "intoto", "spec": {"content": content}}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def request(key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate signing request as sigstore-python sends it."""
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return b64(made.public_bytes(Encoding.PEM))


def append(dev: DevSigstore, proposed: dict[str, Any]) -> str:
    """Log it; the new entry's UUID."""
    answer = requests.post(dev.url + ENTRIES, json=proposed, timeout=TIMEOUT_S)
    assert answer.status_code == 201, answer.text
    (uuid,) = answer.json()
    assert isinstance(uuid, str)
    return uuid


def found(dev: DevSigstore, key: str) -> list[str]:
    """The UUIDs under a key of the index."""
    answer = requests.post(dev.url + INDEX, json={"hash": key}, timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    uuids: list[str] = answer.json()
    return uuids
