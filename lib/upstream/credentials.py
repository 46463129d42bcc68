"""Accounts at registries: the secret's format, and where its passwords may go. They raise rate limits and open nothing.

    {"docker.io": {"username": "my-user", "password": "dckr_pat_…"}, "ghcr.io": {"username": "my-user", "password": "ghp_…"}}

A password goes to one place: its registry's token service (*realm*), as HTTP Basic. That is a pair, from a table here or
from the deployer's mapping, never a list of trusted realms: with a list, one registry on it could ask for the password of
another (CVE-2026-33540, CVE-2026-48978). Not here: where the secret is kept (`secret.py`), what is asked with it
(`account.py`).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from lib.config import strict_json
from lib.errors import NameInvalid
from lib.oci.reference import canonical_registry
from lib.upstream.url import Url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lib.config import BaseUrl

MAX_BYTES = 64 * 1024  # Secret Manager's own cap on a version
USERNAME_CHARS = 256
PASSWORD_CHARS = 4096  # Basic must fit into a header; tokens that are used as passwords have up to 2,000

# Registry -> the one realm that its challenges name, character by character. What they were seen to answer to GET /v2/ is
# written down in many clients' tests and in the registries' own documentation:
REALMS = MappingProxyType(
    {
        # https://distribution.github.io/distribution/spec/auth/token/
        "docker.io": "https://auth.docker.io/token",
        # github.com/google/go-containerregistry, pkg/v1/remote/transport; github.com/oras-project/oras issue 1128
        "ghcr.io": "https://ghcr.io/token",
        # github.com/regclient/regclient, internal/auth/auth_test.go
        "quay.io": "https://quay.io/v2/auth",
        # https://gitlab.com/gitlab-org/container-registry, docs/spec/gitlab/push-pull-request-flow.md (in its auth section)
        "registry.gitlab.com": "https://gitlab.com/jwt/auth",
    }
)


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A user name and a password for one registry. Prints redacted, and so does whatever holds one."""

    username: str
    password: str

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617, in UTF-8)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")

    def __repr__(self) -> str:
        """Neither of the two: a user name tells an attacker whom to try."""
        return "Credential(redacted)"


def parse(content: bytes) -> Mapping[str, Credential]:
    """The secret's content, by canonical registry name. Raises ValueError, whose text repeats nothing of `content`."""
    if len(content) > MAX_BYTES:
        msg = f"longer than {MAX_BYTES} bytes"
        raise ValueError(msg)
    try:
        document = strict_json(content.decode("utf-8"))
    except UnicodeDecodeError:
        msg = "not UTF-8"
        raise ValueError(msg) from None  # the error holds the content
    except ValueError as error:
        raise ValueError(str(error)) from None  # as above; its text is a reason and a position
    if not isinstance(document, dict):
        msg = 'not an object such as {"docker.io": {"username": "…", "password": "…"}}'
        raise ValueError(msg)  # noqa: TRY004 - a problem of the content, like the others
    credentials: dict[str, Credential] = {}
    for number, (name, value) in enumerate(document.items(), 1):
        try:
            registry = canonical_registry(name)
        except NameInvalid:
            msg = f"the name of entry {number} is not that of a registry, such as docker.io"
            raise ValueError(msg) from None
        if registry in credentials:
            msg = f"entry {number} is for a registry that has one"
            raise ValueError(msg)
        credentials[registry] = _credential(value, number)
    return MappingProxyType(credentials)


def _credential(value: object, number: int) -> Credential:
    if not isinstance(value, dict) or value.keys() != {"username", "password"}:
        msg = f"entry {number} is not an object with exactly username and password"
        raise ValueError(msg)
    username, password = value["username"], value["password"]
    if not _usable(username, USERNAME_CHARS) or ":" in username:  # a colon would end the user name (RFC 7617, 2)
        msg = f"the username of entry {number} is empty, too long, or has a character that is not allowed"
        raise ValueError(msg)
    if not _usable(password, PASSWORD_CHARS):
        msg = f"the password of entry {number} is empty, too long, or has a character that is not allowed"
        raise ValueError(msg)
    return Credential(username, password)


def _usable(text: object, max_chars: int) -> bool:
    """No control characters: the line break at the end of a pasted password is a mistake that nobody finds otherwise."""
    return isinstance(text, str) and 0 < len(text) <= max_chars and text.isprintable()


class Realms:
    """The pairs: for each registry, what a challenge must name for a password to be sent."""

    def __init__(self, mapping: Mapping[str, BaseUrl], table: Mapping[str, str] = REALMS) -> None:
        """`mapping` is the deployer's. A mapped registry has only the pair of its mapping: a mirror is not the original."""
        self._mapping = dict(mapping)
        self._table = dict(table)

    def __contains__(self, registry: str) -> bool:
        """Whether there is any realm that this registry's password may be sent to."""
        return registry in self._mapping or registry in self._table

    def allow(self, registry: str, realm: str) -> bool:
        """Whether a challenge of `registry` that names `realm` may be answered with its password.

        For a registry of the table: exactly the text there. For a mapped one: the mapped scheme, host and port, with any
        path, spelt as we would spell it; so neither case nor a trailing dot nor userinfo nor a fragment gets by.
        """
        base = self._mapping.get(registry)
        if base is None:
            return realm == self._table.get(registry)
        try:
            url = Url.parse(realm)
        except ValueError:
            return False
        return url.origin == base and str(url) == realm
