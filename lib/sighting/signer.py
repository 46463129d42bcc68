"""Keyless signing: one certificate for some minutes, one DSSE envelope and one log entry for each sighting.

sigstore-python's `SigningContext` and `sign_dsse` do the work; what it lacks is handed in: sessions with limits, and a
submitter of ours in place of its Rekor client, which checks certificate and identity before it appends, sends the readable
copy (docs/sighting-statement.md) beside the entry, and never retries an append.

Not here: whether a sighting should be signed at all (`lib/recorder.py`).
"""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Protocol

import requests
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClient, FulcioClientError
from sigstore._internal.rekor import EntryRequestBody
from sigstore._internal.rekor.client import RekorClient
from sigstore._utils import base64_encode_pem_cert
from sigstore.dsse import Envelope, Statement
from sigstore.errors import Error as SigstoreError
from sigstore.models import InvalidBundle, TransparencyLogEntry
from sigstore.oidc import ExpiredIdentity, IdentityToken
from sigstore.sign import Signer as SigstoreSigner
from sigstore.sign import SigningContext

from lib.errors import DeadlineExceeded, LogUnavailable, RecordInvalid, SignerUnavailable
from lib.http import BoundedSession
from lib.sighting.sighting import Bundle, Record
from lib.sighting.statement import statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.x509 import Certificate

    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag
    from lib.sighting.trust import Trust, TrustSource
    from lib.sighting.verifier import SightingVerifier
    from lib.telemetry import Telemetry

FULCIO_TOTAL_S = 15.0  # seconds for one certificate
APPEND_TOTAL_S = 30.0  # seconds for one append; it may outlive the request that asked for it
COPY_WAIT_S = 2.0  # seconds that the answer waits for the readable copy once the entry is verified
CERTIFICATE_S = 480.0  # a certificate lives 10 minutes; use it for 8
ANSWER_MAX_BYTES = 1_048_576  # an entry with proof is about 8 KiB


class IdentitySource(Protocol):
    """Who signs."""

    def token(self, deadline: Deadline) -> IdentityToken:
        """A fresh identity token; raises SignerUnavailable, DeadlineExceeded."""


class Submitter(RekorClient):
    """What sigstore-python calls to log an envelope: ours, with checks before and a copy beside.

    One instance for one trust configuration; each thread sets its own call with `for_call`.
    """

    def __init__(self, trust: Trust, verifier: SightingVerifier, session: BoundedSession) -> None:
        """`session` posts to the log's URL in `trust`."""
        super().__init__(trust.rekor_url)
        self._trust = trust
        self._verifier = verifier
        self._http = session
        self._call = threading.local()

    def for_call(self, before_append: Callable[[], None], send_copy: Callable[[EntryRequestBody], None]) -> None:
        """What this thread's next `create_entry` does before it posts."""
        self._call.before_append = before_append
        self._call.send_copy = send_copy

    def _build_dsse_request(  # type: ignore[override]  # theirs is a class method, called on the instance
        self, envelope: Envelope, certificate: Certificate
    ) -> EntryRequestBody:
        """As sigstore-python builds it; the certificate must be one that our verifier would accept, or nothing is sent."""
        self._verifier.policy.verify(certificate)
        self._call.copy = _readable_copy(envelope, certificate)
        request: EntryRequestBody = super()._build_dsse_request(envelope, certificate)
        return request

    def create_entry(self, request: EntryRequestBody) -> TransparencyLogEntry:
        """Append once.

        Raises LogUnavailable: whether the entry is in the log is not known; RecordInvalid: the log says that it is, and
        shows something that is no entry.
        """
        self._call.before_append()
        self._call.send_copy(self._call.copy)
        answer = self.post(request)
        try:
            return TransparencyLogEntry._from_v1_response(json.loads(answer))  # noqa: SLF001 - the only parser of v1 answers
        except (SigstoreError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            msg = f"the log answered the append with something that is no entry ({type(error).__name__})"
            raise RecordInvalid(msg) from error

    def post(self, request: EntryRequestBody) -> bytes:
        """One POST of a proposed entry; what was answered. Raises LogUnavailable unless the answer is 201."""
        try:
            response = self._http.post(f"{self.url}/log/entries", json=request, headers={"Accept": "application/json"})
        except (requests.RequestException, OSError) as error:
            msg = f"the transparency log did not answer the append ({type(error).__name__})"
            raise LogUnavailable(msg) from error
        if response.status_code != requests.codes.created:
            msg = f"the transparency log answered the append with {response.status_code}"
            raise LogUnavailable(msg)
        return response.content


def _readable_copy(envelope: Envelope, certificate: Certificate) -> EntryRequestBody:
    """The same envelope as an intoto 0.0.2 entry, whose payload Rekor v1 keeps.

    Payload and signature are base64 of the text that is base64 in the DSSE JSON.
    """
    inner = envelope._inner  # noqa: SLF001 - no public accessor
    payload = bytes(inner.payload)
    twice = {
        "payload": base64.b64encode(base64.b64encode(payload)).decode(),
        "sig": base64.b64encode(base64.b64encode(envelope.signature)).decode(),
    }
    return EntryRequestBody(
        {
            "apiVersion": "0.0.2",
            "kind": "intoto",
            "spec": {
                "content": {
                    "envelope": {
                        "payloadType": inner.payload_type,
                        "payload": twice["payload"],
                        "signatures": [{"sig": twice["sig"], "publicKey": base64_encode_pem_cert(certificate)}],
                    },
                    "hash": {"algorithm": "sha256", "value": sha256(envelope.to_json().encode()).hexdigest()},
                    "payloadHash": {"algorithm": "sha256", "value": sha256(payload).hexdigest()},
                }
            },
        }
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """A certificate with its key, ready to sign, and what it was made under."""

    signer: SigstoreSigner
    submitter: Submitter
    generation: int
    until: float


class KeylessSigner:
    """The Signer of production and of a laptop alike. Safe from any thread; certificates are fetched one at a time."""

    _ERRORS: ClassVar = (
        SigstoreError,
        FulcioClientError,
        ExpiredCertificate,
        ExpiredIdentity,
        requests.RequestException,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
        UnsupportedAlgorithm,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        OSError,
    )

    def __init__(  # noqa: PLR0913 - the composition root names each once
        self,
        *,
        trust: TrustSource,
        identity: IdentitySource,
        verifier: SightingVerifier,
        telemetry: Telemetry,
        clock: Callable[[], float],
        start: Callable[[str, Callable[[], None]], None],
    ) -> None:
        """`start(name, work)` runs `work` in a thread of its own; `clock` is monotonic, in seconds."""
        self._trust = trust
        self._identity = identity
        self._verifier = verifier
        self._telemetry = telemetry
        self._clock = clock
        self._start = start
        self._fulcio = BoundedSession(FULCIO_TOTAL_S, ANSWER_MAX_BYTES)
        self._rekor = BoundedSession(APPEND_TOTAL_S, ANSWER_MAX_BYTES)
        self._lock = threading.Lock()
        self._held: _Held | None = None

    def sign(self, tag: Tag, digest: Digest, before_append: Callable[[], None], deadline: Deadline) -> Record:
        """See `lib.sighting.sighting.Signer`."""
        held = self._certificate(deadline)
        copied = threading.Event()
        held.submitter.for_call(before_append, lambda copy: self._send_copy(held, copy, tag, copied))
        try:
            record = self._record(held, tag, digest)
        except RecordInvalid as error:
            self._telemetry.count("orphan")
            self._telemetry.log("ERROR", "orphan: logged, but it does not verify", tag=tag, reason=str(error))
            raise
        if not copied.wait(min(COPY_WAIT_S, deadline.left() / 2)):  # the rest is for storing the record
            self._telemetry.count("copy_late")
        return record

    def _record(self, held: _Held, tag: Tag, digest: Digest) -> Record:
        """Sign, append, verify. Raises RecordInvalid for everything that goes wrong once the log has taken the entry."""
        try:
            signed = held.signer.sign_dsse(Statement(statement(tag, digest)))
        except InvalidBundle as error:  # sigstore-python puts the bundle together after it has appended
            msg = f"the log's entry makes no bundle: {error}"
            raise RecordInvalid(msg) from error
        except self._ERRORS as error:
            self._drop(held)
            msg = f"signing failed ({type(error).__name__})"
            raise SignerUnavailable(msg) from error
        bundle = Bundle(signed.to_json().encode())
        sighting = self._verifier.verify(bundle, tag)
        if sighting.digest != digest:
            msg = "the log's entry is about another digest than the one signed"
            raise RecordInvalid(msg)
        return Record(sighting, bundle)

    def _send_copy(self, held: _Held, copy: EntryRequestBody, tag: Tag, copied: threading.Event) -> None:
        """Log the readable copy beside the entry. Its failure is counted and blocks nothing."""

        def send() -> None:
            try:
                held.submitter.post(copy)
            except LogUnavailable as error:
                self._copy_failed(tag, error)
            finally:
                copied.set()

        try:
            self._start("copy", send)
        except RuntimeError as error:  # no thread to be had
            self._copy_failed(tag, error)
            copied.set()

    def _copy_failed(self, tag: Tag, error: Exception) -> None:
        self._telemetry.count("copy_failed")
        self._telemetry.log("WARNING", "readable copy not logged", tag=tag, reason=str(error))

    def _certificate(self, deadline: Deadline) -> _Held:
        """The certificate in hand, or a new one; waits for another thread's fetch at most until the deadline."""
        if not self._lock.acquire(timeout=deadline.left()):
            msg = "out of time while waiting for a certificate"
            raise DeadlineExceeded(msg)
        try:
            trust = self._trust.current()
            held = self._held
            if held is None or held.until <= self._clock() or held.generation != trust.generation:
                deadline.check("asking for a certificate")
                self._held = held = self._fetch(trust, deadline)
            return held
        finally:
            self._lock.release()

    def _drop(self, held: _Held) -> None:
        """Do not sign with this certificate again."""
        with self._lock:
            if self._held is held:
                self._held = None

    def _fetch(self, trust: Trust, deadline: Deadline) -> _Held:
        """A new key and its certificate, no later than `deadline`: everybody who wants to sign waits for it."""
        started = self._clock()
        token = self._identity.token(deadline)
        submitter = Submitter(trust, self._verifier, self._rekor)
        fulcio = FulcioClient(trust.fulcio_url)
        fulcio.session = self._fulcio
        context = SigningContext(fulcio=fulcio, rekor=submitter, trusted_root=trust.root)
        try:
            with self._fulcio.within(deadline):
                signer = SigstoreSigner(token, context, cache=True)
        except self._ERRORS as error:
            msg = f"no certificate from the certificate authority ({type(error).__name__})"
            raise SignerUnavailable(msg) from error
        return _Held(signer, submitter, trust.generation, started + CERTIFICATE_S)
