"""Threads for everybody."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from lib.crowd import KNOWN, STALL_S, Crowd, Visit
from lib.errors import Overloaded
from tests.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Iterable

THREADS = 128
NUMBERED = [f"r{number}.example" for number in range(1000)]
BIG = ["big.example", "mapped.example"]


def let_in(crowd: Crowd, domain: str, number: int) -> list[Visit]:
    """As many of so many requests as are let in."""
    visits = []
    for _ in range(number):
        try:
            visits.append(crowd.enter(domain))
        except Overloaded:
            continue
    return visits


def made(
    clock: Clock | None = None,
    *,
    known: Iterable[str] = (),
    kept: Iterable[str] = BIG,
    mapped: Iterable[str] = (),
    threads: int = THREADS,
) -> Crowd:
    """`known` answered once, and quickly."""
    crowd = Crowd(threads, (clock or Clock()).now, big=kept, mapped=mapped)
    for domain in known:
        visit = crowd.enter(domain)
        visit.answered()
        visit.leave()
    return crowd


def answer(visits: list[Visit]) -> None:
    for visit in visits:
        visit.answered()


def stream(visits: list[Visit], client: str = "") -> list[Visit]:
    """Those of them that are let through, to as many clients if none is named; the others leave."""
    streams = []
    for number, visit in enumerate(visits):
        try:
            visit.stream(client or f"192.0.2.{number}")
        except Overloaded:
            visit.leave()
        else:
            streams.append(visit)
    return streams


def is_known(crowd: Crowd, domain: str) -> bool:
    """Whether it is let in where all that strangers may have is taken."""
    strangers = let_in(crowd, "strange.example", 48)
    assert strangers
    let = let_in(crowd, domain, 1)
    for visit in strangers + let:
        visit.leave()
    return bool(let)


def assert_nobody_is_left(crowd: Crowd, of_kept: int, of_others: int) -> None:
    """All that the kept, and all that two others, may have is there; and all streams."""
    kept = [visit for domain in BIG for visit in let_in(crowd, domain, of_kept // 2)]
    assert len(kept) == of_kept
    assert len(stream(kept)) == of_others
    for visit in kept:
        visit.leave()
    others = [visit for domain in ("late.example", "later.example") for visit in let_in(crowd, domain, 10)]
    assert len(others) == min(20, of_others)
    for visit in others:
        visit.leave()
    late = let_in(crowd, "late.example", 60)
    answer(late)
    late += let_in(crowd, "later.example", 60)
    assert len(late) == of_others


def test_one_kept_domain_leaves_a_quarter_of_the_threads() -> None:
    crowd = made()
    assert len(let_in(crowd, "big.example", 1000)) == 96
    assert len(let_in(crowd, "mapped.example", 8)) == 8
    assert len(let_in(crowd, "other.example", 8)) == 8


def test_one_other_domain_leaves_five_eighths_and_something_to_its_like() -> None:
    crowd = made(known=["hanging.example", "other.example"])
    assert len(let_in(crowd, "hanging.example", 1000)) == 48
    assert len(let_in(crowd, "other.example", 1000)) == 16
    assert len(let_in(crowd, "big.example", 1000)) == 56


def test_all_domains_together_leave_some() -> None:
    """For the health check and all that asks no registry."""
    crowd = made(kept=NUMBERED)
    assert sum(len(let_in(crowd, domain, 10)) for domain in NUMBERED) == 120


def test_however_many_strangers_hang_they_have_a_share_and_the_known_ones_go_on() -> None:
    crowd = made(known=["known.example"])
    assert sum(len(let_in(crowd, domain, 10)) for domain in NUMBERED) == 48
    assert len(let_in(crowd, "known.example", 10)) == 10
    assert len(let_in(crowd, "big.example", 40)) == 40
    with pytest.raises(Overloaded, match=r"late\.example has not answered here lately"):
        crowd.enter("late.example")


def test_domains_that_answered_before_they_hang_cannot_take_what_is_kept_however_many_they_are() -> None:
    """Names below one domain get round the places of one registry, and one quick answer makes it a known domain."""
    crowd = made(known=NUMBERED)
    assert len(let_in(crowd, "r0.example", 92)) == 48
    assert sum(len(let_in(crowd, domain, 92)) for domain in NUMBERED[1:]) == 16
    assert len(let_in(crowd, "big.example", 60)) == 56
    assert len(let_in(crowd, "big.example", 1)) == 0


def test_a_domain_that_answers_one_request_each_second_and_hangs_the_others_has_no_more() -> None:
    clock = Clock()
    crowd = made(clock)
    hanging = 0
    for _ in range(20):
        for domain in ("evil.example", "evil2.example"):
            for quick in let_in(crowd, domain, 1):
                quick.answered()
                quick.leave()
            hanging += len(let_in(crowd, domain, 20))
        clock.advance(1.0)
    assert hanging == 64
    assert len(let_in(crowd, "big.example", 60)) == 56


def test_a_mapped_registry_that_was_never_asked_is_not_kept_out_by_strangers() -> None:
    crowd = made(kept=[], mapped=["mapped.example"])
    assert sum(len(let_in(crowd, domain, 10)) for domain in NUMBERED) == 48
    assert len(let_in(crowd, "mapped.example", 60)) == 60


def test_a_mapped_registry_that_was_never_asked_has_room_for_a_burst_until_it_stalls() -> None:
    clock = Clock()
    crowd = made(clock, mapped=["first.example", "second.example"])
    burst = let_in(crowd, "first.example", 100)
    assert len(burst) == 96
    others = let_in(crowd, "big.example", 100)
    assert len(others) == 24
    for visit in (*others, *burst[:50]):
        visit.leave()
    clock.advance(STALL_S + 0.1)
    assert len(let_in(crowd, "first.example", 10)) == 2
    assert len(let_in(crowd, "second.example", 100)) == 48


def test_names_below_a_big_domain_that_anybody_may_rent_take_nothing_of_what_is_kept() -> None:
    crowd = made(kept=["amazonaws.com", "big.example"], mapped=["0123.dkr.ecr.eu-west-1.amazonaws.com"])
    assert len(let_in(crowd, "0123.dkr.ecr.eu-west-1.amazonaws.com", 8)) == 8
    answer(let_in(crowd, "amazonaws.com", 1))
    assert len(let_in(crowd, "amazonaws.com", 100)) == 47
    assert len(let_in(crowd, "big.example", 100)) == 64


def test_others_that_hang_and_stream_leave_the_kept_a_quarter() -> None:
    """Two domains' streams and as many others that hang, and big registries' blobs that nobody reads."""
    crowd = made(known=NUMBERED)
    assert len(stream(let_in(crowd, "big.example", 40))) == 32
    assert sum(len(let_in(crowd, domain, 20)) for domain in NUMBERED) == 56
    assert len(stream(let_in(crowd, "mapped.example", 20))) == 0
    assert len(let_in(crowd, "mapped.example", 100)) == 32


def test_streams_of_one_other_domain_are_in_its_share() -> None:
    crowd = made(known=["evil.example"])
    streams = stream(let_in(crowd, "evil.example", 48))
    assert len(streams) == 32
    assert len(let_in(crowd, "evil.example", 100)) == 16
    streams[0].leave()
    assert len(let_in(crowd, "evil.example", 100)) == 1


def test_who_answers_quickly_is_no_stranger_and_who_stalls_is_one_again() -> None:
    clock = Clock()
    crowd = made(clock)
    assert len(let_in(crowd, "strange.example", 40)) == 40
    (first,) = let_in(crowd, "hanging.example", 1)
    clock.advance(STALL_S / 2)
    first.answered()
    assert len(let_in(crowd, "hanging.example", 14)) == 14
    clock.advance(STALL_S + 0.1)
    with pytest.raises(Overloaded, match=r"hanging\.example does not answer"):
        crowd.enter("hanging.example")
    first.answered()
    assert len(let_in(crowd, "hanging.example", 1)) == 0, "an answer after such a time is no sign for the next one"
    first.leave()


def test_a_kept_domain_that_stalls_is_a_stranger_among_the_kept() -> None:
    clock = Clock()
    crowd = made(clock)
    assert len(let_in(crowd, "big.example", 60)) == 60
    clock.advance(STALL_S + 0.1)
    assert len(let_in(crowd, "big.example", 1)) == 0
    assert len(let_in(crowd, "mapped.example", 30)) == 30
    assert len(let_in(crowd, "other.example", 30)) == 30, "which is none of the kept, and new"


def test_a_domain_that_stalled_is_known_for_it_when_it_comes_again() -> None:
    clock = Clock()
    crowd = made(clock)
    (visit,) = let_in(crowd, "big.example", 1)
    clock.advance(STALL_S + 1)
    visit.leave()
    let_in(crowd, "mapped.example", 20)
    assert len(let_in(crowd, "big.example", 60)) == 48
    assert len(let_in(crowd, "mapped.example", 40)) == 40


def test_a_slow_domain_that_answers_all_the_time_does_not_stall() -> None:
    clock = Clock()
    crowd = made(clock)
    visits = let_in(crowd, "big.example", 60)
    for _ in range(20):
        clock.advance(STALL_S * 0.9)
        visits.append(crowd.enter("big.example"))
        visits[-1].answered()
        visits.pop(0).leave()
    assert len(let_in(crowd, "big.example", 10)) == 10


@pytest.mark.parametrize("domain", ["big.example", "other.example"])
def test_who_waits_for_the_log_is_no_sign_that_the_registry_stalls_and_takes_none_of_its_places(domain: str) -> None:
    clock = Clock()
    crowd = made(clock, known=["other.example"])
    with ExitStack() as stack:
        for visit in let_in(crowd, domain, 48):
            visit.answered()
            stack.enter_context(visit.aside())
        clock.advance(STALL_S * 10)
        assert len(let_in(crowd, domain, 40)) == 40


def test_who_comes_back_from_the_log_waits_for_the_registry_again() -> None:
    clock = Clock()
    crowd = made(clock)
    (visit,) = let_in(crowd, "new.example", 1)
    with visit.aside():
        clock.advance(STALL_S * 10)
    visit.answered()
    assert is_known(crowd, "new.example"), "the time aside does not count"
    clock.advance(STALL_S + 0.1)
    assert not is_known(crowd, "new.example"), "the time after it does"


def test_a_registry_that_took_long_is_not_quick_because_of_the_log() -> None:
    clock = Clock()
    crowd = made(clock)
    (visit,) = let_in(crowd, "slow.example", 1)
    clock.advance(STALL_S + 1)
    with visit.aside():
        clock.advance(1)
    visit.answered()
    visit.leave()
    assert not is_known(crowd, "slow.example")


def test_the_log_takes_nothing_of_what_is_kept_for_who_waits_for_registries() -> None:
    crowd = made()
    with ExitStack() as stack:
        for visit in let_in(crowd, "big.example", 88):
            stack.enter_context(visit.aside())
        (refused,) = let_in(crowd, "big.example", 1)
        with pytest.raises(Overloaded, match="waiting for the log"):
            stack.enter_context(refused.aside())
        refused.leave()
        assert len(let_in(crowd, "other.example", 1)) == 0
        assert len(let_in(crowd, "mapped.example", 100)) == 32


def test_what_fails_aside_gives_its_place_back() -> None:
    crowd = made()
    for domain in ("other.example", "big.example") * 100:
        (visit,) = let_in(crowd, domain, 1)
        with suppress(Overloaded), visit.aside():
            raise Overloaded(domain)
        visit.leave()
    assert_nobody_is_left(crowd, 120, 64)


def test_streams_have_a_share_and_are_no_sign_that_their_domain_stalls() -> None:
    clock = Clock()
    crowd = made(clock)
    visits = let_in(crowd, "big.example", 32) + let_in(crowd, "mapped.example", 32)
    answer(visits)
    streams = stream(visits)
    assert len(streams) == 64
    (refused,) = let_in(crowd, "other.example", 1)
    with pytest.raises(Overloaded, match="too many blobs and large answers are being sent"):
        refused.stream("192.0.2.200")
    refused.leave()
    clock.advance(10_000)
    assert len(let_in(crowd, "big.example", 100)) == 56, "15/16 of all threads are taken"
    streams[0].leave()
    (visit,) = let_in(crowd, "big.example", 1)
    visit.stream("192.0.2.200")


def test_streams_of_one_domain_leave_half_to_the_others() -> None:
    crowd = made()
    streams = stream(let_in(crowd, "big.example", 60))
    assert len(streams) == 32
    (refused,) = let_in(crowd, "big.example", 1)
    with pytest.raises(Overloaded, match=r"of big\.example are being sent"):
        refused.stream("192.0.2.200")
    refused.leave()
    assert len(stream(let_in(crowd, "mapped.example", 60))) == 32
    streams[0].leave()
    assert len(stream(let_in(crowd, "big.example", 2))) == 1


def test_streams_to_one_client_leave_some_to_the_others_and_serve_a_dozen_machines_behind_one_address() -> None:
    crowd = made()
    layers = [visit for domain in BIG for visit in let_in(crowd, domain, 32)]
    mine = stream(layers, "198.51.100.7")
    assert len(mine) == 40 >= 12 * 3
    assert len(stream(let_in(crowd, "mapped.example", 30), "198.51.100.8")) == 24
    for visit in mine[8:]:
        visit.leave()
    assert len(stream(let_in(crowd, "big.example", 10), "198.51.100.7")) == 10
    crowd = made(threads=16)
    assert len(stream(let_in(crowd, "big.example", 16), "198.51.100.7")) == 12


def test_one_client_may_have_as_many_streams_of_one_registry_as_that_has_places_at_eighty_threads() -> None:
    """Else a burst of pulls on a healthy registry is refused, and not only made to wait for its turn there."""
    crowd = made(threads=80)
    assert len(stream(let_in(crowd, "big.example", 80), "198.51.100.7")) == 32


def test_a_place_is_given_back_once_and_nothing_is_left_behind() -> None:
    crowd = made(kept=[*BIG, *NUMBERED[:200]])
    for _ in range(3):
        visits = [visit for domain in NUMBERED[:200] for visit in let_in(crowd, domain, 1)]
        assert len(visits) == 120
        streams = stream(visits[:70])
        assert len(streams) == 64
        for visit in visits:
            visit.leave()
            visit.leave()
    assert_nobody_is_left(crowd, 120, 64)


def test_the_domains_that_answered_are_bounded() -> None:
    crowd = made()
    for number in range(2 * KNOWN):
        visit = crowd.enter(f"r{number}.example")
        visit.answered()
        visit.leave()
    assert not is_known(crowd, "r0.example"), "forgotten, as the oldest"
    assert is_known(crowd, f"r{2 * KNOWN - 1}.example")


@pytest.mark.parametrize("threads", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kept", [[], NUMBERED])
def test_with_few_threads_none_is_kept_free(threads: int, kept: list[str]) -> None:
    """There a request waits for its turn at the web server, as it always did."""
    assert len(let_in(made(threads=threads, kept=kept), "r0.example", 1)) == 1
    crowd = made(threads=threads, kept=kept)
    assert sum(len(let_in(crowd, domain, 1)) for domain in NUMBERED) == threads


def test_threads_that_race_are_never_more_than_there_are() -> None:
    crowd = made(threads=32, kept=[*BIG, *NUMBERED[:3]], known=NUMBERED[3:5])
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for turn in range(200):
            try:
                visit = crowd.enter(f"r{number % 5}.example")
            except Overloaded:
                continue
            inside.append(number)
            most.append(len(inside))
            inside.pop()
            visit.answered()
            with suppress(Overloaded):
                if turn % 3 == 0:
                    with visit.aside():
                        pass
                if turn % 2 == 0:
                    visit.stream(str(number % 7))
            visit.leave()

    with ThreadPoolExecutor(128) as pool:
        list(pool.map(work, range(128)))
    assert max(most) <= 32
    assert_nobody_is_left(crowd, 32, 16)


@pytest.mark.parametrize("threads", [8, 16, 64, 80])
def test_a_burst_on_one_healthy_registry_is_let_in_as_far_as_there_are_threads(threads: int) -> None:
    assert len(let_in(made(threads=threads), "big.example", threads)) == threads
    share = min(threads, max(16, threads * 3 // 8))
    assert len(let_in(made(threads=threads), "new.example", threads)) == share
    assert len(let_in(made(threads=threads, known=["other.example"]), "other.example", threads)) == share
