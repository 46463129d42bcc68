"""Every fault does what lib/devsigstore/faults.py says of it, over HTTP, and its end is the end of it."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from sigstore._internal.trust import KeyringPurpose
from sigstore.errors import Error as SigstoreError
from sigstore.models import ClientTrustConfig, TransparencyLogEntry

from lib.devsigstore import faults
from lib.devsigstore.faults import FAULTS, HOLD_S, USER_FAULTS, Faults
from lib.devsigstore.server import DevSigstore
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.signer import APPEND_TOTAL_S, FULCIO_TOTAL_S
from lib.sighting.statement import statement, tag_key
from tests.devsigstore.support import CERTIFICATE, ENTRIES, INDEX, RETRIEVE, Hand, append, b64, found, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TAG = Tag.parse("my-user/my-app:v1.2.3")
KEY = f"sha256:{tag_key(TAG)}"
PAYLOAD = statement(TAG, Digest.of(b"old"))
IDENTITY = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=sigstore&format=full"
FLAVOR = {"Metadata-Flavor": "Google"}


@pytest.fixture
def hand(dev: DevSigstore) -> Hand:
    return Hand.certified(dev)


def switch(dev: DevSigstore, text: str) -> requests.Response:
    """Set the faults as a user's script would."""
    return requests.put(f"{dev.url}/__dev__/fault", data=text, timeout=10)


def certificate(dev: DevSigstore, hand: Hand, timeout: float = 10) -> requests.Response:
    asked = {"certificateSigningRequest": request(hand.key)}
    headers = {"Authorization": f"Bearer {dev.token()}"}
    return requests.post(dev.url + CERTIFICATE, json=asked, headers=headers, timeout=timeout)


def post(dev: DevSigstore, proposed: dict[str, Any], timeout: float = 10) -> requests.Response:
    return requests.post(dev.url + ENTRIES, json=proposed, timeout=timeout)


def size(dev: DevSigstore) -> int:
    return int(requests.get(f"{dev.url}/api/v1/log", timeout=10).json()["treeSize"])


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until, "did not happen in 20 s"
        time.sleep(0.01)


# --- one by one -------------------------------------------------------------------------------------------------------


def test_log_before(dev: DevSigstore, hand: Hand) -> None:
    switch(dev, "log:before")
    for proposed in (hand.dsse(PAYLOAD), hand.intoto(PAYLOAD)):
        assert post(dev, proposed).status_code == 500
    assert size(dev) == 0
    switch(dev, "")
    assert post(dev, hand.dsse(PAYLOAD)).status_code == 201


def test_log_after(dev: DevSigstore, hand: Hand) -> None:
    switch(dev, "log:after")
    with pytest.raises(requests.ConnectionError):
        post(dev, hand.dsse(PAYLOAD))
    assert len(found(dev, KEY)) == size(dev) == 1


@pytest.mark.parametrize("fault", ["log:late", "copy:late"])
def test_late_answers_are_of_entries_that_are_in_the_log_and_never_in_the_index(
    dev: DevSigstore, hand: Hand, fault: str
) -> None:
    """As the real one: it indexes in the request that added the entry, and a request that was given up is cancelled."""
    switch(dev, fault)
    proposed = hand.dsse(PAYLOAD) if fault == "log:late" else hand.intoto(PAYLOAD)
    with pytest.raises(requests.ReadTimeout):
        post(dev, proposed, timeout=0.5)
    assert size(dev) == 1
    switch(dev, "")
    again = post(dev, proposed)
    assert again.status_code == 409, "the request that was given up has ended by now, or ends without a trace"
    uuid = again.headers["Location"].rpartition("/")[2]
    assert requests.get(f"{dev.url}{ENTRIES}/{uuid}", timeout=10).status_code == 200
    assert found(dev, KEY) == []


@pytest.mark.parametrize("fault", ["log:late", "copy:late"])
def test_late_answers_come_to_who_still_waits(dev: DevSigstore, hand: Hand, fault: str) -> None:
    switch(dev, fault)
    proposed = hand.dsse(PAYLOAD) if fault == "log:late" else hand.intoto(PAYLOAD)
    answers: list[requests.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(post(dev, proposed, timeout=30)))
    waiting.start()
    eventually(lambda: size(dev) == 1)
    assert found(dev, KEY) == [], "not while it waits"
    switch(dev, "")
    waiting.join(30)
    assert answers[0].status_code == 201
    assert len(found(dev, KEY)) == 1


def test_late_answers_are_held_only_so_long(tmp_path: Path) -> None:
    with DevSigstore(tmp_path, faults="log:late", hold_s=0.2) as dev:
        assert post(dev, Hand.certified(dev).dsse(PAYLOAD)).status_code == 201
        assert len(found(dev, KEY)) == 1


def test_late_is_later_than_any_client_of_ours_waits() -> None:
    assert max(APPEND_TOTAL_S, FULCIO_TOTAL_S) < HOLD_S


def test_copy_before(dev: DevSigstore, hand: Hand) -> None:
    switch(dev, "copy:before")
    assert post(dev, hand.intoto(PAYLOAD)).status_code == 500
    assert post(dev, hand.dsse(PAYLOAD)).status_code == 201
    assert size(dev) == 1


def test_copy_late_leaves_the_entry_alone(dev: DevSigstore, hand: Hand) -> None:
    switch(dev, "copy:late")
    assert post(dev, hand.dsse(PAYLOAD)).status_code == 201


def test_index_before(dev: DevSigstore, hand: Hand) -> None:
    append(dev, hand.dsse(PAYLOAD))
    switch(dev, "index:before")
    assert requests.post(dev.url + INDEX, json={"hash": KEY}, timeout=10).status_code == 500
    switch(dev, "")
    assert len(found(dev, KEY)) == 1


def test_index_lossy(dev: DevSigstore, hand: Hand) -> None:
    before = append(dev, hand.dsse(PAYLOAD))
    switch(dev, "index:lossy")
    lost = append(dev, hand.dsse(PAYLOAD))
    switch(dev, "")
    after = append(dev, hand.dsse(PAYLOAD))
    assert sorted(found(dev, KEY)) == sorted([before, after])
    assert requests.get(f"{dev.url}{ENTRIES}/{lost}", timeout=10).status_code == 200


def test_retrieve_missing(dev: DevSigstore, hand: Hand) -> None:
    uuid = append(dev, hand.dsse(PAYLOAD))
    switch(dev, "retrieve:missing")
    answer = requests.post(dev.url + RETRIEVE, json={"entryUUIDs": [uuid]}, timeout=10)
    assert (answer.status_code, answer.json()) == (200, [])
    assert found(dev, KEY) == [uuid]


def _verify(tmp_path: Path, answer: dict[str, Any]) -> None:
    """As a verifier does: signed entry timestamp, inclusion proof, checkpoint."""
    config = ClientTrustConfig.from_json((tmp_path / "sigstore" / "trust-config.json").read_text())
    entry = TransparencyLogEntry._from_v1_response(answer)  # noqa: SLF001 - what sigstore-python verifies, and no more
    entry._verify(config.trusted_root.rekor_keyring(KeyringPurpose.VERIFY))  # noqa: SLF001 - as above


@pytest.mark.parametrize(("fault", "says"), [("set:bad", "SET"), ("proof:bad", "inclusion proof")])
@pytest.mark.parametrize("others", [0, 2], ids=["first", "third"])
def test_set_bad_and_proof_bad(
    dev: DevSigstore, hand: Hand, tmp_path: Path, fault: str, says: str, others: int
) -> None:
    for _ in range(others):
        append(dev, hand.dsse(PAYLOAD))
    _verify(tmp_path, post(dev, hand.dsse(PAYLOAD)).json())
    switch(dev, fault)
    lied = post(dev, hand.dsse(PAYLOAD))
    assert lied.status_code == 201
    read = requests.get(f"{dev.url}{lied.headers['Location']}", timeout=10)
    for answer in (lied.json(), read.json()):
        with pytest.raises(SigstoreError, match=says):
            _verify(tmp_path, answer)
    switch(dev, "")
    _verify(tmp_path, requests.get(f"{dev.url}{lied.headers['Location']}", timeout=10).json())


def test_fulcio_before(dev: DevSigstore, hand: Hand) -> None:
    switch(dev, "fulcio:before")
    assert certificate(dev, hand).status_code == 500
    switch(dev, "")
    assert certificate(dev, hand).status_code == 200


def test_fulcio_hang(dev: DevSigstore, hand: Hand) -> None:
    switch(dev, "fulcio:hang")
    with pytest.raises(requests.ReadTimeout):
        certificate(dev, hand, timeout=0.5)
    assert requests.get(f"{dev.url}/api/v1/log", timeout=10).status_code == 200, "the rest goes on"
    switch(dev, "")
    assert certificate(dev, hand).status_code == 200


def test_metadata_before(dev: DevSigstore) -> None:
    switch(dev, "metadata:before")
    for path in ("/", IDENTITY, f"/__dev__/as/a@b.invalid{IDENTITY}"):
        assert requests.get(dev.url + path, headers=FLAVOR, timeout=10).status_code == 500
    switch(dev, "")
    assert requests.get(dev.url + IDENTITY, headers=FLAVOR, timeout=10).status_code == 200


def test_delay(dev: DevSigstore, hand: Hand) -> None:
    """Only the least time can be told: how much more it takes is the machine's."""
    switch(dev, "delay:300")
    calls: list[Callable[[], requests.Response]] = [
        lambda: post(dev, hand.dsse(PAYLOAD)),
        lambda: requests.post(dev.url + INDEX, json={"hash": KEY}, timeout=10),
        lambda: certificate(dev, hand),
        lambda: requests.get(dev.url + IDENTITY, headers=FLAVOR, timeout=10),
    ]
    for call in calls:
        started = time.monotonic()
        assert call().ok
        assert time.monotonic() - started >= 0.3
    assert str(dev.faults) == "delay:300"
    assert requests.get(f"{dev.url}/__dev__/fault", timeout=10).text == "delay:300", "and can be ended"


# --- switching --------------------------------------------------------------------------------------------------------


def test_every_fault_is_in_the_page_and_every_one_there_exists() -> None:
    told = set(re.findall(r"^([a-z]+:[a-zN]+) ", faults.__doc__ or "", re.MULTILINE))
    assert told == FAULTS | {"delay:N"}
    assert USER_FAULTS <= FAULTS


@pytest.mark.parametrize(
    "text", ["log:never", "log", "log:before,nope", "delay:", "delay:x", "delay:123456", "delay:1,delay:2"]
)
def test_a_fault_that_does_not_exist_is_refused_and_changes_nothing(
    dev: DevSigstore, tmp_path: Path, text: str
) -> None:
    switch(dev, "log:before")
    refused = switch(dev, text)
    assert refused.status_code == 400
    assert "no such fault" in refused.json()["message"]
    assert requests.get(f"{dev.url}/__dev__/fault", timeout=10).text == "log:before"
    with pytest.raises(ValueError, match="no such fault"):
        Faults(text)


def test_several_faults_at_once_and_none(dev: DevSigstore) -> None:
    assert switch(dev, " index:lossy, log:after,delay:20 ").text == "index:lossy,log:after,delay:20"
    assert switch(dev, "").text == ""


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/__dev__/fault"), ("DELETE", "/__dev__/fault"), ("PUT", "/__dev__/calls")]
)
def test_admin_paths_take_no_other_method(dev: DevSigstore, method: str, path: str) -> None:
    assert requests.request(method, dev.url + path, timeout=10).status_code == 405


def test_a_start_with_a_fault_and_one_with_none_that_exists(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such fault: nope"):
        DevSigstore(tmp_path, faults="nope")
    with DevSigstore(tmp_path, faults="log:before") as dev:
        assert post(dev, Hand.certified(dev).dsse(PAYLOAD)).status_code == 500


# --- counting ---------------------------------------------------------------------------------------------------------


def test_calls_are_counted_by_kind(dev: DevSigstore) -> None:
    hand = Hand.certified(dev)
    uuid = append(dev, hand.dsse(PAYLOAD))
    append(dev, hand.intoto(PAYLOAD))
    found(dev, KEY)
    requests.post(dev.url + RETRIEVE, json={"entryUUIDs": [uuid]}, timeout=10)
    requests.get(f"{dev.url}{ENTRIES}/{uuid}", timeout=10)
    requests.get(dev.url + IDENTITY, headers=FLAVOR, timeout=10)
    told = requests.get(f"{dev.url}/__dev__/calls", timeout=10).json()
    kinds = ("append", "copy", "index", "retrieve", "read", "certificate", "metadata")
    assert told == dict.fromkeys(kinds, 1)


def test_a_payload_over_rekors_limit_is_logged_without_an_attestation(dev: DevSigstore, hand: Hand) -> None:
    for number, kept in ((0, True), (1, False)):
        payload = b'{"x":"' + b"y" * (100 * 1024 - 8 + number) + b'"}'
        assert len(payload) == 100 * 1024 + number
        uuid = append(dev, hand.intoto(payload))
        entry = requests.get(f"{dev.url}{ENTRIES}/{uuid}", timeout=10).json()[uuid]
        assert ("attestation" in entry) == kept
        if kept:
            assert entry["attestation"] == {"data": b64(payload)}
        assert json.loads(base64.b64decode(entry["body"]))["kind"] == "intoto"
