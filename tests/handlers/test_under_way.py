"""Requests for a tag that come while another one's first sighting of it is being signed, over HTTP."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.handlers.test_http import OCI, manifest, name, path, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.framework import Answer
    from tests.handlers.test_http import World

__all__ = ["name", "world"]

LATE = 6  # requests


@pytest.fixture
def slow(world: World) -> Iterator[World]:
    """Each call to the log and the certificate authority takes 0.4 s."""
    world.dev.faults.set("delay:400")
    yield world
    world.dev.faults.set("")


def under_way(world: World, name: str, moment: Callable[[], None] = lambda: None) -> list[Answer]:
    """The answers to a request, and to some more that come while the log is asked for it; `moment` is before those."""
    answers: list[Answer] = []
    ask = [lambda: answers.append(world.get(path(name))), lambda: answers.append(world.head(path(name)))]
    threads = [threading.Thread(target=ask[0])]
    looks = world.dev.calls["index"]
    threads[0].start()
    until = time.monotonic() + 10
    while world.dev.calls["index"] == looks and time.monotonic() < until:
        time.sleep(0.01)
    assert not answers
    moment()
    threads += [threading.Thread(target=ask[number % 2]) for number in range(LATE)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_late_requests_cost_the_upstream_heads_and_no_second_get(slow: World, name: str) -> None:
    """Docker Hub counts GETs of manifests, and HEADs not."""
    digest = slow.push(name)
    slow.registry.forget_requests()
    answers = under_way(slow, name)
    assert [answer.status for answer in answers] == [200] * (1 + LATE)
    assert {answer.headers["docker-content-digest"] for answer in answers} == {digest}
    assert sum("tlog-first-seen" in answer.headers for answer in answers) == 1
    asked = [seen.method for seen in slow.registry.requests if "authorization" in seen.headers]
    assert asked.count("GET") == 1
    assert 1 <= asked.count("HEAD") <= LATE


def test_late_requests_are_told_when_the_tag_moved_meanwhile(slow: World, name: str) -> None:
    first, second = slow.push(name), slow.registry.push(f"library/{name}", "2.0", manifest(2), OCI)
    answers = under_way(slow, name, lambda: slow.registry.move(f"library/{name}", "1.0", second))
    assert sorted(answer.status for answer in answers) == [200] + [403] * LATE
    (served,) = (answer for answer in answers if answer.status == 200)
    assert served.headers["docker-content-digest"] == first


def test_late_requests_are_told_that_the_log_failed(slow: World, name: str) -> None:
    slow.push(name)
    slow.dev.faults.set("delay:400,log:before")
    answers = under_way(slow, name)
    assert {answer.status for answer in answers} == {503}
    slow.dev.faults.set("")
    assert "tlog-first-seen" in slow.get(path(name)).headers
