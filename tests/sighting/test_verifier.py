"""The verifier gives the verdict that each recorded bundle must get."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sigstore.errors import VerificationError

from lib.config import Identity, TrustFile
from lib.errors import ConfigInvalid, RecordInvalid
from lib.handlers.response import time_text
from lib.oci.reference import Tag
from lib.sighting.sighting import Bundle
from lib.sighting.trust import REFRESH_EVERY_S, TrustSource
from lib.sighting.verifier import FULCIO_ISSUER, FULCIO_ISSUER_V2, IdentityPolicy, SightingVerifier
from lib.telemetry import Telemetry
from tests.clock import Clock

VECTORS = Path(__file__).parents[1] / "vectors" / "sigstore"
SPEC = json.loads((VECTORS / "bundles.json").read_text())
CASES = SPEC["cases"]
UNPROVEN = SPEC["unproven"]
ALPINE = Tag.parse("alpine:3.16.0")
OURS = Identity("tlogistry@my-project.iam.gserviceaccount.com", "http://127.0.0.1:19001")


def trust_file(name: str = "trust-v1.json") -> TrustFile:
    return TrustFile(VECTORS / name, (VECTORS / name).read_text())


def source(file: TrustFile) -> TrustSource:
    return TrustSource(file, Clock().now, Telemetry("json"))


def verifier(*identities: Identity) -> SightingVerifier:
    return SightingVerifier(source(trust_file()), identities or (OURS,))


def bundle(name: str) -> Bundle:
    return Bundle((VECTORS / name).read_bytes())


def case_id(case: dict[str, Any]) -> str:
    return f"{case['expected']}-{case['file'].removesuffix('.sigstore.json')}-{case.get('why', '')}"[:110]


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_verdict_of_every_recorded_bundle(case: dict[str, Any]) -> None:
    judge = verifier(*(Identity(email, case["issuer"]) for email in case["identities"]))
    tag = Tag.parse(case["tag"])
    if case["why"] == "says another digest":  # true, and no record of the digest that was asked for
        assert str(judge.verify(bundle(case["file"]), tag).digest) != case["digest"]
        return
    if case["expected"] == "reject":
        with pytest.raises(RecordInvalid):
            judge.verify(bundle(case["file"]), tag)
        return
    sighting = judge.verify(bundle(case["file"]), tag)
    assert str(sighting.digest) == case["digest"]
    assert sighting.log_index == case["log_index"]
    assert sighting.uuid == case["uuid"]
    assert time_text(sighting.integrated_time) == case["time"]


@pytest.mark.parametrize("case", [case for case in CASES if case["expected"] == "accept"], ids=case_id)
def test_a_trust_configuration_in_the_shape_of_the_public_one_gives_the_same(case: dict[str, Any]) -> None:
    """With a timestamp authority beside Rekor v1."""
    accepted = tuple(Identity(email, case["issuer"]) for email in case["identities"])
    sighting = SightingVerifier(source(trust_file("trust-v1-tsa.json")), accepted).verify(
        bundle(case["file"]), Tag.parse(case["tag"])
    )
    assert (str(sighting.digest), sighting.uuid) == (case["digest"], case["uuid"])


def test_every_recorded_bundle_has_a_verdict() -> None:
    judged = {case["file"] for case in (*CASES, *UNPROVEN)}
    assert {path.name for path in VECTORS.glob("bundle-*.sigstore.json")} == judged
    assert {case["expected"] for case in CASES} == {"accept", "reject"}


@pytest.mark.parametrize("case", UNPROVEN, ids=lambda case: case["file"])
def test_a_field_that_nothing_signs_is_never_shown(case: dict[str, Any]) -> None:
    judge = verifier(*(Identity(email, case["issuer"]) for email in case["identities"]))
    try:
        sighting = judge.verify(bundle(case["file"]), Tag.parse(case["tag"]))
    except RecordInvalid:
        return
    assert (sighting.log_index, sighting.uuid) == (case["log_index"], case["uuid"])
    assert time_text(sighting.integrated_time) == case["time"]


@pytest.mark.parametrize("member", ["certificateAuthorities", "tlogs"])
def test_a_record_made_after_its_keys_end_is_refused(tmp_path: Path, member: str) -> None:
    text = json.loads(trust_file().text)
    for item in text["trustedRoot"][member]:
        window = item["publicKey"]["validFor"] if member == "tlogs" else item["validFor"]
        window["end"] = "2026-11-23T06:50:00Z"  # the bundle was made at 06:50:52
    file = TrustFile(tmp_path / "trust.json", json.dumps(text))
    with pytest.raises(RecordInvalid, match=r"was not in use at 2026-11-23T06:50:52Z"):
        SightingVerifier(source(file), (OURS,)).verify(bundle("bundle-v1.sigstore.json"), ALPINE)


@pytest.mark.parametrize("member", ["certificateAuthorities", "tlogs"])
def test_a_record_made_under_a_retired_key_still_verifies(tmp_path: Path, member: str) -> None:
    text = json.loads(trust_file().text)
    for item in text["trustedRoot"][member]:
        window = item["publicKey"]["validFor"] if member == "tlogs" else item["validFor"]
        window["end"] = "2026-11-23T07:00:00Z"
    file = TrustFile(tmp_path / "trust.json", json.dumps(text))
    SightingVerifier(source(file), (OURS,)).verify(bundle("bundle-v1.sigstore.json"), ALPINE)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"[]", b"\xff\xfe", b"[" * 10_000, b'"x"', b" " * 300_000, b'{"mediaType": 7}'],
    ids=lambda content: f"{content[:12]!r}-{len(content)}",
)
def test_whatever_third_party_parsing_raises_is_a_record_that_does_not_verify(content: bytes) -> None:
    with pytest.raises(RecordInvalid):
        verifier().verify(Bundle(content), ALPINE)


def test_our_name_from_another_issuer_is_not_ours() -> None:
    other = Identity(OURS.email, "https://accounts.google.com")
    with pytest.raises(RecordInvalid, match="not an accepted identity"):
        verifier(other).verify(bundle("bundle-v1.sigstore.json"), ALPINE)


def certificate(*names: x509.GeneralName, issuers: tuple[str, ...] = (OURS.issuer,)) -> x509.Certificate:
    """By a CA that puts these names in, and says the first issuer in the old extension and the second in the new one."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sigstore")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + dt.timedelta(minutes=10))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
    )  # fmt: skip
    encoded = (issuers[0].encode(), b"\x0c" + bytes([len(issuers[-1])]) + issuers[-1].encode())  # bare; DER UTF8String
    for oid, value in list(zip((FULCIO_ISSUER, FULCIO_ISSUER_V2), encoded, strict=True))[: len(issuers)]:
        made = made.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    return made.sign(key, hashes.SHA256())


MINE = x509.RFC822Name(OURS.email)


@pytest.mark.parametrize(
    "names",
    [
        (MINE, x509.RFC822Name("thief@example.com")),
        (x509.RFC822Name("thief@example.com"), MINE),
        (MINE, x509.UniformResourceIdentifier("https://example.com")),
        (MINE, MINE),
        (x509.UniformResourceIdentifier(OURS.email),),
        (x509.DNSName(OURS.email),),
        (x509.RFC822Name(OURS.email.upper()),),
        (x509.RFC822Name(f"x{OURS.email}"),),
    ],
    ids=str,
)
def test_a_certificate_with_a_second_name_is_not_ours(names: tuple[x509.GeneralName, ...]) -> None:
    """Anyone's CA policy may allow more names; ours is the only one, as an e-mail address and letter by letter."""
    policy = IdentityPolicy((OURS,))
    policy.verify(certificate(MINE))
    with pytest.raises(VerificationError):
        policy.verify(certificate(*names))


@pytest.mark.parametrize("issuers", [("https://evil.example", OURS.issuer), (OURS.issuer, "https://evil.example")])
def test_a_certificate_that_names_two_issuers_is_not_ours(issuers: tuple[str, str]) -> None:
    """Fulcio says the issuer twice; both must be the accepted one."""
    policy = IdentityPolicy((OURS,))
    policy.verify(certificate(MINE, issuers=(OURS.issuer, OURS.issuer)))
    with pytest.raises(VerificationError, match="not an accepted identity"):
        policy.verify(certificate(MINE, issuers=issuers))


def _without_keys(text: str) -> str:
    """The same configuration before the CA's and the log's keys were added."""
    parsed = json.loads(text)
    parsed["trustedRoot"]["tlogs"] = [
        log for log in parsed["trustedRoot"]["tlogs"] if "ED25519" in log["publicKey"]["keyDetails"]
    ]
    return json.dumps(parsed)


def test_an_unknown_log_key_refreshes_the_trust_root_once(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    old = _without_keys(trust_file().text)
    path.write_text(trust_file().text)
    trust = source(TrustFile(path, old))
    judge = SightingVerifier(trust, (OURS,))
    assert judge.generation() == 1
    judge.verify(bundle("bundle-v1.sigstore.json"), ALPINE)
    assert judge.generation() == 2


def test_an_entry_found_in_the_log_never_refreshes_the_trust_root(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_text(trust_file().text)
    judge = SightingVerifier(source(TrustFile(path, _without_keys(trust_file().text))), (OURS,))
    with pytest.raises(RecordInvalid):
        judge.verify(bundle("bundle-v1.sigstore.json"), ALPINE, may_refresh=False)
    assert judge.generation() == 1


def test_refreshes_are_limited_in_rate_and_a_failed_one_keeps_the_old_root(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "trust.json"
    path.write_text("not JSON")
    trust = TrustSource(TrustFile(path, trust_file().text), clock.now, Telemetry("json"))
    assert trust.refresh().generation == 1
    path.write_text(trust_file().text)
    assert trust.refresh().generation == 1, "too early"
    clock.advance(REFRESH_EVERY_S)
    assert trust.refresh().generation == 2


@pytest.mark.parametrize("text", ["{}", '{"trustedRoot": {}, "signingConfig": {}}', "[]"])
def test_an_unusable_trust_file_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigInvalid, match="TLOGISTRY_TRUST"):
        source(TrustFile(tmp_path / "t.json", text))


def test_a_configuration_without_rekor_v1_is_a_configuration_error() -> None:
    with pytest.raises(ConfigInvalid, match="Rekor v1"):
        source(trust_file("trust-v2.json"))


def test_public_sigstore_starts_from_the_shipped_root_without_a_network() -> None:
    trust = TrustSource(None, Clock().now, Telemetry("json")).current()
    assert trust.rekor_url == "https://rekor.sigstore.dev"
    assert trust.fulcio_url == "https://fulcio.sigstore.dev"
