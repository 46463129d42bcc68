"""The contract of a record store, as tests that every implementation must pass.

Subclass `RecordStoreContract` in a test module and give it two fixtures: `open_store`, a function that can be pickled
(a `functools.partial` of the class, for instance) and opens one more view on the same records, as another instance
would; and `failing_store`, a store that cannot reach its records.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from lib.errors import StoreUnavailable
from lib.oci.digest import Digest
from lib.oci.reference import NAME_MAX, Tag
from lib.sighting.sighting import Bundle
from lib.store.store import BUNDLE_MAX_BYTES, RecordStore

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

OpenStore = Callable[[], RecordStore]
Result = tuple[str, Digest, bool, Bundle]  # tag, winning claim, whether it was ours, winning bundle

TAG = Tag.parse("alpine:3.16.0")
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
FIRST, SECOND = Bundle(b'{"first": "\xc3\xa9"}'), Bundle(b'{"second": 2}')
NEIGHBOURS = [
    Tag.parse(text)
    for text in (
        "alpine:3.16",
        "alpine:3.16.00",
        "alpine:3.16.0-x",
        "alpine:3-16-0",
        "alpine:3.16.0.",
        "alpine/x:3.16.0",
        "library/alpine/3.16.0:3.16.0",
        "ghcr.io/library/alpine:3.16.0",
        "docker.io.example/library/alpine:3.16.0",
    )
]
SPAWN = multiprocessing.get_context("spawn")  # nothing is inherited: as another instance
THREADS, KEYS = 16, 100
PROCESSES, PROCESS_KEYS = 4, 50
WAIT_S = 60.0


def contend(store: RecordStore, runner: str, keys: int) -> list[Result]:
    """Put a claim and a bundle of the runner's own under every key, in the same order as everybody else."""
    results = []
    for number in range(keys):
        tag = Tag.parse(f"race/x:{number}")
        claimed, created = store.put_claim(tag, Digest.of(runner.encode()))
        results.append((str(tag), claimed, created, store.put_sighting(tag, Bundle(runner.encode()))))
    return results


def check_one_winner_each(store: RecordStore, results: list[Result], runners: int, keys: int) -> None:
    """Everybody was told the same, one of them that it was first, and the store says so too."""
    tags = {tag for tag, _, _, _ in results}
    assert len(tags) == keys
    assert Counter(tag for tag, _, _, _ in results) == dict.fromkeys(tags, runners)
    assert Counter(tag for tag, _, created, _ in results if created) == dict.fromkeys(tags, 1)
    for tag in tags:
        assert {claimed for which, claimed, _, _ in results if which == tag} == {store.claim(Tag.parse(tag))}
        assert {bundle for which, _, _, bundle in results if which == tag} == {store.sighting(Tag.parse(tag))}


def _contender(
    open_store: OpenStore, runner: str, start: Barrier, results: multiprocessing.Queue[list[Result]]
) -> None:
    store = open_store()
    start.wait(WAIT_S)
    results.put(contend(store, runner, PROCESS_KEYS))


def _put_and_wait(open_store: OpenStore, done: Barrier) -> None:
    store = open_store()
    store.put_claim(TAG, ONE)
    store.put_sighting(TAG, FIRST)
    done.wait(WAIT_S)
    threading.Event().wait(WAIT_S)


class RecordStoreContract:
    """What `lib/store/store.py` promises."""

    def test_absent_is_none(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.sighting(TAG) is None
        assert store.claim(TAG) is None

    @pytest.mark.parametrize(
        "content",
        [FIRST, Bundle(b""), Bundle(b"\x00\xff not UTF-8 \x00"), Bundle(b"{}\r\n"), Bundle(b"x" * BUNDLE_MAX_BYTES)],
        ids=lambda content: f"{len(content)} bytes",
    )
    def test_bytes_come_back_exactly(self, open_store: OpenStore, content: Bundle) -> None:
        assert open_store().put_sighting(TAG, content) == content
        assert open_store().sighting(TAG) == content

    def test_a_sha512_claim_comes_back(self, open_store: OpenStore) -> None:
        digest = Digest.of(b"one", "sha512")
        assert open_store().put_claim(TAG, digest) == (digest, True)
        assert open_store().claim(TAG) == digest

    def test_first_sighting_wins_and_the_loser_is_told(self, open_store: OpenStore) -> None:
        store = open_store()
        store.put_sighting(TAG, FIRST)
        assert store.put_sighting(TAG, SECOND) == FIRST
        assert open_store().put_sighting(TAG, SECOND) == FIRST
        assert store.sighting(TAG) == FIRST

    def test_first_claim_wins_and_the_loser_is_told(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.put_claim(TAG, ONE) == (ONE, True)
        assert store.put_claim(TAG, TWO) == (ONE, False)
        assert open_store().put_claim(TAG, ONE) == (ONE, False)
        assert open_store().claim(TAG) == ONE

    def test_another_view_sees_at_once_what_one_view_put(self, open_store: OpenStore) -> None:
        writer, reader = open_store(), open_store()
        assert reader.claim(TAG) is None
        writer.put_claim(TAG, ONE)
        assert reader.claim(TAG) == ONE
        writer.put_sighting(TAG, FIRST)
        assert reader.sighting(TAG) == FIRST

    def test_a_claim_is_no_sighting_and_a_sighting_is_no_claim(self, open_store: OpenStore) -> None:
        store = open_store()
        store.put_claim(TAG, ONE)
        assert store.sighting(TAG) is None
        other = NEIGHBOURS[0]
        store.put_sighting(other, FIRST)
        assert store.claim(other) is None

    @pytest.mark.parametrize("neighbour", NEIGHBOURS, ids=str)
    def test_tags_that_look_alike_do_not_share_records(self, open_store: OpenStore, neighbour: Tag) -> None:
        store = open_store()
        store.put_sighting(TAG, FIRST)
        store.put_claim(TAG, ONE)
        assert store.sighting(neighbour) is None
        assert store.claim(neighbour) is None
        assert store.put_claim(neighbour, TWO) == (TWO, True)
        assert store.put_sighting(neighbour, SECOND) == SECOND
        assert (store.claim(TAG), store.sighting(TAG)) == (ONE, FIRST)

    def test_tags_that_differ_in_case_do_not_share_records(self, open_store: OpenStore) -> None:
        store = open_store()
        store.put_claim(Tag.parse("alpine:Edge"), ONE)
        assert store.claim(Tag.parse("alpine:edge")) is None

    def test_the_longest_name_and_tag_are_a_key_like_any_other(self, open_store: OpenStore) -> None:
        repository = "ghcr.io/" + "x" * (NAME_MAX - len("ghcr.io/") - 1)
        store = open_store()
        for number, text in enumerate((f"{repository}:{'t' * 128}", f"{repository}:{'t' * 127}", f"{repository}y:t")):
            tag, digest = Tag.parse(text), Digest.of(str(number).encode())
            assert store.put_claim(tag, digest) == (digest, True)
            assert store.put_sighting(tag, FIRST) == FIRST
            assert (open_store().claim(tag), open_store().sighting(tag)) == (digest, FIRST)

    def test_a_bundle_too_large_is_refused_and_nothing_is_kept(self, open_store: OpenStore) -> None:
        with pytest.raises(StoreUnavailable, match="too large"):
            open_store().put_sighting(TAG, Bundle(b"x" * (BUNDLE_MAX_BYTES + 1)))
        assert open_store().sighting(TAG) is None

    def test_a_race_of_threads_has_one_winner_for_each_tag(self, open_store: OpenStore) -> None:
        store = open_store()
        start = threading.Barrier(THREADS)
        results: list[Result] = []

        def run(number: int) -> None:
            start.wait(WAIT_S)
            results.extend(contend(store, str(number), KEYS))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_one_winner_each(store, results, THREADS, KEYS)

    def test_whoever_reads_during_a_race_sees_nothing_and_then_the_winner(self, open_store: OpenStore) -> None:
        start, over = threading.Barrier(THREADS + 1), threading.Event()
        seen: list[tuple[Digest | None, Bundle | None]] = []

        def read() -> None:
            store = open_store()
            start.wait(WAIT_S)
            last = False
            while not last:
                last = over.is_set()
                seen.append((store.claim(TAG), store.sighting(TAG)))

        def write(number: int) -> None:
            store = open_store()
            start.wait(WAIT_S)
            store.put_claim(TAG, Digest.of(str(number).encode()))
            store.put_sighting(TAG, Bundle(str(number).encode()))

        reader = threading.Thread(target=read)
        writers = [threading.Thread(target=write, args=(number,)) for number in range(THREADS)]
        for thread in (reader, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        over.set()
        reader.join()
        for values in zip(*seen, strict=True):
            assert values[-1] is not None
            assert [value for value, _ in itertools.groupby(values)] in ([None, values[-1]], [values[-1]])

    def test_a_race_of_processes_has_one_winner_for_each_tag(self, open_store: OpenStore) -> None:
        start, queue = SPAWN.Barrier(PROCESSES), SPAWN.Queue()
        processes = [
            SPAWN.Process(target=_contender, args=(open_store, str(number), start, queue))
            for number in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        results = [result for _ in processes for result in queue.get(timeout=WAIT_S)]
        for process in processes:
            process.join(WAIT_S)
        check_one_winner_each(open_store(), results, PROCESSES, PROCESS_KEYS)

    def test_a_store_that_was_used_before_a_fork_is_used_on_both_sides_of_it(self, open_store: OpenStore) -> None:
        store = open_store()
        store.put_sighting(TAG, FIRST)
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            try:
                ours = store.put_sighting(TAG, SECOND) == FIRST and store.put_claim(TAG, Digest.of(b"child"))[1]
                os._exit(0 if ours else 1)
            finally:
                os._exit(2)
        neighbours = [store.put_claim(neighbour, TWO) for neighbour in NEIGHBOURS]  # while the child is at it
        assert os.waitpid(child, 0)[1] == 0
        assert neighbours == [(TWO, True)] * len(NEIGHBOURS)
        assert (store.claim(TAG), store.sighting(TAG)) == (Digest.of(b"child"), FIRST)

    def test_what_was_put_survives_sigkill_of_the_process(self, open_store: OpenStore) -> None:
        done = SPAWN.Barrier(2)
        process = SPAWN.Process(target=_put_and_wait, args=(open_store, done))
        process.start()
        done.wait(WAIT_S)
        process.kill()
        process.join(WAIT_S)
        store = open_store()
        assert (store.claim(TAG), store.sighting(TAG)) == (ONE, FIRST)
        assert store.put_claim(TAG, TWO) == (ONE, False)

    def test_a_failing_store_is_unavailable_and_never_says_absent(self, failing_store: RecordStore) -> None:
        with pytest.raises(StoreUnavailable):
            failing_store.sighting(TAG)
        with pytest.raises(StoreUnavailable):
            failing_store.put_sighting(TAG, FIRST)
        with pytest.raises(StoreUnavailable):
            failing_store.claim(TAG)
        with pytest.raises(StoreUnavailable):
            failing_store.put_claim(TAG, ONE)
