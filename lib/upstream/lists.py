"""Lists: a repository's tags, and what refers to a manifest (distribution-spec "Listing Tags", "Listing Referrers").

Neither is ever compared or recorded. What a registry sends is parsed, and of a list of tags only the tags are handed on; an
index of referrers is handed on as it came, because clients may have its digest. Pages are the registry's own: its `Link`
becomes the parameters of the next request, whatever they mean to it.

A registry that sends everything at once whatever it is asked for (distribution before 3) has its list sorted and cut here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lib.errors import ManifestInvalid, NoManifest, NoReferrers, UpstreamUnavailable
from lib.oci import query
from lib.oci.manifest import MAX_BYTES, OCI_INDEX, Manifest
from lib.oci.marks import marks
from lib.oci.reference import TAG
from lib.upstream.client import anywhere
from lib.upstream.link import next_page
from lib.upstream.meaning import OK, meaning
from lib.upstream.upstream import ReferrersPage, TagsPage

if TYPE_CHECKING:
    from lib.deadline import Deadline
    from lib.oci.digest import Digest
    from lib.oci.query import Page, Pairs
    from lib.oci.reference import Repository
    from lib.upstream.answer import Answer
    from lib.upstream.client import RegistryClient, Site
    from lib.upstream.limits import Limits

JSON = {"Accept": "application/json"}
INDEX = {"Accept": OCI_INDEX}
NO_REFERRERS = frozenset(
    {400, 404, 405, 406, 410}
)  # what clients take for "no such API": 406 is Artifactory's (GGCR#1962)
FILTERS = "artifactType"  # the only filter that there is
ERROR_BYTES = 64 * 1024
# 8 MiB of what gcr.io says about each tag have 285,000, and nobody has as many tags alone; parsed, they take up to 70 MiB
MAX_MARKS = 300_000


class Lists:
    """Part of `Registries`."""

    def __init__(self, client: RegistryClient, limits: Limits) -> None:
        """Both shared by all registries."""
        self._client = client
        self._limits = limits

    def tags(self, site: Site, repository: Repository, page: Page, deadline: Deadline) -> TagsPage:
        """See Upstream. An `n` of 0 asks for one, because some registries refuse 0, and hands out none."""
        asked: list[tuple[str, str]] = []
        if page.n is not None:
            asked.append(("n", str(page.n or 1)))
        if page.last is not None:
            asked.append(("last", page.last))
        target = _target(f"/v2/{repository.path}/tags/list", (*asked, *page.more))
        answer, _ = self._client.ask(site, "GET", target, JSON, deadline, follow=anywhere)
        if answer.status != OK:
            answer.discard(self._limits)
            raise meaning(answer, f"a list of tags of {repository.familiar}")

        def parse(content: bytes) -> TagsPage:
            tags = _tags(content, answer.host)
            return TagsPage((), None) if page.n == 0 else _cut(tags, page, _next(answer))

        return answer.parsed(self._limits.tags_bytes, deadline, parse)

    def referrers(  # noqa: PLR0913 - the request's parts
        self,
        site: Site,
        repository: Repository,
        digest: Digest,
        *,
        artifact_type: str | None,
        more: Pairs,
        deadline: Deadline,
    ) -> ReferrersPage:
        """See Upstream."""
        what = f"the referrers of {repository.familiar}@{digest}"
        wanted = (("artifactType", artifact_type),) if artifact_type is not None else ()
        target = _target(f"/v2/{repository.path}/referrers/{digest}", (*wanted, *more))
        answer, _ = self._client.ask(site, "GET", target, INDEX, deadline, follow=anywhere)
        if answer.status in NO_REFERRERS:
            msg = f"{answer.host} does not list {what}"
            raise NoReferrers(msg, answer.status, name_unknown=self._name_unknown(answer))
        if answer.status != OK:
            answer.discard(self._limits)
            raise meaning(answer, what)
        said = answer.header("Content-Type")
        try:
            index = answer.parsed(MAX_BYTES, deadline, lambda content: Manifest.parse(content, said))
        except (ManifestInvalid, NoManifest):
            index = None
        if index is None or index.media_type != OCI_INDEX:  # a page that is made for every unknown path, for instance
            msg = f"{answer.host} does not answer with an index for {what}"
            raise NoReferrers(msg, 404)
        filters = answer.header("OCI-Filters-Applied")
        applied = filters is not None and FILTERS in [name.strip() for name in filters.split(",")]
        return ReferrersPage(index.content, FILTERS if applied else None, _next(answer))

    def _name_unknown(self, answer: Answer) -> bool:
        """Whether an error says NAME_UNKNOWN, which ends a client's search (oras-go); nothing else of it is used."""
        try:
            document = json.loads(answer.read(ERROR_BYTES))
            errors = document["errors"] if answer.status == 404 else []  # noqa: PLR2004 - HTTP's own number
            return any(error["code"] == "NAME_UNKNOWN" for error in errors)
        except (UpstreamUnavailable, ValueError, RecursionError, KeyError, TypeError):
            return False


def _target(path: str, pairs: Pairs) -> str:
    return f"{path}?{query.text(pairs)}" if pairs else path


def _next(answer: Answer) -> Pairs | None:
    try:
        return next_page(answer.header_lines("Link"))
    except ValueError as error:
        msg = f"{answer.host} names its next page by {error}"
        raise UpstreamUnavailable(msg) from error


def _tags(content: bytes, host: str) -> list[str]:
    """`{"name": …, "tags": [ … ]}`. Nexus was seen to send null for one tag or all, and Artifactory to list digests."""
    if marks(content) > MAX_MARKS:
        msg = f"the list of tags of {host} has more than {MAX_MARKS} values"
        raise UpstreamUnavailable(msg)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = f"{host} did not answer with JSON for a list of tags"
        raise UpstreamUnavailable(msg) from error
    tags = document.get("tags", ()) if isinstance(document, dict) else ()
    if tags is None:
        return []
    if not isinstance(tags, list):
        msg = f"{host} answered with something that is no list of tags"
        raise UpstreamUnavailable(msg)
    return [tag for tag in tags if isinstance(tag, str) and TAG.fullmatch(tag)]


def _cut(tags: list[str], page: Page, following: Pairs | None) -> TagsPage:
    """What the client asked for, from a registry that may have sent more than that."""
    last = page.last if page.last in tags else None  # it is exclusive, so a registry that sends it ignores it
    if following is None and (
        page.last is None or last is not None
    ):  # everything; distribution 2 does not even sort it
        tags = sorted(tag for tag in tags if last is None or tag > last)
    elif last is not None:
        tags = tags[tags.index(last) + 1 :]
    if page.n is not None and len(tags) > page.n:
        tags = tags[: page.n]
        following = (("n", str(page.n)), ("last", tags[-1]))
    return TagsPage(tuple(tags), following)
