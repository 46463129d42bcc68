"""The outbound guard: whom we talk to when strangers choose the host, in a path, a realm or a redirect.

    https, port 443, a DNS name of the public tree (no address in any spelling), and every address of the name public

or exactly the scheme, host and port that the deployer mapped; and never what the deployer denies, or our own names. A mapping
speaks for its own registry only (`registry.py`): neither a stranger's registry nor another mapped one can send us to somebody's
mirror on a private network. The addresses are checked where the connection is made (`connection.py`), on the very addresses
connected to; this module is about what a URL says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.errors import NameInvalid, UpstreamUnavailable
from lib.oci.reference import HUB, HUB_ALIASES
from lib.upstream.url import authority

if TYPE_CHECKING:
    from lib.config import BaseUrl, RegistryPattern

HTTPS_PORT = 443
# A name with at least one dot whose last label is a top-level domain: letters only, or punycode. "1.2.3.4", "127.1",
# "0x7f.1", "2130706433" and "[::1]" all fail here. Labels before it may have "_", as names of storage buckets do.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
PUBLIC_NAME = re.compile(rf"(?:{_LABEL}\.)+(?:[a-z]{{2,63}}|xn--[a-z0-9-]{{1,59}})", re.ASCII)
NAME_MAX = 253
# RFC 6761, 6762, 7686, 9476, and ICANN's reservation of .internal: names that mean something else in every network.
LOCAL_DOMAINS = frozenset({"localhost", "local", "internal", "onion", "alt", "arpa"})


class Refused(UpstreamUnavailable):
    """The guard does not let us talk to an origin; `origin` is which."""

    def __init__(self, origin: BaseUrl, reason: str) -> None:
        """The message names what was refused, never a path or query."""
        super().__init__(f"refused to connect to {origin.scheme}://{authority(origin)}: {reason}")
        self.origin = origin
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Hosts:
    """What the deployer says about hosts, mapped or not.

    own     our own names: no registry, no token service, no place to be redirected to
    deny    the same for these, which wins over `allow`
    allow   the registries that a client may name; None: all. Not asked of token services and redirects, whose names are
            the registry's business and change without notice
    """

    own: frozenset[str] = frozenset()
    allow: tuple[RegistryPattern, ...] | None = None
    deny: tuple[RegistryPattern, ...] = ()

    def check_registry(self, registry: str) -> None:
        """Raise NameInvalid unless a client may name this registry."""
        reason = self._refused(registry)
        if reason is None and self.allow is not None and not any(one.matches(registry) for one in self.allow):
            reason = "the operator does not allow it"
        if reason is not None:
            msg = f"{registry} is not served here: {reason}"
            raise NameInvalid(msg)

    def check_origin(self, origin: BaseUrl) -> None:
        """Raise Refused if the host is ours or denied, on any port or on this one. Docker Hub goes by several names."""
        for name in (HUB if origin.host in HUB_ALIASES else origin.host, origin.host, f"{origin.host}:{origin.port}"):
            reason = self._refused(name)
            if reason is not None:
                raise Refused(origin, reason)

    def _refused(self, name: str) -> str | None:
        if name in self.own:
            return "it is this service itself"
        if any(one.matches(name) for one in self.deny):
            return "the operator denies it"
        return None


@dataclass(frozen=True, slots=True)
class Guard:
    """What one registry's requests may reach. `mapped` are the origins that the deployer vouches for."""

    mapped: frozenset[BaseUrl]
    hosts: Hosts = Hosts()

    def vouched(self, origin: BaseUrl) -> bool:
        """Whether the deployer mapped exactly this scheme, host and port."""
        return origin in self.mapped

    def check(self, origin: BaseUrl) -> None:
        """Raise Refused unless the origin may be asked."""
        self.hosts.check_origin(origin)
        if origin in self.mapped:
            return
        if origin.scheme != "https":
            raise Refused(origin, "only https is allowed")
        if origin.port != HTTPS_PORT:
            raise Refused(origin, f"only port {HTTPS_PORT} is allowed")
        if len(origin.host) > NAME_MAX or PUBLIC_NAME.fullmatch(origin.host) is None:
            raise Refused(origin, "not a public host name")
        if origin.host.rpartition(".")[2] in LOCAL_DOMAINS:
            raise Refused(origin, "not a public host name")
