"""The certificate authority: Fulcio's certificates, from keys that are worth nothing elsewhere.

Root, intermediate, and leaves of ten minutes with an embedded SCT by a CT key (RFC 6962, 3.2 and 3.3), one critical
e-mail SAN, and Fulcio's extensions for the issuer and the token's subject. Who may have one is not decided here
(`fulcio.py`).
"""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from lib.devsigstore.identity import Claims
    from lib.devsigstore.state import State

LIFE = timedelta(minutes=10)
CA_LIFE = timedelta(days=3650)
ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
SUBJECT = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.24")
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def load_key(state: State, name: str) -> ec.EllipticCurvePrivateKey:
    """The P-256 key kept under `name`."""

    def make() -> bytes:
        return ec.generate_private_key(ec.SECP256R1()).private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    key = serialization.load_pem_private_key(state.setting(name, make), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        msg = f"the key {name} is of another kind"
        raise TypeError(msg)
    return key


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as DER; its sha256 is the key's id in a log."""
    return key.public_key().public_bytes(DER, SPKI)


def _name(common: str) -> x509.Name:
    organization = "tlogistry local development NOT FOR PRODUCTION"
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _der(tag: int, value: bytes) -> bytes:
    """One DER element: tag, shortest length, value."""
    size = len(value).to_bytes((len(value).bit_length() + 7) // 8 or 1, "big")
    if len(value) > 127:  # noqa: PLR2004 - X.690, 8.1.3: above this the length has a length
        size = bytes([0x80 | len(size)]) + size
    return bytes([tag]) + size + value


def _utf8(text: str) -> bytes:
    """A DER UTF8String."""
    return _der(0x0C, text.encode())


class Authority:
    """Issues certificates."""

    def __init__(self, state: State) -> None:
        """Load or make the keys and the two CA certificates."""
        self.ct_key = load_key(state, "ct-key")
        root_key, self._key = load_key(state, "root-key"), load_key(state, "intermediate-key")
        root = state.setting("root", lambda: _authority(root_key, root_key, None).public_bytes(PEM))
        self.root = x509.load_pem_x509_certificate(root)
        made = state.setting("intermediate", lambda: _authority(self._key, root_key, self.root).public_bytes(PEM))
        self.intermediate = x509.load_pem_x509_certificate(made)

    def issue(self, key: ec.EllipticCurvePublicKey, claims: Claims) -> list[str]:
        """A certificate for a key and a token's identity, and its chain: PEM, leaf first; no newline at the end, as Fulcio."""
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .issuer_name(self.intermediate.subject)
            .subject_name(x509.Name([]))
            .not_valid_before(now)
            .not_valid_after(now + LIFE)
            .public_key(key)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(claims.email)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(ISSUER, claims.issuer.encode()), critical=False)
            .add_extension(x509.UnrecognizedExtension(ISSUER_V2, _utf8(claims.issuer)), critical=False)
            .add_extension(x509.UnrecognizedExtension(SUBJECT, _utf8(claims.subject)), critical=False)
        )
        to_log = builder.sign(self._key, hashes.SHA256()).tbs_certificate_bytes
        sct = self._sct(to_log)
        logged = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        leaf = builder.add_extension(x509.UnrecognizedExtension(SCT_LIST, _der(0x04, logged)), critical=False).sign(
            self._key, hashes.SHA256()
        )
        return [certificate.public_bytes(PEM).decode().rstrip() for certificate in (leaf, self.intermediate, self.root)]

    def _sct(self, to_log: bytes) -> bytes:
        """A signed certificate timestamp over a precertificate's TBS (RFC 6962, 3.2)."""
        issuer_key_hash = hashlib.sha256(self.intermediate.public_key().public_bytes(DER, SPKI)).digest()
        milliseconds = int(datetime.now(UTC).timestamp() * 1000)
        entry = issuer_key_hash + len(to_log).to_bytes(3, "big") + to_log
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + struct.pack("!H", 0)
        signature = self.ct_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        log_id = hashlib.sha256(spki(self.ct_key)).digest()
        header = b"\x00" + log_id + struct.pack("!QH", milliseconds, 0)
        return header + b"\x04\x03" + struct.pack("!H", len(signature)) + signature


def _usage(*, digital_signature: bool = False, signs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(
    key: ec.EllipticCurvePrivateKey, signing_key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None
) -> x509.Certificate:
    """The root (no issuer), or the intermediate under it."""
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    name = _name("dev root" if issuer is None else "dev intermediate")
    builder = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .issuer_name(name if issuer is None else issuer.subject)
        .subject_name(name)
        .not_valid_before(now)
        .not_valid_after(now + CA_LIFE)
        .public_key(key.public_key())
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None if issuer is None else 0), critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return builder.sign(signing_key, hashes.SHA256())
