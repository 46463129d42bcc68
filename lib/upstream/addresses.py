"""Which addresses may be connected to, and the one look-up of a name that decides it.

The tables are IANA's special-purpose address registries with every entry refused, whether or not it is called globally
reachable there (no registry lives in an anycast block of AS112 or AMT), and IPv6 is only what is allocated for global
unicast:

    https://www.iana.org/assignments/iana-ipv4-special-registry/    (RFC 6890)
    https://www.iana.org/assignments/iana-ipv6-special-registry/
    https://www.iana.org/assignments/ipv6-address-space/            2000::/3 is Global Unicast; all else is not

To these come addresses that a cloud's platform answers at from inside, though they are global ones (`PLATFORM_V4`).

Our own, because `ipaddress.is_global` lets NAT64, 6to4 and site-local addresses through and changes with the Python
version. An IPv6 form that embeds an IPv4 address is refused as a form: what is inside is not judged.

A public address may still be this very machine: `of_this_machine` asks the kernel. One that a router or load balancer in front
of us translates is not known here; for those there are `TLOGISTRY_OWN_HOSTS` and `Via`.

A look-up whose name server is silent cannot be ended: getaddrinfo has no time-out of ours, and takes 10 to 20 s. Until then it
holds one of the places that there are for look-ups (`Limits`), so those are limited:

    in all              64
    of one domain       8, by the registered domain (`lib/domain.py`), because names below one domain are free
    of one name         4
    of unknown names    half of the places, of all and of each domain

A name is known if it resolved here before, and quickly: so silent domains, however many, leave half of the places to
registries that work, and a zone below a domain that is silent leaves half of that domain's to its other names. *Slow* is
what takes longer than `Limits.lookup_slow_s`. Who lets names resolve first and is slow then loses that: if two look-ups
of known names of one domain are slow at once (one may be a lost packet, and holds one place), all names of the domain
are unknown for `Limits.lookup_fallen_s`, however they resolve. A quick "no such name" changes nothing.

Who finds no place waits, but not in a line that is stuck: if most of the places in question are held by slow ones, the
answer is immediate. What is left to strangers: with 32 silent look-ups under way no unknown name is looked up; and some
thirty domains of one's own, which resolve and are slow by turns, take all the places.

Out of scope: a translator with a prefix of its own (RFC 6052, 2.2), or a router that leads a public address to
something private. No table can know those; they are the network's to close.
"""

from __future__ import annotations

import math
import socket
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

from lib.deadline import Deadline
from lib.domain import registered_domain
from lib.errors import DeadlineExceeded, UpstreamUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
PLATFORM_V4 = (IPv4Network("168.63.129.16/32"),)  # Azure: its name server and wire server, on every machine there
SLOW_MOST = 1  # look-ups of known names of one domain that may be slow at once
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
        return not any(address in block for block in (*SPECIAL_V4, *PLATFORM_V4))
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


@dataclass(eq=False, frozen=True, slots=True)
class _Lookup:
    """One that is under way; `since` is when it began, on the deadline's clock."""

    host: str
    domain: str
    since: float


class _Known:
    """Which names resolved here before, some of each domain. Not safe from several threads by itself."""

    def __init__(self, limits: Limits, domains: Iterable[str]) -> None:
        self._limits = limits
        self._always = frozenset(domains)
        self._names: OrderedDict[str, tuple[str, ...]] = OrderedDict()  # by domain, the latest first
        self._fallen: OrderedDict[str, float] = OrderedDict()  # domains, and when

    def domain(self, lookup: _Lookup) -> bool:
        """Whether it may take what is kept of all places."""
        return lookup.domain in self._always or self.name(lookup)

    def name(self, lookup: _Lookup) -> bool:
        """Whether it may take what is kept of its domain's places."""
        return lookup.host in self._names.get(lookup.domain, ())

    def resolved(self, lookup: _Lookup, now: float) -> None:
        """The name becomes known, unless its domain fell a short while ago."""
        if now - self._fallen.get(lookup.domain, -math.inf) < self._limits.lookup_fallen_s:
            return
        others = (name for name in self._names.pop(lookup.domain, ()) if name != lookup.host)
        self._names[lookup.domain] = (lookup.host, *others)[: self._limits.lookup_names]
        self._shorten(self._names)

    def falls(self, domain: str, now: float) -> None:
        """All names of the domain are unknown from now on."""
        del self._names[domain]
        self._fallen[domain] = now
        self._fallen.move_to_end(domain)
        self._shorten(self._fallen)

    def _shorten(self, memory: OrderedDict[str, Any]) -> None:
        while len(memory) > self._limits.lookup_domains:
            memory.popitem(last=False)


class Lookups:
    """Look-ups with limits: getaddrinfo has no time-out, so each one runs in a thread that can be left behind."""

    def __init__(self, resolver: Resolver, limits: Limits, known: Iterable[str] = ()) -> None:
        """`resolver` is handed in, so that a test can give any name any address.

        `known` are registered domains that may always take what is kept of all places; of their own, only what any other may.
        """
        self._resolver = resolver
        self._limits = limits
        self._known = _Known(limits, known)
        self._running: list[_Lookup] = []  # no more than `Limits.lookups`
        self._changed = threading.Condition()

    def addresses(self, host: str, port: int, deadline: Deadline) -> tuple[Address, ...]:
        """All addresses of a host, by exactly one look-up; at least one.

        Raises UpstreamUnavailable, DeadlineExceeded.
        """
        try:
            return (ip_address(host),)
        except ValueError:
            pass
        lookup = self._enter(host, deadline)
        found: list[Address] = []
        failed: list[Exception] = []
        done = threading.Event()

        def look_up() -> None:
            try:
                found.extend(dict.fromkeys([ip_address(text) for text in self._resolver(host, port)]))
            except (OSError, ValueError) as error:  # UnicodeError, for a label that IDNA refuses, is a ValueError
                failed.append(error)
            finally:
                self._leave(lookup, deadline.clock(), resolved=bool(found))
                done.set()

        try:
            threading.Thread(target=look_up, name="lookup", daemon=True).start()
        except BaseException:  # no thread to be had
            self._leave(lookup, lookup.since, resolved=False)
            raise
        if not done.wait(min(self._limits.lookup_s, deadline.left())):
            raise self._late(host, deadline)
        if not found:
            msg = f"the name {host} could not be resolved"
            raise UpstreamUnavailable(msg) from (failed[0] if failed else None)
        return tuple(found)

    def _enter(self, host: str, deadline: Deadline) -> _Lookup:
        """Take a place, waiting for it while others come and go."""
        domain = registered_domain(host)
        until = Deadline.after(min(self._limits.lookup_s, deadline.left()), deadline.clock)
        with self._changed:
            while True:
                lookup = _Lookup(host, domain, deadline.clock())
                holders = self._holders(lookup)
                if not holders:
                    self._running.append(lookup)
                    return lookup
                if until.passed():
                    raise self._late(host, deadline)
                ages = sorted(lookup.since - holder.since for holder in holders)
                age = ages[(len(ages) - 1) // 2]  # most of them are at least that old
                if age >= self._limits.lookup_slow_s:
                    msg = f"the name {host} is not looked up: too many look-ups get no answer"
                    raise UpstreamUnavailable(msg)
                self._changed.wait(min(until.left(), self._limits.lookup_slow_s - age))

    def _holders(self, wanted: _Lookup) -> list[_Lookup]:
        """Who holds the places that this one could have; nobody, if one is free."""
        self._judge(wanted.since)
        limits = self._limits
        of_domain = [lookup for lookup in self._running if lookup.domain == wanted.domain]
        of_name = [lookup for lookup in of_domain if lookup.host == wanted.host]
        crowds = [
            (of_name, limits.lookups_per_name),
            (of_domain, limits.lookups_per_domain),
            (self._running, limits.lookups),
        ]
        for known, (held, places) in ((self._known.name, crowds[1]), (self._known.domain, crowds[2])):
            if not known(wanted):
                crowds.append(([lookup for lookup in held if not known(lookup)], places // 2))
        return next((held for held, places in crowds if len(held) >= places), [])

    def _judge(self, now: float) -> None:
        slow = Counter(
            lookup.domain
            for lookup in self._running
            if now - lookup.since >= self._limits.lookup_slow_s and self._known.name(lookup)
        )
        for domain, count in slow.items():
            if count > SLOW_MOST:
                self._known.falls(domain, now)

    def _leave(self, lookup: _Lookup, now: float, *, resolved: bool) -> None:
        with self._changed:
            self._judge(now)
            self._running.remove(lookup)
            if resolved and now - lookup.since < self._limits.lookup_slow_s:
                self._known.resolved(lookup, now)
            self._changed.notify_all()

    def _late(self, host: str, deadline: Deadline) -> UpstreamUnavailable | DeadlineExceeded:
        if deadline.passed():
            return DeadlineExceeded(f"out of time while resolving {host}")
        return UpstreamUnavailable(f"the name {host} was not resolved within {self._limits.lookup_s:g} s")
