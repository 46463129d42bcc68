"""One HTTP call: connections, framing, TLS."""

from __future__ import annotations

import datetime as dt
import ssl
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lib.config import BaseUrl
from lib.errors import DeadlineExceeded, UpstreamUnavailable
from lib.upstream.addresses import Lookups, system_resolver
from lib.upstream.answer import CHUNK_MEAN_BYTES, SMALL_CHUNKS
from lib.upstream.connection import Connection
from lib.upstream.guard import Guard
from lib.upstream.limits import Limits
from lib.upstream.pool import Pool
from lib.upstream.transport import Transport
from lib.upstream.url import Url
from tests.clock import Clock
from tests.fakes.registry import CutShort, Drop, FakeRegistry, Hang, Raw, Status, image
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, asking, names, soon

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lib.upstream.addresses import Resolver


@contextmanager
def calling(
    *urls: str,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
    resolver: Resolver = system_resolver,
) -> Iterator[tuple[Transport, Guard]]:
    """A transport, and a guard that lets these origins through."""
    limits = limits if limits is not None else Limits()
    transport = Transport(Lookups(resolver, limits), clock, limits)
    try:
        yield transport, Guard(frozenset(BaseUrl.parse(url) for url in urls))
    finally:
        transport.close()


def body(fake: FakeRegistry, transport: Transport, guard: Guard, path: str = "/x", seconds: float = 5.0) -> bytes:
    return transport.call("GET", Url.parse(fake.base_url + path), {}, guard, soon(seconds)).read(1000)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
VALID = {
    OK + b"Content-Length: 5\r\n\r\nhello": b"hello",
    OK + b"content-length:5\r\n\r\nhello": b"hello",
    OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello": b"hello",
    OK + b"Connection: close\r\n\r\nhello": b"hello",
    b"HTTP/1.0 200 OK\r\n\r\nhello": b"hello",
    b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n": b"",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello": b"hello",
    b"HTTP/1.1 204 No Content\r\n\r\n": b"",
    CHUNKED + b"5\r\nhello\r\n0\r\n\r\n": b"hello",
    CHUNKED + b"2;x=y\r\nhe\r\n00003 \r\nllo\r\n0\r\nTrailer: x\r\n\r\n": b"hello",
    OK + b"Content-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello": b"hello",
}
INVALID = (
    b"hello\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    OK + b"Content-Length: 5\r\n\r\nhell",
    OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    OK + b"Content-Length: +5\r\n\r\nhello",
    OK + b"Content-Length: -1\r\n\r\nhello",
    OK + b"Content-Length: 1_0\r\n\r\nhello",
    OK + b"Content-Length: \xd9\xa5\r\n\r\nhello",
    OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: identity\r\n\r\nhello",
    OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    OK + b"not a header\r\nContent-Length: 5\r\n\r\nhello",
    CHUNKED + b"-1\r\nhello",
    CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"5\nhello\n0\n\n",
    CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\n",
    CHUNKED + b"FFFFFFFFFFFFFFFFFF\r\nhello",
    CHUNKED + b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"0\r\n" + b"T: x\r\n" * 100 + b"\r\n",
)


@pytest.mark.parametrize("answer", VALID, ids=ascii)
def test_a_valid_answer_is_read(answer: bytes) -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Raw(answer))
        assert body(fake, transport, guard) == VALID[answer]


@pytest.mark.parametrize("answer", INVALID, ids=lambda answer: ascii(answer)[:90])
def test_an_answer_that_can_be_read_in_two_ways_is_unavailable(answer: bytes) -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Raw(answer))
        with pytest.raises(UpstreamUnavailable, match=r"127\.0\.0\.1"):
            body(fake, transport, guard)


def chunks(number: int, size: int) -> bytes:
    return (b"%x\r\n%s\r\n" % (size, b"x" * size)) * number


LAST = b"0\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        chunks(SMALL_CHUNKS + SMALL_CHUNKS // CHUNK_MEAN_BYTES, 1),
        chunks(2 * SMALL_CHUNKS, CHUNK_MEAN_BYTES),
        chunks(SMALL_CHUNKS, 1) + chunks(SMALL_CHUNKS, 2 * CHUNK_MEAN_BYTES),
        chunks(1, 2 * CHUNK_MEAN_BYTES * SMALL_CHUNKS) + chunks(2 * SMALL_CHUNKS, 1),
    ],
    ids=["few", "large enough", "small ones first", "small ones last"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["read", "stream"])
def test_chunks_may_be_small_or_many(sent: bytes, *, stream: bool) -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Raw(CHUNKED + sent + LAST))
        answer = transport.call("GET", Url.parse(f"{fake.base_url}/x"), {}, guard, soon(20))
        content = b"".join(answer.stream()) if stream else answer.read(1 << 30)
        assert content == b"x" * sent.count(b"x")


@pytest.mark.parametrize(
    "sent",
    [
        chunks(SMALL_CHUNKS + SMALL_CHUNKS // CHUNK_MEAN_BYTES + 1, 1),
        chunks(SMALL_CHUNKS, 1) + chunks(SMALL_CHUNKS, CHUNK_MEAN_BYTES // 2),
        chunks(1, CHUNK_MEAN_BYTES * SMALL_CHUNKS) + chunks(3 * SMALL_CHUNKS, 1),
    ],
    ids=["one byte each", "on average", "after a large one"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["read", "stream"])
def test_many_small_chunks_are_not_read_to_their_end(sent: bytes, *, stream: bool) -> None:
    """4 MiB in chunks of a byte took 13 s of a processor, for each request."""
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Raw(CHUNKED + sent + LAST))
        answer = transport.call("GET", Url.parse(f"{fake.base_url}/x"), {}, guard, soon(20))
        with pytest.raises(UpstreamUnavailable, match=r"127\.0\.0\.1:\d+ sends its answer in too many small chunks"):
            _ = b"".join(answer.stream()) if stream else answer.read(1 << 30)


def test_connections_are_kept_and_used_again() -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        for _ in range(5):
            body(fake, transport, guard, "/v2/")
        assert {seen.connection for seen in fake.requests} == {1}


def test_a_small_unwanted_body_does_not_cost_the_connection_and_a_large_one_does() -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        for size, connections in ((1000, {1}), (1_000_000, {1, 2})):
            fake.fault("/x", Status(404, {}, b"x" * size), times=1)
            transport.call("GET", Url.parse(f"{fake.base_url}/x"), {}, guard, soon()).discard(Limits())
            body(fake, transport, guard, "/v2/")
            assert {seen.connection for seen in fake.requests} == connections


def test_a_kept_connection_that_died_unseen_is_replaced_once() -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        body(fake, transport, guard, "/v2/")
        fake.fault(
            "*", Drop(), times=1
        )  # takes the request and hangs up, as a server does that closes an idle connection
        assert body(fake, transport, guard, "/v2/") == b"{}"
        assert fake.count() == 3


def test_a_fresh_connection_that_dies_is_not_tried_again() -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Drop())
        with pytest.raises(UpstreamUnavailable, match="closed the connection without an answer"):
            body(fake, transport, guard)
        assert fake.count() == 1


def test_an_answer_that_began_is_not_tried_again() -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        body(fake, transport, guard, "/v2/")
        fake.fault("*", Raw(b"HTTP/1.1 200"))
        with pytest.raises(UpstreamUnavailable):
            body(fake, transport, guard)
        assert fake.count() == 2


def test_bytes_that_nobody_asked_for_are_not_the_next_answer() -> None:
    smuggled = OK + b"Content-Length: 8\r\n\r\nsmuggled"
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Raw(OK + b"Content-Length: 2\r\n\r\n{}" + smuggled, keep=True), times=1)
        for _ in range(2):
            assert body(fake, transport, guard, "/v2/") == b"{}"
        assert {seen.connection for seen in fake.requests} == {1, 2}


def test_a_body_after_a_head_is_not_the_next_answer() -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Raw(OK + b"Content-Length: 2\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", keep=True), times=1)
        transport.call("HEAD", Url.parse(f"{fake.base_url}/v2/"), {}, guard, soon()).close()
        assert body(fake, transport, guard, "/v2/") == b"{}"


def test_a_connection_that_was_idle_for_long_is_not_used() -> None:
    clock = Clock()
    with FakeRegistry() as fake, calling(fake.base_url, clock=clock.now) as (transport, guard):
        body(fake, transport, guard, "/v2/")
        clock.advance(Limits().idle_s)
        body(fake, transport, guard, "/v2/")
        assert {seen.connection for seen in fake.requests} == {1, 2}


class _Socket:
    """Stands for a socket in a pool; never read."""

    closed = False

    def close(self) -> None:
        self.closed = True


def _connection(host: str, *, vouched: bool = False) -> tuple[Connection, _Socket]:
    sock = _Socket()
    made: socket.socket = sock  # type: ignore[assignment]
    return Connection(made, BaseUrl("https", host, 443), vouched=vouched), sock


def test_the_pool_is_bounded_for_each_origin_and_in_all() -> None:
    pool = Pool(lambda: 0.0, Limits(idle=2, idle_total=4))
    sockets = []
    for host in ("a.example", "a.example", "a.example", "b.example", "c.example", "d.example"):
        connection, sock = _connection(host)
        pool.give(connection)
        sockets.append(sock)
    assert [sock.closed for sock in sockets] == [True, True, False, False, False, False]
    pool.close()
    assert all(sock.closed for sock in sockets)


def test_a_vouched_connection_is_not_found_by_a_stranger() -> None:
    pool = Pool(lambda: 0.0, Limits())
    connection, _ = _connection("mirror.example", vouched=True)
    pool.give(connection)
    assert pool.take(connection.origin, vouched=False) is None


def test_a_refused_connection_names_the_host() -> None:
    with calling("http://127.0.0.1:1") as (transport, guard), pytest.raises(UpstreamUnavailable) as caught:
        transport.call("GET", Url.parse("http://127.0.0.1:1/"), {}, guard, soon())
    assert str(caught.value) == "could not connect to 127.0.0.1:1: connection refused"


def test_the_next_address_is_tried_if_one_does_not_answer() -> None:
    with FakeRegistry() as fake:
        url = f"http://reg.example:{fake.port}"
        resolver = names({"reg.example": ["127.0.0.9", "::1", "127.0.0.1"]})
        with calling(url, resolver=resolver) as (transport, guard):
            assert transport.call("GET", Url.parse(f"{url}/v2/"), {}, guard, soon()).read(10) == b"{}"


def test_a_server_that_hangs_costs_the_read_limit() -> None:
    with FakeRegistry() as fake, calling(fake.base_url, limits=Limits(read_s=0.2)) as (transport, guard):
        fake.fault("*", Hang())
        with pytest.raises(UpstreamUnavailable, match=r"sent nothing for 0\.2 s"):
            body(fake, transport, guard)


def test_a_server_that_hangs_holds_no_more_than_the_deadline() -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        fake.fault("*", Hang())
        with pytest.raises(DeadlineExceeded):
            body(fake, transport, guard, seconds=0.2)


def test_nothing_is_asked_after_the_deadline() -> None:
    with FakeRegistry() as fake, calling(fake.base_url) as (transport, guard):
        with pytest.raises(DeadlineExceeded):
            body(fake, transport, guard, seconds=0.0)
        assert fake.count() == 0


def test_a_body_that_is_cut_short_is_unavailable_and_its_connection_not_kept() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        fake.fault(ALPINE_PATH, CutShort(), times=1)
        with pytest.raises(UpstreamUnavailable, match="cut short"):
            asked.registries.manifest(ALPINE.repository, ALPINE, soon())
        assert asked.registries.manifest(ALPINE.repository, ALPINE, soon()).content == image("a")


def test_an_upstream_sees_only_our_own_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        asked.registries.head(ALPINE, soon())
        seen = fake.requests[0].headers
        assert seen.keys() == {"host", "user-agent", "via", "accept-encoding", "accept"}
        assert seen["user-agent"] == "tlogistry"
        assert seen["via"] == "1.1 tlogistry"


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """A server context for `name`; its certificate signs itself and is in folder/ca.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize("certified", ["reg.example", "other.example"])
def test_the_certificate_must_be_for_the_name_not_for_the_address(
    certified: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tls = certificate(tmp_path, certified)
    asked_for: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with FakeRegistry(tls=tls) as fake:
        url = f"https://reg.example:{fake.port}"
        with asking({"docker.io": url}, resolver=names({"reg.example": ["127.0.0.1"]})) as asked:
            fake.push("library/alpine", "3.16.0", image("a"), TYPE)
            if certified == "reg.example":
                for _ in range(2):
                    assert asked.registries.manifest(ALPINE.repository, ALPINE, soon()).content == image("a")
                assert {seen.connection for seen in fake.requests} == {1}
            else:
                with pytest.raises(UpstreamUnavailable, match="certificate does not verify"):
                    asked.registries.head(ALPINE, soon())
                assert fake.count() == 0
        assert asked_for == ["reg.example"]


def test_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path) -> None:
    with FakeRegistry(tls=certificate(tmp_path, "reg.example")) as fake:
        url = f"https://reg.example:{fake.port}"
        with (
            asking({"docker.io": url}, resolver=names({"reg.example": ["127.0.0.1"]})) as asked,
            pytest.raises(UpstreamUnavailable, match="certificate does not verify"),
        ):
            asked.registries.head(ALPINE, soon())


def test_a_server_that_speaks_no_tls_is_unavailable() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake.base_url.replace("http", "https")}) as asked:
        with pytest.raises(UpstreamUnavailable, match="could not connect"):
            asked.registries.head(ALPINE, soon())


def test_many_threads_share_the_connections() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        found: list[object] = []

        def work() -> None:
            found.extend(asked.registries.head(ALPINE, soon(20)).digest for _ in range(25))

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 400
        assert len(set(found)) == 1
        assert len({seen.connection for seen in fake.requests}) <= 16
