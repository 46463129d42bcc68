"""Whose request it is, for a limit: the address that no client can choose, IPv6 by its /64.

    X-Forwarded-For: 198.51.100.7, 192.0.2.1        with 1 hop: 192.0.2.1, which the proxy in front of us added
                                                    with 2 hops: 198.51.100.7, which the one in front of that added

Each proxy adds the address that it was asked from at the right; what stands further left than there are proxies was sent by
the client. A header that is too short, or whose entry is no address, did not come through those proxies: then the socket's
other end counts, never a value from the header. One customer of an IPv6 network has a /64 at least (RFC 6177), and so as many
addresses as they like. Not here: what is limited (`lib/flood.py`).
"""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address

PREFIX = 64
ADDRESS_MAX = 45  # characters: an IPv6 address with an IPv4 address at its end
UNKNOWN = "unknown"  # a socket without an address: all of them are one client


def client(peer: str | None, forwarded_for: str, hops: int) -> str:
    """The address, or the /64, that `hops` trusted proxies say the request came from; without them, the socket's `peer`."""
    fallback = _block(peer or "") or UNKNOWN
    if hops == 0:
        return fallback
    entries = forwarded_for.rsplit(",", hops)[-hops:]  # what a client sent on the left is not even split
    return (_block(entries[0].strip(" \t")) if len(entries) == hops else None) or fallback


def _block(text: str) -> str | None:
    try:
        address = ip_address(text) if len(text) <= ADDRESS_MAX else None
    except ValueError:
        return None
    if address is None or (address.version == 6 and address.scope_id is not None):  # noqa: PLR2004 - IPv6
        return None
    if address.version == 4:  # noqa: PLR2004 - IPv4
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), PREFIX), strict=False))
