"""The table: every step of a request by tag x every way in which it can fail; what is answered, and what is right afterwards.

A row is one call that the service makes, in the order of `lib/recorder.py`'s docstring; a column is what happens to that call,
and to every repetition of it, until it is healed. What is expected is data, too. The processes are in `world.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Gate = Literal["registry", "log", "ca", "metadata", "store"]
State = Literal["new", "recorded", "claimed", "logged"]
Fault = Literal["refused", "hang", "500", "429", "html", "truncated", "lost", "killed before", "killed after"]

REFUSED: tuple[Fault, ...] = ("refused",)  # the listener is closed
PASSING: tuple[Fault, ...] = ("hang", "500", "429", "html", "truncated", "lost")
KILLED: tuple[Fault, ...] = (
    "killed before",
    "killed after",
)  # the service, when the call is seen; when it has been done
FAULTS = REFUSED + PASSING + KILLED
DONE = frozenset({"truncated", "lost", "killed after"})  # the service behind has done it


@dataclass(frozen=True)
class Step:
    """A row. `before` is what is there for the tag when the request comes; `promised`: whether its digest is, by this call."""

    name: str
    where: str
    gate: Gate
    before: State
    promised: bool
    good: int = 200  # the status of an answer that is none of a failure

    @property
    def of_the_process(self) -> bool:
        """Not of the tag: one certificate and one token serve all tags of a process."""
        return self.gate in {"ca", "metadata"}


STEPS = (
    Step("challenge", "upstream: the first GET, answered 401", "registry", "new", promised=False),
    Step("token", "upstream: the token service", "registry", "new", promised=False),
    Step("manifest", "upstream: GET with the token", "registry", "new", promised=False),
    Step("redirected", "upstream: the GET that a redirect leads to", "registry", "new", promised=False),
    Step("head", "upstream: HEAD of a recorded tag", "registry", "recorded", promised=True),
    Step("sighting", "1, 2: store.sighting", "store", "new", promised=False),
    Step("claim", "3a: store.claim", "store", "new", promised=False),
    Step("put_claim", "3a: store.put_claim", "store", "new", promised=False),
    Step("poll", "3b: store.sighting, for whoever made the claim", "store", "claimed", promised=True),
    Step("index", "3c: the log's index", "log", "new", promised=True),
    Step("retrieve", "3c: the entries that it names", "log", "logged", promised=True),
    Step("identity", "3d: the identity token", "metadata", "new", promised=True),
    Step("certificate", "3d: the certificate", "ca", "new", promised=True),
    Step("claim again", "3d: store.claim, last before the append", "store", "new", promised=True),
    Step("append", "3d: the append", "log", "new", promised=True, good=201),
    Step("copy", "3d: the readable copy", "log", "new", promised=True, good=201),
    Step("put_sighting", "3e: store.put_sighting", "store", "new", promised=True),
    Step("winner", "3e: the record that is there already", "store", "new", promised=True),
)

IN_A_FILE = "a file is neither a server nor between two: test_file.py has what can happen to one"
NOT_RUN: dict[tuple[str, Fault], str] = {
    ("copy", "refused"): "it goes out beside the append, to the same listener: this is the append's cell",
}
NO_ROWS = {
    "looking up the registry's name": "the registry is mapped to an address here; names are tests/upstream/test_addresses.py's",
    "TLS to the registry": "the stand-ins are plain; handshakes that fail or hang are tests/upstream/test_transport.py's",
    "lib/recorder.py's step 3f": "comparing two values calls nothing",
}

# What is answered while it lasts: 503, but here. A 503 at the deadline is right everywhere: a machine may be slow.
ANSWERED: dict[tuple[str, Fault], int] = {
    ("challenge", "truncated"): 200,  # a 401's header is enough
    ("head", "html"): 200,  # no digest in its header, so the bytes decide
    **{(step.name, "429"): 429 for step in STEPS if step.gate == "registry"},  # passed on, with its Retry-After
    **{("copy", fault): 200 for fault in PASSING},  # it blocks nothing
}


@dataclass(frozen=True)
class Cell:
    """One fault at one step; `moves`: the upstream's tag is another digest when it is asked again."""

    step: Step
    fault: Fault
    moves: bool

    def __str__(self) -> str:
        return f"{self.step.name}-{self.fault}-{'moves' if self.moves else 'stays'}".replace(" ", "-").replace("_", "-")

    @property
    def answered(self) -> int:
        """The status while the fault lasts."""
        return ANSWERED.get((self.step.name, self.fault), 503)

    @property
    def promised(self) -> bool:
        """Whether the first digest is the tag's from then on."""
        if self.answered == 200:
            return True
        return self.step.promised or (self.step.name == "put_claim" and self.fault in DONE)


def cells(store: Literal["sqlite", "firestore"]) -> list[Cell]:
    """All that are run with a store, each twice: the tag stays, and moves."""
    return [
        Cell(step, fault, moves)
        for step in STEPS
        if store == "firestore" or step.gate != "store"
        for fault in FAULTS
        if (step.name, fault) not in NOT_RUN
        for moves in (False, True)
    ]
