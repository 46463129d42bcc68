"""The local Sigstore as a server: loud about what it is, loopback only, itself after a restart, and hard to misuse."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import stat
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sigstore.models import ClientTrustConfig

from lib.config import TrustFile
from lib.devsigstore.faults import Faults
from lib.devsigstore.log import Log
from lib.devsigstore.merkle import leaf_hash
from lib.devsigstore.server import BODY_MAX_BYTES, DevSigstore
from lib.devsigstore.state import Row, State
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.recorder import Moved, Same
from lib.sighting.statement import statement, tag_key
from lib.sighting.trust import TrustSource
from lib.sighting.verifier import SightingVerifier
from lib.telemetry import Telemetry
from tests.clock import Clock
from tests.devsigstore.support import CERTIFICATE, ENTRIES, INDEX, RETRIEVE, Hand, append, found
from tests.sigstore import Parts, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOUD = "NOT FOR PRODUCTION"
LOUD_NAME = "NOT-FOR-PRODUCTION"
TAG = Tag.parse("my-user/my-app:v1.2.3")
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
JSON = {"Content-Type": "application/json"}


# --- what it is, it says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::1", "::", "localhost", "", "127.0.0.1.example"])
def test_any_host_but_loopback_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        DevSigstore(tmp_path, host=host)
    assert not list(tmp_path.glob("log.sqlite")), "and nothing is made"


def test_it_listens_on_loopback_alone(dev: DevSigstore) -> None:
    address = urlsplit(dev.url)
    assert address.hostname == "127.0.0.1"
    with pytest.raises(OSError, match=r"."):
        socket.create_connection((_own_address(), address.port or 0), timeout=5)


def _own_address() -> str:
    """An address of this host that is not loopback; where it has none, one that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return "192.0.2.1"
        return str(probe.getsockname()[0])


def test_every_name_says_what_it_is(dev: DevSigstore, tmp_path: Path) -> None:
    hand = Hand.certified(dev)
    leaf = x509.load_pem_x509_certificate(hand.pem)
    for certificate in (leaf, dev.authority.intermediate, dev.authority.root):
        assert LOUD in certificate.issuer.rfc4514_string()
    for certificate in (dev.authority.intermediate, dev.authority.root):
        assert LOUD in certificate.subject.rfc4514_string()
    append(dev, hand.dsse(b"{}"))
    head = requests.get(f"{dev.url}/api/v1/log", timeout=10)
    assert LOUD_NAME in head.json()["signedTreeHead"].splitlines()[0], "the log's origin"
    assert LOUD_NAME in head.headers["Server"]
    assert LOUD in (tmp_path / "sigstore" / "trust-config.json").read_text()
    assert LOUD_NAME in leaf.extensions[4].value.public_bytes().decode(), "the issuer"
    assert LOUD_NAME.lower() in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value[0].value


# --- its state --------------------------------------------------------------------------------------------------------


def keys(dev: DevSigstore) -> tuple[bytes, ...]:
    return (
        dev.log.log_id,
        dev.authority.root.public_bytes(Encoding.DER),
        dev.authority.intermediate.public_bytes(Encoding.DER),
        dev.authority.ct_key.private_numbers().private_value.to_bytes(32, "big"),
        dev.log.tree_id.to_bytes(8, "big"),
        dev.issuer.public()["n"].encode(),
    )


def test_keys_stay_with_the_folder_and_differ_between_folders(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    first = []
    for folder in folders:
        folder.mkdir()
        with DevSigstore(folder) as dev:
            first.append(keys(dev))
    for folder, before in zip(folders, first, strict=True):
        with DevSigstore(folder) as dev:
            assert keys(dev) == before
    assert all(one != two for one, two in zip(*first, strict=True))


def test_the_keys_are_for_the_owner_alone(dev: DevSigstore, tmp_path: Path) -> None:
    requests.get(f"{dev.url}/api/v1/log", timeout=10)
    for path in (tmp_path / "sigstore").glob("log.sqlite*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path.name


def test_a_restart_keeps_the_port_and_the_entries(tmp_path: Path) -> None:
    with DevSigstore(tmp_path) as dev:
        url, hand = dev.url, Hand.certified(dev)
        uuids = [append(dev, hand.dsse(statement(TAG, OLD), number)) for number in range(5)]
        roots = [dev.log.info()["rootHash"]]
    with DevSigstore(tmp_path) as dev:
        assert dev.url == url
        assert dev.log.info()["rootHash"] == roots[0]
        assert sorted(found(dev, f"sha256:{tag_key(TAG)}")) == sorted(uuids)
        assert requests.post(dev.url + ENTRIES, json=hand.dsse(statement(TAG, NEW)), timeout=10).status_code == 201


def test_a_taken_port_is_left_alone_and_the_next_one_is_kept(tmp_path: Path) -> None:
    with DevSigstore(tmp_path) as dev:
        port = urlsplit(dev.url).port or 0
    with socket.create_server(("127.0.0.1", port)):
        with DevSigstore(tmp_path) as dev:
            other = urlsplit(dev.url).port
            assert other != port
            assert requests.get(f"{dev.url}/api/v1/log", timeout=10).status_code == 200
            assert _services(tmp_path) == {dev.url}
        with pytest.raises(OSError, match="in use"):
            DevSigstore(tmp_path, port=port)
    with DevSigstore(tmp_path) as dev:
        assert urlsplit(dev.url).port == other


def _services(folder: Path) -> set[str]:
    config = json.loads((folder / "trust-config.json").read_text())["signingConfig"]
    return {service["url"] for name in ("caUrls", "rekorTlogUrls", "oidcUrls") for service in config[name]}


def test_the_trust_configuration_is_one_that_stock_tools_read(dev: DevSigstore, tmp_path: Path) -> None:
    config = ClientTrustConfig.from_json((tmp_path / "sigstore" / "trust-config.json").read_text())
    assert config.signing_config.get_fulcio().url == dev.url
    assert config.signing_config.get_oidc_url() == dev.url
    assert len(config.signing_config.get_tlogs()) == 1
    assert len(config.trusted_root.get_fulcio_certs()) == 2


def test_what_was_signed_before_a_restart_verifies_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "sigstore"
    folder.mkdir()
    with DevSigstore(folder) as dev:
        port = urlsplit(dev.url).port or 0
        made = Parts(dev, tmp_path / "store.sqlite").recorder().observe(TAG, OLD, seconds(20))
        bundle = Parts(dev, tmp_path / "store.sqlite").store.sighting(TAG)
    assert bundle is not None
    with socket.create_server(("127.0.0.1", port)), DevSigstore(folder) as dev:  # and it is somewhere else now
        parts = Parts(dev, tmp_path / "store.sqlite")
        path = folder / "trust-config.json"
        trust = TrustSource(TrustFile(path, path.read_text()), Clock().now, Telemetry("json"))
        assert SightingVerifier(trust, parts.identities).verify(bundle, TAG) == made.sighting
        (tmp_path / "store.sqlite").unlink()
        assert Parts(dev, tmp_path / "store.sqlite").recorder().observe(TAG, NEW, seconds(20)) == Moved(
            made.sighting, NEW
        )


def test_a_folder_has_one_local_sigstore_at_a_time(tmp_path: Path) -> None:
    """Two would sign two trees with one key, and send each other's users to the wrong port."""
    with DevSigstore(tmp_path) as dev:
        config = (tmp_path / "trust-config.json").read_bytes()
        with pytest.raises(OSError, match="in use by another"):
            DevSigstore(tmp_path)
        assert (tmp_path / "trust-config.json").read_bytes() == config
        uuid = append(dev, Hand.certified(dev).dsse(b"{}"))
    with DevSigstore(tmp_path) as dev:
        assert requests.get(f"{dev.url}{ENTRIES}/{uuid}", timeout=10).status_code == 200


def test_a_start_that_fails_lets_go_of_folder_and_port(tmp_path: Path) -> None:
    with DevSigstore(tmp_path) as dev:
        url = dev.url
    (tmp_path / "trust-config.json").unlink()
    (tmp_path / "trust-config.json").mkdir()
    (tmp_path / "trust-config.json" / "x").touch()
    with pytest.raises(OSError, match=r"."):
        DevSigstore(tmp_path)
    (tmp_path / "trust-config.json" / "x").unlink()
    (tmp_path / "trust-config.json").rmdir()
    with DevSigstore(tmp_path) as dev:
        assert dev.url == url


def test_an_entry_is_read_only_once_it_is_in_the_tree(tmp_path: Path) -> None:
    """Between the commit and the tree a proof would be of a place that the root does not cover."""
    state = State(tmp_path / "log.sqlite")
    log = Log(state, Faults())
    state.append(Row(0, b'{"kind":"dsse"}', 1), leaf_hash(b'{"kind":"dsse"}'), None)
    assert log.by_position(0) is None
    assert log.by_uuid(log.uuid(leaf_hash(b'{"kind":"dsse"}'))) is None
    state.close()


def test_entries_that_come_at_once_each_have_a_place_and_a_proof(dev: DevSigstore, tmp_path: Path) -> None:
    hand, uuids = Hand.certified(dev), []
    signature = hand.sign(b"{}")

    def log(number: int) -> None:
        uuids.append(append(dev, hand.dsse_of(b"{}", signature, number)))

    threads = [threading.Thread(target=log, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(uuids)) == 20
    places = set()
    for uuid in uuids:
        (entry,) = requests.get(f"{dev.url}{ENTRIES}/{uuid}", timeout=10).json().values()
        places.add(entry["logIndex"])
        assert entry["verification"]["inclusionProof"]["treeSize"] == 20
    assert places == set(range(20))


# --- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSigstore]:
    """One for many tests that only ask."""
    with DevSigstore(tmp_path_factory.mktemp("shared")) as server:
        yield server


def raw(dev: DevSigstore, data: bytes) -> bytes:
    """What is answered to these bytes, until the connection ends or rests."""
    address = urlsplit(dev.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(data)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return f"{answer.status} {answer.headers.get('Connection', '')}".strip().encode() + b" " + answer.read()


def test_a_body_over_the_cap_is_refused_without_being_read(shared: DevSigstore) -> None:
    head = b"POST /api/v1/log/entries HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    assert raw(shared, head + b"Content-Length: %d\r\n\r\n" % (BODY_MAX_BYTES + 1)).startswith(b"413 close")
    assert raw(shared, head + b"Content-Length: %d\r\n\r\n" % 10**30).startswith(b"413 close")
    assert requests.get(f"{shared.url}/api/v1/log", timeout=10).status_code == 200


@pytest.mark.parametrize("length", [b"-1", b"+7", b"7_0", b"\xd9\xa7", b"x", b"0x7"])
def test_a_length_that_is_none_is_refused(shared: DevSigstore, length: bytes) -> None:
    head = b"POST /api/v1/log/entries HTTP/1.1\r\nHost: x\r\nContent-Length: "
    assert raw(shared, head + length + b"\r\n\r\n").startswith(b"411 close")


def test_a_chunked_body_is_refused(shared: DevSigstore) -> None:
    head = b"POST /api/v1/log/entries HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(shared, head + b"0\r\n\r\n").startswith(b"411 close")


FORGED: dict[str, Any] = {"kind": "dsse", "apiVersion": "0.0.1"}


@pytest.mark.parametrize("path", [ENTRIES, INDEX, RETRIEVE, CERTIFICATE])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"7",
        b"[]",
        b'"x"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        json.dumps({**FORGED, "spec": None}).encode(),
        json.dumps({**FORGED, "spec": 7}).encode(),
        json.dumps({**FORGED, "spec": []}).encode(),
        json.dumps({**FORGED, "spec": {"proposedContent": {"envelope": "[" * 100_000, "verifiers": []}}}).encode(),
        json.dumps({**FORGED, "spec": {"proposedContent": {"envelope": "{}", "verifiers": ["LS0t"]}}}).encode(),
        json.dumps({**FORGED, "spec": {"proposedContent": {"envelope": 7, "verifiers": 7}}}).encode(),
        json.dumps({**FORGED, "kind": "\ud800", "spec": {}}).encode(),
        json.dumps({**FORGED, "apiVersion": "\ud800", "spec": {}}).encode(),
        json.dumps({"kind": {}, "apiVersion": [], "spec": "x"}).encode(),
        b'{"hash":7}',
        b'{"hash":"sha256:\\ud800"}',
        b'{"entryUUIDs":"x"}',
        b'{"entryUUIDs":["x"]}',
        b'{"entryUUIDs":[7]}',
        b'{"entries":[7]}',
        b'{"entries":[{}]}',
        b'{"logIndexes":["0"]}',
        b'{"certificateSigningRequest":7}',
        b'{"credentials":7}',
        b'{"credentials":{"oidcIdentityToken":7}}',
        b'{"credentials":{"oidcIdentityToken":"\\ud800.\\ud800.\\ud800"}}',
    ],
    ids=lambda body: f"{body[:40]!r}-{len(body)}" if isinstance(body, bytes) else body,
)
def test_a_malformed_request_is_answered_and_refused(shared: DevSigstore, path: str, body: bytes) -> None:
    answer = requests.post(shared.url + path, data=body, headers=JSON, timeout=10)
    if answer.status_code == 200:  # members that a call does not know are ignored, as the real servers do
        assert answer.json() == []
    else:
        assert 400 <= answer.status_code < 500
        assert answer.json()["message"]


def test_indexes_that_nothing_has_are_left_out(shared: DevSigstore) -> None:
    answer = requests.post(shared.url + RETRIEVE, json={"logIndexes": [0, -1, 10**30]}, timeout=10)
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.parametrize(
    "query",
    ["", "?logIndex=", "?logIndex=x", "?logIndex=-1", "?logIndex=%D9%A7", "?logIndex=" + "9" * 40, "?logIndex=1_0"],
)
def test_a_log_index_that_is_none_is_refused(shared: DevSigstore, query: str) -> None:
    assert requests.get(shared.url + ENTRIES + query, timeout=10).status_code == 422


@pytest.mark.parametrize("query", ["", "?lastSize=1", "?firstSize=1&lastSize=2", "?firstSize=0&lastSize=0"])
def test_a_proof_between_sizes_that_never_were_is_refused(shared: DevSigstore, query: str) -> None:
    assert requests.get(f"{shared.url}/api/v1/log/proof{query}", timeout=10).status_code in {400, 422}


def test_a_certificate_that_cannot_be_parsed_is_refused(shared: DevSigstore) -> None:
    hand = Hand.certified(shared)
    odd = x509.load_pem_x509_certificate(hand.pem).public_bytes(Encoding.DER)
    odd = odd.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)  # X.509 version 8
    forged = Hand(hand.key, ssl.DER_cert_to_PEM_cert(odd).encode())
    for proposed in (forged.dsse(b"{}"), forged.intoto(b"{}")):
        assert requests.post(shared.url + ENTRIES, json=proposed, timeout=10).status_code == 400


def test_a_client_that_goes_away_disturbs_nobody(dev: DevSigstore, capfd: pytest.CaptureFixture[str]) -> None:
    address = urlsplit(dev.url)
    for data in (b"", b"GET /api", b"POST /api/v1/log/entries HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(data)
    assert requests.get(f"{dev.url}/api/v1/log", timeout=10).status_code == 200
    assert capfd.readouterr().err == ""


def test_stopping_ends_connections_that_are_kept_alive(tmp_path: Path) -> None:
    dev = DevSigstore(tmp_path)
    dev.start()
    session = requests.Session()
    assert session.get(f"{dev.url}/api/v1/log", timeout=10).status_code == 200
    dev.stop()
    with pytest.raises(requests.ConnectionError):
        session.get(f"{dev.url}/api/v1/log", timeout=10)


# --- identities -------------------------------------------------------------------------------------------------------


def test_the_settings_for_another_identity_make_another_identity_sign(dev: DevSigstore, tmp_path: Path) -> None:
    other = "somebody-else@not-for-production.invalid"
    assert isinstance(Parts(dev, tmp_path / "a.sqlite", email=other).recorder().observe(TAG, OLD, seconds(20)), Same)
    assert isinstance(Parts(dev, tmp_path / "b.sqlite").recorder().observe(TAG, NEW, seconds(20)), Same), "not ours"


@pytest.mark.parametrize("how", [{"life_s": -60}, {"audience": "other"}, {"full": False}, {"email": "no address"}])
def test_a_token_that_is_not_good_gives_no_certificate(shared: DevSigstore, how: dict[str, Any]) -> None:
    answer = requests.post(
        shared.url + CERTIFICATE, json={}, headers={"Authorization": f"Bearer {shared.token(**how)}"}, timeout=10
    )
    assert (answer.status_code, answer.json()["message"]) == (400, "There was an error processing the identity token")


def test_a_token_of_another_local_sigstore_gives_no_certificate(dev: DevSigstore, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with DevSigstore(tmp_path / "other") as other:
        answer = requests.post(
            dev.url + CERTIFICATE, json={}, headers={"Authorization": f"Bearer {other.token()}"}, timeout=10
        )
    assert answer.status_code == 400
