"""A registry on loopback: small, real HTTP, strict about what it is asked, and able to misbehave.

    with FakeRegistry(token_field="token") as registry:
        digest = registry.push("library/alpine", "3.16.0", content, media_type)
        registry.fault("/v2/library/alpine/manifests/*", Status(429, {"Retry-After": "7"}))
        ... registry.base_url ...
        assert registry.count("HEAD") == 1

Strict: a request with a header that a registry should not see (cookies, forwarded client headers, compression, somebody
else's token), with a body, or for a manifest without our Accept list, is answered 400 and fails the test that made it,
when the block ends (`violations`). With `accounts` it has private repositories and a limit on anonymous pulls, as Docker Hub
has: its token service then takes a password, and is on the registry's own port, where a mapped registry's must be. Not here:
pushing over HTTP, deleting over HTTP, catalogues.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from lib.oci.manifest import ACCEPT

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping
    from types import TracebackType

ALLOWED = frozenset(
    {"host", "accept", "accept-encoding", "user-agent", "via", "authorization", "range", "if-range", "connection"}
)
SERVICE = "fake-registry"
RESOURCE = re.compile(r"/v2/(.+)/(manifests|blobs)/([^/]+)", re.ASCII)
RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII)


@dataclass(frozen=True)
class Status:
    """A bare status, with headers and a body if wanted."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Hang:
    """Takes the request and says nothing."""


@dataclass(frozen=True)
class DripHead:
    """One byte of the headers each second."""


@dataclass(frozen=True)
class DripBody:
    """The right headers at once, then one byte of the body each second."""


@dataclass(frozen=True)
class EndlessBody:
    """A body that never ends: with a Content-Length of 1 TiB, chunked, or until the connection closes."""

    framing: Literal["length", "chunked", "close"] = "chunked"


@dataclass(frozen=True)
class Html:
    """200 and an outage page."""


@dataclass(frozen=True)
class DigestHeader:
    """The right answer with this Docker-Content-Digest, or without any if None."""

    value: str | None


@dataclass(frozen=True)
class Redirect:
    """To `location`, exactly as it is written here."""

    location: str
    code: int = 307


@dataclass(frozen=True)
class CutShort:
    """The right headers, half of the body, and the connection closes."""


@dataclass(frozen=True)
class Drop:
    """Closes the connection without an answer."""


@dataclass(frozen=True)
class Raw:
    """These bytes, and the connection closes, unless `keep`."""

    content: bytes
    keep: bool = False


Fault = Status | Hang | DripHead | DripBody | EndlessBody | Html | DigestHeader | Redirect | CutShort | Drop | Raw


@dataclass(frozen=True)
class Seen:
    """A request that came in. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    connection: int


@dataclass
class _Planned:
    pattern: str
    fault: Fault
    method: str | None
    times: int | None


class FakeRegistry:
    """Serves on loopback until the block ends. Everything may be changed while it serves."""

    def __init__(
        self,
        *,
        token_field: Literal["token", "access_token"] | None = None,
        expires_in: int | None = 300,
        delay_ms: float = 0.0,
        tls: ssl.SSLContext | None = None,
        accounts: Mapping[str, str] | None = None,
    ) -> None:
        """`token_field`: every request needs a Bearer token; which field of the token server's answer holds it.

        `accounts`: user name -> password, read at each request. They may read everything, and pull as often as they like.
        """
        self.token_field = token_field
        self.expires_in = expires_in
        self.delay_ms = delay_ms
        self.challenge: str | None = None  # instead of the right one
        self.accounts = accounts
        self.private: set[str] = set()  # repositories that only accounts may read
        self.pulls: int | None = None  # how many GETs of manifests are left to anonymous clients
        self.pulled_by_account = 0
        self.requests: list[Seen] = []
        self.token_requests: list[Seen] = []
        self.violations: list[str] = []
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._tags: dict[tuple[str, str], str] = {}
        self._turns: dict[tuple[str, str], Iterator[str]] = {}
        self._manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._issued: dict[str, tuple[str, str | None]] = {}  # token -> repository, and the account's user name
        self._faults: list[_Planned] = []
        self._server = _Server(self, _RegistryHandler, tls)
        self._token_server = _Server(self, _TokenHandler, None)
        scheme = "http" if tls is None else "https"
        self.port = int(self._server.server_address[1])
        self.base_url = f"{scheme}://127.0.0.1:{self.port}"
        self.token_url = f"http://127.0.0.1:{self._token_server.server_address[1]}/token"
        if accounts is not None:
            self.token_url = f"{self.base_url}/token"

    # What it holds

    def push(self, repository: str, tag: str | None, content: bytes, media_type: str) -> str:
        """Store a manifest, and let `tag` point to it. Returns its digest."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        with self._lock:
            self._manifests[(repository, digest)] = (content, media_type)
            self._manifests[(repository, "sha512:" + hashlib.sha512(content).hexdigest())] = (content, media_type)
            if tag is not None:
                self._tags[(repository, tag)] = digest
        return digest

    def move(self, repository: str, tag: str, digest: str) -> None:
        """Let a tag point to another manifest that was pushed."""
        with self._lock:
            if (repository, digest) not in self._manifests:
                raise KeyError(digest)
            self._tags[(repository, tag)] = digest

    def alternate(self, repository: str, tag: str, *digests: str) -> None:
        """Let a tag point to each of these in turn, another one at each request."""
        with self._lock:
            self._turns[(repository, tag)] = itertools.cycle(digests)

    def delete(self, repository: str, tag: str) -> None:
        """Forget a tag."""
        with self._lock:
            del self._tags[(repository, tag)]

    def push_blob(self, repository: str, content: bytes) -> str:
        """Store a blob. Returns its digest."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        with self._lock:
            self._blobs[(repository, digest)] = content
        return digest

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str, str] | None:
        """Content, media type and digest by tag or digest."""
        with self._lock:
            turns = self._turns.get((repository, reference))
            digest = next(turns) if turns is not None else self._tags.get((repository, reference))
            if ":" in reference:
                digest = reference
            found = self._manifests.get((repository, digest)) if digest is not None else None
            return (*found, digest) if found is not None and digest is not None else None

    def blob(self, repository: str, digest: str) -> bytes | None:
        """A blob's content."""
        with self._lock:
            return self._blobs.get((repository, digest))

    # How it behaves

    def fault(self, pattern: str, fault: Fault, *, method: str | None = None, times: int | None = None) -> None:
        """Misbehave for paths like `pattern` (`*` is a wild card); the latest that fits wins, `times` times."""
        with self._lock:
            self._faults.append(_Planned(pattern, fault, method, times))

    def heal(self) -> None:
        """Behave again."""
        with self._lock:
            self._faults.clear()

    def revoke(self) -> None:
        """Forget every token that was issued."""
        with self._lock:
            self._issued.clear()

    def planned(self, method: str, path: str) -> Fault | None:
        """The fault for a request, used up once."""
        with self._lock:
            for plan in reversed(self._faults):
                if fnmatchcase(path, plan.pattern) and plan.method in {None, method} and plan.times != 0:
                    if plan.times is not None:
                        plan.times -= 1
                    return plan.fault
        return None

    def issue(self, repository: str, account: str | None = None) -> str:
        """A new token for pulling one repository."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._issued[token] = (repository, account)
        return token

    def accepts(self, token: str, repository: str) -> bool:
        """Whether a token is one of ours for this repository. One of ours for another is the client's mistake."""
        with self._lock:
            issued, account = self._issued.get(token, (None, None))
            return issued == repository and (account is not None or repository not in self.private)

    def holder(self, token: str) -> str | None:
        """Whose token it is; None if an anonymous client's, or none of ours."""
        with self._lock:
            return self._issued.get(token, ("", None))[1]

    def pull(self, account: str | None) -> bool:
        """Count one GET of a manifest; False if it is one too many."""
        with self._lock:
            if account is not None:
                self.pulled_by_account += 1
            elif self.pulls == 0:
                return False
            elif self.pulls is not None:
                self.pulls -= 1
            return True

    # What it saw

    def count(self, method: str | None = None, pattern: str = "*") -> int:
        """How many requests came in, tokens not counted."""
        with self._lock:
            seen = list(self.requests)
        return sum(method in {None, one.method} and fnmatchcase(one.path, pattern) for one in seen)

    def forget_requests(self) -> None:
        """Count from here."""
        with self._lock:
            self.requests.clear()
            self.token_requests.clear()

    def note(self, seen: Seen, log: list[Seen]) -> None:
        """Keep a request."""
        with self._lock:
            log.append(seen)

    def violation(self, text: str) -> None:
        """Keep what was wrong with a request."""
        with self._lock:
            self.violations.append(text)

    def __enter__(self) -> Self:
        self._server.start()
        self._token_server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        self._server.stop()
        self._token_server.stop()
        if kind is None and self.violations:
            raise AssertionError("a registry should not have seen: " + "; ".join(self.violations))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, registry: FakeRegistry, handler: type[_Handler], tls: ssl.SSLContext | None) -> None:
        self.registry = registry
        self.tls = tls
        self.connections = 0
        super().__init__(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake belongs to the connection's own thread."""
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        self.connections += 1
        super().finish_request(request, client_address)
        if self.tls is not None:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of ours hang up on purpose."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an unbuffered one waits for delayed acknowledgements
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.number = self.server.connections

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _serve(self) -> None:
        registry = self.server.registry
        parts = urlsplit(self.path)
        self.seen = Seen(
            self.command, parts.path, parts.query, {k.lower(): v for k, v in self.headers.items()}, self.number
        )
        wrong = self._wrong()
        self._note(registry, self.seen)
        if registry.delay_ms:
            time.sleep(registry.delay_ms / 1000)
        if wrong is not None:
            registry.violation(f"{self.command} {self.path}: {wrong}")
            self.answer(400, {}, wrong.encode())
            return
        fault = registry.planned(self.command, parts.path)
        if fault is None or not self._misbehave(registry, fault):
            self._behave(registry, fault)

    def _wrong(self) -> str | None:
        """What a registry should not see."""
        names = [name.lower() for name in self.headers]
        for name in names:
            if name not in ALLOWED:
                return f"header {name}"
            if names.count(name) > 1:
                return f"header {name} twice"
        if self.headers.get("Accept-Encoding", "identity") != "identity":
            return "compression"
        if not self.headers.get("Host", "").endswith(f":{self.server.server_address[1]}"):
            return "somebody else's Host"
        return None

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """One whole answer. The length given wins over the body's, which a HEAD does not send."""
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _misbehave(self, registry: FakeRegistry, fault: Fault) -> bool:  # noqa: C901 - one case each
        """False if the right answer is still to be given."""
        match fault:
            case Status(code, headers, body):
                self.answer(code, headers, body)
                return True
            case Redirect(location, code):
                self.answer(code, {"Location": location}, b"")
                return True
            case Html():
                self.answer(200, {"Content-Type": "text/html"}, b"<html><body>Sorry, we are down.</body></html>")
                return True
            case Hang():
                registry.stopped.wait()
            case DripHead():
                self._drip(registry, b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 1000)
            case EndlessBody(framing):
                self._endless(framing)
            case Raw(content, keep):
                self.wfile.write(content)
                self.wfile.flush()
                if keep:
                    return True
            case Drop():
                pass
            case DripBody() | DigestHeader() | CutShort():
                return False
        self.close_connection = True
        return True

    def _drip(self, registry: FakeRegistry, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if registry.stopped.wait(1.0):
                return

    def _endless(self, framing: Literal["length", "chunked", "close"]) -> None:
        header = {
            "length": f"Content-Length: {1 << 40}",
            "chunked": "Transfer-Encoding: chunked",
            "close": "Connection: close",
        }[framing]
        self.wfile.write(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode())
        block = b" " * 65536
        piece = b"10000\r\n" + block + b"\r\n" if framing == "chunked" else block
        while True:  # until the other side hangs up
            self.wfile.write(piece)

    def give(
        self, registry: FakeRegistry, status: int, headers: dict[str, str], body: bytes, fault: Fault | None
    ) -> None:
        """The right answer, save for what the fault changes of it."""
        match fault:
            case DigestHeader(value):
                headers.pop("Docker-Content-Digest", None)
                if value is not None:
                    headers["Docker-Content-Digest"] = value
                self.answer(status, headers, body)
            case DripBody() | CutShort():
                self.close_connection = True
                self.answer(status, {"Content-Length": str(len(body)), **headers}, b"")
                if isinstance(fault, DripBody):
                    self._drip(registry, body)
                else:
                    self.wfile.write(body[: len(body) // 2])
            case _:
                self.answer(status, headers, body)

    def token(self, registry: FakeRegistry, fault: Fault | None) -> None:
        """GET /token?service=…&scope=repository:NAME:pull, and whatever else the realm had in its query."""
        query = parse_qs(self.seen.query, strict_parsing=True)
        scope = re.fullmatch(r"repository:([a-z0-9/._-]+):pull", query.get("scope", [""])[0])
        given = self.seen.headers.get("authorization")
        if given is not None and registry.accounts is None:
            registry.violation("an Authorization at the token server")
        if self.seen.path != "/token" or scope is None or registry.token_field is None:
            self.answer(404, {}, b"")
            return
        account: str | None = None
        if given is not None and registry.accounts is not None:
            account, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
            if registry.accounts.get(account) != password:
                self.answer(401, {}, b'{"details": "incorrect username or password"}')
                return
        document = f'"{registry.token_field}": "{registry.issue(scope[1], account)}"'
        if registry.expires_in is not None:
            document += f', "expires_in": {registry.expires_in}'
        self.give(registry, 200, {"Content-Type": "application/json"}, f"{{{document}}}".encode(), fault)

    def _note(self, registry: FakeRegistry, seen: Seen) -> None:
        raise NotImplementedError

    def _behave(self, registry: FakeRegistry, fault: Fault | None) -> None:
        raise NotImplementedError


class _RegistryHandler(_Handler):
    def _note(self, registry: FakeRegistry, seen: Seen) -> None:
        registry.note(seen, registry.token_requests if self._is_token(registry, seen) else registry.requests)

    def _is_token(self, registry: FakeRegistry, seen: Seen) -> bool:
        return registry.accounts is not None and seen.path == "/token"

    def _behave(self, registry: FakeRegistry, fault: Fault | None) -> None:
        path = self.seen.path
        if self._is_token(registry, self.seen):
            self.token(registry, fault)
            return
        match = RESOURCE.fullmatch(path)
        if not self._authorized(registry, match[1] if match is not None else None):
            return
        if path == "/v2/":
            self.answer(200, {"Content-Type": "application/json"}, b"{}")
        elif match is not None and match[2] == "manifests":
            self._manifest(registry, match[1], match[3], fault)
        elif match is not None:
            self._blob(registry, match[1], match[3], fault)
        else:
            self.answer(404, {}, b"")

    def _authorized(self, registry: FakeRegistry, repository: str | None) -> bool:
        given = self.seen.headers.get("authorization")
        if registry.token_field is None:
            if given is not None:
                registry.violation(f"{self.path}: an Authorization that nobody asked for")
            return True
        if given is not None and repository is not None and registry.accepts(given.removeprefix("Bearer "), repository):
            return True
        scope = f',scope="repository:{repository}:pull"' if repository is not None else ""
        challenge = registry.challenge or f'Bearer realm="{registry.token_url}",service="{SERVICE}"{scope}'
        headers = {"WWW-Authenticate": challenge} if challenge != "none" else {}
        self.answer(401, headers, b'{"errors": [{"code": "UNAUTHORIZED"}]}')
        return False

    def _manifest(self, registry: FakeRegistry, repository: str, reference: str, fault: Fault | None) -> None:
        if self.seen.headers.get("accept") != ACCEPT:
            registry.violation(f"{self.path}: not our Accept list")
        found = registry.manifest(repository, reference)
        if found is None:
            self.answer(404, {}, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
            return
        token = self.seen.headers.get("authorization", "").removeprefix("Bearer ")
        if self.command == "GET" and not registry.pull(registry.holder(token)):
            self.answer(429, {"Retry-After": "60"}, b'{"errors": [{"code": "TOOMANYREQUESTS"}]}')
            return
        content, media_type, digest = found
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        self.give(registry, 200, headers, content, fault)

    def _blob(self, registry: FakeRegistry, repository: str, digest: str, fault: Fault | None) -> None:
        content = registry.blob(repository, digest)
        if content is None:
            self.answer(404, {}, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
            return
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": f'"{digest}"'}
        headers |= {"Docker-Content-Digest": digest, "Set-Cookie": "session=1", "X-Internal": "1"}
        wanted = RANGE.fullmatch(self.seen.headers.get("range", ""))
        valid = self.seen.headers.get("if-range") in {None, headers["ETag"]}
        if wanted is None or not valid or self.command == "HEAD":
            self.give(registry, 200, headers, content, fault)
            return
        first = int(wanted[1]) if wanted[1] else max(0, len(content) - int(wanted[2]))
        last = min(int(wanted[2]), len(content) - 1) if wanted[1] and wanted[2] else len(content) - 1
        if first > last:
            self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.give(registry, 206, headers, content[first : last + 1], fault)


class _TokenHandler(_Handler):
    """The token service on a port of its own."""

    def _note(self, registry: FakeRegistry, seen: Seen) -> None:
        registry.note(seen, registry.token_requests)

    def _behave(self, registry: FakeRegistry, fault: Fault | None) -> None:
        self.token(registry, fault)


def image(seed: str, size: int = 0) -> bytes:
    """A small OCI manifest; another seed, another digest."""
    filler = " " * size
    digest = hashlib.sha256(seed.encode()).hexdigest()
    return (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        f'"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{digest}","size":2}},'
        f'"layers":[]{filler}}}'
    ).encode()
