"""The search gives the answer that each recorded search must get, and refuses what only the log can get wrong."""

from __future__ import annotations

import base64
import json
import ssl
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lib.config import TrustFile
from lib.deadline import Deadline
from lib.errors import DeadlineExceeded, LogUnavailable
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.rekor import ANSWER_MAX_BYTES, RekorSearch
from lib.sighting.sighting import Found, NothingFound, NotSearchable
from lib.sighting.statement import tag_key
from lib.sighting.verifier import SightingVerifier
from lib.telemetry import Telemetry
from tests.fakes.canned import Answer, CannedServer
from tests.sighting.test_verifier import OURS, VECTORS, source, trust_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEARCHES = json.loads((VECTORS / "searches.json").read_text())["searches"]
ASKED = [(search, asked) for search in SEARCHES for asked in search["asked"]]
JSON = {"Content-Type": "application/json"}
MOVED = next(search for search in SEARCHES if search["case"].startswith("store lost: the readable copy"))
DIGEST = Digest.parse("sha256:686d8c9dfa6f3ccfc8230bc3178d23f84eeaf7e457f36f271ab1acc53015037c")


def recorded(name: str) -> Any:
    return json.loads(json.loads((VECTORS / f"{name}.json").read_text())["response"]["body"]["text"])


class Log:
    """Rekor's two search calls over recorded entries; a test may change what they answer."""

    def __init__(self, search: dict[str, Any]) -> None:
        self.tag = Tag.parse(search["tag"])
        self.index: list[str] = recorded(search["index"])
        self.entries: dict[str, dict[str, Any]] = {}
        for name in search["retrieve"]:
            for item in recorded(name):
                self.entries.update(item)

    def answer(self, _: str, path: str, body: bytes) -> Answer:
        asked = json.loads(body)
        if path == "/api/v1/index/retrieve":
            assert asked == {"hash": f"sha256:{tag_key(self.tag)}"}
            return Answer(200, JSON, json.dumps(self.index).encode())
        assert path == "/api/v1/log/entries/retrieve"
        assert len(asked["entryUUIDs"]) <= 10, "Rekor's own limit"
        found = [{uuid: self.entries[uuid]} for uuid in asked["entryUUIDs"] if uuid in self.entries]
        return Answer(200, JSON, json.dumps(found).encode())


def searcher(url: str, *, enabled: bool = True) -> RekorSearch:
    text = trust_file().text.replace("http://127.0.0.1:19050", url)
    trust = source(TrustFile(VECTORS / "trust-v1.json", text))
    return RekorSearch(trust, SightingVerifier(trust, (OURS,)), Telemetry("json"), enabled=enabled)


def soon() -> Deadline:
    return Deadline.after(10, time.monotonic)


def search(log: Log, *digests: Digest) -> Found | NothingFound | NotSearchable:
    with CannedServer(log.answer) as server:
        return searcher(server.url).search(log.tag, digests, soon())


@pytest.mark.parametrize(
    ("recording", "asked"),
    ASKED,
    ids=[f"{search['case'][:60]}-{asked['result']}-{asked['digest'][7:13]}" for search, asked in ASKED],
)
def test_answer_of_every_recorded_search(recording: dict[str, Any], asked: dict[str, Any]) -> None:
    log, digest = Log(recording), Digest.parse(asked["digest"])
    if asked["result"] == "unexplained":
        with pytest.raises(LogUnavailable, match=asked["entry"]):
            search(log, digest)
        return
    answer = search(log, digest)
    if asked["result"] == "nothing":
        assert answer == NothingFound()
        return
    assert isinstance(answer, Found)
    sighting = answer.record.sighting
    assert (asked["result"] == "same") == (sighting.digest == digest)
    assert str(sighting.digest) == asked["log_digest"]
    assert sighting.uuid == asked["entry"]


def test_order_of_the_index_and_of_the_answers_does_not_matter() -> None:
    log = Log(next(search for search in SEARCHES if search["case"].startswith("everything")))
    first = search(log, DIGEST)
    log.index.reverse()
    assert search(log, DIGEST) == first


def _ours(log: Log) -> str:
    """The dsse entry of ours."""
    return next(uuid for uuid, entry in log.entries.items() if b'"kind":"dsse"' in base64.b64decode(entry["body"]))


def _flip(text: str) -> str:
    decoded = bytearray(base64.b64decode(text))
    decoded[-1] ^= 1
    return base64.b64encode(decoded).decode()


def _set_altered(log: Log) -> None:
    verification = log.entries[_ours(log)]["verification"]
    verification["signedEntryTimestamp"] = _flip(verification["signedEntryTimestamp"])


def _set_missing(log: Log) -> None:
    del log.entries[_ours(log)]["verification"]["signedEntryTimestamp"]


def _proof_altered(log: Log) -> None:
    proof = log.entries[_ours(log)]["verification"]["inclusionProof"]
    proof["hashes"][0] = "00" * 32


def _proof_missing(log: Log) -> None:
    del log.entries[_ours(log)]["verification"]["inclusionProof"]


def _checkpoint_altered(log: Log) -> None:
    proof = log.entries[_ours(log)]["verification"]["inclusionProof"]
    origin, _, rest = proof["checkpoint"].partition("\n")
    proof["checkpoint"] = origin.replace("rekor1", "rekor2") + "\n" + rest


def _time_altered(log: Log) -> None:
    log.entries[_ours(log)]["integratedTime"] -= 86_400  # outside the certificate's life: must not look like a forgery


def _index_altered(log: Log) -> None:
    log.entries[_ours(log)]["logIndex"] += 1


def _entry_withheld(log: Log) -> None:
    del log.entries[_ours(log)]


def _body_of_another(log: Log) -> None:
    other = next(uuid for uuid in log.entries if uuid != _ours(log))
    log.entries[_ours(log)]["body"] = log.entries[other]["body"]


def _body_garbage(log: Log) -> None:
    log.entries[_ours(log)]["body"] = base64.b64encode(b"{}").decode()


def _body_no_base64(log: Log) -> None:
    log.entries[_ours(log)]["body"] = "%%%"


@pytest.mark.parametrize(
    "lie",
    [
        _set_altered,
        _set_missing,
        _proof_altered,
        _proof_missing,
        _checkpoint_altered,
        _time_altered,
        _index_altered,
        _entry_withheld,
        _body_of_another,
        _body_garbage,
        _body_no_base64,
    ],
    ids=lambda lie: lie.__name__.strip("_"),
)
def test_a_log_that_lies_about_an_entry_of_ours_makes_the_search_fail(lie: Callable[[Log], None]) -> None:
    log = Log(MOVED)
    lie(log)
    with pytest.raises(LogUnavailable):
        search(log, DIGEST)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, JSON, b'{"code":500,"message":"x"}'),
        Answer(501, JSON, b'{"code":501,"message":"search is disabled"}'),
        Answer(429, {}, b""),
        Answer(404, {}, b""),
        Answer(302, {"Location": "http://127.0.0.1:1/"}, b""),
        Answer(200, {"Content-Type": "text/html"}, b"<html>"),
        Answer(200, JSON, b"{}"),
        Answer(200, JSON, b"null"),
        Answer(200, JSON, b"[7]"),
        Answer(200, JSON, b'["xyz"]'),
        Answer(200, JSON, b"[" * 100_000),
        Answer(200, JSON, b""),
        Answer(200, {"Content-Encoding": "gzip", **JSON}, b"not gzip"),
    ],
    ids=lambda answer: f"{answer.status}-{answer.body[:12]!r}",
)
def test_a_search_that_fails_is_never_nothing_found(answer: Answer) -> None:
    with CannedServer(lambda *_: answer) as server, pytest.raises(LogUnavailable):
        searcher(server.url).search(Tag.parse("alpine:1"), (DIGEST,), soon())


def test_a_log_that_is_down_is_unavailable() -> None:
    with CannedServer(lambda *_: Answer(200, JSON, b"[]")) as server:
        gone = server.url
    with pytest.raises(LogUnavailable):
        searcher(gone).search(Tag.parse("alpine:1"), (DIGEST,), soon())


def test_an_empty_index_is_nothing_found() -> None:
    with CannedServer(lambda *_: Answer(200, JSON, b"[]\n")) as server:
        assert searcher(server.url).search(Tag.parse("alpine:1"), (DIGEST,), soon()) == NothingFound()
        assert len(server.requests) == 1


def test_a_search_that_is_switched_off_says_so_and_asks_nobody() -> None:
    with CannedServer(lambda *_: Answer(200, JSON, b"[]")) as server:
        assert searcher(server.url, enabled=False).search(Tag.parse("alpine:1"), (DIGEST,), soon()) == NotSearchable()
        assert not server.requests


def test_no_time_left_is_not_nothing_found() -> None:
    with CannedServer(lambda *_: Answer(200, JSON, b"[]")) as server, pytest.raises(DeadlineExceeded):
        searcher(server.url).search(Tag.parse("alpine:1"), (DIGEST,), Deadline.after(0, time.monotonic))


@pytest.fixture
def flooded() -> Iterator[CannedServer]:
    """The recorded flood, made 1,000 by names that the log cannot return: whoever asks for one of them is found out."""
    log = Log(next(search for search in SEARCHES if search["case"].startswith("a flood")))
    assert len(log.index) == 60
    log.index += [f"{number:080x}" for number in range(940)]
    with CannedServer(log.answer) as server:
        yield server


def test_a_flood_costs_one_index_call_and_five_retrieve_calls_and_does_not_block(flooded: CannedServer) -> None:
    assert searcher(flooded.url).search(Tag.parse("flooded:1.0"), (DIGEST,), soon()) == NothingFound()
    assert [request.path for request in flooded.requests] == ["/api/v1/index/retrieve"] + [
        "/api/v1/log/entries/retrieve"
    ] * 5


def test_an_index_answer_over_the_byte_cap_is_a_flood_of_which_some_is_looked_at() -> None:
    log = Log(next(search for search in SEARCHES if search["case"].startswith("a flood")))
    log.index = log.index[:50] + ["00" * 40] * (ANSWER_MAX_BYTES // 80)
    assert search(log, DIGEST) == NothingFound()


OUTAGE = b"<html>" + b" we will be back soon" * (ANSWER_MAX_BYTES // 20)


@pytest.mark.parametrize("path", ["/api/v1/index/retrieve", "/api/v1/log/entries/retrieve"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (502, OUTAGE),
        (503, json.dumps(["00" * 40] * (ANSWER_MAX_BYTES // 80)).encode()),
        (200, OUTAGE),
        (200, b" " * (ANSWER_MAX_BYTES + 1)),
        (200, b'{"code":' + b"7" * ANSWER_MAX_BYTES + b"}"),
    ],
    ids=["502-page", "503-list", "200-page", "200-blank", "200-object"],
)
def test_a_failure_over_the_byte_cap_is_a_failure_and_no_flood(path: str, status: int, body: bytes) -> None:
    """Else an outage page that is long enough would make every tag look new."""
    log = Log(MOVED)

    def answer(method: str, asked: str, request: bytes) -> Answer:
        return Answer(status, JSON, body) if asked == path else log.answer(method, asked, request)

    with CannedServer(answer) as server, pytest.raises(LogUnavailable):
        searcher(server.url).search(log.tag, (DIGEST,), soon())


@pytest.mark.parametrize(
    "prefix", [b'["xyz",', b"[7,", b'["' + b"00" * 40 + b'",7,', b"[" * 50_000 + b","], ids=lambda prefix: prefix[:12]
)
def test_an_index_answer_over_the_byte_cap_must_be_a_list_of_entries(prefix: bytes) -> None:
    body = prefix + b'"' + b"0" * ANSWER_MAX_BYTES
    with CannedServer(lambda *_: Answer(200, JSON, body)) as server, pytest.raises(LogUnavailable):
        searcher(server.url).search(Tag.parse("alpine:1"), (DIGEST,), soon())


def test_a_retrieve_answer_over_the_byte_cap_is_a_flood() -> None:
    log = Log(MOVED)
    log.entries[_ours(log)]["attestation"] = {"data": "A" * ANSWER_MAX_BYTES}
    assert search(log, DIGEST) == NothingFound()


def test_a_copy_without_its_dsse_entry_counts_for_nothing() -> None:
    log = Log(MOVED)
    log.index.remove(_ours(log))
    assert search(log, DIGEST) == NothingFound()


@pytest.mark.parametrize(
    "altered",
    [
        lambda der: der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1),  # X.509 version 8
        lambda der: der[:-1],
        lambda der: der + b"\x00",
        lambda der: der[:0],
    ],
    ids=["version", "cut", "longer", "empty"],
)
def test_a_certificate_that_cannot_be_parsed_is_skipped_like_any_forgery(altered: Callable[[bytes], bytes]) -> None:
    log = Log(MOVED)
    body = json.loads(base64.b64decode(log.entries[_ours(log)]["body"]))
    signature = body["spec"]["signatures"][0]
    der = x509.load_pem_x509_certificate(base64.b64decode(signature["verifier"])).public_bytes(Encoding.DER)
    pem = ssl.DER_cert_to_PEM_cert(altered(der))
    assert altered(der) != der
    signature["verifier"] = base64.b64encode(pem.encode()).decode()
    forged = json.dumps(body).encode()
    uuid = "00" * 8 + sha256(b"\x00" + forged).hexdigest()
    log.entries[uuid] = {**log.entries[_ours(log)], "body": base64.b64encode(forged).decode()}
    log.index = [uuid]
    assert search(log, DIGEST) == NothingFound()


def test_an_attestation_of_anybody_explains_an_entry_if_its_hash_fits() -> None:
    """The log stores attestations by payload hash and shows them with any copy: safe, the hash binds them."""
    log = Log(MOVED)
    ours = _ours(log)
    copy = next(uuid for uuid in log.entries if uuid != ours)
    log.entries[copy]["attestation"]["data"] = base64.b64encode(b"another payload").decode()
    with pytest.raises(LogUnavailable, match=ours):
        search(log, DIGEST)
