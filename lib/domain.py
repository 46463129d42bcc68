"""Which host names are one registration: `registered_domain("a.b.example.co.uk")` is `example.co.uk`.

Whoever registers a domain has as many names below it as they like, for nothing; a second registration costs money. So what
is limited for each upstream is limited for its registered domain: one label more than the longest public suffix.

The public suffixes are those of the ICANN section of https://publicsuffix.org/list/ in the copy that the package
publicsuffixlist ships; nothing is fetched. Its private section (`github.io`, `run.app`) is left out on purpose: those
providers hand out names below theirs for nothing, so that all of them count as the provider's. A top-level domain that the
copy does not know yet counts as a public suffix of one label.
"""

from __future__ import annotations

import functools
from importlib import resources
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from publicsuffixlist import PublicSuffixList

LIST = "public_suffix_list.dat"
END_OF_ICANN = "===END ICANN DOMAINS==="
CACHED = 1024  # names; looking one up costs some microseconds


@functools.lru_cache(CACHED)
def registered_domain(registry: str) -> str:
    """Of a canonical registry name; its port does not matter. An address, and a public suffix itself, stand for themselves."""
    host = registry.partition(":")[0]
    try:
        ip_address(host)
    except ValueError:
        return _list().privatesuffix(host) or host
    return host


@functools.cache
def _list() -> PublicSuffixList:
    """Read on first use, which takes some 20 ms: a start that makes no record does not wait for it."""
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 - as said

    return PublicSuffixList(_icann_rules(), accept_encoded_idn=False)


def _icann_rules() -> Iterator[str]:
    """The rules in ASCII, as host names reach us. The package would encode all of them, which takes twenty times as long."""
    with resources.files("publicsuffixlist").joinpath(LIST).open(encoding="utf-8") as lines:
        for line in lines:
            if END_OF_ICANN in line:
                return
            rule = line.strip()
            if rule and not rule.startswith("//"):
                yield rule if rule.isascii() else rule.encode("idna").decode("ascii")
