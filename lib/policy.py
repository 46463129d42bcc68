"""Settings that say who is served what, and how much: rates, registries, proxies in front. As in `lib/settings.py`.

    Rate.parse("500/60s")                   a bucket of 500 that fills in 60 seconds
    RegistryPattern.parse("*.example.com")  every host below example.com

Not here: what is done about it (`lib/flood.py`, `lib/peer.py`, `lib/upstream/guard.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib.errors import NameInvalid
from lib.oci.reference import canonical_registry
from lib.settings import strict_json

HOPS_MAX = 8  # proxies in front of us
DAY_S = 86_400
#   COUNT "/" SECONDS "s"
COUNT = r"[1-9][0-9]{0,8}"
RATE = re.compile(rf"({COUNT})/([1-9][0-9]{{0,4}})s", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many, and as many again each `seconds`: a bucket that holds `count` and fills in that time."""

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """`500/60s`; `off` is None. Raises ValueError."""
        match = RATE.fullmatch(text)
        if match is None and text != "off":
            msg = "must be COUNT/SECONDSs such as 500/60s, or off"
            raise ValueError(msg)
        return cls(int(match[1]), int(match[2])) if match is not None else None

    @classmethod
    def parse_daily(cls, text: str) -> Rate | None:
        """`20000`, which is a day's; `off` is None. Raises ValueError."""
        if not re.fullmatch(COUNT, text, re.ASCII) and text != "off":
            msg = "must be a number, or off"
            raise ValueError(msg)
        return cls(int(text), DAY_S) if text != "off" else None

    def __str__(self) -> str:
        """As it is set; `parse` is its inverse."""
        return f"{self.count}/{self.seconds}s"


@dataclass(frozen=True, slots=True)
class RegistryPattern:
    """A registry by its canonical name; or, with `below`, every host whose name ends in a dot and `name`."""

    name: str
    below: bool = False

    @classmethod
    def parse(cls, text: str) -> RegistryPattern:
        """`ghcr.io`, `reg.example:5000`, `*.example.com`. Raises NameInvalid."""
        if not text.startswith("*."):
            return cls(canonical_registry(text))
        host = canonical_registry(f"x.{text[2:]}")
        if ":" in host:
            msg = "a name that begins with *. has no port"
            raise NameInvalid(msg)
        return cls(host.removeprefix("x."), below=True)

    def matches(self, registry: str) -> bool:
        """Whether it means this registry, by its canonical name."""
        if self.below:
            return registry.partition(":")[0].endswith(f".{self.name}")
        return registry == self.name

    def __str__(self) -> str:
        """As it is set; `parse` is its inverse."""
        return f"*.{self.name}" if self.below else self.name


def _names(text: str) -> list[str]:
    parsed = strict_json(text)
    if not isinstance(parsed, list) or not all(isinstance(item, str) for item in parsed):
        msg = 'not a list such as ["ghcr.io", "*.example.com"]'
        raise ValueError(msg)
    return parsed


def parse_registries(text: str) -> tuple[RegistryPattern, ...]:
    """A JSON list of registries, none of them twice. Raises ValueError, NameInvalid."""
    patterns = []
    for name in _names(text):
        try:
            patterns.append(RegistryPattern.parse(name))
        except NameInvalid as error:
            msg = f"{name!r}: {error}"
            raise ValueError(msg) from error
    if len(set(patterns)) != len(patterns):
        msg = "one registry is there twice"
        raise ValueError(msg)
    return tuple(patterns)


def parse_some_registries(text: str) -> tuple[RegistryPattern, ...]:
    """As `parse_registries`, but not an empty list: what is allowed if nothing is must be said by turning the service off."""
    patterns = parse_registries(text)
    if not patterns:
        msg = "an empty list would allow nothing"
        raise ValueError(msg)
    return patterns


def parse_own_hosts(text: str) -> frozenset[str]:
    """A JSON list of host names, without patterns."""
    patterns = parse_registries(text)
    if any(pattern.below for pattern in patterns):
        msg = "each is one host name"
        raise ValueError(msg)
    return frozenset(pattern.name for pattern in patterns)


def parse_hops(text: str) -> int:
    """A count of proxies."""
    if not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) or int(text) > HOPS_MAX:
        msg = f"must be 0 to {HOPS_MAX}"
        raise ValueError(msg)
    return int(text)
