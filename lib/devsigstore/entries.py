"""The two entry types that we need of Rekor v1, dsse 0.0.1 and intoto 0.0.2: proposal to canonical body and index keys.

As in Rekor, the envelope's signature is verified by the key of the certificate beside it, and the certificate is *not*
verified: anyone can log anything that is signed by some key. Not here: RSA and Ed25519 keys, checks within a chain of
certificates, index keys from SLSA predicates.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ATTESTATION_MAX_BYTES = 100 * 1024  # Rekor's default
UNSIGNED = (
    "error processing entry: could not verify envelope: "
    "accepted signatures do not match threshold, Found: 0, Expected 1"
)


class EntryInvalid(ValueError):
    """What the log answers 400 to."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """An entry that will be logged: canonical body, index keys, and the payload to keep, with its sha256."""

    kind: str
    body: bytes
    keys: tuple[str, ...]
    attestation: tuple[str, bytes] | None


def parse(kind: str, version: str, spec: dict[str, Any]) -> Proposed:
    """Raises EntryInvalid."""
    try:
        if (kind, version) == ("dsse", "0.0.1"):
            return _dsse(spec)
        if (kind, version) == ("intoto", "0.0.2"):
            return _intoto(spec)
    except EntryInvalid:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        msg = f"error processing entry: {error}"
        raise EntryInvalid(msg) from error
    msg = (
        f"error processing entry: {kind} implementation for version '{version}' not found: "
        f"unable to locate entry for version {version}"
    )
    raise EntryInvalid(msg)


def _dsse(spec: dict[str, Any]) -> Proposed:
    text = spec["proposedContent"]["envelope"]
    envelope = json.loads(text)
    payload = base64.b64decode(envelope["payload"], validate=True)
    signed = _pae(envelope["payloadType"], payload)
    verifiers = [_Verifier.parse(verifier) for verifier in spec["proposedContent"]["verifiers"]]
    signatures = []
    for item in envelope["signatures"]:
        signature = base64.b64decode(item["sig"], validate=True)
        verifier = next((verifier for verifier in verifiers if verifier.accepts(signature, signed)), None)
        if verifier is None:
            raise EntryInvalid(UNSIGNED)
        signatures.append({"signature": item["sig"], "verifier": verifier.content})
    if not signatures:
        msg = "error processing entry: no signatures in envelope"
        raise EntryInvalid(msg)
    envelope_hash, payload_hash = _sha256(text.encode()), _sha256(payload)
    body: dict[str, Any] = {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": envelope_hash},
            "payloadHash": {"algorithm": "sha256", "value": payload_hash},
            "signatures": sorted(signatures, key=lambda item: item["signature"]),
        },
    }
    keys = _keys(verifiers, payload) | {f"sha256:{envelope_hash}"}
    return Proposed("dsse", rfc8785.dumps(body), tuple(sorted(keys)), None)


def _intoto(spec: dict[str, Any]) -> Proposed:
    content = spec["content"]
    envelope = content["envelope"]
    if not envelope.get("payload"):
        msg = "error processing entry: entry not insertable into log: missing envelope content"
        raise EntryInvalid(msg)
    payload = base64.b64decode(base64.b64decode(envelope["payload"], validate=True), validate=True)
    signed = _pae(envelope["payloadType"], payload)
    verifiers, signatures = [], []
    for item in envelope["signatures"]:
        verifier = _Verifier.parse(item["publicKey"])
        signature = base64.b64decode(base64.b64decode(item["sig"], validate=True), validate=True)
        if not verifier.accepts(signature, signed):
            raise EntryInvalid(UNSIGNED)
        verifiers.append(verifier)
        signatures.append({"publicKey": verifier.content, "sig": item["sig"]})
    if not signatures:
        msg = "error processing entry: no signatures in envelope"
        raise EntryInvalid(msg)
    payload_hash = _sha256(payload)
    body: dict[str, Any] = {
        "apiVersion": "0.0.2",
        "kind": "intoto",
        "spec": {
            "content": {
                "envelope": {"payloadType": envelope["payloadType"], "signatures": signatures},
                "hash": {"algorithm": "sha256", "value": str(content["hash"]["value"])},
                "payloadHash": {"algorithm": "sha256", "value": payload_hash},
            }
        },
    }
    kept = (payload_hash, payload) if len(payload) <= ATTESTATION_MAX_BYTES else None
    return Proposed("intoto", rfc8785.dumps(body), tuple(sorted(_keys(verifiers, payload))), kept)


@dataclass(frozen=True, slots=True)
class _Verifier:
    """A certificate or public key, as PEM in base64, and the names that it is found by."""

    content: str
    key: ec.EllipticCurvePublicKey
    names: tuple[str, ...]

    @classmethod
    def parse(cls, content: str) -> _Verifier:
        pem = base64.b64decode(content, validate=True)
        names: tuple[str, ...] = ()
        key: object
        try:
            if b"BEGIN CERTIFICATE" in pem:
                certificates = x509.load_pem_x509_certificates(pem)
                names = _names(certificates[0])
                key = certificates[0].public_key()
                pem = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)
            else:
                key = loaded = serialization.load_pem_public_key(pem)
                pem = loaded.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            msg = f"error processing entry: {error}"
            raise EntryInvalid(msg) from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            msg = "error processing entry: only EC keys are supported here"
            raise EntryInvalid(msg)
        return cls(base64.b64encode(pem).decode(), key, names)

    def accepts(self, signature: bytes, signed: bytes) -> bool:
        try:
            self.key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return (
        *names.get_values_for_type(x509.RFC822Name),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
    )


def _keys(verifiers: list[_Verifier], payload: bytes) -> set[str]:
    """Rekor's IndexKeys: verifiers, their names, the payload's hash, and every subject's digests."""
    keys = {f"sha256:{_sha256(payload)}"}
    for verifier in verifiers:
        keys.add(f"sha256:{_sha256(base64.b64decode(verifier.content))}")
        keys.update(name.lower() for name in verifier.names)
    try:
        subjects = json.loads(payload)["subject"]
        for subject in subjects:
            keys.update(f"{algorithm}:{value}".lower() for algorithm, value in subject["digest"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # not an in-toto statement: nothing more to index
    return keys


def _pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding; lengths in bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
