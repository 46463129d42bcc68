"""Loops: what came through this service already, and what would come back to it.

    Via: 1.1 google, 1.1 tlogistry      RFC 9110, 7.6.3; every request of ours to an upstream says it

One instance that reaches another, or itself, as an upstream would hold a thread in each, and again in each. The second one
answers 508 (RFC 5842), so that the depth is one. A registry that is called as the client calls us is refused before anything is
asked: whoever sends a Host of their own choosing refuses only their own request. Not here: the names that the deployer says are
ours, which hold for redirects and token services, too (`lib/upstream/guard.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lib.errors import Loop, NameInvalid
from lib.oci.endpoint import Livez, Ping, Readyz, SightingRecord
from lib.oci.reference import canonical_registry

if TYPE_CHECKING:
    from collections.abc import Collection

    from lib.oci.endpoint import Endpoint

PSEUDONYM = "tlogistry"
#   Via = #( received-protocol RWS received-by [ RWS comment ] )
#   received-protocol = [ protocol-name "/" ] protocol-version
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
VIA = re.compile(rf"(?:^|,)[ \t]*(?:{_WORD}/)?{_WORD}[ \t]+{PSEUDONYM}[ \t]*(?=$|,|\()", re.ASCII | re.IGNORECASE)


def check(asked: Endpoint, *, host: str, via: str, mapped: Collection[str]) -> None:
    """`host` and `via` as the client sent them; `mapped` are registries of which the deployer says where they are.

    Raises Loop, NameInvalid.
    """
    if isinstance(asked, Ping | Livez | Readyz):
        return
    if VIA.search(via) is not None:
        msg = "this request has come through tlogistry already"
        raise Loop(msg)
    if isinstance(asked, SightingRecord) or asked.repository.registry in mapped:
        return
    try:
        own = canonical_registry(host)
    except NameInvalid:  # no registry has such a name
        return
    if asked.repository.registry == own:
        msg = f"{own} is this service, and no registry behind it"
        raise NameInvalid(msg)
