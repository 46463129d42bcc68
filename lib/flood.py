"""Flood limits: how many tags may be recorded, because a record is in a public log for ever and anybody can ask for one.

    per client      one address, IPv6 by its /64 (`lib/peer.py`)
    per domain      the registered domain of the upstream (`lib/domain.py`), so that a thousand names below one are one
    in total        of this process
    per day         of this process: a bucket that holds a day's worth, and fills in a day

Token buckets. A record takes one token from each, or none from any. It is asked for when a request is about to lead the
making of a record (`lib/recorder.py`): the upstream has served the manifest, and nothing has been asked of store, signer or
log. So a recorded tag, a digest, a blob and a 404 cost nothing.

Not by domain, unless the deployer set that limit: the registries that are mapped, and `SHARED`, where anybody may have a
repository for nothing. One limit on all of them would let one stranger use up everybody's, which nobody should get unasked.

A tag that was admitted is not charged again, however often its recording is tried: an outage of the log must not use up the
budget. All of it is in memory and of one process: N instances admit N times as much, and a restart forgets.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.domain import registered_domain
from lib.errors import TooManyNew
from lib.oci.reference import HUB
from lib.policy import DAY_S

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lib.oci.reference import Tag
    from lib.policy import Rate

SHARED = frozenset(
    {
        HUB, "amazonaws.com", "azurecr.io", "cgr.dev", "ecr.aws", "fedoraproject.org", "gcr.io", "ghcr.io", "gitlab.com",
        "icr.io", "k8s.io", "microsoft.com", "nvcr.io", "ocir.io", "pkg.dev", "quay.io", "redhat.com", "redhat.io",
    }
)  # fmt: skip
BUCKETS = 10_000  # addresses or domains remembered for each limit, some 200 bytes each
ADMITTED = 10_000  # tags; one that drops out is charged again if its record was still not made


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """None is no limit. `mapped` are registries by their canonical names; `every_domain`: they are limited by domain, too."""

    per_client: Rate | None
    per_domain: Rate | None
    total: Rate | None
    per_day: Rate | None
    every_domain: bool = False
    mapped: Collection[str] = ()


class Buckets:
    """A bucket for each key, full at first. Not safe from several threads by itself."""

    def __init__(self, rate: Rate, most: int = BUCKETS) -> None:
        """A full bucket is forgotten, so that only `most` others are kept."""
        self._rate = rate
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when that was

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._buckets)

    def wait(self, key: str, now: float) -> float:
        """Seconds until there is a token; 0.0 if there is one."""
        return max(0.0, (1.0 - self._left(key, now)) * self._rate.seconds / self._rate.count)

    def take(self, key: str, now: float) -> None:
        """Take one that is there."""
        left = self._left(key, now) - 1.0
        if key not in self._buckets and len(self._buckets) >= self._most:
            self._make_room(now)
        self._buckets[key] = left, now

    def _left(self, key: str, now: float) -> float:
        count, seconds = self._rate.count, self._rate.seconds
        left, since = self._buckets.get(key, (float(count), now))
        return min(float(count), left + (now - since) * count / seconds)

    def _make_room(self, now: float) -> None:
        """Forget the full ones; if that is not enough, the fuller half, which loses least."""
        left = {key: self._left(key, now) for key in self._buckets}
        emptiest = sorted((key for key in left if left[key] < self._rate.count), key=left.__getitem__)
        self._buckets = {key: self._buckets[key] for key in emptiest[: self._most // 2]}


@dataclass(frozen=True, slots=True)
class _Limit:
    rate: Rate
    whose: str
    buckets: Buckets


class Flood:
    """The limits of one process. Safe from any thread."""

    def __init__(self, limits: FloodLimits, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._mapped = frozenset(limits.mapped)
        self._every_domain = limits.every_domain
        self._per_client = _limit(limits.per_client, "for one client address")
        self._per_domain = _limit(limits.per_domain, "for the registries of one domain")
        self._total = _limit(limits.total, "for all clients together")
        self._per_day = _limit(limits.per_day, "for all clients together")
        self._lock = threading.Lock()
        self._admitted: OrderedDict[Tag, None] = OrderedDict()

    def admit(self, tag: Tag, client: str) -> None:
        """Take what the record of `tag` costs. Raises TooManyNew, and takes nothing, if a limit is reached."""
        limits = (
            (self._per_client, client),
            (self._per_domain, self._domain(tag.repository.registry)),
            (self._total, ""),
            (self._per_day, ""),
        )
        charged = [(limit, key) for limit, key in limits if limit is not None and key is not None]
        with self._lock:
            if tag in self._admitted:
                self._admitted.move_to_end(tag)
                return
            now = self._clock()
            waits = [(limit.buckets.wait(key, now), limit) for limit, key in charged]
            wait, longest = max(waits, key=lambda pair: pair[0], default=(0.0, None))
            if wait > 0.0 and longest is not None:
                raise _refusal(longest, wait)
            for limit, key in charged:
                limit.buckets.take(key, now)
            self._admitted[tag] = None
            while len(self._admitted) > ADMITTED:
                self._admitted.popitem(last=False)

    def upstream(self, registry: str) -> str:
        """Who is behind a registry: itself if the deployer knows it or it is Docker Hub, else its registered domain."""
        return registry if registry == HUB or registry in self._mapped else registered_domain(registry)

    def _domain(self, registry: str) -> str | None:
        """What the limit by domain is counted for; None: it does not hold."""
        if self._every_domain:
            return registered_domain(registry)
        upstream = self.upstream(registry)  # where it is known, the list of suffixes is not read for it
        return None if registry in self._mapped or upstream in SHARED else upstream


def _limit(rate: Rate | None, whose: str) -> _Limit | None:
    return _Limit(rate, whose, Buckets(rate)) if rate is not None else None


def _refusal(limit: _Limit, wait: float) -> TooManyNew:
    seconds = max(1, math.ceil(wait))
    often = "a day" if limit.rate.seconds == DAY_S else f"in {limit.rate.seconds} s"
    return TooManyNew(
        f"too many tags are asked for that were never recorded: at most {limit.rate.count} {often} {limit.whose}; "
        f"try again in {seconds} s (tags that were recorded before, and digests, are not limited)",
        seconds,
    )
