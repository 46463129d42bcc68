"""The registries of the world, as an engine reaches them: through a proxy that the tests own.

    with Internet(folder, {"registry-1.docker.io": registry.url}) as internet:
        engine = Containerd(..., **internet.env)
        internet.asked                                       # ["HEAD registry-1.docker.io/v2/my-user/my-app/manifests/v1"]

A CONNECT to one of these hosts ends here, in TLS with a certificate that `env` makes an engine trust; each request is passed on
to the plain registry behind. Any other host is refused. So an engine that falls back to the real registry can be watched
doing it, without the names of the world and without the internet. GET and HEAD only.
"""

from __future__ import annotations

import datetime as dt
import http.client
import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

ASK_S = 30
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Internet:
    """Serves until the block ends."""

    def __init__(self, folder: Path, registries: Mapping[str, str]) -> None:
        """`registries`: host name -> the base URL of a registry on loopback."""
        folder.mkdir()
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        _certify(list(registries), certificate, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            host = ""  # whose requests these are

            def handle(self) -> None:
                with suppress(OSError):  # a client that has gone, or that does not trust us
                    super().handle()

            def finish(self) -> None:
                with suppress(OSError):
                    super().finish()
                self.connection.close()  # the server knows only the one below TLS

            def do_CONNECT(self) -> None:
                self.host, _, port = self.path.partition(":")
                if self.host not in registries or port != "443":
                    self.send_error(502)
                    return
                self.send_response_only(200)
                self.end_headers()
                self.rfile.close()
                self.connection = context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")

            def do_GET(self) -> None:
                outer.asked.append(f"{self.command} {self.host}{self.path}")
                if self.host not in registries:
                    self.send_error(502)
                    return
                behind = http.client.HTTPConnection(urlsplit(registries[self.host]).netloc, timeout=ASK_S)
                try:
                    behind.request(
                        self.command, self.path, headers={"Accept": ", ".join(self.headers.get_all("Accept", []))}
                    )
                    answer = behind.getresponse()
                    content = answer.read()
                finally:
                    behind.close()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", answer.headers["Content-Length"] or str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False  # engines keep their connections
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        # As Go's net/http and crypto/x509 read them; loopback hosts are never asked for through a proxy.
        self.env = {
            "HTTPS_PROXY": f"http://127.0.0.1:{self._server.server_address[1]}",
            "SSL_CERT_FILE": str(certificate),
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _certify(hosts: Sequence[str], certificate: Path, private: Path) -> None:
    """One self-signed certificate for all of them."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests, NOT FOR PRODUCTION")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
