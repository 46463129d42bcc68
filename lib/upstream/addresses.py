"""Which addresses may be connected to, and the one lookup of a name that decides it.

The tables are IANA's special-purpose address registries with every entry refused, whether or not it is called globally
reachable there (no registry lives in an anycast block of AS112 or AMT), and IPv6 is only what is allocated for global
unicast:

    https://www.iana.org/assignments/iana-ipv4-special-registry/    (RFC 6890)
    https://www.iana.org/assignments/iana-ipv6-special-registry/
    https://www.iana.org/assignments/ipv6-address-space/            2000::/3 is Global Unicast; all else is not

Our own, because `ipaddress.is_global` lets NAT64, 6to4 and site-local addresses through and changes with the Python
version. An IPv6 form that embeds an IPv4 address is refused as a form: what is inside is not judged.

A public address may still be this very machine: `of_this_machine` asks the kernel. One that a router or load balancer in front
of us translates is not known here; for those there are `TLOGISTRY_OWN_HOSTS` and `Via`.

Out of scope: a translator with a prefix of its own (RFC 6052, 2.2), or a router that leads a public address to
something private. No table can know those; they are the network's to close.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from lib.errors import DeadlineExceeded, UpstreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lib.deadline import Deadline
    from lib.upstream.limits import Limits

    Resolver = Callable[[str, int], Iterable[str]]  # host, port -> addresses as text; raises OSError

Address = IPv4Address | IPv6Address

SPECIAL_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network (RFC 791); Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",  # private use (RFC 1918)
        "100.64.0.0/10",  # shared address space, CGNAT (RFC 6598)
        "127.0.0.0/8",  # loopback (RFC 1122)
        "169.254.0.0/16",  # link local (RFC 3927): the metadata servers of all clouds
        "172.16.0.0/12",  # private use (RFC 1918)
        "192.0.0.0/24",  # IETF protocol assignments (RFC 6890): DS-Lite, NAT64 discovery, Oracle's metadata server
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.31.196.0/24",  # AS112 (RFC 7535)
        "192.52.193.0/24",  # AMT (RFC 7450)
        "192.88.99.0/24",  # 6to4 relay anycast, deprecated (RFC 7526)
        "192.168.0.0/16",  # private use (RFC 1918)
        "192.175.48.0/24",  # AS112 direct delegation (RFC 7534)
        "198.18.0.0/15",  # benchmarking (RFC 2544)
        "198.51.100.0/24",  # documentation (RFC 5737)
        "203.0.113.0/24",  # documentation (RFC 5737)
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved, and 255.255.255.255 (RFC 1112, RFC 8190)
    )
)
DISCARD = 9  # a port, as a datagram socket needs one to be connected
GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
# Outside of it, and so refused: ::/128 unspecified, ::1/128 loopback, ::/96 IPv4-compatible, ::ffff:0:0/96 IPv4-mapped,
# ::ffff:0:0:0/96 IPv4-translated, 64:ff9b::/96 and 64:ff9b:1::/48 NAT64, 100::/64 discard-only, 100:0:0:1::/64 dummy,
# 5f00::/16 segment routing, fc00::/7 unique local, fe80::/10 link local, fec0::/10 site local, ff00::/8 multicast.
SPECIAL_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # IETF protocol assignments (RFC 2928): Teredo, benchmarking, ORCHID, AMT, AS112, DRIP
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4 (RFC 3056): an IPv4 address inside
        "2620:4f:8000::/48",  # AS112 direct delegation (RFC 7534)
        "3fff::/20",  # documentation (RFC 9637)
    )
)


def public(address: Address) -> bool:
    """Whether a host of the public internet may have this address."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in SPECIAL_V4)
    if address.scope_id is not None:
        return False
    return address in GLOBAL_UNICAST_V6 and not any(address in block for block in SPECIAL_V6)


def of_this_machine(address: Address) -> bool:
    """Whether a connection to this address would end here: the kernel reaches its own addresses from those very addresses.

    Nothing is sent. What has no route is not ours.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(address), DISCARD))
            return bool(ip_address(sock.getsockname()[0]) == address)
    except OSError:
        return False


def system_resolver(host: str, port: int) -> list[str]:
    """The operating system's answer; blocks for as long as that likes."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Lookups:
    """Name lookups with a limit: getaddrinfo has no time-out, so each one runs in a thread that can be left behind."""

    def __init__(self, resolver: Resolver, limits: Limits) -> None:
        """`resolver` is handed in, so that a test can give any name any address."""
        self._resolver = resolver
        self._limits = limits
        self._running: Counter[str] = Counter()
        self._changed = threading.Condition()

    def addresses(self, host: str, port: int, deadline: Deadline) -> tuple[Address, ...]:
        """All addresses of a host, by exactly one lookup; at least one.

        Raises UpstreamUnavailable, DeadlineExceeded.
        """
        try:
            return (ip_address(host),)
        except ValueError:
            pass
        limit = min(self._limits.lookup_s, deadline.left())
        if not self._enter(host, limit):
            raise self._late(host, deadline)
        answer: list[tuple[Address, ...] | Exception] = []
        done = threading.Event()

        def look_up() -> None:
            try:
                found = dict.fromkeys(ip_address(text) for text in self._resolver(host, port))
                answer.append(tuple(found))
            except (OSError, ValueError) as error:  # UnicodeError, for a label that IDNA refuses, is a ValueError
                answer.append(error)
            finally:
                self._leave(host)
                done.set()

        try:
            threading.Thread(target=look_up, name="lookup", daemon=True).start()
        except BaseException:  # no thread to be had
            self._leave(host)
            raise
        if not done.wait(min(self._limits.lookup_s, deadline.left())):
            raise self._late(host, deadline)
        result = answer[0] if answer else ()
        if isinstance(result, Exception) or not result:
            msg = f"the name {host} could not be resolved"
            raise UpstreamUnavailable(msg) from (result if isinstance(result, Exception) else None)
        return result

    def _enter(self, host: str, limit: float) -> bool:
        def free() -> bool:
            return self._running.total() < self._limits.lookups and self._running[host] < self._limits.lookups_per_name

        with self._changed:
            if not self._changed.wait_for(free, limit):
                return False
            self._running[host] += 1
            return True

    def _leave(self, host: str) -> None:
        with self._changed:
            self._running[host] -= 1
            if self._running[host] <= 0:
                del self._running[host]
            self._changed.notify_all()

    def _late(self, host: str, deadline: Deadline) -> UpstreamUnavailable | DeadlineExceeded:
        if deadline.passed():
            return DeadlineExceeded(f"out of time while resolving {host}")
        return UpstreamUnavailable(f"the name {host} was not resolved within {self._limits.lookup_s:g} s")
