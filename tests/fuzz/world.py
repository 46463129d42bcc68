"""The whole service: what clients send to it, as raw bytes, and what an upstream answers it, as raw bytes.

    service     the function as it is deployed, in this process, behind gunicorn's own parser and writer
    answers     the same, asked for something of a registry that answers with the case
    socket      a process of its own behind a real socket: few cases, because each is a connection

Whatever comes: never a 500, never a page, never a word of a traceback; an error is JSON with a code of the specification; a
record belongs to one digest, and a digest, which this world has once for each tag, to one record: a tag that could be spelt in
two ways would be seen for the first time twice. A page is only allowed where gunicorn refuses what is not HTTP.
"""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import functions_framework
from gunicorn.config import Config as Gunicorn  # type: ignore[import-untyped]
from gunicorn.http import wsgi  # type: ignore[import-untyped]
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    NoMoreData,
    ParseException,
)
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]

from lib.config import SETTINGS
from lib.devsigstore.server import DevSigstore
from lib.oci.error import Code
from lib.oci.manifest import MEDIA_TYPES
from tests.framework import Function
from tests.fuzz.fuzzer import Target
from tests.fuzz.upstream import OCI, Script, Server, lenient, manifest, sha256
from tests.fuzz.words import ANSWER, NEXT, REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
PEER, OWN = ("127.0.0.1", 40000), ("127.0.0.1", 8080)
STATUSES = frozenset({200, 206, 307, 400, 403, 404, 405, 406, 410, 416, 429, 503, 508})
TYPES = frozenset({"application/json", "application/octet-stream", "text/plain", *MEDIA_TYPES})
CODES = frozenset(Code)
TAGS = 12  # recorded ones of the registry that is scripted
SCRIPTED, OPEN = "scripted.example", ("docker.io", "open.example:8443")
QUIET_S = 20.0  # that the real process may take


class Gathered(io.StringIO):
    """What the service prints, until it is looked at."""

    def take(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


class Sock:
    """As much of a socket as gunicorn writes to."""

    def __init__(self) -> None:
        self.sent = bytearray()

    def sendall(self, data: bytes) -> None:
        self.sent += data

    send = sendall


class Answer(NamedTuple):
    """One answer, taken apart."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Answer:
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = f"{first} ".split(" ", 2)
        assert version.startswith("HTTP/1."), first
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon, line
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value.strip()
        return cls(int(status), headers, body)


class World:
    """Everything that the service talks to, and the service itself, in this process. Entered once for all who use it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._users = 0

    @contextmanager
    def entered(self) -> Iterator[World]:
        if not self._users:
            with ExitStack() as stack:
                self._begin(stack)
                self._stack = stack.pop_all()
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._stack.close()

    def _begin(self, stack: ExitStack) -> None:
        stack.enter_context(_only_loopback())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlogistry-fuzz-")))
        (folder / "sigstore").mkdir()
        self.dev = stack.enter_context(DevSigstore(folder / "sigstore"))
        servers = {name: stack.enter_context(Server(lenient(name))) for name in OPEN}
        self.script = Script()
        servers[SCRIPTED] = stack.enter_context(Server(self.script))
        self.scripted = servers[SCRIPTED]
        self.settings = {
            **self.dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_UPSTREAMS": json.dumps({name: server.url for name, server in servers.items()}),
            "TLOGISTRY_LOG_FORMAT": "json",
            "TLOGISTRY_DEADLINE": "20",
            **{name: "off" for name in SETTINGS if name.startswith("TLOGISTRY_NEW_TAGS_")},
        }
        stack.enter_context(_environment(self.settings))
        self.printed = Gathered()
        stack.enter_context(redirect_stdout(self.printed))
        stack.enter_context(redirect_stderr(self.printed))
        stack.enter_context(_threads_that_fail(self.printed))
        self._app = functions_framework.create_app("tlogistry", str(ROOT / "main.py"))  # type: ignore[no-untyped-call]
        self._gunicorn = Gunicorn()
        self._gunicorn.set("limit_request_line", 0)  # as functions-framework does
        self._uuids: dict[str, str] = {}
        self._first_seen: set[str] = set()

    def ask(self, request: bytes) -> tuple[str, Answer | None]:
        """A method and the answer to a request; None if gunicorn refuses it: as in its worker, but for the socket."""
        sock = Sock()
        try:
            parsed = next(RequestParser(self._gunicorn, iter([request]), PEER))
            response, environ = wsgi.create(parsed, sock, PEER, OWN, self._gunicorn)
            chunks = self._app(environ, response.start_response)
            try:
                for chunk in chunks:
                    response.write(chunk)
                response.close()
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()
        except (InvalidResponseHeader, InvalidResponseHeaderName):
            raise  # gunicorn's 500 for what we sent
        except (StopIteration, NoMoreData, ConnectionError):
            return "", None  # nothing came, or it broke off
        except ParseException:
            return "", None
        finally:
            self._read_log()
        return parsed.method, Answer.parse(bytes(sock.sent).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))

    def _read_log(self) -> None:
        printed = self.printed.take()
        for word in ("internal error", "Traceback", "CRITICAL"):
            assert word not in printed, printed[-3000:]

    def check(self, method: str, answer: Answer) -> Hashable:
        """Everything that holds for every answer; an outcome to tell it from others."""
        status, headers, body = answer
        assert status in STATUSES, status
        assert headers["x-content-type-options"] == "nosniff"
        if status == 307:
            assert headers["location"].startswith(("https://", "http://127.0.0.1:"))
        assert headers["content-type"] in TYPES, headers["content-type"]
        if method != "HEAD" and "transfer-encoding" not in headers:
            assert int(headers.get("content-length", len(body))) == len(body)
        code = ""
        if status >= 400 and status != 416 and method != "HEAD":
            code = _code(headers, body)
        if "tlog-uuid" in headers and status == 200:
            self._one_record(headers)
        return f"{status} {code} {headers['content-type']} {sorted(headers)}"

    def _one_record(self, headers: Mapping[str, str]) -> None:
        digest, uuid = headers["docker-content-digest"], headers["tlog-uuid"]
        assert self._uuids.setdefault(digest, uuid) == uuid, "two records of one tag"
        if "tlog-first-seen" in headers:
            assert digest not in self._first_seen, "seen for the first time twice"
            self._first_seen.add(digest)


def _code(headers: Mapping[str, str], body: bytes) -> str:
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    (error,) = document["errors"]
    assert document.keys() == {"errors"}
    assert {"code", "message"} <= error.keys() <= {"code", "message", "detail"}
    assert error["code"] in CODES
    return str(error["code"])


@contextmanager
def _only_loopback() -> Iterator[None]:
    """Nobody is asked for names that a case makes up, and nothing leaves this machine (PEP 578: a hook stays)."""
    watching = [True]

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "socket.getaddrinfo" and args[0] not in {"127.0.0.1", "localhost", None}:
            raise socket.gaierror(socket.EAI_NONAME, "fuzzing asks no name server")
        if event == "socket.connect" and isinstance(args[1], tuple) and not ip_address(args[1][0]).is_loopback:
            raise OSError(errno.ENETUNREACH, "fuzzing does not leave this machine")

    sys.addaudithook(audit)
    try:
        yield
    finally:
        watching.clear()


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """The function reads its settings from there when it is loaded, and google-auth where its metadata server is."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _threads_that_fail(into: Gathered) -> Iterator[None]:
    before = threading.excepthook

    def note(args: threading.ExceptHookArgs) -> None:
        into.write(f"Traceback of a thread: {args.exc_type.__name__} {args.exc_value}\n")

    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = before


WORLD = World()


@contextmanager
def _service() -> Iterator[Callable[[bytes], Hashable]]:
    with WORLD.entered() as world:

        def run(case: bytes) -> Hashable:
            world.script.say([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])
            method, answer = world.ask(case)
            return f"{method} {world.check(method, answer)}" if answer is not None else "refused by the web server"

        yield run


KINDS = {
    "tag": "/v2/{host}/r/manifests/t{tag}",
    "passed": "/v2/{host}/r/manifests/sha256-{hex}.sig",
    "digest": "/v2/{host}/r{number}/manifests/sha256:{hex}",
    "blob": "/v2/{host}/r{number}/blobs/sha256:{hex}",
    "tags": "/v2/{host}/r{number}/tags/list?n=2",
    "referrers": "/v2/{host}/r{number}/referrers/sha256:{hex}?artifactType=a/b",
}


@contextmanager
def _answers() -> Iterator[Callable[[bytes], Hashable]]:
    """A case is `GET kind`, and then what the registry answers, in turn: challenge, token, content, for instance.

    What is recorded is recorded before, so that no case costs an entry in the log; what would be remembered as absent for some
    seconds gets a name of its own.
    """
    with WORLD.entered() as world:
        recorded = []
        for number in range(TAGS):
            content = manifest(SCRIPTED, "r", f"t{number}")
            world.script.say([_well(content)])
            _, answer = world.ask(f"GET /v2/{SCRIPTED}/r/manifests/t{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert answer is not None and answer.status == 200, answer  # noqa: PT018 - one thing
            recorded.append(content)

        def run(case: bytes) -> Hashable:
            line, _, rest = case.partition(b"\n")
            method, _, kind = line.decode("latin-1").partition(" ")
            pattern, method = KINDS.get(kind, KINDS["tag"]), method if method == "HEAD" else "GET"
            number = crc32(case)
            port = str(world.scripted.port).encode()
            content = recorded[number % TAGS]
            rest = (
                rest.replace(b"@PORT@", port)
                .replace(b"@DIGEST@", sha256(content).encode())
                .replace(b"@CONTENT@", content)
            )
            world.script.say(rest.split(NEXT))
            path = pattern.format(host=SCRIPTED, tag=number % TAGS, number=number, hex=sha256(case)[7:])
            _, answer = world.ask(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert answer is not None or kind == "blob", "no answer"  # a stream that breaks off ends the connection
            if answer is None:
                return f"{method} {kind} broken off"
            outcome = f"{method} {kind} {world.check(method, answer)}"
            if answer.status == 200 and kind == "tag" and method == "GET":
                assert answer.body == content, "served under a tag, and not what is recorded for it"
            if answer.status == 200 and kind == "digest":
                assert sha256(answer.body)[7:] == sha256(case)[7:], "not what its digest says"
            return outcome

        yield run


def _well(content: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {OCI}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


@contextmanager
def _socket() -> Iterator[Callable[[bytes], Hashable]]:
    with WORLD.entered() as world, tempfile.TemporaryDirectory(prefix="tlogistry-fuzz-") as folder:
        settings = {**world.settings, "TLOGISTRY_STORE": f"sqlite:{folder}/store.sqlite"}
        settings["TLOGISTRY_ALLOW_UPSTREAMS"] = json.dumps(OPEN)  # it has no hook that keeps it from asking for names
        with Function(settings) as function:

            def run(case: bytes) -> Hashable:
                raw = _sent(function.port, case)
                printed = [line for line in function.lines if "Traceback" in line or "internal error" in line]
                function.lines.clear()
                assert not printed, printed
                statuses = [part.split(b" ", 1)[0] for part in raw.split(b"HTTP/1.1 ")[1:]]
                assert b"500" not in statuses, raw[:1000]
                if b"<html" in raw.lower():
                    assert statuses[-1] in {b"400", b"414", b"417", b"431", b"501"}, raw[:1000]
                    assert b"Connection: close" in raw
                return " ".join(sorted({status.decode("latin-1") for status in statuses}))

            yield run


def _sent(port: int, case: bytes) -> bytes:
    """All that comes back until the other side has nothing more to say."""
    raw = b""
    with socket.create_connection(("127.0.0.1", port), timeout=QUIET_S) as sock, suppress(ConnectionError):
        sock.sendall(case)
        sock.shutdown(socket.SHUT_WR)
        while chunk := sock.recv(65536):
            raw += chunk
    return raw


SERVICE = (
    Target("service", 9, _service, REQUEST),
    Target("answers", 3, _answers, ANSWER),
    Target("socket", 0.3, _socket, REQUEST),
)
