"""References: registry host, repository and tag, in Docker's canonical form.

    canonical   docker.io/library/alpine:3.16.0     what is recorded: two spellings of one tag are one tag
    familiar    alpine:3.16.0                       what messages show

The first component is a registry host if it has a "." or ":" or is "localhost"; else the registry is Docker Hub.
Folded: the host's case, ":443", one trailing dot, Hub's other names, the missing `library/`. Nothing else is: upper
case in a repository is refused, because registries do not fold it.

A host is a DNS name or a dotted quad. Refused, so that nobody reads an address where we read a name: IPv6 literals, and
what resolvers take for a number (`127.1`, `0x7f.1`). Not here: whether a host may be connected to
(`lib/upstream/addresses.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib.errors import NameInvalid, TagSyntaxInvalid

HUB = "docker.io"
HUB_ALIASES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
OFFICIAL = "library/"
NAME_MAX = 255  # host, "/" and path together: what many clients cap (distribution-spec, "Pulling manifests")
HOST_MAX = 253
TEXT_MAX = 1024  # before any parsing

# distribution-spec, "Pulling manifests":
#   <name> ::= [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__|_|-+)[a-z0-9]+)*"
PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
#   <reference> as a tag ::= [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
# RFC 1123, 2.1, lower case: <hostname> ::= <label> *("." <label>), labels of 1 to 63; a port without leading zeros
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)(?::([1-9][0-9]{{0,4}}))?", re.ASCII)
# RFC 3986, 3.2.2: IPv4address = dec-octet "." dec-octet "." dec-octet "." dec-octet
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
QUAD = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
NUMERIC_LABEL = re.compile(r"[0-9]+|0x.*", re.ASCII)  # as the last one: inet_aton reads an address
# cosign's `sha256-<hex>.sig` and OCI's fall-back tag for referrers (distribution-spec; sha512 is cut to 64 digits)
MOVES_BY_DESIGN = re.compile(r"sha(?:256|512)-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?", re.ASCII)


def canonical_registry(text: str) -> str:
    """The one spelling of a registry host: lower case, no ":443", no trailing dot, Hub's names folded to docker.io.

    Raises NameInvalid if it is no host name with an optional port, or one that no reference can name: without a dot it
    needs a port, or it would be the first component of a Hub repository.
    """
    host, colon, port = text.lower().partition(":") if len(text) <= TEXT_MAX and text.isascii() else ("", "", "")
    host = host.removesuffix(".")
    match = HOST.fullmatch(f"{host}{colon}{port}")
    if match is None or len(host) > HOST_MAX or (match[2] and int(match[2]) > 65535):  # noqa: PLR2004 - the last port
        msg = "not a registry host name"
        raise NameInvalid(msg)
    if NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]) and not QUAD.fullmatch(host):
        msg = "not a registry host name: it would be read as an address"
        raise NameInvalid(msg)
    if port not in {"", "443"}:
        return f"{host}:{port}"
    if not is_host(host):
        msg = "not a registry host name: without a dot it needs a port"
        raise NameInvalid(msg)
    return HUB if host in HUB_ALIASES else host


def is_host(component: str) -> bool:
    """Whether a name's first component is a registry host (Docker's rule)."""
    return "." in component or ":" in component or component.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class Repository:
    """A registry and a path in it, both canonical."""

    registry: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Repository:
        """`alpine`, `my-user/my-app`, `ghcr.io/distroless/static`. Raises NameInvalid."""
        if len(text) > TEXT_MAX:
            msg = "the repository name is too long"
            raise NameInvalid(msg)
        first, slash, rest = text.partition("/")
        return cls.of(canonical_registry(first), rest) if slash and is_host(first) else cls.of(HUB, text)

    @classmethod
    def of(cls, registry: str, path: str) -> Repository:
        """`registry` is canonical; `path` is all that follows it. Raises NameInvalid."""
        if len(path) > TEXT_MAX:
            msg = "the repository name is too long"
            raise NameInvalid(msg)
        if PATH.fullmatch(path) is None:
            msg = "not a repository name: lower-case letters, digits and single separators are allowed"
            raise NameInvalid(msg)
        if registry == HUB and "/" not in path:
            path = OFFICIAL + path
        if len(registry) + 1 + len(path) > NAME_MAX:
            msg = f"the repository name is longer than {NAME_MAX} characters"
            raise NameInvalid(msg)
        return cls(registry, path)

    @property
    def familiar(self) -> str:
        """The short form that people type; `parse` gives this repository back."""
        if self.registry != HUB:
            return str(self)
        short = self.path.removeprefix(OFFICIAL)
        if "/" in short:
            short = self.path  # library/a/b is not a/b
        return f"{HUB}/{short}" if "/" in short and is_host(short.partition("/")[0]) else short

    def __str__(self) -> str:
        """The canonical form, with the registry."""
        return f"{self.registry}/{self.path}"


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of a repository."""

    repository: Repository
    name: str

    @classmethod
    def of(cls, repository: Repository, name: str) -> Tag:
        """Raises TagSyntaxInvalid."""
        if TAG.fullmatch(name) is None:
            msg = "not a tag: letters, digits, '.', '_' and '-' are allowed, at most 128"
            raise TagSyntaxInvalid(msg)
        return cls(repository, name)

    @classmethod
    def parse(cls, text: str) -> Tag:
        """`alpine:3.16.0`, in any spelling. Raises NameInvalid, TagSyntaxInvalid."""
        name, colon, tag = text.rpartition(":")
        if not colon or "/" in tag:
            msg = "there is no tag"
            raise TagSyntaxInvalid(msg)
        return cls.of(Repository.parse(name), tag)

    @property
    def familiar(self) -> str:
        """The short form that people type."""
        return f"{self.repository.familiar}:{self.name}"

    @property
    def moves_by_design(self) -> bool:
        """Whether tools rewrite this tag on purpose: cosign's and OCI's fall-back tags, which are never recorded."""
        return MOVES_BY_DESIGN.fullmatch(self.name) is not None

    def __str__(self) -> str:
        """The canonical form."""
        return f"{self.repository}:{self.name}"
