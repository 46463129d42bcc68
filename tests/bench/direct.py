"""The calls of a first sighting, made one after the other by a client of their own: what a first sighting is held against.

Each is the request that the service makes, to the same server: the manifest, the log's search, an identity token, a
certificate for a fresh key, and the append of a signed statement. Only the calls are timed; keys, signatures and JSON are made
in between. Nothing is verified, which the service has to do.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.statement import PAYLOAD_TYPE, statement, tag_key
from tests.bench.client import Client
from tests.bench.programs import TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping


class Direct:
    """Makes first sightings of its own tags, in the same log."""

    def __init__(self, upstream: str, sigstore: str) -> None:
        self._upstream = Client(upstream)
        self._sigstore = Client(sigstore)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = b""
        self.certificate()

    def first_sighting(self, name: str, tag: str, *, certificate: bool) -> float:
        """Milliseconds, the sum of the calls."""
        manifest = self._upstream.ask("GET", f"/v2/{name}/manifests/{tag}")
        digest = Digest.parse(manifest.headers["docker-content-digest"])
        said = Tag.parse(f"{name}:{tag}")
        ms = manifest.ms + self._post("/api/v1/index/retrieve", {"hash": f"sha256:{tag_key(said)}"})[1]
        if certificate:
            ms += self.certificate()
        return ms + self._post("/api/v1/log/entries", self._entry(statement(said, digest)), status=201)[1]

    def certificate(self) -> float:
        """Token and certificate."""
        token = self._upstream.ask("GET", TOKEN, headers={"Metadata-Flavor": "Google"})
        self._key = ec.generate_private_key(ec.SECP256R1())
        asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self._key, hashes.SHA256())
        answer, ms = self._post(
            "/api/v2/signingCert",
            {"certificateSigningRequest": base64.b64encode(asked.public_bytes(Encoding.PEM)).decode()},
            {"Authorization": f"Bearer {token.body.decode()}"},
        )
        self._certificate = json.loads(answer)["signedCertificateEmbeddedSct"]["chain"]["certificates"][0].encode()
        return token.ms + ms

    def _entry(self, payload: bytes) -> dict[str, object]:
        """A dsse 0.0.1 entry, as Rekor takes it."""
        signed = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload
        signature = self._key.sign(signed, ec.ECDSA(hashes.SHA256()))
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode()}],
        }
        proposed = {
            "envelope": json.dumps(envelope),
            "verifiers": [base64.b64encode(self._certificate).decode()],
        }
        return {"apiVersion": "0.0.1", "kind": "dsse", "spec": {"proposedContent": proposed}}

    def _post(
        self, path: str, asked: object, headers: Mapping[str, str] | None = None, *, status: int = 200
    ) -> tuple[bytes, float]:
        sent = {"Content-Type": "application/json", "Accept": "application/json", **(headers or {})}
        answer = self._sigstore.ask("POST", path, json.dumps(asked).encode(), sent, status=status)
        return answer.body, answer.ms
