"""What is asked with an account: only what an anonymous client was shown, so that a private image is never served.

An account is there to raise a rate limit. Docker Hub counts an anonymous client's GETs of manifests by its address, which
on a cloud is many people's; HEADs are not counted. So:

 1. Only the GET of a manifest is ever made with an account. HEADs, blobs (the URL of a redirect to storage may speak for the
    account), and all that is redirected are anonymous.
 2. Only for a registry that the credentials name and that has a pinned realm (`credentials.py`). The password goes to that
    realm only, and never along a redirect; the token only to the scheme, host and port of the registry, for exactly this
    repository, and never into the anonymous client's memory.
 3. Only for a digest that the registry itself has shown to an anonymous request for exactly this repository: it answered a
    HEAD (or a GET) with 200, without a redirect. By tag that is done in the same request, every time, and the digest that its
    header named is what is then asked for. By digest it holds for `SHOWN_S`, in bounded memory.
 4. A 401, 403, 404, 5xx or redirect shows nothing. A 429 shows nothing, and is the client's answer: never is the account tried
    because an anonymous client was turned away.
 5. What is got by account must be a manifest whose bytes have that digest.
 6. Anything else counts for nothing: then the request is made anonymously, as if there were no account. It can be late, or
    refused, or over a limit of its own, and no answer is the worse for it.

What follows. An answer made with an account is, byte for byte, one that the registry was willing to give to anybody at most
`SHOWN_S` ago. A repository that turns private can be read on for that long, but only those of its manifests that were shown,
and only by digest: its tags are refused at once, so that nothing of it can become a record. A repository that was never
public, or does not exist (Docker Hub says 401 to both), is refused as without an account. A registry that answers no HEADs is
asked for tags anonymously only.

Not here: which tag is recorded (`lib/recorder.py`), and manifests that are held (`lib/handlers/manifests.py`): both ask the
registry anonymously first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from lib.deadline import Deadline
from lib.errors import DeadlineExceeded, NotPublic, UpstreamAnswer, UpstreamUnavailable
from lib.oci.digest import Digest
from lib.oci.manifest import MAX_BYTES, Manifest
from lib.upstream.client import ACCEPT_MANIFESTS, RegistryClient, nowhere
from lib.upstream.meaning import OK, TOO_MANY_REQUESTS, claimed_digest, meaning
from lib.upstream.token import Tokens
from lib.upstream.url import Url, authority

if TYPE_CHECKING:
    from collections.abc import Callable

    from lib.config import BaseUrl
    from lib.oci.reference import Repository, Tag
    from lib.telemetry import Telemetry
    from lib.upstream.challenge import Challenge
    from lib.upstream.client import Site
    from lib.upstream.credentials import Credential, Realms
    from lib.upstream.guard import Guard
    from lib.upstream.keyring import Keyring
    from lib.upstream.limits import Limits
    from lib.upstream.token import Audience
    from lib.upstream.transport import Transport

SHOWN_S = 300.0  # as long as Docker Hub's own anonymous tokens live, whose holders can read on for that long, too
SHOWN_MAX = 8192  # remembered; some 400 bytes each. Who pushes others out costs them one more HEAD
PATIENCE_S = 10.0  # for the token and the manifest together, and at most half of what is left: the rest is rule 6's


class Account:
    """Part of `Registries`. Safe from any thread."""

    def __init__(  # noqa: PLR0913, PLR0917 - made in one place, `Registries`
        self,
        keyring: Keyring,
        realms: Realms,
        anonymous: RegistryClient,
        transport: Transport,
        clock: Callable[[], float],
        telemetry: Telemetry,
        limits: Limits,
    ) -> None:
        """`anonymous` is what proves; it shares the transport with us, and no token."""
        self._keyring = keyring
        self._realms = realms
        self._anonymous = anonymous
        self._transport = transport
        self._tokens = Tokens(transport, clock, limits)
        self._shown = Shown(clock)
        self._telemetry = telemetry
        self._limits = limits
        self._lock = threading.Lock()
        self._withheld: set[str] = set()

    def saw(self, site: Site, repository: Repository, digest: Digest) -> None:
        """The registry showed this manifest to an anonymous request of ours, itself, with a 200."""
        if site.registry in self._realms:
            self._shown.add((site.base, repository, digest))

    def manifest(
        self, site: Site, repository: Repository, reference: Tag | Digest, deadline: Deadline
    ) -> Manifest | None:
        """By account, or None: ask anonymously. Raises RateLimited (rule 4), DeadlineExceeded."""
        if site.registry not in self._realms:  # 2
            return None
        credential = self._keyring.get(site.registry, deadline)
        if credential is None:
            return None
        digest = self._showing(site, repository, reference, deadline)  # 3, 4
        if digest is None:
            return None
        patience = Deadline.after(min(PATIENCE_S, deadline.left() / 2), deadline.clock)
        try:
            return self._fetch(site, repository, digest, credential, patience)
        except (UpstreamAnswer, UpstreamUnavailable, DeadlineExceeded):  # 6
            return None

    def _showing(
        self, site: Site, repository: Repository, reference: Tag | Digest, deadline: Deadline
    ) -> Digest | None:
        """The digest that an anonymous client is shown, if it is."""
        if isinstance(reference, Digest) and (site.base, repository, reference) in self._shown:
            return reference
        name, what = (str(reference), "it") if isinstance(reference, Digest) else (reference.name, reference.familiar)
        target = f"/v2/{repository.path}/manifests/{name}"
        try:
            answer, _ = self._anonymous.ask(site, "HEAD", target, ACCEPT_MANIFESTS, deadline, follow=nowhere)
        except (NotPublic, UpstreamUnavailable):  # the anonymous GET will say why
            return None
        if answer.status == TOO_MANY_REQUESTS:
            raise meaning(answer, what)
        if answer.status != OK:
            return None
        digest = reference if isinstance(reference, Digest) else claimed_digest(answer)
        if digest is not None:
            self.saw(site, repository, digest)
        return digest

    def _fetch(
        self, site: Site, repository: Repository, digest: Digest, credential: Credential, deadline: Deadline
    ) -> Manifest | None:
        tokens = _AccountTokens(self._tokens, credential, self._keyring, self._realms, self._say_withheld)
        client = RegistryClient(self._transport, tokens, self._telemetry, self._limits)
        target = f"/v2/{repository.path}/manifests/{digest}"
        answer, _ = client.ask(site, "GET", target, ACCEPT_MANIFESTS, deadline, follow=nowhere)  # 1, 2
        if answer.status != OK:
            answer.discard(self._limits)
            return None
        said, algorithm = answer.header("Content-Type"), digest.algorithm
        manifest = answer.parsed(MAX_BYTES, deadline, lambda content: Manifest.parse(content, said, algorithm))
        return manifest if manifest.digest == digest else None  # 5

    def _say_withheld(self, registry: str, realm: str) -> None:
        """Once for each registry: the deployer should know why the account is of no use, and nobody should fill the log."""
        with self._lock:
            if registry in self._withheld:
                return
            self._withheld.add(registry)
        try:
            host = authority(Url.parse(realm).origin)
        except ValueError:
            host = "none that can be read"
        self._telemetry.log(
            "WARNING", "upstream credentials withheld: the realm is not the pinned one", registry=registry, realm=host
        )


class _AccountTokens:
    """What a `RegistryClient` wants of tokens, for one request with one account."""

    def __init__(
        self,
        tokens: Tokens,
        credential: Credential,
        keyring: Keyring,
        realms: Realms,
        withheld: Callable[[str, str], None],
    ) -> None:
        self._tokens = tokens
        self._credential = credential
        self._keyring = keyring
        self._realms = realms
        self._withheld = withheld

    def _of(self, whose: Audience) -> Audience:
        return replace(whose, account=self._credential)

    def held(self, whose: Audience) -> str | None:
        return self._tokens.held(self._of(whose))

    def forget(self, whose: Audience, token: str) -> None:
        self._tokens.forget(self._of(whose), token)

    def fetch(self, whose: Audience, challenge: Challenge, guard: Guard, deadline: Deadline) -> str:
        """At most two attempts: the second only with another password, if the secret was rotated meanwhile."""
        if not self._realms.allow(whose.registry, challenge.realm):  # 2
            self._withheld(whose.registry, challenge.realm)
            msg = f"{authority(whose.origin)} names a token service that is not the pinned one"
            raise NotPublic(msg)
        try:
            return self._tokens.fetch(self._of(whose), challenge, guard, deadline, self._credential.basic)
        except NotPublic:
            another = self._keyring.refused(whose.registry, self._credential, deadline)
            if another is None:
                raise
        self._credential = another
        try:
            return self._tokens.fetch(self._of(whose), challenge, guard, deadline, self._credential.basic)
        except NotPublic:
            self._keyring.refused(whose.registry, self._credential, deadline)
            raise


class Shown:
    """Which manifests anonymous clients were shown lately: rule 3's memory. Bounded; safe from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._until: OrderedDict[tuple[BaseUrl, Repository, Digest], float] = OrderedDict()

    def add(self, manifest: tuple[BaseUrl, Repository, Digest]) -> None:
        """Now."""
        with self._lock:
            self._until[manifest] = self._clock() + SHOWN_S
            self._until.move_to_end(manifest)
            while len(self._until) > SHOWN_MAX:
                self._until.popitem(last=False)

    def __contains__(self, manifest: tuple[BaseUrl, Repository, Digest]) -> bool:
        """Whether it was within the last `SHOWN_S` seconds."""
        with self._lock:
            until = self._until.get(manifest)
            return until is not None and self._clock() < until
