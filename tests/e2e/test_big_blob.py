"""Blobs of many gigabytes through a registry that streams them with 200: in constant memory, resumable, and never short.

The process is the one that is deployed. What it may use is judged by the kernel's own high-water mark of its memory.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from lib.devsigstore.server import DevSigstore
from tests.e2e.processes import children, wait_until
from tests.fakes.sparse import Framing, How, SparseBlob, SparseRegistry
from tests.framework import Function

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

MIB, GIB = 1 << 20, 1 << 30
ALLOWED = 8 * MIB  # buffers of one stream are 64 KiB; the rest is for the allocator and for what is imported meanwhile
IN_SOCKETS = 64 * MIB  # what the kernel holds between the three of us: at most a few MiB for each socket
WAIT_S = 60
BUFFER = 1 * MIB


class World:
    """The service in front of one registry, with the memory of its processes."""

    def __init__(self, registry: SparseRegistry, function: Function) -> None:
        self.registry, self.function = registry, function

    def _family(self) -> list[int]:
        return [self.function.process.pid, *children(self.function.process.pid)]

    def peak(self) -> int:
        """Bytes that its processes had resident at most since `forget_peak`."""
        return sum(_status(pid, "VmHWM") for pid in self._family())

    def forget_peak(self) -> None:
        """From here on: 5 in clear_refs resets the high-water mark (proc_pid_clear_refs(5))."""
        for pid in self._family():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    @contextmanager
    def constant_memory(self, allowed: int = ALLOWED) -> Iterator[None]:
        self.forget_peak()
        before = self.peak()
        yield
        grown = self.peak() - before
        assert grown <= allowed, f"{grown / MIB:.1f} MiB more than before"


class Download:
    """One GET, read piece by piece and compared with the file that it should be."""

    def __init__(self, world: World, blob: SparseBlob, **headers: str) -> None:
        self._blob = blob
        self._connection = http.client.HTTPConnection("127.0.0.1", world.function.port, timeout=WAIT_S)
        self._connection.request("GET", blob.path, headers=headers)
        self.response = self._connection.getresponse()
        match = re.match(r"bytes ([0-9]+)-", self.response.headers["Content-Range"] or "")
        self.start = int(match[1]) if match is not None else 0
        self.received = 0

    @property
    def length(self) -> int | None:
        text = self.response.headers["Content-Length"]
        return int(text) if text is not None else None

    def read(self, count: int | None = None) -> bool:
        """Up to `count` bytes more, or all; whether the answer has come to a proper end."""
        got = bytearray(BUFFER)
        until = self.received + count if count is not None else None
        while until is None or self.received < until:
            room = BUFFER if until is None else min(BUFFER, until - self.received)
            try:
                size = self.response.readinto(memoryview(got)[:room])
            except (http.client.IncompleteRead, ConnectionError):
                return False
            if size == 0:
                return self.length is None or self.received == self.length
            wanted = os.pread(self._blob.file, size, self.start + self.received)
            assert got[:size] == wanted, f"other bytes after {self.start + self.received}"
            self.received += size
        return False

    def close(self) -> None:
        self._connection.close()
        self.response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _status(pid: int, field: str) -> int:
    match = re.search(rf"^{field}:\s+([0-9]+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("blobs")
    with DevSigstore(folder) as dev, SparseRegistry(folder) as registry:
        settings = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": registry.url}),
            "TLOGISTRY_DEADLINE": "5",  # shorter than any of these downloads may be
        }
        with Function(settings, threads=64) as function:
            world = World(registry, function)
            for framing in ("length", "chunked"):  # what is imported and allocated once
                registry.framing = framing
                _whole(world, registry.blob(32 * MIB))
            yield world
        assert not [line for line in function.lines if "Traceback" in line]


@pytest.fixture
def world(running: World) -> World:
    running.registry.framing = "length"
    running.registry.refuse_head = False
    return running


def _whole(world: World, blob: SparseBlob) -> None:
    with Download(world, blob) as download:
        assert download.response.status == 200
        assert download.response.headers["Docker-Content-Digest"] == blob.digest
        assert download.read(), "it has come to its end"
        assert download.received == blob.size


def test_a_blob_of_unknown_length_passes_in_constant_memory(world: World) -> None:
    world.registry.framing = "chunked"
    with world.constant_memory():
        _whole(world, world.registry.blob(256 * MIB))


def test_three_gibibytes_pass_in_constant_memory(world: World) -> None:
    with world.constant_memory():
        _whole(world, world.registry.blob(3 * GIB))


def test_eight_at_once_take_no_more_memory_than_their_buffers(world: World) -> None:
    blob = world.registry.blob(48 * MIB)
    done: list[int] = []

    def read(number: int) -> None:
        _whole(world, blob)
        done.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    with world.constant_memory():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 8


def test_a_client_that_does_not_read_holds_the_upstream_back(world: World) -> None:
    """Or else a slow client and a quick registry would fill our memory. When it hangs up, the upstream is let go."""
    blob = world.registry.blob(6 * GIB)
    with world.constant_memory():
        sent = world.registry.sent
        download = Download(world, blob)
        assert not download.read(4 * MIB)
        quiet = _Quiet(world.registry)
        assert wait_until(quiet.at_rest, WAIT_S)
        assert world.registry.sent - sent < IN_SOCKETS
        download.close()
        assert wait_until(lambda: world.registry.streaming == 0, WAIT_S), "the upstream is let go"
    assert world.registry.sent - sent < IN_SOCKETS


class _Quiet:
    """Whether a registry has sent nothing for fifty looks."""

    def __init__(self, registry: SparseRegistry) -> None:
        self._registry = registry
        self._sent = -1
        self._looks = 0

    def at_rest(self) -> bool:
        self._looks = self._looks + 1 if self._registry.sent == self._sent else 0
        self._sent = self._registry.sent
        return self._looks >= 50


# --- ranges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        (f"bytes={6 * GIB - MIB}-", 6 * GIB - MIB, 6 * GIB - 1),
        ("bytes=4294967290-4294967305", (1 << 32) - 6, (1 << 32) + 9),
        (f"bytes={2 * GIB - 1}-{2 * GIB + MIB}", 2 * GIB - 1, 2 * GIB + MIB),
        ("bytes=-16", 6 * GIB - 16, 6 * GIB - 1),
        (f"bytes={6 * GIB - 1}-{7 * GIB}", 6 * GIB - 1, 6 * GIB - 1),
    ],
)
def test_a_range_is_counted_in_more_than_32_bits(world: World, asked: str, first: int, last: int) -> None:
    blob = world.registry.blob(6 * GIB)
    download = Download(world, blob, Range=asked)
    assert download.response.status == 206
    assert download.response.headers["Content-Range"] == f"bytes {first}-{last}/{blob.size}"
    assert download.length == last - first + 1
    assert download.read(), "it has come to its end"
    assert (download.start, download.received) == (first, last - first + 1)
    download.close()


def test_a_range_beyond_the_end_is_416_and_says_how_long_it_is(world: World) -> None:
    blob = world.registry.blob(6 * GIB)
    download = Download(world, blob, Range=f"bytes={6 * GIB}-")
    assert download.response.status == 416
    assert download.response.headers["Content-Range"] == f"bytes */{6 * GIB}"
    download.close()


@pytest.mark.parametrize("refuse_head", [False, True], ids=["by HEAD", "by a GET of one byte"])
def test_how_long_it_is_costs_no_bytes(world: World, *, refuse_head: bool) -> None:
    world.registry.refuse_head = refuse_head
    blob, sent = world.registry.blob(6 * GIB), world.registry.sent
    answer = world.function.ask("HEAD", blob.path)
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(6 * GIB), b"")
    assert world.registry.sent - sent <= 1


# --- cut short -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("at", [1, 100_000, 20 * MIB, 32 * MIB - 1])
def test_a_cut_upstream_is_a_cut_answer(world: World, framing: Framing, how: How, at: int) -> None:
    """Never a short 200 that looks whole: with a length it is shorter than that, without one it has no last chunk."""
    world.registry.framing = framing
    blob = world.registry.blob(32 * MIB)
    world.registry.cut(at, how)
    download = Download(world, blob)
    assert download.response.status == 200
    assert download.length == (blob.size if framing == "length" else None)
    assert not download.read(), "it must not look whole"
    assert download.received <= at
    download.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_part_that_is_cut_is_a_cut_answer_too(world: World, how: How) -> None:
    blob = world.registry.blob(32 * MIB)
    world.registry.cut(MIB, how)
    download = Download(world, blob, Range=f"bytes={8 * MIB}-")
    assert (download.response.status, download.length) == (206, 24 * MIB)
    assert not download.read(), "it must not look whole"
    assert download.received <= MIB
    download.close()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_download_that_is_cut_again_and_again_is_resumed_to_the_end(world: World, framing: Framing) -> None:
    """As Docker and containerd do it, which insist on 206 and the right Content-Range."""
    world.registry.framing = framing
    blob, received = world.registry.blob(64 * MIB), 0
    for attempt in range(4):
        if attempt < 3:
            world.registry.cut(20 * MIB - attempt, "close")
        more = {"Range": f"bytes={received}-", "If-Range": f'"{blob.digest}"'} if attempt else {}
        download = Download(world, blob, **more)
        assert download.response.status == (206 if attempt else 200)
        if attempt:
            assert download.response.headers["Content-Range"] == f"bytes {received}-{blob.size - 1}/{blob.size}"
        assert download.read() == (attempt == 3)
        received += download.received
        download.close()
    assert received == blob.size
