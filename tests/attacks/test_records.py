"""Who else writes under our name: two records of ours for one tag, a log that withholds, a stolen service account."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
import requests

from lib.devsigstore.identity import EMAIL
from lib.errors import LogUnavailable, RecordInvalid
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.recorder import Moved, Same
from tests.sigstore import Parts, digests_logged, seconds

if TYPE_CHECKING:
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore
    from lib.sighting.sighting import Sighting

TAG = Tag.parse("my-user/my-app:v1.2.3")
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")


def recorded(dev: DevSigstore, store: Path, digest: Digest, *, search: bool = True) -> Sighting:
    """What an instance with this store says when it is shown `digest`."""
    return Parts(dev, store, search=search).recorder().observe(TAG, digest, seconds(60)).sighting


def test_of_two_records_of_ours_the_earliest_is_the_answer_and_never_an_error(dev: DevSigstore, tmp_path: Path) -> None:
    """Multiple records with different digests (a second store of one identity, a stolen account): the log's order decides.

    Whoever looks, whatever the registry serves at that moment, and however often: the first entry, and 403 for anything else.
    """
    first = recorded(dev, tmp_path / "a", OLD)
    second = recorded(dev, tmp_path / "b", NEW, search=False)
    assert (first.digest, second.digest) == (OLD, NEW)
    assert len(digests_logged(dev.url, TAG)) == 2, "and everybody can see that there are two"
    for number, shown in enumerate((NEW, OLD, Digest.of(b"other"), NEW)):
        verdict = Parts(dev, tmp_path / f"empty{number}").recorder().observe(TAG, shown, seconds(60))
        assert verdict == (Same(first, first_seen=False) if shown == OLD else Moved(first, shown))
    assert dev.calls["append"] == 2, "nobody added a third"


def test_a_stolen_accounts_entry_after_ours_changes_nothing_and_is_found_by_the_tags_name(
    dev: DevSigstore, tmp_path: Path
) -> None:
    """A stolen service account can log; it cannot take back what was logged before, nor hide that it did."""
    ours = recorded(dev, tmp_path / "ours", OLD)
    recorded(dev, tmp_path / "thief", NEW, search=False)
    recorder = Parts(dev, tmp_path / "ours").recorder()
    assert recorder.observe(TAG, OLD, seconds(60)) == Same(ours, first_seen=False)
    assert recorder.observe(TAG, NEW, seconds(60)) == Moved(ours, NEW)
    assert len(digests_logged(dev.url, TAG)) == 2


def readable(dev: DevSigstore, email: str) -> set[tuple[str, str]]:
    """Tag and digest of every readable entry under an e-mail, as docs/security.md says to look for them."""
    uuids = requests.post(f"{dev.url}/api/v1/index/retrieve", json={"email": email}, timeout=30).json()
    said = set()
    for uuid in uuids:
        (entry,) = requests.get(f"{dev.url}/api/v1/log/entries/{uuid}", timeout=30).json().values()
        if json.loads(base64.b64decode(entry["body"]))["kind"] == "intoto":
            predicate = json.loads(base64.b64decode(entry["attestation"]["data"]))["predicate"]
            said.add((predicate["tag"], predicate["digest"]))
    return said


def test_what_a_stolen_account_logs_is_found_by_its_e_mail_and_is_not_what_the_store_has(
    dev: DevSigstore, tmp_path: Path
) -> None:
    """The operator's way to find out, which needs nothing but the log's search and the store's records."""
    other = Tag.parse("my-user/my-app:v9")
    recorded(dev, tmp_path / "ours", OLD)
    recorded(dev, tmp_path / "thief", NEW, search=False)
    Parts(dev, tmp_path / "thief").recorder().observe(other, NEW, seconds(60))
    ours = Parts(dev, tmp_path / "ours").recorder()
    logged = readable(dev, EMAIL)
    assert logged == {(str(TAG), str(OLD)), (str(TAG), str(NEW)), (str(other), str(NEW))}
    known = {(str(tag), str(seen.digest)) for tag in (TAG, other) if (seen := ours.recall(tag)) is not None}
    assert logged - known == {(str(TAG), str(NEW)), (str(other), str(NEW))}


def test_a_stolen_accounts_entry_before_ours_blocks_the_tag_and_is_never_served(
    dev: DevSigstore, tmp_path: Path
) -> None:
    """The worst that it can do to a tag that nobody has asked for: 403 with its own entry as the evidence."""
    thiefs = recorded(dev, tmp_path / "thief", NEW)
    assert Parts(dev, tmp_path / "ours").recorder().observe(TAG, OLD, seconds(60)) == Moved(thiefs, OLD)
    assert dev.calls["append"] == 1


def test_a_thiefs_record_under_another_identity_is_no_record_of_ours(dev: DevSigstore, tmp_path: Path) -> None:
    """Another account of the same authority, in the log and even in our store, is skipped in one and refused in the other."""
    thief = Parts(dev, tmp_path / "thief", email="thief@example.com")
    bundle = thief.recorder()
    bundle.observe(TAG, NEW, seconds(60))
    stolen = thief.store.sighting(TAG)
    assert stolen is not None
    assert recorded(dev, tmp_path / "ours", OLD).digest == OLD
    planted = Parts(dev, tmp_path / "planted")
    planted.store.put_sighting(TAG, stolen)
    for _ in range(2):
        with pytest.raises(RecordInvalid, match="not an accepted identity"):
            planted.recorder().observe(TAG, NEW, seconds(60))


def test_who_can_write_to_the_store_can_choose_a_digest_for_a_new_tag_and_nothing_more(
    dev: DevSigstore, tmp_path: Path
) -> None:
    """A planted claim makes us log it: visible, and the tag is blocked, because the bytes decide what is compared."""
    planted = Parts(dev, tmp_path / "store")
    planted.store.put_claim(TAG, NEW)
    verdict = planted.recorder().observe(TAG, OLD, seconds(60))
    assert isinstance(verdict, Moved)
    assert (verdict.sighting.digest, verdict.offered) == (NEW, OLD)
    assert len(digests_logged(dev.url, TAG)) == 1


def test_a_record_moved_to_another_tag_in_the_store_does_not_verify(dev: DevSigstore, tmp_path: Path) -> None:
    """A true record of ours, put where it does not belong."""
    parts = Parts(dev, tmp_path / "store")
    recorded(dev, tmp_path / "store", OLD)
    bundle = parts.store.sighting(TAG)
    assert bundle is not None
    other = Tag.parse("my-user/my-app:v1.2.4")
    parts.store.put_sighting(other, bundle)
    with pytest.raises(RecordInvalid):
        parts.recorder().observe(other, OLD, seconds(60))


def test_a_log_that_withholds_its_index_is_not_a_first_sighting(dev: DevSigstore, tmp_path: Path) -> None:
    """A log operator that will not say what it has, while the store is lost: 503, until it does."""
    recorded(dev, tmp_path / "store", OLD)
    dev.faults.set("index:before")
    with pytest.raises(LogUnavailable):
        recorded(dev, tmp_path / "empty", NEW)
    dev.faults.set("")
    assert recorded(dev, tmp_path / "empty", NEW).digest == OLD
    assert len(digests_logged(dev.url, TAG)) == 1
