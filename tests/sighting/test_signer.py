"""Signing against a real local Sigstore, and against a certificate authority and a log that answer anything at all.

Whatever comes back, the outcome is a verified record or one of our errors, within the deadline, and never a second append.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding

from lib.config import TrustFile
from lib.errors import DeadlineExceeded, LogUnavailable, RecordInvalid, SignerUnavailable, StoreUnavailable, Unavailable
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.recorder import Threads
from lib.sighting.signer import ANSWER_MAX_BYTES, CERTIFICATE_S, FULCIO_TOTAL_S, KeylessSigner
from lib.sighting.trust import TrustSource
from lib.sighting.verifier import SightingVerifier
from lib.telemetry import Telemetry
from tests.clock import Clock
from tests.fakes.canned import Answer, CannedServer
from tests.sigstore import DevIdentity, Parts, logged, seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from lib.sighting.sighting import Record

TAG = Tag.parse("my-user/my-app:v1.2.3")
OLD = Digest.of(b"old")
JSON = {"Content-Type": "application/json"}
THREADS = Threads()
DEEP = b"[" * 100_000


class Signing:
    """A signer whose certificate authority or log may be elsewhere than in the local Sigstore."""

    def __init__(
        self,
        dev: DevSigstore,
        tmp_path: Path,
        *,
        fulcio: str | None = None,
        rekor: str | None = None,
        email: str | None = None,
        start: Callable[[str, Callable[[], None]], None] = THREADS.start,
    ) -> None:
        parts = Parts(dev, tmp_path / "store.sqlite")
        config = json.loads((tmp_path / "sigstore" / "trust-config.json").read_text())
        for member, url in (("caUrls", fulcio), ("rekorTlogUrls", rekor)):
            if url is not None:
                config["signingConfig"][member][0]["url"] = url
        self.clock = Clock()
        self.telemetry = Telemetry("json")
        self.trust = TrustSource(TrustFile(tmp_path / "trust.json", json.dumps(config)), self.clock.now, self.telemetry)
        self.signer = KeylessSigner(
            trust=self.trust,
            identity=DevIdentity(dev.url, email),
            verifier=SightingVerifier(self.trust, parts.identities),
            telemetry=self.telemetry,
            clock=self.clock.now,
            start=start,
        )

    def sign(self, tag: Tag = TAG, time_s: float = 20) -> Record:
        return self.signer.sign(tag, OLD, lambda: None, seconds(time_s))


def test_a_sighting_is_signed_logged_and_copied(dev: DevSigstore, tmp_path: Path) -> None:
    record = Signing(dev, tmp_path).sign()
    assert (record.sighting.tag, record.sighting.digest) == (TAG, OLD)
    assert sorted(kind for kind, _ in logged(dev.url, TAG)) == ["dsse", "intoto"]


# --- the certificate ------------------------------------------------------------------------------------------------


def chain(*certificates: object) -> bytes:
    return json.dumps({"signedCertificateEmbeddedSct": {"chain": {"certificates": certificates}}}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, JSON, b""),
        Answer(200, JSON, b"<html>"),
        Answer(200, JSON, b"null"),
        Answer(200, JSON, b"[]"),
        Answer(200, JSON, b"{}"),
        Answer(200, JSON, b'{"signedCertificateEmbeddedSct": 7}'),
        Answer(200, JSON, b'{"signedCertificateDetachedSct": {"chain": {"certificates": []}}}'),
        Answer(200, JSON, b'{"signedCertificateEmbeddedSct": {"chain": {"certificates": {"a": 1, "b": 2}}}}'),
        Answer(200, JSON, chain()),
        Answer(200, JSON, chain("only one")),
        Answer(200, JSON, chain("no", "PEM")),
        Answer(200, JSON, chain(7, 8)),
        Answer(200, JSON, chain(None, None)),
        Answer(200, JSON, DEEP),
        Answer(200, JSON, b" " * (ANSWER_MAX_BYTES + 1)),
        Answer(201, JSON, b"{}"),
        Answer(302, {"Location": "/"}, b""),
        Answer(400, JSON, b'{"code":3,"message":"There was an error processing the identity token","details":[]}'),
        Answer(500, {"Content-Type": "text/html"}, b"<html>"),
    ],
    ids=lambda answer: f"{answer.status}-{answer.body[:60]!r}-{len(answer.body)}",
)
def test_a_certificate_authority_that_answers_anything_gives_no_certificate(
    dev: DevSigstore, tmp_path: Path, answer: Answer
) -> None:
    with CannedServer(lambda *_: answer) as fulcio:
        signing = Signing(dev, tmp_path, fulcio=fulcio.url)
        for _ in range(2):  # and the lock on certificates is let go
            with pytest.raises(SignerUnavailable, match="no certificate"):
                signing.sign()
    assert (dev.calls["append"], dev.calls["copy"]) == (0, 0)


def test_a_certificate_without_an_sct_is_not_used(dev: DevSigstore, tmp_path: Path) -> None:
    pem = [one.public_bytes(Encoding.PEM).decode() for one in (dev.authority.intermediate, dev.authority.root)]
    with CannedServer(lambda *_: Answer(200, JSON, chain(*pem))) as fulcio:
        with pytest.raises(SignerUnavailable, match="no certificate"):
            Signing(dev, tmp_path, fulcio=fulcio.url).sign()


def test_a_certificate_authority_that_is_down_is_unavailable(dev: DevSigstore, tmp_path: Path) -> None:
    with CannedServer(lambda *_: Answer(200, JSON, b"{}")) as fulcio:
        gone = fulcio.url
    with pytest.raises(SignerUnavailable):
        Signing(dev, tmp_path, fulcio=gone).sign()


def test_a_certificate_of_another_identity_signs_nothing(dev: DevSigstore, tmp_path: Path) -> None:
    signing = Signing(dev, tmp_path, email="somebody-else@not-for-production.invalid")
    for number in (1, 2):
        with pytest.raises(SignerUnavailable):
            signing.sign()
        assert dev.calls["certificate"] == number, "it is not kept"
    assert (dev.calls["append"], dev.calls["copy"]) == (0, 0)


def test_a_certificate_is_used_for_eight_minutes_and_under_one_trust_root(dev: DevSigstore, tmp_path: Path) -> None:
    signing = Signing(dev, tmp_path)
    signing.sign(Tag.parse("app:1"))
    signing.clock.advance(CERTIFICATE_S - 1)
    signing.sign(Tag.parse("app:2"))
    assert dev.calls["certificate"] == 1
    signing.clock.advance(1)
    signing.sign(Tag.parse("app:3"))
    assert dev.calls["certificate"] == 2
    (tmp_path / "trust.json").write_bytes((tmp_path / "sigstore" / "trust-config.json").read_bytes())
    assert signing.trust.refresh().generation == 2
    signing.sign(Tag.parse("app:4"))
    assert dev.calls["certificate"] == 3


def test_asking_for_a_certificate_ends_with_the_request(dev: DevSigstore, tmp_path: Path) -> None:
    """Else one request after the other would wait for a certificate authority that hangs."""
    dev.faults.set("fulcio:hang")
    signing = Signing(dev, tmp_path)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        signing.sign(time_s=0.5)
    assert time.monotonic() - started < FULCIO_TOTAL_S / 2
    dev.faults.set("")
    assert signing.sign().sighting.digest == OLD


def test_waiting_for_another_threads_certificate_ends_with_the_request(dev: DevSigstore, tmp_path: Path) -> None:
    dev.faults.set("fulcio:hang")
    signing = Signing(dev, tmp_path)
    first = threading.Thread(target=lambda: _quietly(signing, 10))
    first.start()
    while not dev.calls["certificate"]:
        time.sleep(0.01)
    with pytest.raises(DeadlineExceeded):
        signing.sign(time_s=0.2)
    dev.faults.set("")
    first.join(20)


def _quietly(signing: Signing, time_s: float) -> None:
    try:
        signing.sign(time_s=time_s)
    except Unavailable:
        return


# --- the append -----------------------------------------------------------------------------------------------------


def test_what_refuses_last_before_the_append_stops_it(dev: DevSigstore, tmp_path: Path) -> None:
    def refuse() -> None:
        msg = "no"
        raise StoreUnavailable(msg)

    with pytest.raises(StoreUnavailable, match="no"):
        Signing(dev, tmp_path).signer.sign(TAG, OLD, refuse, seconds(20))
    assert (dev.calls["append"], dev.calls["copy"]) == (0, 0)


class Relay:
    """The log, through somebody who changes its answers to appends."""

    def __init__(self, dev: DevSigstore, change: Callable[[dict[str, Any]], object]) -> None:
        self._dev = dev
        self._change = change

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        answer = requests.request(method, self._dev.url + path, data=body, headers=JSON, timeout=20)
        if answer.status_code != 201 or json.loads(body)["kind"] != "dsse":
            return Answer(answer.status_code, JSON, answer.content)
        changed = self._change(answer.json())
        return Answer(201, JSON, changed if isinstance(changed, bytes) else json.dumps(changed).encode())


def _entry(answer: dict[str, Any]) -> dict[str, Any]:
    (entry,) = answer.values()
    assert isinstance(entry, dict)
    return entry


def _without(*names: str) -> Callable[[dict[str, Any]], object]:
    def change(answer: dict[str, Any]) -> object:
        inner = _entry(answer)
        for name in names[:-1]:
            inner = inner[name]
        del inner[names[-1]]
        return answer

    change.__name__ = "without-" + "-".join(names)
    return change


def _with(value: object, *names: str) -> Callable[[dict[str, Any]], object]:
    def change(answer: dict[str, Any]) -> object:
        inner = _entry(answer)
        for name in names[:-1]:
            inner = inner[name]
        inner[names[-1]] = value
        return answer

    change.__name__ = f"{value!r:.20}-as-" + "-".join(names)
    return change


def _always(value: object) -> Callable[[dict[str, Any]], object]:
    def change(_: dict[str, Any]) -> object:
        return value

    change.__name__ = f"{value!r:.20}"
    return change


def _twice(answer: dict[str, Any]) -> object:
    return {**answer, "00" * 40: _entry(answer)}


PROOF = ("verification", "inclusionProof")


@pytest.mark.parametrize(
    "change",
    [
        _always(b""),
        _always(b"<html>"),
        _always(DEEP),
        _always(None),
        _always([]),
        _always({}),
        _always({"00" * 40: 7}),
        _always({"00" * 40: {}}),
        _twice,
        _without("body"),
        _without("logIndex"),
        _without("verification"),
        _without("verification", "signedEntryTimestamp"),
        _without("verification", "inclusionProof"),
        _without("verification", "inclusionProof", "checkpoint"),
        _with("", "verification", "signedEntryTimestamp"),
        _with(None, "verification", "signedEntryTimestamp"),
        _with("AAAA", "verification", "signedEntryTimestamp"),
        _with("", *PROOF, "checkpoint"),
        _with(None, *PROOF, "checkpoint"),
        _with("x", *PROOF, "checkpoint"),
        _with(["zz"], *PROOF, "hashes"),
        _with(["00" * 32], *PROOF, "hashes"),
        _with(10**30, "logIndex"),
        _with(-1, "logIndex"),
        _with(7, "logIndex"),
        _with(None, "integratedTime"),
        _with(0, "integratedTime"),
        _with(10**17, "integratedTime"),
        _with("e30=", "body"),
        _with(7, "body"),
        _with("00", "logID"),
    ],
    ids=lambda change: change.__name__.strip("_"),
)
def test_an_entry_that_was_taken_and_does_not_verify_is_an_orphan(
    dev: DevSigstore, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    with CannedServer(Relay(dev, change).answer) as log:
        signing = Signing(dev, tmp_path, rekor=log.url)
        with pytest.raises(RecordInvalid):
            signing.sign()
    assert signing.telemetry.counters()["orphan"] == 1
    assert dev.calls["append"] == 1


def test_another_entry_of_ours_in_place_of_the_new_one_is_an_orphan(dev: DevSigstore, tmp_path: Path) -> None:
    other = Signing(dev, tmp_path).sign(Tag.parse("app:other"))
    before = requests.get(f"{dev.url}/api/v1/log/entries/{other.sighting.uuid}", timeout=10).json()
    with CannedServer(Relay(dev, _always(before)).answer) as log:
        with pytest.raises(RecordInvalid):
            Signing(dev, tmp_path, rekor=log.url).sign()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, JSON, b"{}"),
        Answer(204, {}, b""),
        Answer(302, {"Location": "/api/v1/log/entries"}, b""),
        Answer(400, JSON, b'{"code":400,"message":"x"}'),
        Answer(409, {"Location": "/api/v1/log/entries/" + "00" * 40, **JSON}, b'{"code":409,"message":"x"}'),
        Answer(429, {}, b""),
        Answer(500, {}, b"<html>"),
        Answer(201, JSON, b" " * (ANSWER_MAX_BYTES + 1)),
        Answer(201, {"Content-Encoding": "gzip", **JSON}, b"not gzip"),
    ],
    ids=lambda answer: f"{answer.status}-{len(answer.body)}",
)
def test_an_append_that_fails_is_unavailable_and_sent_once(dev: DevSigstore, tmp_path: Path, answer: Answer) -> None:
    with CannedServer(lambda *_: answer) as log:
        signing = Signing(dev, tmp_path, rekor=log.url)
        with pytest.raises(LogUnavailable):
            signing.sign()
        assert [json.loads(request.body)["kind"] for request in log.requests].count("dsse") == 1
    assert dev.calls["certificate"] == 1
    with CannedServer(lambda *_: answer) as log:  # the certificate is good for the next one
        with pytest.raises(LogUnavailable):
            signing.sign()
    assert dev.calls["certificate"] == 1


# --- the readable copy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["copy:before", "copy:late"])
def test_a_copy_that_fails_or_hangs_does_not_use_up_the_request(dev: DevSigstore, tmp_path: Path, fault: str) -> None:
    dev.faults.set(fault)
    signing, deadline = Signing(dev, tmp_path), seconds(1.5)
    record = signing.signer.sign(TAG, OLD, lambda: None, deadline)
    assert record.sighting.digest == OLD
    assert not deadline.passed(), "there is time left to store it"


def test_a_copy_for_which_there_is_no_thread_blocks_nothing(dev: DevSigstore, tmp_path: Path) -> None:
    def full(_name: str, _work: Callable[[], None]) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    signing = Signing(dev, tmp_path, start=full)
    assert signing.sign().sighting.digest == OLD
    assert signing.telemetry.counters()["copy_failed"] == 1
    assert [kind for kind, _ in logged(dev.url, TAG)] == ["dsse"]


def test_the_answer_to_a_copy_does_not_matter(dev: DevSigstore, tmp_path: Path) -> None:
    def answer(method: str, path: str, body: bytes) -> Answer:
        if json.loads(body)["kind"] == "intoto":
            return Answer(201, JSON, DEEP)
        return Relay(dev, lambda entry: entry).answer(method, path, body)

    with CannedServer(answer) as log:
        signing = Signing(dev, tmp_path, rekor=log.url)
        assert signing.sign().sighting.digest == OLD
    assert "copy_failed" not in signing.telemetry.counters()
