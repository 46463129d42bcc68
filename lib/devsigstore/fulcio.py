"""Fulcio's HTTP API: `POST /api/v2/signingCert` for a certificate request, as sigstore-python sends it, and two reads.

What is refused is refused in Fulcio's words: one text for everything that is wrong with a token. Not here:
`publicKeyRequest`, the other way to ask.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from lib.devsigstore.identity import AUDIENCE, ISSUER, TokenInvalid
from lib.devsigstore.reply import Reply

if TYPE_CHECKING:
    from lib.devsigstore.authority import Authority
    from lib.devsigstore.faults import Calls, Faults
    from lib.devsigstore.identity import Claims, Issuer
    from lib.devsigstore.reply import Request

METHODS = {"/api/v2/signingCert": "POST", "/api/v2/trustBundle": "GET", "/api/v2/configuration": "GET"}
VARY = {"Vary": "Origin"}


class FulcioApi:
    """Answers for the certificate authority."""

    def __init__(self, authority: Authority, issuer: Issuer, faults: Faults, calls: Calls) -> None:
        """Keep the collaborators."""
        self._authority = authority
        self._issuer = issuer
        self._faults = faults
        self._calls = calls

    def answer(self, request: Request) -> Reply:
        """Route one request under /api/v2/."""
        allowed = METHODS.get(request.path)
        if allowed is None:
            reply = _refused(404, 5, "Not Found")
        elif request.method != allowed:
            reply = _refused(501, 12, "Method Not Allowed")
        elif request.path == "/api/v2/signingCert":
            reply = self._certificate(request)
        elif request.path == "/api/v2/trustBundle":
            chain = [self._authority.intermediate, self._authority.root]
            pem = [one.public_bytes(Encoding.PEM).decode() for one in chain]
            reply = Reply.json(200, {"chains": [{"certificates": pem}]})
        else:
            reply = Reply.json(200, {"issuers": [_CONFIGURATION]})
        return reply.plus(VARY)

    def _certificate(self, request: Request) -> Reply:
        self._calls.add("certificate")
        if "fulcio:before" in self._faults:
            return _refused(500, 13, "error signing certificate")
        self._faults.hold("fulcio:hang")
        try:
            asked = json.loads(request.body)
        except (ValueError, RecursionError):
            return _refused(400, 3, "unexpected EOF")
        if not isinstance(asked, dict):
            return _refused(400, 3, "syntax error")
        try:
            claims = self._issuer.verify(_token(request, asked))
        except TokenInvalid:
            return _refused(400, 3, "There was an error processing the identity token")
        return self._issue(asked, claims)

    def _issue(self, asked: dict[str, Any], claims: Claims) -> Reply:
        try:
            csr = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"], validate=True))
            key = csr.public_key()
        except (ValueError, KeyError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return _refused(400, 3, "The public key supplied in the request could not be parsed")
        if not csr.is_signature_valid:  # what the request says is otherwise ignored: the token names the identity
            return _refused(400, 3, "The signature supplied in the request could not be verified")
        chain = self._authority.issue(key, claims)
        return Reply.json(200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}})


_CONFIGURATION = {
    "issuerUrl": ISSUER,
    "audience": AUDIENCE,
    "challengeClaim": "email",
    "spiffeTrustDomain": "",
    "issuerType": "email",
    "subjectDomain": "",
    "skipEmailVerification": False,
}


def _token(request: Request, asked: dict[str, Any]) -> str:
    """From the header, as sigstore-python sends it, or from the body."""
    kind, _, token = (request.headers.get("Authorization") or "").partition(" ")
    if kind == "Bearer":
        return token
    credentials = asked.get("credentials")
    return str(credentials.get("oidcIdentityToken", "")) if isinstance(credentials, dict) else ""


def _refused(status: int, code: int, message: str) -> Reply:
    return Reply.json(status, {"code": code, "message": message, "details": []})
