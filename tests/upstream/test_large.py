"""Large answers wait for each other, and small ones for nobody."""

from __future__ import annotations

import math
import threading
import time
from contextlib import ExitStack

import pytest

from lib.errors import DeadlineExceeded, NoManifest, Overloaded
from lib.upstream.large import (
    LARGE_BYTES,
    PARSED_BYTES,
    PARSING,
    READ_AT_ONCE_OF_ONE_HOST,
    READING,
    Places,
)
from lib.upstream.url import Url
from tests.fakes.registry import FakeRegistry, Status
from tests.upstream.support import soon
from tests.upstream.test_transport import calling


def test_one_host_has_no_more_than_its_share() -> None:
    places = Places(3, 2, 0.0)
    with places.enter("a", soon()), places.enter("a", soon()):
        with pytest.raises(Overloaded, match="too many other large answers"), places.enter("a", soon()):
            pass
        with places.enter("b", soon()), pytest.raises(Overloaded), places.enter("c", soon()):
            pass
    with places.enter("a", soon()), places.enter("a", soon()):
        pass


def test_nobody_waits_longer_than_the_deadline() -> None:
    places = Places(1, 1, math.inf)
    with places.enter("a", soon()), pytest.raises(DeadlineExceeded), places.enter("b", soon(0.05)):
        pass


def test_who_waits_gets_the_place_that_is_given_back() -> None:
    places = Places(1, 1, 5.0)
    got = threading.Event()

    def wait() -> None:
        with places.enter("b", soon()):
            got.set()

    waiting = threading.Thread(target=wait)
    with places.enter("a", soon()):
        waiting.start()
        assert not got.wait(0.1)
    assert got.wait(5)
    waiting.join()


def test_a_place_is_given_back_when_what_held_it_fails() -> None:
    places = Places(1, 1, 0.0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), places.enter("a", soon()):
            raise ZeroDivisionError


def together(size: int, requests: int = 6) -> int:
    """How many of so many bodies of `size` bytes were in a parser at the same time."""
    inside: set[int] = set()
    most = 0

    def parse(content: bytes) -> None:
        nonlocal most
        assert len(content) == size
        inside.add(threading.get_ident())
        most = max(most, len(inside))
        time.sleep(0.1)
        inside.discard(threading.get_ident())

    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Status(200, {}, b" " * size))

        def ask() -> None:
            transport.call("GET", Url.parse(f"{fake.base_url}/x"), {}, guard, soon(20)).parsed(size, soon(20), parse)

        threads = [threading.Thread(target=ask) for _ in range(requests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return most


def test_documents_are_parsed_one_at_a_time_if_they_are_longer_than_most() -> None:
    assert together(PARSED_BYTES + 1) == 1
    assert together(PARSED_BYTES) > 1


@pytest.mark.parametrize("size", [LARGE_BYTES, LARGE_BYTES + 1], ids=["small", "large"])
def test_a_large_answer_is_not_read_while_too_many_of_its_host_are(size: int) -> None:
    """Bodies that drip would otherwise be in memory by the hundred, all but complete."""
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard), ExitStack() as others:
        fake.fault("*", Status(200, {}, b" " * size))
        for _ in range(READ_AT_ONCE_OF_ONE_HOST):
            others.enter_context(READING.enter(f"127.0.0.1:{fake.port}", soon()))
        answer = transport.call("GET", Url.parse(f"{fake.base_url}/x"), {}, guard, soon())
        if size > LARGE_BYTES:
            with pytest.raises(DeadlineExceeded, match="turn of the large answer"):
                answer.parsed(size, soon(0.1), len)
        else:
            assert answer.parsed(size, soon(0.1), len) == size


def test_a_refused_document_leaves_its_places_and_is_not_kept_by_its_error() -> None:
    """An error's traceback holds every variable of the parser that raised it."""

    def parse(content: bytes) -> None:
        held = [content] * 1000
        msg = f"not a manifest, {len(held)}"
        raise NoManifest(msg)

    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Status(200, {}, b" " * (LARGE_BYTES + 1)))
        for _ in range(READ_AT_ONCE_OF_ONE_HOST + 1):
            answer = transport.call("GET", Url.parse(f"{fake.base_url}/x"), {}, guard, soon())
            with pytest.raises(NoManifest, match="not a manifest, 1000") as refused:
                answer.parsed(LARGE_BYTES + 1, soon(), parse)
            assert refused.value.__context__ is None
            assert "held" not in refused.traceback[-1].frame.f_locals
            assert "content" not in refused.traceback[-1].frame.f_locals
        with PARSING.enter("x", soon(0.1)):
            pass
