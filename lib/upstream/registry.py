"""The registries behind their canonical names: the one implementation of `Upstream`.

Docker Hub is called docker.io and is at registry-1.docker.io; every other registry is at https://<its name>; a mapped
one is where the deployer says. Tags are always asked for with one Accept list of ours, because their digest depends on
it.

Not here: caching of manifests, and what we have said about a tag.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib.config import BaseUrl
from lib.errors import (
    DigestInvalid,
    ManifestInvalid,
    NameInvalid,
    NoManifest,
    Unavailable,
    UpstreamAnswer,
    UpstreamUnavailable,
)
from lib.oci.digest import Digest
from lib.oci.manifest import MAX_BYTES, MEDIA_TYPES, Manifest, essence
from lib.oci.reference import HUB
from lib.upstream.account import Account
from lib.upstream.addresses import Lookups, system_resolver
from lib.upstream.answer import TooLong
from lib.upstream.blob import Blobs
from lib.upstream.bulkhead import Bulkhead
from lib.upstream.client import ACCEPT_MANIFESTS, RegistryClient, Site, anywhere
from lib.upstream.credentials import Realms
from lib.upstream.guard import HTTPS_PORT, Guard, Hosts, Refused
from lib.upstream.keyring import Keyring
from lib.upstream.limits import Limits
from lib.upstream.lists import Lists
from lib.upstream.meaning import OK, claimed_digest, meaning, refuses_head
from lib.upstream.token import Tokens
from lib.upstream.transport import Transport
from lib.upstream.upstream import NO_HINT, BlobRedirect, BlobStream, Hint, ReferrersPage, TagsPage, Upstream
from lib.upstream.url import Url, authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lib.deadline import Deadline
    from lib.oci.digest import Algorithm
    from lib.oci.query import Page, Pairs
    from lib.oci.reference import Repository, Tag
    from lib.telemetry import Telemetry
    from lib.upstream.addresses import Resolver
    from lib.upstream.answer import Answer
    from lib.upstream.bulkhead import Place
    from lib.upstream.secret import Secret

__all__ = ["BlobRedirect", "BlobStream", "Hint", "Registries", "Upstream"]

HUB_HOST = "registry-1.docker.io"


class Registries:
    """Every registry. Opens no connection and starts no thread before it is asked; safe from any thread."""

    def __init__(  # noqa: PLR0913 - the last three are for those who need something else
        self,
        mapping: Mapping[str, BaseUrl],
        clock: Callable[[], float],
        telemetry: Telemetry,
        resolver: Resolver = system_resolver,
        limits: Limits | None = None,
        *,
        secret: Secret | None = None,
        hosts: Hosts | None = None,
        known: Iterable[str] = (),
    ) -> None:
        """`mapping` is the deployer's, from canonical registry names; `clock` is monotonic, in seconds.

        `secret` holds accounts at registries; None: everything is asked anonymously. `hosts` is what the deployer says
        about names; None: nothing. `known` are registered domains whose names are looked up before those of strangers.
        """
        limits = limits if limits is not None else Limits()
        self._mapping = dict(mapping)
        self._hosts = hosts if hosts is not None else Hosts()
        self._mapped = {registry: self._guard(base) for registry, base in self._mapping.items()}
        self._stranger = Guard(frozenset(), self._hosts)
        self._telemetry = telemetry
        self._limits = limits
        self._calls = Bulkhead(limits.calls, limits.waiting, limits.stall_s)
        self._transport = Transport(Lookups(resolver, limits, known), clock, limits)
        self._client = RegistryClient(self._transport, Tokens(self._transport, clock, limits), telemetry, limits)
        self._blobs = Blobs(self._client, Bulkhead(limits.streams, limits.waiting), limits)
        self._lists = Lists(self._client, limits)
        self._account: Account | None = None
        if secret is not None:
            realms = Realms(self._mapping)
            keyring = Keyring(secret, realms, clock, telemetry)
            self._account = Account(keyring, realms, self._client, self._transport, clock, telemetry, limits)

    def head(self, tag: Tag, deadline: Deadline) -> Hint:
        """See Upstream."""
        with self._calling(tag.repository, deadline) as (site, _):
            target = f"/v2/{tag.repository.path}/manifests/{tag.name}"
            answer, url = self._client.ask(site, "HEAD", target, ACCEPT_MANIFESTS, deadline, follow=anywhere)
            if refuses_head(answer.status):
                return NO_HINT
            if answer.status != OK:
                raise meaning(answer, tag.familiar)
            digest = claimed_digest(answer)
            if self._account is not None and digest is not None and url == Url(site.base, target):
                self._account.saw(site, tag.repository, digest)
            media_type = essence(answer.header("Content-Type"))
            length = answer.length
            return Hint(
                digest=digest,
                media_type=media_type if media_type in MEDIA_TYPES else None,
                length=length if length is not None and 0 < length <= MAX_BYTES else None,
            )

    def manifest(self, repository: Repository, reference: Tag | Digest, deadline: Deadline) -> Manifest:
        """See Upstream."""
        if isinstance(reference, Digest):
            name, what, algorithm = str(reference), f"{repository.familiar}@{reference}", reference.algorithm
        else:
            name, what, algorithm = reference.name, reference.familiar, "sha256"
        with self._calling(repository, deadline) as (site, place):
            if self._account is not None:
                by_account = self._account.manifest(site, repository, reference, deadline)
                if by_account is not None:
                    return by_account
            target = f"/v2/{repository.path}/manifests/{name}"
            answer, url = self._client.ask(site, "GET", target, ACCEPT_MANIFESTS, deadline, follow=anywhere)
            if answer.status != OK:
                answer.discard(self._limits)
                raise meaning(answer, what)
            manifest = self._read(answer, what, algorithm, deadline)
            place.release()
            self._compare_header(what, answer.header("Docker-Content-Digest"), manifest)
            if isinstance(reference, Digest) and manifest.digest != reference:
                self._telemetry.log(
                    "WARNING", "upstream served other bytes than asked for", reference=what, got=manifest.digest
                )
                msg = f"{answer.host} served other bytes than {what}"
                raise UpstreamUnavailable(msg)
        if self._account is not None and url == Url(site.base, target):
            self._account.saw(site, repository, manifest.digest)
        return manifest

    def blob(  # noqa: PLR0913 - the contract's
        self,
        repository: Repository,
        digest: Digest,
        *,
        head: bool,
        range_: str | None,
        if_range: str | None,
        deadline: Deadline,
    ) -> BlobRedirect | BlobStream:
        """See Upstream."""
        with self._calling(repository, deadline) as (site, place):
            if head:
                return self._blobs.head(site, repository, digest, deadline)
            return self._blobs.get(
                site, repository, digest, range_=range_, if_range=if_range, place=place, deadline=deadline
            )

    def tags(self, repository: Repository, page: Page, deadline: Deadline) -> TagsPage:
        """See Upstream."""
        with self._calling(repository, deadline) as (site, _):
            return self._lists.tags(site, repository, page, deadline)

    def referrers(
        self, repository: Repository, digest: Digest, artifact_type: str | None, more: Pairs, deadline: Deadline
    ) -> ReferrersPage:
        """See Upstream."""
        with self._calling(repository, deadline) as (site, _):
            return self._lists.referrers(
                site, repository, digest, artifact_type=artifact_type, more=more, deadline=deadline
            )

    def close(self) -> None:
        """Close the connections that are kept."""
        self._transport.close()

    @contextmanager
    def _calling(self, repository: Repository, deadline: Deadline) -> Iterator[tuple[Site, Place]]:
        """A place at the upstream; what the guard says about the host that the client named is the client's mistake."""
        self._hosts.check_registry(repository.registry)
        site = self._site(repository.registry)
        try:
            site.guard.check(site.base)
            with self._calls.enter(site.base, deadline) as place:
                yield site, place
        except (Unavailable, UpstreamAnswer) as error:
            if isinstance(error, Refused) and error.origin == site.base:
                msg = f"{repository.registry} is not a public registry: {error.reason}"
                raise NameInvalid(msg) from error
            named = error.again()
            named.args = (self._named(site, str(error)),)
            raise named from error

    def _named(self, site: Site, message: str) -> str:
        """With the name that the client knows; where inside the deployer mapped it to is not the client's business."""
        if site.registry in self._mapping and not site.base.on_loopback:
            message = message.replace(authority(site.base), site.registry)
        return message if site.registry in message else f"{site.registry}: {message}"

    def _guard(self, base: BaseUrl) -> Guard:
        """For one mapped registry: exactly its origin; on loopback, where there is only development, all that are there."""
        there = {base, *(other for other in self._mapping.values() if base.on_loopback and other.on_loopback)}
        return Guard(frozenset(there), self._hosts)

    def _site(self, registry: str) -> Site:
        base = self._mapping.get(registry)
        if base is not None:
            return Site(registry, base, self._mapped[registry])
        host, _, port = (HUB_HOST if registry == HUB else registry).partition(":")
        return Site(registry, BaseUrl("https", host, int(port) if port else HTTPS_PORT), self._stranger)

    def _read(self, answer: Answer, what: str, algorithm: Algorithm, deadline: Deadline) -> Manifest:
        """The manifest in a 200. Raises ManifestInvalid, NoManifest."""
        try:
            said = answer.header("Content-Type")
            return answer.parsed(MAX_BYTES, deadline, lambda content: Manifest.parse(content, said, algorithm))
        except (ManifestInvalid, NoManifest) as error:
            msg = f"{answer.host} answered 200 for {what}: {error}"
            raise type(error)(msg) from error
        except TooLong as error:
            msg = f"{answer.host} answered 200 for {what}: the manifest is longer than {MAX_BYTES} bytes"
            raise ManifestInvalid(msg) from error

    def _compare_header(self, what: str, header: str | None, manifest: Manifest) -> None:
        """The bytes decide; a header that says otherwise is worth a line."""
        if header is None:
            return
        try:
            true = Digest.parse(header).matches(manifest.content)
        except DigestInvalid:
            true = False
        if not true:
            self._telemetry.log(
                "WARNING", "upstream's digest header is not that of its bytes", reference=what, header=header,
                got=manifest.digest,
            )  # fmt: skip
