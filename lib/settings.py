"""What each setting may be: one parser and one frozen value for each, strict. `lib/config.py` reads them all at once.

    BaseUrl.parse("https://mirror.example")     of one registry in TLOGISTRY_UPSTREAMS

Every parser raises ValueError (or NameInvalid, OSError) with a reason for people. Standard library only. Not here: defaults,
who may set what, and what must not be set together (`lib/config.py`); who is served what, and how much (`lib/policy.py`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from lib.oci.reference import canonical_registry

if TYPE_CHECKING:
    from collections.abc import Mapping

DEADLINE_RANGE_S = (0.5, 300.0)  # below, no log can answer; above, every proxy in between has given up
TRUST_FILE_MAX_BYTES = 1 << 20
URL_MAX = 512  # characters
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
IPV4_LOOPBACK = re.compile(r"127(?:\.[0-9]{1,3}){3}", re.ASCII)
THREADS_MAX = 1000  # Cloud Run's own limit on concurrent requests for one instance
# Google Cloud's resource names. A project has an id (with an old domain's prefix, perhaps) and a number.
PROJECT_ID = r"(?:[a-z0-9.-]{1,63}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"
PROJECT = rf"{PROJECT_ID}|[1-9][0-9]{{0,18}}"
#   projects/PROJECT/databases/DATABASE; Firestore does not know a project by its number
DATABASE = re.compile(rf"projects/({PROJECT_ID})/databases/(\(default\)|[a-z][a-z0-9-]{{2,61}}[a-z0-9])", re.ASCII)
#   projects/PROJECT/secrets/NAME [ /versions/ ( NUMBER | latest ) ]
SECRET = re.compile(rf"projects/({PROJECT})/secrets/([\w-]{{1,255}})(?:/versions/([1-9]\d{{0,9}}|latest))?", re.ASCII)
EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,253}", re.ASCII)


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """Where a mapped registry really is: scheme, host and port, no path."""

    scheme: Literal["http", "https"]
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> BaseUrl:
        """`http://127.0.0.1:5000` or `https://mirror.example`; raises ValueError with the reason."""
        if len(text) > URL_MAX or not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
            msg = "not a URL"
            raise ValueError(msg)
        parts = urlsplit(text)
        scheme: Literal["http", "https"]
        if parts.scheme == "http":
            scheme = "http"
        elif parts.scheme == "https":
            scheme = "https"
        else:
            msg = "the scheme must be http or https"
            raise ValueError(msg)
        if parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc or not parts.hostname:
            msg = "only scheme, host and port are allowed"
            raise ValueError(msg)
        port = parts.port if parts.port is not None else (443 if scheme == "https" else 80)
        if port == 0:
            msg = "the port must be 1 to 65535"
            raise ValueError(msg)
        return cls(scheme, parts.hostname.lower(), port)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can be meant."""
        return self.host in LOOPBACK or IPV4_LOOPBACK.fullmatch(self.host) is not None

    def __str__(self) -> str:
        """The canonical text; `parse` is its inverse."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signs: the e-mail SAN and the OIDC issuer of a signing certificate, compared exactly."""

    email: str
    issuer: str


@dataclass(frozen=True, slots=True)
class TrustFile:
    """A Sigstore ClientTrustConfig from a file, as text; parsed by `lib/sighting/trust.py`."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class SqlitePath:
    """`sqlite:PATH`: records in one file on this machine."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:{self.path}"


@dataclass(frozen=True, slots=True)
class FirestoreDatabase:
    """`firestore:projects/PROJECT/databases/DATABASE`: records in one database of Firestore in Native mode."""

    project: str
    database: str

    def __str__(self) -> str:
        """The resource name."""
        return f"projects/{self.project}/databases/{self.database}"


@dataclass(frozen=True, slots=True)
class SecretName:
    """A version of a secret in Secret Manager, `latest` unless a number is named."""

    project: str
    secret: str
    version: str

    @classmethod
    def parse(cls, text: str) -> SecretName:
        """`projects/PROJECT/secrets/NAME`, or that with `/versions/N`. Raises ValueError."""
        match = SECRET.fullmatch(text) if len(text) <= URL_MAX else None
        if match is None:
            msg = "must be projects/PROJECT/secrets/NAME, or that with /versions/N"
            raise ValueError(msg)
        return cls(match[1], match[2], match[3] or "latest")

    def __str__(self) -> str:
        """The resource name; `parse` is its inverse."""
        return f"projects/{self.project}/secrets/{self.secret}/versions/{self.version}"


def strict_json(text: str) -> object:
    """JSON without duplicate keys; raises ValueError. Two readers of one setting must not see two values."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in items]
        if len(set(keys)) != len(keys):
            msg = "a key is there twice"
            raise ValueError(msg)
        return dict(items)

    try:
        parsed: object = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        msg = f"not JSON ({error})"
        raise ValueError(msg) from error
    except RecursionError as error:
        msg = "nested too deeply"
        raise ValueError(msg) from error
    return parsed


def parse_upstreams(text: str) -> Mapping[str, BaseUrl]:
    """A JSON object from registry names to base URLs."""
    parsed = strict_json(text)
    if not isinstance(parsed, dict):
        msg = 'not an object such as {"docker.io": "http://127.0.0.1:5000"}'
        raise ValueError(msg)  # noqa: TRY004 - a setting's problem, collected with the others
    mapping: dict[str, BaseUrl] = {}
    for name, url in parsed.items():
        if not isinstance(url, str):
            msg = f"the base URL of {name!r} is not a string"
            raise ValueError(msg)  # noqa: TRY004 - as above
        registry = canonical_registry(name)
        if registry in mapping:
            msg = f"{registry} is mapped twice"
            raise ValueError(msg)
        try:
            mapping[registry] = BaseUrl.parse(url)
        except ValueError as error:
            msg = f"the base URL of {name!r}: {error}"
            raise ValueError(msg) from error
    return MappingProxyType(mapping)


def parse_trust(text: str) -> TrustFile | None:
    """`production`, or the path of a ClientTrustConfig, which is read here."""
    if text == "production":
        return None
    path = Path(text)
    with path.open("rb") as file:
        content = file.read(TRUST_FILE_MAX_BYTES + 1)
    if len(content) > TRUST_FILE_MAX_BYTES:
        msg = f"{path} is larger than {TRUST_FILE_MAX_BYTES} bytes"
        raise ValueError(msg)
    decoded = content.decode("utf-8")
    parsed = strict_json(decoded)
    if not isinstance(parsed, dict) or not {"trustedRoot", "signingConfig"} <= parsed.keys():
        msg = f"{path} is not a ClientTrustConfig (it has no trustedRoot and signingConfig)"
        raise ValueError(msg)
    return TrustFile(path, decoded)


def parse_identities(text: str) -> tuple[Identity, ...]:
    """A JSON list of e-mail addresses and issuers; at least one."""
    parsed = strict_json(text)
    if not isinstance(parsed, list) or not parsed:
        msg = 'not a list such as [{"email": "…", "issuer": "…"}]'
        raise ValueError(msg)
    identities = []
    for number, item in enumerate(parsed, 1):
        if not isinstance(item, dict) or item.keys() != {"email", "issuer"}:
            msg = f"number {number} is not an object with exactly email and issuer"
            raise ValueError(msg)
        email, issuer = item["email"], item["issuer"]
        if not isinstance(email, str) or not EMAIL.fullmatch(email):
            msg = f"number {number}: not an e-mail address"
            raise ValueError(msg)
        if not isinstance(issuer, str) or urlsplit(issuer).scheme not in {"https", "http"} or len(issuer) > URL_MAX:
            msg = f"number {number}: the issuer is not a URL"
            raise ValueError(msg)
        identities.append(Identity(email, issuer))
    if len(set(identities)) != len(identities):
        msg = "one identity is there twice"
        raise ValueError(msg)
    return tuple(identities)


def parse_store(text: str) -> SqlitePath | FirestoreDatabase:
    """`sqlite:PATH` or `firestore:projects/PROJECT/databases/DATABASE`."""
    kind, _, where = text.partition(":")
    if kind == "sqlite" and where:
        return SqlitePath(Path(where))
    match = DATABASE.fullmatch(where) if kind == "firestore" and len(where) <= URL_MAX else None
    if match is None:
        msg = "must be sqlite:PATH or firestore:projects/PROJECT/databases/DATABASE"
        raise ValueError(msg)
    return FirestoreDatabase(match[1], match[2])


def parse_loopback(text: str) -> BaseUrl:
    """Where something of Google's is imitated: never on another machine, where it would be sent real tokens in the clear."""
    url = BaseUrl.parse(text)
    if url.scheme != "http" or url.host not in LOOPBACK:
        msg = "only http on loopback is allowed"
        raise ValueError(msg)
    return url


def parse_emulator(text: str) -> BaseUrl:
    """`HOST:PORT`, as Google's own clients read it."""
    if not re.fullmatch(r"(?:[a-z0-9.-]+|\[[0-9a-f:]+\]):[1-9][0-9]{0,4}", text, re.ASCII):
        msg = "must be HOST:PORT"
        raise ValueError(msg)
    return parse_loopback(f"http://{text}")


def parse_project(text: str) -> str:
    """A Google Cloud project id or number."""
    if not re.fullmatch(PROJECT, text, re.ASCII):
        msg = "not a project id"
        raise ValueError(msg)
    return text


def parse_threads(text: str) -> int:
    """A number of threads."""
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text, re.ASCII) or int(text) > THREADS_MAX:
        msg = f"must be 1 to {THREADS_MAX}"
        raise ValueError(msg)
    return int(text)


def parse_deadline(text: str) -> float:
    """Seconds, with up to three decimals."""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text, re.ASCII):
        msg = "not a number of seconds"
        raise ValueError(msg)
    low, high = DEADLINE_RANGE_S
    if not low <= float(text) <= high:
        msg = f"must be {low:g} to {high:g} seconds"
        raise ValueError(msg)
    return float(text)


def is_first(text: str, first: str, second: str) -> bool:
    """Whether a setting of two words says the first."""
    if text not in {first, second}:
        msg = f"must be {first} or {second}"
        raise ValueError(msg)
    return text == first


def parse_log_format(text: str) -> Literal["json", "line"]:
    """`json` or `line`."""
    return "json" if is_first(text, "json", "line") else "line"
