"""Verification of a stored or found record, in one numbered list.

`SightingVerifier.verify` accepts a bundle for a tag only if

 1. it is a bundle of at most BUNDLE_MAX_BYTES;
 2. its log and CA keys are in the trust root (else the trust root is refreshed once, and it is judged as it is then);
 3. sigstore-python's `Verifier.verify_dsse` accepts it: verified time, certificate chain at that time, SCT, key usage, our
    policy (exactly one SAN, an e-mail out of the accepted identities, and that identity's issuer), inclusion proof and
    checkpoint, signed entry timestamp, DSSE signature, and that the log entry is about this envelope;
 4. the payload type is in-toto's (a genuine envelope of another type passes step 3);
 5. the payload is byte for byte the statement of (tag, digest);
 6. a Rekor v1 entry carries its signed entry timestamp, and a v2 entry a verified timestamp: index and time are taken only
    from what is signed;
 7. that time lies inside the validity windows of the CA and of the log's key (sigstore-python does not check the end).

Third-party parsing raises many things; all of it becomes RecordInvalid here, and only here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat import asn1
from sigstore.errors import VerificationError
from sigstore.models import Bundle as SigstoreBundle

from lib.errors import RecordInvalid
from lib.sighting.sighting import Bundle, Sighting
from lib.sighting.statement import PAYLOAD_TYPE, digest_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lib.config import Identity
    from lib.oci.reference import Tag
    from lib.sighting.trust import Trust, TrustSource, Window

BUNDLE_MAX_BYTES = 262_144  # ours are about 6 KiB
FULCIO_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
FULCIO_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
ORIGIN_TREE_ID = re.compile(r"[^\n]+ - ([0-9]{1,20})\n", re.ASCII)  # Rekor v1's checkpoint origin: `name - <tree id>`


class IdentityPolicy:
    """sigstore's VerificationPolicy: exactly one SAN, an accepted e-mail with its own issuer, compared exactly."""

    def __init__(self, identities: tuple[Identity, ...]) -> None:
        """`identities` are alternatives."""
        self._accepted = {(identity.email, identity.issuer) for identity in identities}

    def verify(self, cert: x509.Certificate) -> None:
        """Raise VerificationError unless the certificate is one of ours by name."""
        names = list(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        if len(names) != 1 or not isinstance(names[0], x509.RFC822Name):
            msg = "the certificate's subject alternative name is not exactly one e-mail address"
            raise VerificationError(msg)
        email = names[0].value
        for issuer in _issuers(cert):
            if (email, issuer) not in self._accepted:
                msg = f"signed by {email} of {issuer}, which is not an accepted identity"
                raise VerificationError(msg)


def _issuers(cert: x509.Certificate) -> set[str]:
    """The issuer as both of Fulcio's extensions say it; at least one must be there."""
    issuers = set()
    for extension in cert.extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension):
            if extension.oid == FULCIO_ISSUER:
                issuers.add(extension.value.value.decode("utf-8"))
            elif extension.oid == FULCIO_ISSUER_V2:
                issuers.add(asn1.decode_der(str, extension.value.value))
    if not issuers:
        msg = "the certificate names no issuer"
        raise VerificationError(msg)
    return issuers


class SightingVerifier:
    """Verifies bundles against the current trust configuration and the accepted identities. Safe from any thread."""

    def __init__(self, trust: TrustSource, identities: tuple[Identity, ...]) -> None:
        """`identities` are all that are accepted; which one signs is the signer's business."""
        self._trust = trust
        self.policy = IdentityPolicy(identities)

    def generation(self) -> int:
        """Grows whenever the trust root is replaced."""
        return self._trust.current().generation

    def verify(self, bundle: Bundle, tag: Tag, *, may_refresh: bool = True) -> Sighting:
        """The sighting that `bundle` proves about exactly `tag`.

        `may_refresh` is False for entries found in the log, which anyone can put there.
        Raises RecordInvalid, whose message says which check failed.
        """
        if len(bundle) > BUNDLE_MAX_BYTES:  # (1)
            msg = f"the bundle is longer than {BUNDLE_MAX_BYTES} bytes"
            raise RecordInvalid(msg)
        try:
            parsed = SigstoreBundle.from_json(bundle)  # (1)
            trust = self._trust.current()
            if may_refresh and not _keys_known(parsed, trust):  # (2)
                trust = self._trust.refresh()
            payload_type, payload = trust.verifier.verify_dsse(parsed, self.policy)  # (3)
            if payload_type != PAYLOAD_TYPE:  # (4)
                msg = f"the payload type is {payload_type!r}, not {PAYLOAD_TYPE}"
                raise RecordInvalid(msg)  # noqa: TRY301 - a numbered step like the others
            digest = digest_in(payload, tag)  # (5)
            log_index, uuid, time = _proven(parsed, trust)  # (6)
            check_windows(parsed, trust, time)  # (7)
        except RecordInvalid:
            raise
        except Exception as error:
            msg = f"the bundle does not verify: {type(error).__name__}: {_one_line(error)}"
            raise RecordInvalid(msg) from error
        return Sighting(tag, digest, log_index, uuid, time)


def _one_line(error: Exception) -> str:
    """The first: pydantic's further ones repeat the content, which would go on to a client."""
    return " ".join(str(error).partition("\n")[0].split())[:300]


def _keys_known(bundle: SigstoreBundle, trust: Trust) -> bool:
    """Whether the keys that the bundle names are in the trust root: looked up, not read from an error's text."""
    return log_id(bundle) in trust.logs and authority_key_id(bundle) in trust.authorities


def log_id(bundle: SigstoreBundle) -> bytes:
    """The id of the log that the entry says it is in; its checkpoint must verify under that key."""
    return bytes(bundle.log_entry._inner.log_id.key_id)  # noqa: SLF001 - no public accessor


def authority_key_id(bundle: SigstoreBundle) -> bytes:
    """The key id of the CA that the certificate says issued it."""
    extension = bundle.signing_certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return extension.value.key_identifier or b""


def _proven(bundle: SigstoreBundle, trust: Trust) -> tuple[int, str, datetime]:
    """Log index, UUID and time, each from a field that something signs. The bundle has passed step 3."""
    entry = bundle.log_entry._inner  # noqa: SLF001 - no public accessor
    leaf = sha256(b"\x00" + entry.canonicalized_body).hexdigest()
    if entry.kind_version.kind == "dsse":
        if not entry.inclusion_promise or not entry.integrated_time:
            msg = "a Rekor v1 entry without its signed entry timestamp proves no time and no index"
            raise RecordInvalid(msg)
        checkpoint = entry.inclusion_proof.checkpoint
        origin = ORIGIN_TREE_ID.match(checkpoint.envelope) if checkpoint is not None else None
        if origin is None:
            msg = "the checkpoint's origin names no tree id"
            raise RecordInvalid(msg)
        time = datetime.fromtimestamp(entry.integrated_time, tz=UTC)
        return entry.log_index, f"{int(origin[1]):016x}{leaf}", time
    stamps = trust.verifier._verify_timestamp_authority(bundle)  # noqa: SLF001 - which timestamps verified is not told
    if not stamps:
        msg = "a Rekor v2 entry without a verified timestamp proves no time"
        raise RecordInvalid(msg)
    return entry.inclusion_proof.log_index, leaf, min(stamp.time for stamp in stamps).astimezone(UTC)


def check_windows(bundle: SigstoreBundle, trust: Trust, time: datetime) -> None:
    """Raise RecordInvalid if the CA or the log's key was not in use at `time`."""
    for name, windows in (
        ("certificate authority", trust.authorities.get(authority_key_id(bundle), ())),
        ("transparency log", trust.logs.get(log_id(bundle), ())),
    ):
        if not _any_contains(windows, time):
            msg = f"the key of the {name} was not in use at {time:%Y-%m-%dT%H:%M:%SZ}"
            raise RecordInvalid(msg)


def _any_contains(windows: Iterable[Window], time: datetime) -> bool:
    return any(window.contains(time) for window in windows)
