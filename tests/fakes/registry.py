"""A registry on loopback: small, real HTTP, strict about what it is asked, and able to misbehave.

    with FakeRegistry(token_field="token") as registry:
        digest = registry.push("library/alpine", "3.16.0", content, media_type)
        registry.fault("/v2/library/alpine/manifests/*", Status(429, {"Retry-After": "7"}))
        ... registry.base_url ...
        assert registry.count("HEAD") == 1

Strict (`server.py`), and besides: a manifest is asked for with our Accept list; a token goes to the registry that named its
token service, and says what the challenge said; a list is asked for with the parameters that lists have. Anything else fails
the test that made it, when the block ends (`violations`). With `accounts` it has private repositories and a limit on
anonymous pulls, as Docker Hub has: its token service then takes a password, and is on the registry's own port, where a mapped
registry's must be. What real registries do differently is in `habits`. Not here: pushing over HTTP, deleting over HTTP,
catalogues.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from typing import TYPE_CHECKING, Literal

from tests.fakes import listings
from tests.fakes.faults import (
    CutShort,
    DigestHeader,
    DripBody,
    DripHead,
    Drop,
    EndlessBody,
    Fault,
    Hang,
    Held,
    Html,
    Raw,
    Redirect,
    Seen,
    Status,
)
from tests.fakes.habits import PLAIN, SERVICE, Habits
from tests.fakes.server import Fake, Server
from tests.fakes.serving import RegistryHandler, TokenHandler
from tests.fakes.storage import Shelf

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

    from tests.fakes.listings import Listing
    from tests.fakes.storage import Storage

__all__ = [
    "PLAIN",
    "SERVICE",
    "CutShort",
    "DigestHeader",
    "DripBody",
    "DripHead",
    "Drop",
    "EndlessBody",
    "FakeRegistry",
    "Fault",
    "Habits",
    "Hang",
    "Held",
    "Html",
    "Raw",
    "Redirect",
    "Seen",
    "Status",
    "image",
]


class FakeRegistry(Fake):
    """Serves on loopback until the block ends. Everything may be changed while it serves."""

    what = "a registry"

    def __init__(
        self,
        *,
        token_field: Literal["token", "access_token"] | None = None,
        expires_in: int | None = 300,
        delay_ms: float = 0.0,
        tls: ssl.SSLContext | None = None,
        accounts: Mapping[str, str] | None = None,
        habits: Habits = PLAIN,
        storage: Storage | None = None,
        issuer: FakeRegistry | None = None,
        behind: tuple[FakeRegistry, str] | None = None,
    ) -> None:
        """`token_field`: every request needs a Bearer token; which field of the token server's answer holds it.

        `accounts`: user name -> password, read at each request. They may read everything, and pull as often as they like.
        `storage`: where blobs are redirected to, if not to the registry's own port. `issuer`: whose token service it names.
        `behind`: the registry that has what is `elsewhere`, below a prefix.
        """
        super().__init__()
        self.token_field = token_field
        self.expires_in = expires_in
        self.delay_ms = delay_ms
        self.habits = habits
        self.headers = habits.headers
        self.storage, self.issuer, self.behind = storage, issuer, behind
        self.shelf = Shelf()
        self.challenge: str | None = None  # instead of the right one; "none": a 401 without one
        self.accounts = accounts
        self.private: set[str] = set()  # repositories that only accounts may read
        self.pulls: int | None = None  # how many GETs of manifests are left to anonymous clients
        self.pulled_by_account = 0
        self.token_requests: list[Seen] = []
        self._tags: dict[tuple[str, str], str] = {}
        self._turns: dict[tuple[str, str], Iterator[str]] = {}
        self._manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._issued: dict[str, tuple[str, str | None]] = {}  # token -> repository, and the account's user name
        self._ever_issued: set[str] = set()
        self._cursors = listings.Cursors()
        server, token_server = Server(self, RegistryHandler, tls), Server(self, TokenHandler)
        self.servers = [server, token_server]
        self.port = server.port
        self.base_url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self.has_own_realm = accounts is not None or habits.realm_here
        self.token_path = habits.realm
        realm_url = self.base_url if self.has_own_realm else f"http://127.0.0.1:{token_server.port}"
        self.token_url = realm_url + self.token_path

    # What it holds

    def push(self, repository: str, tag: str | None, content: bytes, media_type: str) -> str:
        """Store a manifest, and let `tag` point to it. Returns its digest."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        with self._lock:
            self._manifests[(repository, digest)] = (content, media_type)
            self._manifests[(repository, "sha512:" + hashlib.sha512(content).hexdigest())] = (content, media_type)
            if tag is not None:
                self._tags[(repository, tag)] = digest
        return digest

    def move(self, repository: str, tag: str, digest: str) -> None:
        """Let a tag point to another manifest that was pushed."""
        with self._lock:
            if (repository, digest) not in self._manifests:
                raise KeyError(digest)
            self._tags[(repository, tag)] = digest

    def alternate(self, repository: str, tag: str, *digests: str) -> None:
        """Let a tag point to each of these in turn, another one at each request."""
        with self._lock:
            self._turns[(repository, tag)] = itertools.cycle(digests)

    def delete(self, repository: str, tag: str) -> None:
        """Forget a tag."""
        with self._lock:
            del self._tags[(repository, tag)]

    def push_blob(self, repository: str, content: bytes) -> str:
        """Store a blob. Returns its digest."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        with self._lock:
            self._blobs[(repository, digest)] = content
        return digest

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str, str] | None:
        """Content, media type and digest by tag or digest."""
        with self._lock:
            turns = self._turns.get((repository, reference))
            digest = next(turns) if turns is not None else self._tags.get((repository, reference))
            if ":" in reference:
                digest = reference
            found = self._manifests.get((repository, digest)) if digest is not None else None
            return (*found, digest) if found is not None and digest is not None else None

    def blob(self, repository: str, digest: str) -> bytes | None:
        """A blob's content."""
        with self._lock:
            return self._blobs.get((repository, digest))

    def knows(self, repository: str) -> bool:
        """Whether there is such a repository."""
        with self._lock:
            return any(repository == name for name, _ in (*self._manifests, *self._blobs))

    def tags_page(self, repository: str, query: str) -> Listing:
        """What it answers to a request for tags."""
        with self._lock:
            names = [tag for name, tag in self._tags if name == repository]
            return listings.tags(repository, names, query, self.habits, self._cursors, self.base_url)

    def referrers_page(self, repository: str, subject: str, query: str) -> Listing:
        """What it answers to a request for referrers."""
        with self._lock:
            manifests = {
                digest: found
                for (name, digest), found in self._manifests.items()
                if name == repository and digest.startswith("sha256:")
            }
            return listings.referrers(repository, subject, manifests, query, self.habits, self._cursors, self.base_url)

    # Tokens and limits

    def revoke(self) -> None:
        """Forget every token that was issued."""
        with self._lock:
            self._issued.clear()

    def issue(self, repository: str, account: str | None = None) -> str:
        """A new token for pulling one repository."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._issued[token] = (repository, account)
            self._ever_issued.add(token)
        return token

    def issued(self, token: str) -> bool:
        """Whether a token is or was one of ours."""
        with self._lock:
            return token in self._ever_issued

    def accepts(self, token: str, repository: str) -> bool:
        """Whether a token is one of ours for this repository. One of ours for another is the client's mistake."""
        with self._lock:
            issued, account = self._issued.get(token, (None, None))
            return issued == repository and (account is not None or repository not in self.private)

    def holder(self, token: str) -> str | None:
        """Whose token it is; None if an anonymous client's, or none of ours."""
        with self._lock:
            return self._issued.get(token, ("", None))[1]

    def pull(self, account: str | None) -> bool:
        """Count one GET of a manifest; False if it is one too many."""
        with self._lock:
            if account is not None:
                self.pulled_by_account += 1
            elif self.pulls == 0:
                return False
            elif self.pulls is not None:
                self.pulls -= 1
            return True

    def rate_limit(self) -> dict[str, str]:
        """Docker Hub's headers, if it has this habit."""
        if not self.habits.rate_limit:
            return {}
        left = 100 if self.pulls is None else self.pulls
        return {
            "ratelimit-limit": "100;w=21600",
            "ratelimit-remaining": f"{left};w=21600",
            "docker-ratelimit-source": "203.0.113.7",
        }

    def forget_requests(self) -> None:
        """Count from here."""
        with self._lock:
            self.requests.clear()
            self.token_requests.clear()


def image(seed: str, size: int = 0) -> bytes:
    """A small OCI manifest; another seed, another digest."""
    filler = " " * size
    digest = hashlib.sha256(seed.encode()).hexdigest()
    return (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        f'"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{digest}","size":2}},'
        f'"layers":[]{filler}}}'
    ).encode()
