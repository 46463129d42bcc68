"""The HTTP side of a fake registry and of its token service: the distribution-spec's pull, with the registry's habits.

Not here: what it holds (`registry.py`), and how it is strict about what every server should not see (`server.py`).
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs

from lib.oci.manifest import ACCEPT, OCI_INDEX
from tests.fakes import listings
from tests.fakes.habits import SERVICE
from tests.fakes.storage import StoredHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.faults import Fault, Seen
    from tests.fakes.listings import Listing
    from tests.fakes.registry import FakeRegistry

RESOURCE = re.compile(r"/v2/(.+)/(?:(manifests|blobs|referrers)/([^/]+)|(tags)/(list))", re.ASCII)
SCOPE = re.compile(r"repository:([a-z0-9/._-]+):pull", re.ASCII)
DOWNLOADS = "/artifacts-downloads/namespaces/project/repositories/images/downloads"  # Artifact Registry's own storage
TOO_MANY = (
    b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. '
    b'https://www.docker.com/increase-rate-limit"}]}'
)


class _Handler(StoredHandler):
    @property
    def registry(self) -> FakeRegistry:
        return cast("FakeRegistry", self.server.fake)

    def token(self, fault: Fault | None) -> None:
        """GET /token?service=…&scope=repository:NAME:pull, and whatever else the realm had in its query."""
        registry = self.registry
        query = parse_qs(self.seen.query, strict_parsing=True)
        scopes = query.get("scope", [""])
        scope = SCOPE.fullmatch(scopes[0])
        given = self.seen.headers.get("authorization")
        if given is not None and registry.accounts is None:
            registry.violation("an Authorization at the token server")
        if registry.habits.service != SERVICE and query.get("service") != [registry.habits.service]:
            registry.violation(f"a token is asked for at {self.path}: another service")
        if self.seen.path != registry.token_path or scope is None or len(scopes) > 1 or registry.token_field is None:
            self.answer(404, {}, b"")
            return
        if registry.habits.unknown_at_realm != 200 and not registry.knows(scope[1]):
            self.answer(registry.habits.unknown_at_realm, {}, b'{"errors":[{"code":"DENIED","message":"denied"}]}')
            return
        account: str | None = None
        if given is not None and registry.accounts is not None:
            account, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
            if registry.accounts.get(account) != password:
                self.answer(401, {}, b'{"details": "incorrect username or password"}')
                return
        document = f'"{registry.token_field}": "{registry.issue(scope[1], account)}"'
        if registry.expires_in is not None:
            document += f', "expires_in": {registry.expires_in}'
        self.give(200, {"Content-Type": "application/json"}, f"{{{document}}}".encode(), fault)


class TokenHandler(_Handler):
    """The token service on a port of its own."""

    def log_of(self) -> list[Seen]:
        return self.registry.token_requests

    def behave(self, fault: Fault | None) -> None:
        self.token(fault)


class RegistryHandler(_Handler):
    """The registry, its token service if that is on the same port, and its storage if that is."""

    def log_of(self) -> list[Seen]:
        return self.registry.token_requests if self._is_token() else self.registry.requests

    def _is_token(self) -> bool:
        return self.registry.has_own_realm and self.seen.path == self.registry.token_path

    def behave(self, fault: Fault | None) -> None:
        registry, path = self.registry, self.seen.path
        if self._is_token():
            self.token(fault)
            return
        if path.startswith(DOWNLOADS):
            self.stored(registry.shelf, fault)
            return
        match = RESOURCE.fullmatch(path)
        repository, kind, reference = (match[1], match[2] or match[4], match[3] or match[5]) if match else ("", "", "")
        if not self._authorized(repository):
            return
        if match is not None and registry.behind is not None and kind in registry.habits.elsewhere:
            self._elsewhere(repository)
        elif path == "/v2/":
            self.answer(200, {"Content-Type": "application/json"}, b"{}")
        elif match is not None:
            self._resource(kind, repository, reference, fault)
        else:
            self.answer(404, {}, b"")

    def _resource(self, kind: str, repository: str, reference: str, fault: Fault | None) -> None:
        registry, query = self.registry, self.seen.query
        match kind:
            case "manifests":
                self._manifest(repository, reference, fault)
            case "blobs":
                self._blob(repository, reference, fault)
            case "tags" if not registry.knows(repository):
                self.answer(404, {}, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')
            case "tags":
                self._list(lambda: registry.tags_page(repository, query), fault)
            case _:
                if OCI_INDEX not in self.seen.headers.get("accept", ""):
                    registry.violation(f"{self.path}: does not accept an index")
                self._list(lambda: registry.referrers_page(repository, reference, query), fault)

    def _elsewhere(self, repository: str) -> None:
        """Another registry has it, under the same name below a prefix."""
        behind, prefix = self.registry.behind or (self.registry, "")
        target = self.seen.path.replace(f"/v2/{repository}/", f"/v2/{prefix}{repository}/", 1)
        query = f"?{self.seen.query}" if self.seen.query else ""
        self.answer(307, {"Location": f"{behind.base_url}{target}{query}"}, b"")

    def _authorized(self, repository: str) -> bool:
        registry = self.registry
        given = self.seen.headers.get("authorization")
        if registry.token_field is None:
            if given is not None:
                registry.violation(f"{self.path}: an Authorization that nobody asked for")
            return True
        token = given.removeprefix("Bearer ") if given is not None else None
        issuer = registry.issuer or registry
        if token is not None and repository and issuer.accepts(token, repository):
            if registry.habits.unknown_repository == 404 or registry.behind is not None or registry.knows(repository):
                return True
            return self._refuse(repository, registry.habits.unknown_repository, ',error="insufficient_scope"')
        if token is not None and registry.challenge is None and not issuer.issued(token):
            registry.violation(f"{self.path}: a token that was not given out here")
        return self._refuse(repository, 401)

    def _refuse(self, repository: str, status: int, error: str = "") -> bool:
        registry, issuer = self.registry, self.registry.issuer or self.registry
        if registry.challenge is not None:
            challenge = registry.challenge if registry.challenge != "none" else ""
        else:
            template = registry.habits.challenge if repository else registry.habits.ping_challenge
            scope = f"repository:{repository}:pull"
            challenge = template.format(realm=issuer.token_url, service=issuer.habits.service, scope=scope)
        headers = {"WWW-Authenticate": challenge + error} if challenge else {}
        self.answer(status, headers, b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}')
        return False

    def _manifest(self, repository: str, reference: str, fault: Fault | None) -> None:
        registry, habits = self.registry, self.registry.habits
        if self.seen.headers.get("accept") != ACCEPT:
            registry.violation(f"{self.path}: not our Accept list")
        if self.command == "HEAD" and habits.manifest_head != 200:
            self.answer(habits.manifest_head, {}, b"")
            return
        found = registry.manifest(repository, reference)
        if found is None:
            status = habits.unknown_tag if ":" not in reference else 404
            self.answer(status, {}, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
            return
        token = self.seen.headers.get("authorization", "").removeprefix("Bearer ")
        if self.command == "GET" and not registry.pull(registry.holder(token)):
            wait = registry.rate_limit() or {"Retry-After": "60"}
            self.answer(429, {**wait, "Content-Type": "application/json"}, TOO_MANY)
            return
        content, media_type, digest = found
        headers = {"Content-Type": habits.manifest_type or media_type, **registry.rate_limit()}
        if habits.digest_header:
            headers |= {"Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        self.give(200, headers, content, fault)

    def _blob(self, repository: str, digest: str, fault: Fault | None) -> None:
        registry, habits = self.registry, self.registry.habits
        content = registry.blob(repository, digest)
        if self.command == "HEAD" and habits.blob_head != 200:
            self.answer(habits.blob_head, {}, b"")
        elif content is None:
            self.answer(404, {}, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
        elif habits.blob_redirect is not None:
            storage = registry.storage
            if storage is not None:
                location = storage.base_url + storage.shelf.keep("", content, self.command)
            else:
                location = registry.shelf.keep(DOWNLOADS, content, self.command)
            self.answer(habits.blob_redirect, {"Location": location, "Set-Cookie": "session=1"}, b"")
        else:
            headers = {"Content-Type": "application/octet-stream", "ETag": f'"{digest}"'}
            headers |= {"Docker-Content-Digest": digest, "Set-Cookie": "session=1", "X-Internal": "1"}
            self.give_part(headers, content, fault)

    def _list(self, page: Callable[[], Listing], fault: Fault | None) -> None:
        try:
            status, headers, body = page()
        except listings.Wrong as wrong:
            self.registry.violation(f"{self.command} {self.path}: {wrong}")
            self.answer(400, {}, b"")
            return
        self.give(status, headers, body, fault)
