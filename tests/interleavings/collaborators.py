"""Everything that the recorder is handed, reduced to one question: `ask(call)`. Who is asked is `instance.py` or `live.py`.

A call is a tuple of its name and what it is about, an answer a tuple of how it went and what was said. Digests and bundles
are small numbers in both, so that positions and states can be compared; the recorder sees real values.

    ("sighting", None)      "ok", Place or None              ("search", digests)      "found", Place; "nothing"; "unexplained"
    ("put_sighting", Place) "ok", Place of the winner        ("certificate", digest)  "ok"
    ("claim", None)         "ok", digest or None             ("append", digest)       "ok", Place
    ("put_claim", digest)   "ok", (digest, created)          ("verify", Place)        "ok"
    ("admit", None)         "ok"

Each may be answered "failed". `Signer.sign` is two calls, with the recorder's own last look, a `claim`, between them.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from lib.errors import LogUnavailable, RateLimited, RecordInvalid, SignerUnavailable, StoreUnavailable
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.recorder import POLL_S
from lib.sighting.sighting import Bundle, Found, NothingFound, Record, Sighting
from lib.telemetry import Telemetry

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from lib.deadline import Deadline
    from lib.errors import TlogistryError

TAG = Tag.parse("my-user/my-app:v1.2.3")
DIGESTS = tuple(Digest.of(name) for name in (b"one", b"two", b"three"))
NUMBERS = {digest: number for number, digest in enumerate(DIGESTS)}
LOGGED_AT = datetime(2024, 1, 1, tzinfo=UTC)
TIME_S = 30.0  # for one request
TOO_LONG_S = 60.0  # more than that, and less than the recorder's cache keeps anything


class Place(NamedTuple):
    """An entry of the log. What the store keeps, a bundle, is the proof of one."""

    log_index: int
    digest: int

    def bundle(self) -> Bundle:
        return Bundle(f"entry {self.log_index} says {self.digest}".encode())

    def sighting(self) -> Sighting:
        return Sighting(TAG, DIGESTS[self.digest], self.log_index, f"{self.log_index:064x}", LOGGED_AT)

    def record(self) -> Record:
        return Record(self.sighting(), self.bundle())

    @classmethod
    def proven_by(cls, bundle: Bundle) -> Place:
        _, index, _, digest = bundle.split()
        return cls(int(index), int(digest))


Value = int | bool | Place | tuple[int, ...] | tuple[int, bool] | None
Call = tuple[str, Value]
Answer = tuple[str, Value]
FAILED: Answer = ("failed", None)
ERRORS: dict[str, type[TlogistryError]] = {
    "admit": RateLimited,
    "sighting": StoreUnavailable,
    "put_sighting": StoreUnavailable,
    "claim": StoreUnavailable,
    "put_claim": StoreUnavailable,
    "search": LogUnavailable,
    "verify": RecordInvalid,
    "certificate": SignerUnavailable,
    "append": LogUnavailable,
}


class Unexplained(LogUnavailable):
    """The log holds an entry of ours that neither a candidate nor a readable copy explains."""


class Collaborators:
    """RecordStore, TransparencyLog, Signer, Verifier, Runtime and who admits, in one. Only a sleep takes time."""

    def __init__(self) -> None:
        self.time = 0.0
        self.telemetry = Telemetry("line", io.StringIO())

    def ask(self, call: Call) -> Answer:
        raise NotImplementedError

    def _asked(self, name: str, about: Value) -> Value:
        how, said = self.ask((name, about))
        if how == "failed":
            raise ERRORS[name](name)
        return said

    def admit(self) -> None:
        self._asked("admit", None)

    # RecordStore

    def sighting(self, tag: Tag) -> Bundle | None:
        assert tag == TAG
        place = self._asked("sighting", None)
        return place.bundle() if isinstance(place, Place) else None

    def put_sighting(self, tag: Tag, bundle: Bundle) -> Bundle:
        assert tag == TAG
        winner = self._asked("put_sighting", Place.proven_by(bundle))
        assert isinstance(winner, Place)
        return winner.bundle()

    def claim(self, tag: Tag) -> Digest | None:
        assert tag == TAG
        digest = self._asked("claim", None)
        return DIGESTS[digest] if isinstance(digest, int) else None

    def put_claim(self, tag: Tag, digest: Digest) -> tuple[Digest, bool]:
        assert tag == TAG
        answer = self._asked("put_claim", NUMBERS[digest])
        assert isinstance(answer, tuple)
        winner, created = answer
        return DIGESTS[winner], bool(created)

    # TransparencyLog

    def search(
        self,
        tag: Tag,
        candidates: tuple[Digest, ...],
        deadline: Deadline,  # noqa: ARG002 - as in the contract
    ) -> Found | NothingFound:
        assert tag == TAG
        how, said = self.ask(("search", tuple(NUMBERS[digest] for digest in candidates)))
        if how == "nothing":
            return NothingFound()
        if how == "found":
            assert isinstance(said, Place)
            return Found(said.record())
        raise (Unexplained if how == "unexplained" else LogUnavailable)(how)

    # Signer

    def sign(
        self,
        tag: Tag,
        digest: Digest,
        before_append: Callable[[], None],
        deadline: Deadline,  # noqa: ARG002 - as in the contract
    ) -> Record:
        assert tag == TAG
        self._asked("certificate", NUMBERS[digest])
        before_append()
        place = self._asked("append", NUMBERS[digest])
        assert isinstance(place, Place)
        return place.record()

    # Verifier

    def verify(self, bundle: Bundle, tag: Tag) -> Sighting:
        assert tag == TAG
        place = Place.proven_by(bundle)
        self._asked("verify", place)
        return place.sighting()

    def generation(self) -> int:
        return 1

    # Runtime

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:  # noqa: ARG002 - as in the contract
        """Longer than asked: the second look for somebody else's record is the last one."""
        self.time += POLL_S

    def start(self, name: str, work: Callable[[], None]) -> None:  # noqa: ARG002 - as in the contract
        work()

    def wait(self, event: threading.Event, seconds: float) -> bool:  # noqa: ARG002 - as in the contract
        return event.is_set()
