"""Firestore keeps the store's contract: against the real emulator, which is Google's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Self

import pytest

from lib.config import BaseUrl
from lib.errors import ConfigInvalid, StoreUnavailable
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.sighting import Bundle
from lib.store.document import Place, format_bundle
from lib.store.firestore import FirestoreStore
from lib.store.store import BUNDLE_MAX_BYTES
from tests.e2e.processes import wait_until
from tests.fakes.front import (
    Front,
    answers,
    lost,
    passes_on,
)
from tests.firestore import PATIENT, READ, FirestoreEmulator, all_unavailable, need_emulator
from tests.store.contract import FIRST, ONE, SECOND, TAG, TWO, WAIT_S, OpenStore, RecordStoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lib.config import FirestoreDatabase
    from lib.store.store import RecordStore
    from tests.fakes.front import Exchange


class TestFirestore(RecordStoreContract):
    @pytest.fixture
    def open_store(self, emulator: FirestoreEmulator, database: FirestoreDatabase) -> OpenStore:
        return partial(FirestoreStore, database, emulator.url, **PATIENT)

    @pytest.fixture
    def failing_store(self, database: FirestoreDatabase) -> Iterator[RecordStore]:
        with Front("http://127.0.0.1:9") as front:
            front.always = lost
            yield FirestoreStore(database, BaseUrl("http", "127.0.0.1", front.port), **PATIENT)


# --- documents that somebody else wrote --------------------------------------------------------------------------------

NAMED = {"tag": {"stringValue": str(TAG)}}
OTHERS = {
    "another tag": {"tag": {"stringValue": "docker.io/library/alpine:3.16"}},
    "a tag's other spelling": {"tag": {"stringValue": "alpine:3.16.0"}},
    "a tag in bytes": {"tag": {"bytesValue": "YQ=="}},
    "no tag": {"tag": {"nullValue": None}},
    "one field more": {"expires": {"timestampValue": READ}},
}
NO_DIGEST = [
    {"stringValue": text} for text in ("", "sha256:short", "md5:" + "0" * 32, str(ONE).upper(), str(ONE) + "\n")
]
NO_BUNDLE = [
    {"stringValue": "e30="},
    {"nullValue": None},
    {"bytesValue": format_bundle(Bundle(b"x" * (BUNDLE_MAX_BYTES + 1)))},
    {"bytesValue": format_bundle(Bundle(b"x" * 1_000_000))},
]


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_a_document_that_is_not_this_tags_is_never_absence_and_never_answered_with(
    store: FirestoreStore, emulator: FirestoreEmulator, database: FirestoreDatabase, other: dict[str, object]
) -> None:
    emulator.plant(str(Place.claim(database, TAG)), {**NAMED, "digest": {"stringValue": str(ONE)}, **other})
    emulator.plant(str(Place.sighting(database, TAG)), {**NAMED, "bundle": {"bytesValue": "e30="}, **other})
    assert all("cannot be read" in message for message in all_unavailable(store))


@pytest.mark.parametrize(
    "planted", [*NO_DIGEST, {"bytesValue": "e30="}, {"nullValue": None}, {"integerValue": "7"}], ids=str
)
def test_a_claim_that_is_no_digest_is_never_absence(
    store: FirestoreStore, emulator: FirestoreEmulator, database: FirestoreDatabase, planted: dict[str, object]
) -> None:
    emulator.plant(str(Place.claim(database, TAG)), {**NAMED, "digest": planted})
    with pytest.raises(StoreUnavailable, match="digest"):
        store.claim(TAG)
    with pytest.raises(StoreUnavailable, match="digest"):
        store.put_claim(TAG, TWO)


@pytest.mark.parametrize("planted", NO_BUNDLE, ids=["string", "null", "large", "giant"])
def test_a_bundle_that_is_none_or_a_giant_is_never_absence(
    store: FirestoreStore, emulator: FirestoreEmulator, database: FirestoreDatabase, planted: dict[str, object]
) -> None:
    emulator.plant(str(Place.sighting(database, TAG)), {**NAMED, "bundle": planted})
    with pytest.raises(StoreUnavailable):
        store.sighting(TAG)
    with pytest.raises(StoreUnavailable):
        store.put_sighting(TAG, FIRST)


@pytest.mark.parametrize("text", ["e30", "e30=\n", "e3 0=", "e30=e30=", "_-8=", "é", "=", "e30=="])
def test_base64_in_another_form_is_never_a_bundle(
    store: FirestoreStore, front: Front, database: FirestoreDatabase, text: str
) -> None:
    place = Place.sighting(database, TAG)
    front.faults = [answers(200, [{"found": {"name": str(place), **place.format(text)}, "readTime": READ}])]
    with pytest.raises(StoreUnavailable, match="base64"):
        store.sighting(TAG)


def test_the_documents_are_as_the_format_says(
    store: FirestoreStore, emulator: FirestoreEmulator, database: FirestoreDatabase
) -> None:
    """Written down once more by hand: a deployment's records must stay readable for the next version."""
    key = "06c23e317fa00772174cf458cc12539ed1bffc558dfb65bb7fa43b2bac7ff6d6"  # printf %s TAG | sha256sum
    store.put_claim(TAG, ONE)
    store.put_sighting(TAG, FIRST)
    (claim,), (sighting,) = emulator.documents(database, "claims"), emulator.documents(database, "sightings")
    assert claim["name"] == f"{database}/documents/claims/{key}"
    assert sighting["name"] == f"{database}/documents/sightings/{key}"
    assert claim["fields"] == {
        "tag": {"stringValue": "docker.io/library/alpine:3.16.0"},
        "digest": {"stringValue": str(ONE)},
    }
    assert sighting["fields"] == {
        "tag": {"stringValue": "docker.io/library/alpine:3.16.0"},
        "bundle": {"bytesValue": "eyJmaXJzdCI6ICLDqSJ9"},
    }


# --- connections, threads and processes --------------------------------------------------------------------------------


def test_a_connection_is_used_again(store: FirestoreStore, front: Front) -> None:
    for number in range(10):
        store.put_claim(Tag.parse(f"app:{number}"), ONE)
        store.sighting(Tag.parse(f"app:{number}"))
    assert len(front.seen) == 20
    assert front.connections == 1


def test_a_connection_that_was_closed_while_idle_costs_no_attempt(store: FirestoreStore, front: Front) -> None:
    store.put_claim(TAG, ONE)
    front.drop()
    assert store.put_claim(Tag.parse("app:1"), TWO) == (TWO, True)
    assert (len(front.seen), front.connections) == (2, 2)


def test_other_idle_connections_are_dropped_with_one_that_died(store: FirestoreStore, front: Front) -> None:
    """An instance that was frozen for an hour wakes up with a pool of dead connections: one time-out each would be too many."""
    together = threading.Barrier(4)

    def answers_together(exchange: Exchange) -> None:
        together.wait(WAIT_S)
        passes_on(exchange)

    front.faults = [answers_together] * 4
    threads = [threading.Thread(target=store.claim, args=(TAG,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert front.connections == 4
    front.faults = [lost]
    assert store.claim(TAG) is None
    assert front.connections == 5, "a new one, not the next idle one"


def test_a_redirect_takes_the_authorization_nowhere(store: FirestoreStore, front: Front) -> None:
    with Front("http://127.0.0.1:9") as elsewhere:
        front.always = answers(307, Location=f"{elsewhere.url}/v1/projects")
        all_unavailable(store)
        assert not elsewhere.seen


def test_proxies_and_netrc_of_the_environment_are_ignored(
    store: FirestoreStore, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert store.claim(TAG) is None
    assert front.seen[0].headers["authorization"] == "Bearer owner"


def test_a_connection_does_not_cross_a_fork(store: FirestoreStore, front: Front) -> None:
    store.put_sighting(TAG, FIRST)
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            ours = store.put_sighting(TAG, SECOND) == FIRST and store.put_claim(TAG, Digest.of(b"child"))[1]
            os._exit(0 if ours else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert store.claim(TAG) == Digest.of(b"child")
    assert front.connections == 2


def test_nothing_is_imported_opened_or_started_before_the_first_call() -> None:
    """The server imports us in its master process, and forks."""
    script = (
        "import sys, threading\n"
        "from lib.config import FirestoreDatabase\n"
        "from lib.store.firestore import FirestoreStore\n"
        "FirestoreStore(FirestoreDatabase('my-project', 'records'))\n"
        "print(*sorted({'requests', 'urllib3', 'google.auth', 'ssl', 'socket'} & sys.modules.keys()), threading.active_count())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert run.stdout.split() == ["1"]


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "::",
        "::2",
        "firestore.example",
        "localhost.example",
        "127.0.0.1.example",
    ],
)
def test_an_emulator_on_another_machine_is_refused(database: FirestoreDatabase, host: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"FIRESTORE_EMULATOR_HOST.*not a loopback address"):
        FirestoreStore(database, BaseUrl("http", host, 8080))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_an_emulator_on_loopback_is_not(database: FirestoreDatabase, host: str) -> None:
    FirestoreStore(database, BaseUrl("http", host, 8080))


def test_the_default_database_is_one_like_any_other(emulator: FirestoreEmulator, database: FirestoreDatabase) -> None:
    default = type(database)(database.project, "(default)")
    tag = Tag.parse(f"app:{database.database}")
    assert FirestoreStore(default, emulator.url, **PATIENT).put_claim(tag, ONE) == (ONE, True)
    assert FirestoreStore(default, emulator.url, **PATIENT).claim(tag) == ONE
    assert FirestoreStore(database, emulator.url, **PATIENT).claim(tag) is None


# --- the emulator itself goes away -------------------------------------------------------------------------------------


class Crowd:
    """Instances that make the same records at once, each with a digest of its own, and go on until they are told to stop."""

    def __init__(self, url: BaseUrl, database: FirestoreDatabase) -> None:
        self.told: defaultdict[Tag, set[tuple[Digest, Bundle]]] = defaultdict(set)
        self.failures: Counter[int] = Counter()
        self.stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(FirestoreStore(database, url, call_s=2, attempt_s=0.5), number))
            for number in range(4)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def all_failed(self) -> bool:
        return len(self.failures) == len(self._threads)

    def _run(self, store: RecordStore, number: int) -> None:
        turn = 0
        while turn < 10 or not self.stop.is_set():
            tag = Tag.parse(f"frozen/app:{turn}")
            try:
                claimed, _ = store.put_claim(tag, Digest.of(str(number).encode()))
                self.told[tag].add((claimed, store.put_sighting(tag, Bundle(str(claimed).encode()))))
            except StoreUnavailable:  # as a client's next request: the same again
                self.failures[number] += 1
            else:
                turn += 1


def test_frozen_and_thawed_in_the_middle_nothing_is_double_and_nothing_lost(
    tmp_path: Path, database: FirestoreDatabase
) -> None:
    need_emulator()
    with FirestoreEmulator(tmp_path) as emulator:
        with Crowd(emulator.url, database) as crowd:
            assert wait_until(lambda: len(crowd.told) > 5, WAIT_S)
            crowd.failures.clear()
            emulator.freeze()
            assert wait_until(crowd.all_failed, WAIT_S), "not all of them noticed"
            emulator.thaw()
        assert {len(told) for told in crowd.told.values()} == {1}, "everybody was told the same"
        after = FirestoreStore(database, emulator.url, **PATIENT)
        for tag, ((claimed, bundle),) in crowd.told.items():
            assert bundle == str(claimed).encode()
            assert (after.claim(tag), after.sighting(tag)) == (claimed, bundle)
        assert len(emulator.documents(database, "claims")) == len(crowd.told)
        assert len(emulator.documents(database, "sightings")) == len(crowd.told)


def test_killed_it_is_unavailable_and_empty_it_is_a_lost_store(tmp_path: Path, database: FirestoreDatabase) -> None:
    need_emulator()
    with FirestoreEmulator(tmp_path) as emulator:
        store = FirestoreStore(database, emulator.url, **PATIENT)
        store.put_claim(TAG, ONE)
        emulator.wipe(database)
        assert store.claim(TAG) is None
        assert store.put_claim(TAG, TWO) == (TWO, True)
        emulator.kill()
        all_unavailable(store)
