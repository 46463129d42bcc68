"""The local Sigstore answers in the real servers' shapes: their recorded exchanges, asked again.

The recorded requests are sent in the recorded order to one local Sigstore whose identity is the recorded one. What cannot
be the same is put in its place: the log's tree id, the two entries that were there before the recording began, and tokens,
which are made anew with the recorded claims. Canonical bodies are a function of the request, so UUIDs, locations, index
answers and refusals must then be the same to the letter; of keys, times and proofs only the shape can be.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from lib.devsigstore.server import DevSigstore
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.statement import statement
from tests.devsigstore.support import Hand, append, request

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS = Path(__file__).parents[1] / "vectors" / "sigstore"
EMAIL = "tlogistry@my-project.iam.gserviceaccount.com"
DIGEST = Digest.parse("sha256:686d8c9dfa6f3ccfc8230bc3178d23f84eeaf7e457f36f271ab1acc53015037c")
TREE = "1109da28d7d934df"
EARLIER = (  # leaf hashes of the entries before the recording: about other tags, with the digest of 008
    "b4e6c91e9e630353369721a913e61c123f2710e3e077d5956b9d2225621916d4",
    "70114e4951d8ee73abd90c408fb8929686fbc28377229a2ca16835b1f6456221",
)
HEADERS = (
    "Allow",
    "Cache-Control",
    "Content-Type",
    "Etag",
    "Expires",
    "Location",
    "Metadata-Flavor",
    "Pragma",
    "Vary",
    "X-Accel-Expires",
)
ASKED = [  # in the order of time: what comes later sees what came before
    "003-metadata-email",
    "004-metadata-identity",
    "005-metadata-token",
    "006-metadata-no-flavor",
    "007-fulcio-signingcert-csr",
    "008-rekor1-create-201",
    "010-fulcio-signingcert-token-in-body-csr",
    "011-fulcio-bad-pop",
    "012-fulcio-no-token",
    "013-fulcio-garbage-token",
    "014-fulcio-wrong-audience",
    "015-fulcio-expired-token",
    "016-fulcio-bad-email",
    "017-fulcio-token-without-email",
    "018-fulcio-no-csr",
    "019-fulcio-not-json",
    "020-fulcio-trustbundle",
    "021-fulcio-configuration",
    "022-fulcio-404",
    "023-fulcio-405",
    "024-rekor1-create-409",
    "025-rekor1-get-uuid",
    "026-rekor1-get-uuid-64",
    "027-rekor1-get-logindex",
    "028-rekor1-get-uuid-404",
    "029-rekor1-get-uuid-malformed",
    "030-rekor1-get-logindex-404",
    "031-rekor1-get-logindex-missing",
    "032-rekor1-index-hit-tag",
    "033-rekor1-index-hit-digest",
    "034-rekor1-index-hit-payload",
    "035-rekor1-index-miss",
    "036-rekor1-index-email",
    "037-rekor1-index-and",
    "038-rekor1-index-publickey",
    "039-rekor1-index-bad-hash",
    "040-rekor1-index-empty",
    "041-rekor1-index-no-body",
    "042-rekor1-index-not-json",
    "043-rekor1-index-405",
    "044-rekor1-retrieve-1",
    "045-rekor1-retrieve-unknown-and-known",
    "046-rekor1-retrieve-unknown",
    "047-rekor1-retrieve-empty-list",
    "048-rekor1-retrieve-empty-object",
    "049-rekor1-retrieve-11",
    "050-rekor1-retrieve-6-plus-6",
    "051-rekor1-retrieve-logindex",
    "052-rekor1-retrieve-by-entry",
    "053-rekor1-log-info",
    "054-rekor1-publickey",
    "055-rekor1-proof",
    "056-rekor1-create-400-signature",
    "057-rekor1-create-422-kind",
    "058-rekor1-create-422-empty",
    "059-rekor1-create-400-version",
    "060-rekor1-create-415",
    "061-rekor1-405",
    "062-rekor1-404-path",
    "063-rekor1-create-201-same-signature-other-whitespace",
    "064-rekor1-create-201-self-made-certificate",
    "065-rekor1-index-hit-poisoned",
    "066-rekor1-index-email-poisoned",
    "068-rekor1-create-201-other-identity",
    "069-rekor1-index-hit-all",
    "070-rekor1-retrieve-all",
    "073-rekor1-create-201-v1-tsa",
    "108-rekor1-create-201-forged-certificate",
    "109-rekor1-index-hit-forged",
    "110-rekor1-intoto-create-201",
    "111-rekor1-intoto-get-uuid",
    "112-rekor1-index-hit-tag-both",
    "113-rekor1-index-hit-digest-both",
    "114-rekor1-index-hit-payload-both",
    "115-rekor1-retrieve-both",
    "116-rekor1-intoto-create-409",
    "117-rekor1-intoto-create-201-other-hash",
    "118-rekor1-intoto-create-400-signature",
    "119-rekor1-intoto-create-400-no-payload",
    "123-rekor1-intoto-create-201-forged-certificate",
    "124-rekor1-intoto-get-forged",
    "125-rekor1-index-hit-tag-all-kinds",
    "126-rekor1-retrieve-all-kinds",
]


@dataclass(frozen=True, slots=True)
class Said:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Pair:
    """The recorded answer, told as of the local log, and ours."""

    theirs: Said
    ours: Said


def _bytes(body: dict[str, str] | None) -> bytes:
    if body is None:
        return b""
    return body["text"].encode() if "text" in body else base64.b64decode(body["base64"])


def _claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(claims, dict)
    return claims


def _badly_signed_request() -> str:
    pem = base64.b64decode(request(ec.generate_private_key(ec.SECP256R1()))).decode()
    der = bytearray(ssl.PEM_cert_to_DER_cert(pem.replace(" REQUEST", "")))
    der[-1] ^= 1
    altered = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    return base64.b64encode(altered.encode()).decode()


class World:
    """The local Sigstore, and the recording told as of it."""

    def __init__(self, dev: DevSigstore) -> None:
        self.dev = dev
        hand = Hand.forged(EMAIL, x509.Name([]))
        earlier = [append(dev, hand.dsse(statement(Tag.parse(f"earlier:{number}"), DIGEST))) for number in (1, 2)]
        self._instead = {f"{dev.log.tree_id:016x}": TREE, str(dev.log.tree_id): str(int(TREE, 16))}
        self._instead |= {ours[-64:]: theirs for ours, theirs in zip(earlier, EARLIER, strict=True)}
        self.pairs = {name: self._ask(json.loads((VECTORS / f"{name}.json").read_text())) for name in ASKED}

    def _told(self, text: str) -> str:
        for ours, theirs in self._instead.items():
            text = text.replace(theirs, ours)
        return text

    def _ask(self, recorded: dict[str, Any]) -> Pair:
        asked, answered = recorded["request"], recorded["response"]
        headers = {
            k: v for k, v in asked["headers"].items() if k in {"Authorization", "Content-Type", "Metadata-Flavor"}
        }
        if "Authorization" in headers:
            headers["Authorization"] = "Bearer " + self._token(headers["Authorization"].removeprefix("Bearer "))
        body = self._told(_bytes(asked["body"]).decode())
        if "oidcIdentityToken" in body:
            parsed = json.loads(body)
            parsed["credentials"]["oidcIdentityToken"] = self._token(parsed["credentials"]["oidcIdentityToken"])
            if parsed.pop("publicKeyRequest", None):  # 011: a bad proof in the form of a request that we know
                parsed["certificateSigningRequest"] = _badly_signed_request()
            body = json.dumps(parsed)
        url = self.dev.url + self._told(asked["path"])
        got = requests.request(asked["method"], url, data=body.encode(), headers=headers, timeout=20)
        ours = Said(got.status_code, dict(got.headers), got.content)
        text = {name: self._told(value) for name, value in answered["headers"].items()}
        return Pair(Said(answered["status"], text, self._told(_bytes(answered["body"]).decode()).encode()), ours)

    def _token(self, recorded: str) -> str:
        """A token of ours with the recorded claims; what is no token stays as it is."""
        if recorded.count(".") != 2:
            return recorded
        claims = _claims(recorded)
        life_s = claims["exp"] - claims["iat"]
        email, full = claims.get("email", EMAIL), "email" in claims
        return self.dev.token(email, audience=claims["aud"], life_s=life_s, full=full)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with DevSigstore(tmp_path_factory.mktemp("shapes"), email=EMAIL) as dev:
        yield World(dev)


CHECKPOINT = re.compile(
    r"(?P<origin>\S+) - [0-9]+\n[0-9]+\n[A-Za-z0-9+/]{43}=\n\n\u2014 (?P=origin) [A-Za-z0-9+/]{90,110}={0,2}\n"
)


def shape(value: Any) -> Any:
    """What of a JSON value does not depend on keys, times and the size of the tree."""
    match value:
        case dict():
            return {name: shape(item) for name, item in value.items()}
        case list():
            return sorted({json.dumps(shape(item), sort_keys=True) for item in value})
        case str():
            return next((kind for kind, pattern in TEXTS.items() if pattern.fullmatch(value)), None) or _coded(value)
        case _:
            return type(value).__name__


TEXTS = {
    "digits": re.compile(r"[0-9]{1,21}"),
    "hash": re.compile(r"[0-9a-f]{64}"),
    "uuid": re.compile(r"[0-9a-f]{80}"),
    "checkpoint": CHECKPOINT,
    "certificate": re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+\n-----END CERTIFICATE-----"),
    "certificate and newline": re.compile(
        r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+\n-----END CERTIFICATE-----\n"
    ),
    "key": re.compile(r"-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+\n-----END PUBLIC KEY-----\n"),
}


def _coded(text: str) -> str:
    """What a text is that may be base64; JSON in it is a canonical body or a payload, and the same to the letter."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return "text"
    if decoded[:1] == b"{":
        return text
    return "signature" if decoded[:1] == b"\x30" and 68 <= len(decoded) <= 72 else "text"


@pytest.mark.parametrize("name", ASKED)
def test_status_and_headers_are_the_real_servers(world: World, name: str) -> None:
    pair = world.pairs[name]
    assert pair.ours.status == pair.theirs.status, pair.ours.body
    told = requests.structures.CaseInsensitiveDict(pair.ours.headers)
    assert {n: told.get(n) for n in HEADERS} == {n: pair.theirs.headers.get(n) for n in HEADERS}


@pytest.mark.parametrize("name", ASKED)
def test_body_is_the_real_servers(world: World, name: str) -> None:
    ours, theirs = world.pairs[name].ours, world.pairs[name].theirs
    if theirs.headers.get("Content-Type") != "application/json":
        assert shape(ours.body.decode()) == shape(theirs.body.decode())
        return
    said, recorded = json.loads(ours.body), json.loads(theirs.body)
    if "-rekor1-index-" in name and theirs.status == 200:
        assert sorted(said) == sorted(recorded), "the same entries, in any order"
    elif theirs.status >= 400:
        assert said == recorded, "the same words"
    else:
        assert shape(said) == shape(recorded)
    if "-rekor1-" in name:
        assert ours.body.endswith(b"\n") == theirs.body.endswith(b"\n")


def _leaf(said: Said) -> x509.Certificate:
    chain = json.loads(said.body)["signedCertificateEmbeddedSct"]["chain"]["certificates"]
    assert len(chain) == 3
    return x509.load_pem_x509_certificate(chain[0].encode())


@pytest.mark.parametrize("name", [name for name in ASKED if "signingcert" in name])
def test_a_certificate_has_fulcios_profile(world: World, name: str) -> None:
    ours, theirs = _leaf(world.pairs[name].ours), _leaf(world.pairs[name].theirs)
    assert [(item.oid, item.critical) for item in ours.extensions] == [
        (item.oid, item.critical) for item in theirs.extensions
    ]
    for kind in (x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName):
        assert ours.extensions.get_extension_for_class(kind) == theirs.extensions.get_extension_for_class(kind)
    assert ours.subject == theirs.subject == x509.Name([])
    life = ours.not_valid_after_utc - ours.not_valid_before_utc
    assert life == theirs.not_valid_after_utc - theirs.not_valid_before_utc
    assert ours.public_key() == theirs.public_key(), "the one of the request"


def test_an_identity_token_has_the_recorded_claims(world: World) -> None:
    pair = world.pairs["004-metadata-identity"]
    ours, theirs = (_claims(said.body.decode()) for said in (pair.ours, pair.theirs))
    assert shape(ours) == shape(theirs)
    assert (ours["email"], ours["aud"]) == (theirs["email"], theirs["aud"])
    assert ours["exp"] - ours["iat"] == theirs["exp"] - theirs["iat"]


def test_the_account_is_the_recorded_one(world: World) -> None:
    assert world.pairs["003-metadata-email"].ours.body == EMAIL.encode()
    assert world.pairs["006-metadata-no-flavor"].ours.body == world.pairs["006-metadata-no-flavor"].theirs.body


def test_only_a_readable_copy_shows_its_payload_and_only_when_it_is_read(world: World) -> None:
    created = json.loads(world.pairs["110-rekor1-intoto-create-201"].ours.body)
    (uuid,) = created
    assert "attestation" not in created[uuid]
    read = json.loads(world.pairs["111-rekor1-intoto-get-uuid"].ours.body)
    said = json.loads(_bytes(json.loads((VECTORS / "111-rekor1-intoto-get-uuid.json").read_text())["response"]["body"]))
    assert read[uuid]["attestation"] in [entry["attestation"] for entry in said.values()], "the recorded bytes"
    for name in ("115-rekor1-retrieve-both", "126-rekor1-retrieve-all-kinds"):
        for item in json.loads(world.pairs[name].ours.body):
            ((_, entry),) = item.items()
            kind = json.loads(base64.b64decode(entry["body"]))["kind"]
            assert ("attestation" in entry) == (kind == "intoto")


def test_every_recorded_exchange_here_is_used() -> None:
    """By this test, or by a search of `searches.json`: the tree keeps no other."""
    searches = json.loads((VECTORS / "searches.json").read_text())["searches"]
    used = {*ASKED, *(search["index"] for search in searches)}
    used |= {name for search in searches for name in search["retrieve"]}
    assert {path.stem for path in VECTORS.glob("[0-9]*.json")} == used
