"""Calls to Sigstore and the metadata server end: by time, by size, and at the first answer, whatever the other side sends."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lib.deadline import Deadline
from lib.errors import DeadlineExceeded
from lib.http import BoundedSession, TooLarge
from tests.clock import Clock
from tests.fakes.canned import Answer, CannedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\n"
DRIP_S = 0.05  # seconds between two bytes: far below any time-out for one read


class Dripping:
    """Sends `at_once`, then one byte of `slowly` at a time, to everyone who connects."""

    def __init__(self, at_once: bytes, slowly: bytes, tls: ssl.SSLContext | None = None) -> None:
        self._at_once, self._slowly, self._tls = at_once, slowly, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, plain: socket.socket) -> None:
        with suppress(OSError), plain:
            with self._tls.wrap_socket(plain, server_side=True) if self._tls else plain as connection:
                connection.recv(65_536)
                connection.sendall(self._at_once)
                for byte in self._slowly:
                    connection.sendall(bytes([byte]))
                    if self._ended.wait(DRIP_S):
                        return

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(
    params=[
        (HEAD + b"Content-Length: 10000\r\n\r\n", b"x" * 10_000),
        (HEAD + b"Connection: close\r\n\r\n", b"x" * 10_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 2000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 10_000),
        (HEAD + b"X-Long: ", b"x" * 10_000),
        (b"", HEAD + b"X: y\r\n" * 2000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    ],
    ids=["body", "body-until-close", "chunks", "chunk-size", "header", "status-line", "continue"],
)
def dripping(request: pytest.FixtureRequest) -> Iterator[Dripping]:
    server = Dripping(*request.param)
    yield server
    server.close()


def test_a_drip_of_one_byte_at_a_time_ends(dripping: Dripping) -> None:
    outcome: list[object] = []

    def call() -> None:
        try:
            outcome.append(BoundedSession(0.5, 1_000_000).get(dripping.url))
        except requests.RequestException as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert isinstance(outcome[0] if outcome else None, requests.RequestException), "still reading after 10 s"


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """A server's side of TLS for 127.0.0.1, and the certificate that a client trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, str(path)


def test_the_same_over_tls(tls: tuple[ssl.SSLContext, str]) -> None:
    context, trusted = tls
    whole = Dripping(HEAD + b"Connection: close\r\n\r\n", b"slow", context)
    session = BoundedSession(20, 1000)
    session.verify = trusted
    assert session.get(whole.url).content == b"slow"
    with pytest.raises(requests.exceptions.SSLError):
        BoundedSession(20, 1000).get(whole.url)
    whole.close()
    endless = Dripping(HEAD + b"Content-Length: 10000\r\n\r\n", b"x" * 10_000, context)
    session = BoundedSession(0.5, 1_000_000)
    session.verify = trusted
    with pytest.raises(requests.RequestException):
        session.get(endless.url)
    endless.close()


def test_a_whole_answer_is_returned_and_the_connection_used_again() -> None:
    with CannedServer(lambda *_: Answer(200, {}, b"x" * 100_000)) as server:
        session = BoundedSession(10, 100_000)
        assert [session.get(server.url).content for _ in range(3)] == [b"x" * 100_000] * 3


def test_an_answer_without_a_length_is_read_to_its_end() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(HEAD + b"Connection: close\r\n\r\nall of it")

    thread = threading.Thread(target=serve)
    thread.start()
    with listener:
        answer = BoundedSession(10, 1000).get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    thread.join()
    assert answer.content == b"all of it"


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_over_the_cap_is_cut_and_tells_its_status(status: int) -> None:
    with CannedServer(lambda *_: Answer(status, {}, b"x" * 100_001)) as server:
        with pytest.raises(TooLarge) as caught:
            BoundedSession(10, 100_000).get(server.url)
    assert caught.value.prefix == b"x" * 100_000
    assert caught.value.status == status


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with CannedServer(lambda *_: Answer(302, {"Location": "/elsewhere"}, b"")) as server:
        assert BoundedSession(10, 100).post(server.url, json={}).status_code == 302
        assert len(server.requests) == 1


def test_proxies_and_netrc_of_the_environment_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with CannedServer(lambda *_: Answer(200, {}, b"")) as server:
        answer = BoundedSession(10, 100).get(server.url)
    assert answer.status_code == 200
    assert "Authorization" not in answer.request.headers


@pytest.mark.parametrize("left", [0, 0.0, -1.0])
def test_no_time_left_is_a_time_out_like_any_other(left: float) -> None:
    silent = Dripping(b"", b"x" * 10_000)
    with pytest.raises(requests.Timeout):
        BoundedSession(10, 100).get(silent.url, timeout=left)
    silent.close()


def test_a_call_after_the_deadline_of_its_block_is_not_made() -> None:
    clock = Clock()
    session = BoundedSession(10, 100)
    with CannedServer(lambda *_: Answer(200, {}, b"")) as server:
        with session.within(Deadline.after(5, clock.now)):
            assert session.get(server.url).status_code == 200
            clock.advance(5)
            with pytest.raises(DeadlineExceeded):
                session.get(server.url)
        assert session.get(server.url).status_code == 200, "the block has ended"
        assert len(server.requests) == 2


def test_a_call_ends_at_the_deadline_of_its_block(dripping: Dripping) -> None:
    session = BoundedSession(60, 1_000_000)
    outcome: list[object] = []

    def call() -> None:
        with session.within(Deadline.after(0.5, time.monotonic)):
            try:
                outcome.append(session.get(dripping.url))
            except requests.RequestException as error:
                outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert isinstance(outcome[0] if outcome else None, requests.RequestException), "still reading after 10 s"
