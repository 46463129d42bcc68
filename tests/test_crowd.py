"""Threads for everybody."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.crowd import KNOWN, STALL_S, Crowd, Visit
from lib.errors import Overloaded
from tests.clock import Clock

THREADS = 128


def let_in(crowd: Crowd, domain: str, number: int) -> list[Visit]:
    """As many of so many requests as are let in."""
    visits = []
    for _ in range(number):
        try:
            visits.append(crowd.enter(domain))
        except Overloaded:
            continue
    return visits


def test_one_domain_leaves_a_quarter_of_the_threads() -> None:
    crowd = Crowd(THREADS, Clock().now, ["hanging.example", "other.example"])
    assert len(let_in(crowd, "hanging.example", 1000)) == 96
    assert len(let_in(crowd, "other.example", 8)) == 8


def test_all_domains_together_leave_some() -> None:
    """For the health check and all that asks no registry."""
    domains = [f"r{number}.example" for number in range(1000)]
    crowd = Crowd(THREADS, Clock().now, domains)
    assert sum(len(let_in(crowd, domain, 10)) for domain in domains) == 120


def test_however_many_strangers_hang_they_have_a_share_and_the_known_ones_go_on() -> None:
    crowd = Crowd(THREADS, Clock().now, ["known.example"])
    assert sum(len(let_in(crowd, f"r{number}.example", 10)) for number in range(1000)) == 48
    assert len(let_in(crowd, "known.example", 40)) == 40
    with pytest.raises(Overloaded, match=r"late\.example has not answered here lately"):
        crowd.enter("late.example")


def test_who_answers_quickly_is_no_stranger_and_who_stalls_is_one_again() -> None:
    clock = Clock()
    crowd = Crowd(THREADS, clock.now)
    (first,) = let_in(crowd, "hanging.example", 1)
    clock.advance(STALL_S / 2)
    first.answered()
    assert len(let_in(crowd, "hanging.example", 60)) == 60
    clock.advance(STALL_S + 0.1)
    assert len(let_in(crowd, "hanging.example", 1)) == 0, "61 are inside, and nobody was answered"
    assert len(let_in(crowd, "other.example", 1)) == 0, "which is more than strangers may be"
    first.answered()
    assert len(let_in(crowd, "hanging.example", 1)) == 0, "an answer after such a time is no sign for the next one"
    first.leave()


def test_a_domain_that_stalled_is_known_for_it_when_it_comes_again() -> None:
    clock = Clock()
    crowd = Crowd(THREADS, clock.now, ["hanging.example", "healthy.example"])
    (visit,) = let_in(crowd, "hanging.example", 1)
    clock.advance(STALL_S + 1)
    visit.leave()
    let_in(crowd, "healthy.example", 20)
    assert len(let_in(crowd, "hanging.example", 60)) == 48
    assert len(let_in(crowd, "healthy.example", 40)) == 40


def test_a_slow_domain_that_answers_all_the_time_does_not_stall() -> None:
    clock = Clock()
    crowd = Crowd(THREADS, clock.now, ["slow.example"])
    visits = let_in(crowd, "slow.example", 60)
    for _ in range(20):
        clock.advance(STALL_S * 0.9)
        visits.append(crowd.enter("slow.example"))
        visits[-1].answered()
        visits.pop(0).leave()
    assert len(let_in(crowd, "slow.example", 10)) == 10


def test_streams_have_a_share_and_are_no_sign_that_their_domain_stalls() -> None:
    clock = Clock()
    crowd = Crowd(THREADS, clock.now, ["known.example"])
    streams = let_in(crowd, "known.example", 64)
    for visit in streams:
        visit.answered()
        visit.stream()
    (refused,) = let_in(crowd, "known.example", 1)
    with pytest.raises(Overloaded, match="too many blobs"):
        refused.stream()
    refused.leave()
    clock.advance(10_000)
    assert len(let_in(crowd, "known.example", 100)) == 56, "15/16 of all threads are taken"
    streams[0].leave()
    (visit,) = let_in(crowd, "known.example", 1)
    visit.stream()


def test_a_place_is_given_back_once_and_nothing_is_left_behind() -> None:
    domains = [f"r{number}.example" for number in range(200)]
    crowd = Crowd(THREADS, Clock().now, domains)
    for _ in range(3):
        visits = [visit for domain in domains for visit in let_in(crowd, domain, 1)]
        assert len(visits) == 120
        for visit in visits:
            visit.leave()
            visit.leave()


def test_the_domains_that_answered_are_bounded() -> None:
    crowd = Crowd(THREADS, Clock().now)
    for number in range(2 * KNOWN):
        visit = crowd.enter(f"r{number}.example")
        visit.answered()
        visit.leave()
    assert len(let_in(crowd, "r0.example", 60)) == 48, "forgotten, as the oldest"
    assert len(let_in(crowd, f"r{2 * KNOWN - 1}.example", 60)) == 60


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_with_few_threads_none_is_kept_free(threads: int) -> None:
    """There a request waits for its turn at the web server, as it always did."""
    domains = [f"r{number}.example" for number in range(20)]
    assert sum(len(let_in(Crowd(threads, Clock().now, domains), domain, 1)) for domain in domains[:1]) == 1
    crowd = Crowd(threads, Clock().now, domains)
    assert sum(len(let_in(crowd, domain, 1)) for domain in domains) == threads


def test_threads_that_race_are_never_more_than_there_are() -> None:
    crowd = Crowd(32, Clock().now, [f"r{number}.example" for number in range(5)])
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            try:
                visit = crowd.enter(f"r{number % 5}.example")
            except Overloaded:
                continue
            inside.append(number)
            most.append(len(inside))
            inside.pop()
            visit.answered()
            visit.leave()

    with ThreadPoolExecutor(128) as pool:
        list(pool.map(work, range(128)))
    assert max(most) <= 32
    assert len(let_in(crowd, "r0.example", 100)) == 32


@pytest.mark.parametrize("threads", [8, 16, 64, 80])
def test_a_burst_on_one_healthy_registry_is_let_in_as_far_as_there_are_threads(threads: int) -> None:
    crowd = Crowd(threads, Clock().now, ["known.example"])
    assert len(let_in(crowd, "known.example", threads)) == threads
    crowd = Crowd(threads, Clock().now)
    assert len(let_in(crowd, "new.example", threads)) == min(threads, max(16, threads * 3 // 8))
