"""The record store of a deployment: one database of Firestore in Native mode, shared by any number of instances.

Read by `documents:batchGet`, which answers 200 and `{"missing": NAME}` for a document that is not there. So absence is what
the database says of exactly this document, and no 404 is ever taken for it: `documents.get` answers one for a missing
document, for a missing database, and for a path that some front end does not know.

Created by `documents.createDocument`, the REST form whose precondition `currentDocument.exists=false` cannot be left out. It
never replaces, and needs the permission datastore.entities.create only; `documents.patch`, the other one, needs .update and
replaces when its parameter is lost. A create whose answer was lost is sent again; ALREADY_EXISTS then reads the winner.
Never a transaction, where losers wait for locks.

Firestore reads are strongly consistent, and a create that was answered is durable. Not here: the documents (`document.py`),
HTTP (`rest.py`), who we are (`access.py`), and projects by number, for which Firestore says that there is no database.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from lib.errors import ConfigInvalid, StoreUnavailable
from lib.store.document import DocumentInvalid, Place, format_bundle, parse_bundle, parse_digest
from lib.store.store import BUNDLE_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lib.config import BaseUrl, FirestoreDatabase
    from lib.oci.digest import Digest
    from lib.oci.reference import Tag
    from lib.sighting.sighting import Bundle
    from lib.store.rest import Calls

T = TypeVar("T")

SERVICE = "https://firestore.googleapis.com"
CALL_S = 6.0  # seconds for one call with its repetitions; a region answers in 5 to 50 ms, a continent in 200
ATTEMPT_S = 2.5  # seconds for each of them, connecting included
GET, CREATE = "datastore.entities.get", "datastore.entities.create"


class FirestoreStore:
    """A RecordStore in one database."""

    def __init__(
        self,
        database: FirestoreDatabase,
        emulator: BaseUrl | None = None,
        call_s: float = CALL_S,
        attempt_s: float = ATTEMPT_S,
    ) -> None:
        """Nothing is opened, imported or asked yet: a server forks after it has imported us.

        `emulator` takes Firestore's place. Raises ConfigInvalid if it is on another machine, where anybody could answer.
        """
        if emulator is not None and not _on_loopback(emulator.host):
            raise ConfigInvalid((f"FIRESTORE_EMULATOR_HOST: {emulator.host} is not a loopback address",))
        self._database = database
        self._emulator = emulator
        self._limits = (call_s, attempt_s)
        self._lock = threading.Lock()
        self._made: tuple[int, Calls] | None = None

    def sighting(self, tag: Tag) -> Bundle | None:
        """See RecordStore."""
        return self._get(Place.sighting(self._database, tag), parse_bundle)

    def put_sighting(self, tag: Tag, bundle: Bundle) -> Bundle:
        """See RecordStore."""
        if len(bundle) > BUNDLE_MAX_BYTES:
            msg = f"a bundle of {len(bundle)} bytes is too large to store"
            raise StoreUnavailable(msg)
        winner, _ = self._create(Place.sighting(self._database, tag), bundle, format_bundle, parse_bundle)
        return winner

    def claim(self, tag: Tag) -> Digest | None:
        """See RecordStore."""
        return self._get(Place.claim(self._database, tag), parse_digest)

    def put_claim(self, tag: Tag, digest: Digest) -> tuple[Digest, bool]:
        """See RecordStore."""
        return self._create(Place.claim(self._database, tag), digest, str, parse_digest)

    def _get(self, place: Place, parse: Callable[[str], T]) -> T | None:
        answer = self._calls().post(":batchGet", {"documents": [str(place)]}, GET)
        with self._reading():
            text = place.parse_batch(answer)
            return parse(text) if text is not None else None

    def _create(self, place: Place, value: T, format_: Callable[[T], str], parse: Callable[[str], T]) -> tuple[T, bool]:
        """The winner, and whether this call made it."""
        made = self._calls().post(f"/{place.collection}?documentId={place.key}", place.format(format_(value)), CREATE)
        if made is None:
            return self._winner(place, parse), False
        with self._reading():
            if parse(place.parse(made)) != value:
                msg = "it was created with another value"
                raise DocumentInvalid(msg)
        return value, True

    def _winner(self, place: Place, parse: Callable[[str], T]) -> T:
        winner = self._get(place, parse)
        if winner is None:
            msg = f"the record store {self._database.database} in Firestore has a document that is not there"
            raise StoreUnavailable(msg)
        return winner

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except DocumentInvalid as error:
            msg = f"the record store {self._database.database} in Firestore has a document that cannot be read: {error}"
            raise StoreUnavailable(msg) from error

    def _calls(self) -> Calls:
        """The connections and the account of this process: made by its first call, and never carried over a fork."""
        made = self._made
        if made is None or made[0] != os.getpid():
            with self._lock:
                made = self._made
                if made is None or made[0] != os.getpid():
                    made = self._made = (os.getpid(), self._make())
        return made[1]

    def _make(self) -> Calls:
        from lib.store.access import EmulatorAccess, GoogleAccess  # noqa: PLC0415 - requests is not paid for at start
        from lib.store.rest import Calls  # noqa: PLC0415 - as above

        if self._emulator is not None:
            return Calls(str(self._emulator), self._database, EmulatorAccess(), *self._limits)
        return Calls(SERVICE, self._database, GoogleAccess(), *self._limits)


def _on_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
