"""What real registries do in different ways, within the specs or beside them: a value for `FakeRegistry`.

The default is a plain one: it does all that the distribution-spec has, and nothing in its own way. Which real registry has
which habit, and who says so: `profiles.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = "fake-registry"


@dataclass(frozen=True)
class Habits:
    """Templates know {realm}, {service} and {scope}. A status of 200 means: as the spec says."""

    # tokens
    service: str = SERVICE
    realm: str = "/token"  # the path of its token service
    realm_here: bool = False  # on the registry's own port; else on one of its own
    challenge: str = 'Bearer realm="{realm}",service="{service}",scope="{scope}"'  # "": a 401 without one
    ping_challenge: str = 'Bearer realm="{realm}",service="{service}"'
    unknown_at_realm: int = 200  # of its token service, for a repository that is not there
    # manifests
    unknown_repository: int = 404  # after a valid token
    unknown_tag: int = 404
    manifest_head: int = 200
    digest_header: bool = True
    manifest_type: str | None = None  # a Content-Type for all manifests
    # where things are
    elsewhere: frozenset[str] = (
        frozenset()
    )  # what is redirected (307) to the registry behind it: "manifests", "tags", …
    blob_redirect: int | None = None  # the status that sends to storage; None: it streams
    blob_head: int = 200
    # lists
    absolute_links: bool = False
    tags_paging: Literal["last", "cursor", "none"] = (
        "last"  # "cursor": opaque, and `last` is ignored; "none": `n` is, too
    )
    tags_page: int = 1000  # tags that it gives at once
    tags_any_size: bool = False  # its Link says n=0, which it reads as "as many as I like"
    tags_too_many: int | None = None  # a larger n is a 400
    tags_digests: tuple[str, ...] = ()  # among the tags
    tags_nulls: int = 0  # on every page
    tags_more: Mapping[str, object] = field(default_factory=dict)  # fields beside name and tags
    referrers: int = 200  # 0: 200 and a page of HTML
    referrers_filter: bool = True
    referrers_page: int = 1000
    # headers
    rate_limit: bool = False  # Docker Hub's, on every manifest, and on the 429 instead of Retry-After
    headers: Mapping[str, str] = field(default_factory=dict)  # on every answer


PLAIN = Habits()
