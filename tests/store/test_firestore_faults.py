"""The network between the store and Firestore fails in every way: nothing is double, nothing lost, nothing taken for absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lib.config import BaseUrl
from lib.errors import StoreUnavailable
from lib.oci.reference import Tag
from lib.store.document import Place
from lib.store.firestore import FirestoreStore
from lib.store.rest import ANSWER_MAX_BYTES, ATTEMPTS
from tests.fakes.front import (
    Front,
    answers,
    done_but,
    drips,
    drips_headers,
    half,
    hangs,
    lost,
)
from tests.firestore import HASTY, PATIENT, READ, FirestoreEmulator, all_unavailable, google_error
from tests.store.contract import FIRST, ONE, SECOND, TAG, TWO

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.config import FirestoreDatabase
    from tests.fakes.front import Exchange, Fault

# --- what passes is repeated -------------------------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "429": answers(429, google_error(429, "RESOURCE_EXHAUSTED")),
    "500": answers(500, google_error(500, "INTERNAL")),
    "500-html": answers(500, b"<html>Error 500 (Server Error)!!1</html>"),
    "502-html": answers(502, b"<html>"),
    "503": answers(503, google_error(503, "UNAVAILABLE")),
    "503-in-a-stream": answers(503, [google_error(503, "UNAVAILABLE")]),
    "504": answers(504, google_error(504, "DEADLINE_EXCEEDED")),
    "aborted": answers(409, google_error(409, "ABORTED", "Too much contention on these documents. Please try again.")),
    "aborted-in-a-stream": answers(409, [google_error(409, "ABORTED")]),
    "lost": lost,
    "half": half,
}
passing = pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
done = pytest.mark.parametrize("wrap", [lambda fault: fault, done_but], ids=["not done", "done"])


@passing
def test_a_read_is_repeated(store: FirestoreStore, front: Front, fault: Fault) -> None:
    store.put_claim(TAG, ONE)
    store.put_sighting(TAG, FIRST)
    for read in (store.claim, store.sighting):
        front.faults = [fault] * (ATTEMPTS - 1)
        assert read(TAG) == {"claim": ONE, "sighting": FIRST}[read.__name__]
        front.faults = [fault]
        assert read(Tag.parse("alpine:other")) is None


@passing
@done
def test_a_create_is_repeated_and_does_not_make_a_second_truth(
    store: FirestoreStore, front: Front, fault: Fault, wrap: Callable[[Fault], Fault]
) -> None:
    front.faults = [wrap(fault)] * (ATTEMPTS - 1)
    assert store.put_claim(TAG, ONE) == (ONE, wrap is not done_but), (
        "whether it was ours cannot be known when it was done"
    )
    front.faults = [wrap(fault)]
    assert store.put_sighting(TAG, FIRST) == FIRST
    front.faults = [wrap(fault)]
    assert store.put_claim(TAG, TWO) == (ONE, False)
    front.faults = [wrap(fault)]
    assert store.put_sighting(TAG, SECOND) == FIRST


@done
def test_a_create_whose_answer_does_not_come_is_repeated(
    front: Front, database: FirestoreDatabase, wrap: Callable[[Fault], Fault]
) -> None:
    store = FirestoreStore(database, BaseUrl("http", "127.0.0.1", front.port), call_s=60, attempt_s=2)
    front.faults = [wrap(hangs)]
    assert store.put_claim(TAG, ONE)[0] == ONE
    assert store.put_claim(TAG, TWO) == (ONE, False)


def test_between_a_lost_answer_and_its_repetition_another_instance_is_second(
    store: FirestoreStore, front: Front, database: FirestoreDatabase, emulator: FirestoreEmulator
) -> None:
    other = FirestoreStore(database, emulator.url, **PATIENT)
    told: list[object] = []

    def loses(exchange: Exchange) -> None:
        exchange.forward()
        told.append(other.put_claim(TAG, TWO))
        exchange.cut()

    front.faults = [loses]
    assert store.put_claim(TAG, ONE) == (ONE, False)
    assert told == [(ONE, False)]


def test_between_a_lost_request_and_its_repetition_another_instance_is_first(
    store: FirestoreStore, front: Front, database: FirestoreDatabase, emulator: FirestoreEmulator
) -> None:
    other = FirestoreStore(database, emulator.url, **PATIENT)
    told: list[object] = []

    def loses(exchange: Exchange) -> None:
        told.append(other.put_claim(TAG, TWO))
        exchange.cut()

    front.faults = [loses]
    assert store.put_claim(TAG, ONE) == (TWO, False)
    assert told == [(TWO, True)]


# --- what does not pass is unavailable, in bounded time and with bounded trouble ---------------------------------------


@passing
@done
def test_a_fault_that_lasts_is_unavailable_after_a_few_attempts_and_harms_nothing(
    store: FirestoreStore, front: Front, fault: Fault, wrap: Callable[[Fault], Fault]
) -> None:
    front.always = wrap(fault)
    with pytest.raises(StoreUnavailable):
        store.put_claim(TAG, ONE)
    assert len(front.seen) == ATTEMPTS
    front.always = None
    was_done = wrap is done_but
    assert store.claim(TAG) == (ONE if was_done else None)
    assert store.put_claim(TAG, TWO) == ((ONE, False) if was_done else (TWO, True))


SILENT: dict[str, Fault] = {"hangs": hangs, "drips": drips, "drips-headers": drips_headers}


@pytest.mark.parametrize("fault", SILENT.values(), ids=SILENT.keys())
def test_a_server_that_does_not_come_to_an_end_is_unavailable(
    front: Front, database: FirestoreDatabase, fault: Fault
) -> None:
    front.always = fault
    all_unavailable(FirestoreStore(database, BaseUrl("http", "127.0.0.1", front.port), **HASTY))


def test_a_server_that_does_not_accept_is_unavailable(database: FirestoreDatabase) -> None:
    all_unavailable(FirestoreStore(database, BaseUrl("http", "127.0.0.1", 1), **HASTY))


# --- an answer that is none is never absence ---------------------------------------------------------------------------

HTML = b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>"
NO_DATABASE = google_error(
    404, "NOT_FOUND", "The database records does not exist for project my-project. Please visit …"
)
NO_DOCUMENT = google_error(404, "NOT_FOUND", "Document (projects/my-project/databases/…) not found.")
NONSENSE: dict[str, Fault] = {
    "no-database": answers(404, NO_DATABASE),
    "no-database-in-a-stream": answers(404, [NO_DATABASE]),
    "no-document": answers(404, NO_DOCUMENT),
    "404-html": answers(404, HTML),
    "404-empty": answers(404),
    "200-html": answers(200, HTML),
    "200-empty": answers(200),
    "200-error": answers(200, [NO_DATABASE]),
    "204": answers(204),
    "201": answers(201, []),
    "null": answers(200, None),
    "empty-list": answers(200, []),
    "empty-object": answers(200, {}),
    "list-of-empty": answers(200, [{}]),
    "only-a-time": answers(200, [{"readTime": READ}]),
    "another-is-missing": answers(200, [{"missing": "projects/p/databases/d/documents/claims/00", "readTime": READ}]),
    "missing-is-true": answers(200, [{"missing": True, "readTime": READ}]),
    "another-is-found": answers(200, [{"found": {"name": "projects/p", "fields": {}}, "readTime": READ}]),
    "found-is-null": answers(200, [{"found": None, "readTime": READ}]),
    "unknown": answers(200, [{"absent": "", "readTime": READ}]),
    "deep": answers(200, b"[" * 100_000 + b"]" * 100_000),
    "not-utf-8": answers(200, b'[{"missing": "\xff"}]'),
    "too-long": answers(200, b"[" + b" " * ANSWER_MAX_BYTES + b"]"),
    "400": answers(400, google_error(400, "FAILED_PRECONDITION", "… not available for Firestore in Datastore Mode …")),
    "403": answers(403, google_error(403, "PERMISSION_DENIED")),
    "409-html": answers(409, HTML),
    "409-unknown": answers(409, google_error(409, "CONFLICT")),
    "redirect": answers(307, Location="/elsewhere"),
}
nonsense = pytest.mark.parametrize("fault", NONSENSE.values(), ids=NONSENSE.keys())


@nonsense
def test_what_is_no_answer_to_our_question_is_unavailable_at_once(
    store: FirestoreStore, front: Front, fault: Fault
) -> None:
    front.always = fault
    all_unavailable(store)
    assert len(front.seen) == 4, "neither repeated nor followed"


def test_a_missing_document_is_the_only_absence(
    store: FirestoreStore, front: Front, database: FirestoreDatabase
) -> None:
    claim, sighting = str(Place.claim(database, TAG)), str(Place.sighting(database, TAG))
    front.faults = [answers(200, [{"missing": claim, "readTime": READ}])]
    assert store.claim(TAG) is None
    for name in (sighting, claim.upper(), claim + "0", claim[:-1], claim.replace(database.database, "another")):
        front.faults = [answers(200, [{"missing": name, "readTime": READ}])]
        with pytest.raises(StoreUnavailable):
            store.claim(TAG)
    twice = {"missing": claim, "readTime": READ}
    for answer in ([twice, twice], [{**twice, "found": {}}], twice, [{"missing": claim}], [[twice]]):
        front.faults = [answers(200, answer)]
        with pytest.raises(StoreUnavailable):
            store.claim(TAG)
    front.faults = [answers(200, b'[{"missing": "%s", "missing": "%s", "readTime": ""}]' % (b"x", claim.encode()))]
    with pytest.raises(StoreUnavailable):
        store.claim(TAG)


def test_a_winner_that_is_gone_when_it_is_read_is_unavailable(
    store: FirestoreStore, front: Front, database: FirestoreDatabase
) -> None:
    exists = answers(409, google_error(409, "ALREADY_EXISTS"))
    front.faults = [exists]
    with pytest.raises(StoreUnavailable, match="is not there"):
        store.put_claim(TAG, ONE)
    front.faults = [exists]
    with pytest.raises(StoreUnavailable, match="is not there"):
        store.put_sighting(TAG, FIRST)


def test_a_create_that_is_answered_with_another_document_is_unavailable(
    store: FirestoreStore, front: Front, database: FirestoreDatabase
) -> None:
    place = Place.claim(database, TAG)
    right = {"name": str(place), **place.format(str(ONE))}
    front.faults = [answers(200, right)]
    assert store.put_claim(TAG, ONE) == (ONE, True)
    neighbour = Place.claim(database, Tag.parse("alpine:3.16"))
    for wrong in (
        {**right, "name": str(neighbour)},
        {**right, **neighbour.format(str(ONE))},
        {**right, **place.format(str(TWO))},
        {"name": str(place)},
        [right],
    ):
        front.faults = [answers(200, wrong)]
        with pytest.raises(StoreUnavailable):
            store.put_claim(TAG, ONE)


# --- what people read --------------------------------------------------------------------------------------------------


def test_a_missing_permission_and_the_role_that_has_it_are_named(store: FirestoreStore, front: Front) -> None:
    front.always = answers(403, google_error(403, "PERMISSION_DENIED", reason="IAM_PERMISSION_DENIED"))
    read, _, created, _ = all_unavailable(store)
    assert "datastore.entities.get" in read
    assert "datastore.entities.create" in created
    assert "roles/datastore.user" in created
    assert "IAM_PERMISSION_DENIED" in created


def test_a_disabled_api_is_named(store: FirestoreStore, front: Front) -> None:
    front.always = answers(403, [google_error(403, "PERMISSION_DENIED", reason="SERVICE_DISABLED")])
    assert all("SERVICE_DISABLED" in message for message in all_unavailable(store))


def test_a_missing_database_is_named(store: FirestoreStore, front: Front, database: FirestoreDatabase) -> None:
    front.always = answers(404, [NO_DATABASE])
    for message in all_unavailable(store):
        assert "no such database" in message
        assert database.database in message


@nonsense
def test_a_message_holds_no_text_of_googles_and_no_url(store: FirestoreStore, front: Front, fault: Fault) -> None:
    front.always = fault
    for message in all_unavailable(store):
        assert "internals" not in message
        assert "://" not in message
        assert "projects/" not in message
        assert "<" not in message
        assert "owner" not in message


def test_a_lost_answers_message_holds_no_url(store: FirestoreStore, front: Front) -> None:
    front.always = lost
    for message in all_unavailable(store):
        assert "no answer" in message
        assert "127.0.0.1" not in message
        assert "documentId" not in message
