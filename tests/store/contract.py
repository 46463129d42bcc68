"""The contract of a record store, as tests that every implementation must pass.

Subclass `RecordStoreContract` in a test module and give it the fixture `open_store`: a function that opens one more view on
the same records, as another thread or process would. `spawn` opens it in a process of its own.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.sighting.sighting import Bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.store.store import RecordStore

    OpenStore = Callable[[], RecordStore]

TAG = Tag.parse("alpine:3.16.0")
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
FIRST, SECOND = Bundle(b'{"first": "\xc3\xa9"}'), Bundle(b'{"second": 2}')
NEIGHBOURS = [Tag.parse(text) for text in ("alpine:3.16", "alpine:3.16.00", "alpine:3.16.0-x", "alpine/x:3.16.0", "ghcr.io/library/alpine:3.16.0")]
THREADS = 16
KEYS = 50


class RecordStoreContract:
    """What `lib/store/store.py` promises."""

    def test_absent_is_none(self, open_store: OpenStore) -> None:
        store = open_store()
        assert store.sighting(TAG) is None
        assert store.claim(TAG) is None

    def test_bytes_come_back_exactly(self, open_store: OpenStore) -> None:
        assert open_store().put_sighting(TAG, FIRST) == FIRST
        assert open_store().sighting(TAG) == FIRST

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

    def test_a_claim_is_no_sighting_and_a_sighting_is_no_claim(self, open_store: OpenStore) -> None:
        store = open_store()
        store.put_claim(TAG, ONE)
        assert store.sighting(TAG) is None
        other = NEIGHBOURS[0]
        store.put_sighting(other, FIRST)
        assert store.claim(other) is None

    def test_tags_that_look_alike_do_not_share_records(self, open_store: OpenStore) -> None:
        store = open_store()
        store.put_sighting(TAG, FIRST)
        store.put_claim(TAG, ONE)
        for neighbour in NEIGHBOURS:
            assert store.sighting(neighbour) is None
            assert store.claim(neighbour) is None

    def test_a_large_bundle_comes_back(self, open_store: OpenStore) -> None:
        large = Bundle(b"x" * 200_000)
        assert open_store().put_sighting(TAG, large) == large
        assert open_store().sighting(TAG) == large

    def test_a_race_of_threads_has_one_winner_for_each_tag(self, open_store: OpenStore) -> None:
        store = open_store()
        tags = [Tag.parse(f"race/threads:{number}") for number in range(KEYS)]
        start = threading.Barrier(THREADS)
        results: list[tuple[Tag, Digest, bool, Bundle]] = []

        def run(number: int) -> None:
            mine = Digest.of(bytes([number]))
            start.wait()
            for tag in tags:
                claimed, created = store.put_claim(tag, mine)
                results.append((tag, claimed, created, store.put_sighting(tag, Bundle(str(mine).encode()))))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == THREADS * KEYS
        assert Counter(tag for tag, _, created, _ in results if created) == Counter(tags)
        for tag in tags:
            assert len({claimed for which, claimed, _, _ in results if which == tag}) == 1
            assert {bundle for which, _, _, bundle in results if which == tag} == {store.sighting(tag)}
