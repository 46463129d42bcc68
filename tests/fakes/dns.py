"""A name server on loopback, and the resolver that asks it (RFC 1035): what a stranger's name server can do to a look-up.

    with NameServer({"rebinding.example": [["93.184.215.14"], ["127.0.0.1"]]}) as server:
        asking(…, resolver=server.resolve)

Each query of a name and type is answered with the next of its lists, the last one for ever, and a life of 0 seconds. A
query for A gets the IPv4 addresses of the list, one for AAAA the others; `queries` has them all. A name that is not there is
NXDOMAIN.
"""

from __future__ import annotations

import secrets
import socket
import struct
import threading
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

A, AAAA, IN = 1, 28, 1
VERSIONS = {A: 4, AAAA: 6}
HEADER = struct.Struct("!6H")  # id, flags, and the counts of questions, answers, authorities, additions
RESPONSE, NXDOMAIN = 0x8180, 0x8183
REQUEST = 0x0100
WAIT_S = 20.0


class NameServer:
    """Answers until the block ends."""

    def __init__(self, names: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._names = names
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="dns")
        self._answered: Counter[tuple[str, int]] = Counter()
        self.queries: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def resolve(self, host: str, _port: int) -> list[str]:
        """As getaddrinfo does it: a query for each family, and the addresses of both. Raises OSError if there are none."""
        found = [text for kind in VERSIONS for text in self._ask(host, kind)]
        if not found:
            msg = f"no address for {host}"
            raise socket.gaierror(socket.EAI_NONAME, msg)
        return found

    def _ask(self, host: str, kind: int) -> list[str]:
        number = secrets.randbelow(1 << 16)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(WAIT_S)
            question = _encoded(host) + struct.pack("!2H", kind, IN)
            sock.sendto(HEADER.pack(number, REQUEST, 1, 0, 0, 0) + question, self._socket.getsockname())
            answer = sock.recv(4096)
        got, _, _, count, _, _ = HEADER.unpack_from(answer)
        assert got == number
        position, found = HEADER.size + len(question), []
        for _ in range(count):
            length = struct.unpack_from("!H", answer, position + 10)[0]
            found.append(str(ip_address(answer[position + 12 : position + 12 + length])))
            position += 12 + length
        return found

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            if not query:
                return
            name, end = _decoded(query)
            (kind,) = struct.unpack_from("!H", query, end)
            self.queries.append((name, kind))
            self._socket.sendto(self._answer(query[: end + 4], name, kind), sender)

    def _answer(self, query: bytes, name: str, kind: int) -> bytes:
        lists = self._names.get(name)
        if lists is None:
            return HEADER.pack(*HEADER.unpack_from(query)[:1], NXDOMAIN, 1, 0, 0, 0) + query[HEADER.size :]
        turn = min(self._answered[name, kind], len(lists) - 1)
        self._answered[name, kind] += 1
        addresses = [ip_address(text).packed for text in lists[turn] if ip_address(text).version == VERSIONS[kind]]
        records = b"".join(struct.pack("!3HIH", 0xC00C, kind, IN, 0, len(packed)) + packed for packed in addresses)
        return (
            HEADER.pack(*HEADER.unpack_from(query)[:1], RESPONSE, 1, len(addresses), 0, 0)
            + query[HEADER.size :]
            + records
        )


def _encoded(host: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode("ascii") for label in host.split(".")) + b"\0"


def _decoded(query: bytes) -> tuple[str, int]:
    """The name that is asked for, and where its type begins."""
    labels, position = [], HEADER.size
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode("ascii"))
        position += 1 + length
    return ".".join(labels), position + 1
