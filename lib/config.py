"""The settings, read once: `Config.from_env(mapping)` is one frozen value, and all problems are reported at once.

Standard library only, because a local start checks the settings before anything is installed. Every field says its unit,
its default and its *trust*: what the person who may set it can do. The README's table of settings is held to `SETTINGS` by a
test. Not here: the metadata server's address, which google-auth reads by itself (GCE_METADATA_HOST, GCE_METADATA_IP), and
what is in the credentials' secret, which is read when it is needed and never at start (`lib/upstream/credentials.py`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from lib.errors import ConfigInvalid, NameInvalid
from lib.oci.reference import canonical_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

SETTINGS = (
    "TLOGISTRY_UPSTREAMS",
    "TLOGISTRY_TRUST",
    "TLOGISTRY_IDENTITIES",
    "TLOGISTRY_STORE",
    "TLOGISTRY_DEADLINE",
    "TLOGISTRY_LOG_SEARCH",
    "TLOGISTRY_LOG_FORMAT",
    "TLOGISTRY_CREDENTIALS_SECRET",
    "TLOGISTRY_CREDENTIALS_FILE",
    "TLOGISTRY_SECRET_MANAGER_ENDPOINT",
    "FIRESTORE_EMULATOR_HOST",
    "GOOGLE_CLOUD_PROJECT",
    "THREADS",
)
DEFAULT_STORE = "sqlite:.tlogistry/store.sqlite"
DEFAULT_DEADLINE_S = 30.0
DEADLINE_RANGE_S = (0.5, 300.0)  # below, no log can answer; above, every proxy in between has given up
TRUST_FILE_MAX_BYTES = 1 << 20
URL_MAX = 512  # characters
PUBLIC_SIGSTORE = re.compile(r"sigstore\.dev|sigstage\.dev", re.ASCII | re.IGNORECASE)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
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


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set.

    upstreams       registry name -> base URL; default none. Trust: can replace a whole registry.
    trust           None for public Sigstore, or a file; default None. Trust: decides which records are believed.
    identities      the accepted signers, the first signs; required. Trust: whose sightings count.
    store           where records are kept; default .tlogistry/store.sqlite. Trust: can make a tag look new
                    (the log then shows it), and can have a digest logged for a tag not yet recorded.
    deadline_s      seconds for one request by tag, default 30. Trust: availability only.
    log_search      whether the log is searched before a first sighting; default yes. Trust: without it a lost store is not
                    mended from the log.
    log_format      "json" for machines (default), "line" for people.
    credentials     a secret, or a file of the same content, with accounts at registries; default none. Trust: whose rate
                    limits are used up. It cannot make anything visible that anonymous clients do not see.
    secret_manager  Secret Manager's address, on loopback only; default Google's own. Trust: sets the credentials.
    firestore_emulator  the emulator's address instead of Firestore's, on loopback only; default none. Trust: as the store's.
    project         the Google Cloud project that log lines name traces in; default none. Trust: none.
    threads         requests at once, which the web server reads by itself; default its own. Trust: availability only.
    """

    upstreams: Mapping[str, BaseUrl]
    trust: TrustFile | None
    identities: tuple[Identity, ...]
    store: SqlitePath | FirestoreDatabase
    deadline_s: float
    log_search: bool
    log_format: Literal["json", "line"]
    credentials: SecretName | Path | None
    secret_manager: BaseUrl | None
    firestore_emulator: BaseUrl | None
    project: str | None
    threads: int | None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Config:
        """Read every setting from `env` (an empty value counts as unset).

        Raises ConfigInvalid that lists every problem, one line each, with the name of its setting.
        """
        problems: list[str] = []

        def read(name: str, parse: Callable[[str], T], default: T) -> T:
            text = env.get(name, "")
            if not text:
                return default
            try:
                return parse(text)
            except (ValueError, NameInvalid, OSError) as error:
                problems.append(f"{name}: {error}")
                return default

        config = cls(
            upstreams=read("TLOGISTRY_UPSTREAMS", _upstreams, MappingProxyType({})),
            trust=read("TLOGISTRY_TRUST", _trust, None),
            identities=read("TLOGISTRY_IDENTITIES", _identities, ()),
            store=read("TLOGISTRY_STORE", _store, _store(DEFAULT_STORE)),
            deadline_s=read("TLOGISTRY_DEADLINE", _deadline, DEFAULT_DEADLINE_S),
            log_search=read("TLOGISTRY_LOG_SEARCH", lambda text: _is_first(text, "on", "off"), default=True),
            log_format=read("TLOGISTRY_LOG_FORMAT", _log_format, "json"),
            credentials=read("TLOGISTRY_CREDENTIALS_SECRET", SecretName.parse, None)
            or read("TLOGISTRY_CREDENTIALS_FILE", Path, None),
            secret_manager=read("TLOGISTRY_SECRET_MANAGER_ENDPOINT", _loopback, None),
            firestore_emulator=read("FIRESTORE_EMULATOR_HOST", _emulator, None),
            project=read("GOOGLE_CLOUD_PROJECT", _project, None),
            threads=read("THREADS", _threads, None),
        )
        problems.extend(f"{name}: no such setting" for name in sorted(env) if _unknown(name))
        if not env.get("TLOGISTRY_IDENTITIES"):
            problems.append('TLOGISTRY_IDENTITIES: not set; it is a list such as [{"email": "…", "issuer": "…"}]')
        if env.get("TLOGISTRY_CREDENTIALS_SECRET") and env.get("TLOGISTRY_CREDENTIALS_FILE"):
            problems.append("TLOGISTRY_CREDENTIALS_FILE: not together with TLOGISTRY_CREDENTIALS_SECRET")
        if config.upstreams and _is_public(env.get("TLOGISTRY_TRUST", ""), config.trust):
            problems.append(
                "TLOGISTRY_UPSTREAMS: not together with the public Sigstore (TLOGISTRY_TRUST names sigstore.dev or "
                "sigstage.dev, or is production): it would sign false statements about public registries"
            )
        if problems:
            raise ConfigInvalid(tuple(problems))
        return config


OTHERS = ("TLOGISTRY_DEV_FAULT", "TLOGISTRY_STATE", "TLOGISTRY_REQUIRE_E2E")  # read by the local start and the tests


def _unknown(name: str) -> bool:
    """A misspelt setting is a problem, not a default."""
    return name.startswith("TLOGISTRY_") and name not in SETTINGS and name not in OTHERS


def _is_public(setting: str, trust: TrustFile | None) -> bool:
    """Whether signing would go to a public Sigstore. A file that could not be read counts as whatever it may be: not here."""
    if trust is not None:
        return PUBLIC_SIGSTORE.search(trust.text) is not None
    return setting in {"", "production"}


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


def _upstreams(text: str) -> Mapping[str, BaseUrl]:
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


def _trust(text: str) -> TrustFile | None:
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


def _identities(text: str) -> tuple[Identity, ...]:
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


def _store(text: str) -> SqlitePath | FirestoreDatabase:
    kind, _, where = text.partition(":")
    if kind == "sqlite" and where:
        return SqlitePath(Path(where))
    match = DATABASE.fullmatch(where) if kind == "firestore" and len(where) <= URL_MAX else None
    if match is None:
        msg = "must be sqlite:PATH or firestore:projects/PROJECT/databases/DATABASE"
        raise ValueError(msg)
    return FirestoreDatabase(match[1], match[2])


def _loopback(text: str) -> BaseUrl:
    """Where something of Google's is imitated: never on another machine, where it would be sent real tokens in the clear."""
    url = BaseUrl.parse(text)
    if url.scheme != "http" or url.host not in LOOPBACK:
        msg = "only http on loopback is allowed"
        raise ValueError(msg)
    return url


def _emulator(text: str) -> BaseUrl:
    """`HOST:PORT`, as Google's own clients read it."""
    if not re.fullmatch(r"(?:[a-z0-9.-]+|\[[0-9a-f:]+\]):[1-9][0-9]{0,4}", text, re.ASCII):
        msg = "must be HOST:PORT"
        raise ValueError(msg)
    return _loopback(f"http://{text}")


def _project(text: str) -> str:
    if not re.fullmatch(PROJECT, text, re.ASCII):
        msg = "not a project id"
        raise ValueError(msg)
    return text


def _threads(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text, re.ASCII) or int(text) > THREADS_MAX:
        msg = f"must be 1 to {THREADS_MAX}"
        raise ValueError(msg)
    return int(text)


def _deadline(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text, re.ASCII):
        msg = "not a number of seconds"
        raise ValueError(msg)
    low, high = DEADLINE_RANGE_S
    if not low <= float(text) <= high:
        msg = f"must be {low:g} to {high:g} seconds"
        raise ValueError(msg)
    return float(text)


def _is_first(text: str, first: str, second: str) -> bool:
    if text not in {first, second}:
        msg = f"must be {first} or {second}"
        raise ValueError(msg)
    return text == first


def _log_format(text: str) -> Literal["json", "line"]:
    return "json" if _is_first(text, "json", "line") else "line"
