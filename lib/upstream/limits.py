"""Every limit on a call to the outside, with its unit and reason. One value, so that a test can make them small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds end in `_s`, bytes in `_bytes`; the rest are counts."""

    lookup_s: float = 5.0  # a name server's own first time-out
    connect_s: float = 5.0  # for each address, TLS included: as Docker's clients wait at most twice that
    addresses: int = 4  # tried for one connection: several dead ones must not eat the whole deadline
    read_s: float = 10.0  # between two bytes; ghcr.io was seen to take more than 10 s only under load
    head_bytes: int = 64 * 1024  # status line and headers; http.client itself would take 6.5 MB
    token_bytes: int = 64 * 1024  # as go-containerregistry
    tags_bytes: int = 8 * 1024 * 1024  # one page of tags; gcr.io sends more about each tag than its name
    drain_s: float = 0.25  # to finish an unwanted body, so that its connection can be kept
    drain_bytes: int = 64 * 1024
    stream_grace_s: float = 30.0  # a stream may make us wait this long in all, and then must have been worth it:
    stream_bytes_per_s: int = 4096  # a drip of one byte a second would hold a place for ever
    redirects: int = 5  # registry.k8s.io and vanity domains need one or two
    idle: int = 32  # connections kept for one origin: as many as there are calls at once
    idle_total: int = 128  # kept in all; one costs some 50 KiB with TLS
    idle_s: float = 50.0  # below the usual 60 s of load balancers
    calls: int = 32  # at once, for one upstream
    waiting: int = 56  # for one of those places; beyond that at once Overloaded
    stall_s: float = 3.0  # without an end of any of the calls: nobody may wait; longer than tokens and handshakes take
    streams: int = 32  # at once, from one upstream; a stream holds no place among the calls
    lookups: int = 64  # at once; getaddrinfo cannot be interrupted, so abandoned ones count, too
    lookups_per_domain: int = 8  # a stranger's silent name server must not take them all; nor, with one name,
    lookups_per_name: int = 4  # all of its domain's, which may have other servers for other names
    lookup_slow_s: float = 1.0  # slower than a resolver that has to ask: nobody waits in a line of such look-ups
    lookup_domains: int = 1024  # remembered as having resolved, and as many that were slow after that,
    lookup_names: int = 8  # and so many names of each of the former, at most 254 bytes each
    lookup_fallen_s: float = 120.0  # how long the latter gain nothing by resolving again: ten silent look-ups in a row
    tokens: int = 1024  # held; one is at most 16 KiB
    followers: int = 64  # requests that may wait for another one's answer, for each thing asked
    follow_s: float = 3.0  # and how long, before they ask for themselves: as `stall_s`
    absent: int = 1024  # negative answers kept
    absent_s: float = 3.0  # and how long: enough for a client's retries, too short for a person to notice
    headless_s: float = 300.0  # how long a registry whose HEAD is no help is not asked by HEAD
    token_chars: int = 16 * 1024  # what fits into a header of common servers
