"""The settings, read once: `Config.from_env(mapping)` is one frozen value, and all problems are reported at once.

Standard library only, because a local start checks the settings before anything is installed. Every field says its unit,
its default and its *trust*: what the person who may set it can do. The README's table of settings is held to `SETTINGS` by a
test. Not here: the metadata server's address, which google-auth reads by itself (GCE_METADATA_HOST, GCE_METADATA_IP).
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
)
DEFAULT_STORE = "sqlite:.tlogistry/store.sqlite"
DEFAULT_DEADLINE_S = 30.0
DEADLINE_RANGE_S = (0.5, 300.0)  # below, no log can answer; above, every proxy in between has given up
TRUST_FILE_MAX_BYTES = 1 << 20
URL_MAX = 512  # characters
PUBLIC_SIGSTORE = re.compile(r"sigstore\.dev|sigstage\.dev", re.ASCII | re.IGNORECASE)
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
class Config:
    """Everything that can be set.

    upstreams       registry name -> base URL; default none. Trust: can replace a whole registry.
    trust           None for public Sigstore, or a file; default None. Trust: decides which records are believed.
    identities      the accepted signers, the first signs; required. Trust: whose sightings count.
    store           path of the SQLite record store; default .tlogistry/store.sqlite. Trust: can make a tag look new
                    (the log then shows it), and can have a digest logged for a tag not yet recorded.
    deadline_s      seconds for one request by tag, default 30. Trust: availability only.
    log_search      whether the log is searched before a first sighting; default yes. Trust: without it a lost store is not
                    mended from the log.
    log_format      "json" for machines (default), "line" for people.
    """

    upstreams: Mapping[str, BaseUrl]
    trust: TrustFile | None
    identities: tuple[Identity, ...]
    store: Path
    deadline_s: float
    log_search: bool
    log_format: Literal["json", "line"]

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
            log_search=read("TLOGISTRY_LOG_SEARCH", _on_off, default=True),
            log_format=read("TLOGISTRY_LOG_FORMAT", _log_format, "json"),
        )
        problems.extend(f"{name}: no such setting" for name in sorted(env) if _unknown(name))
        if not env.get("TLOGISTRY_IDENTITIES"):
            problems.append('TLOGISTRY_IDENTITIES: not set; it is a list such as [{"email": "…", "issuer": "…"}]')
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


def _store(text: str) -> Path:
    kind, _, path = text.partition(":")
    if kind != "sqlite" or not path:
        msg = "only sqlite:PATH is supported"
        raise ValueError(msg)
    return Path(path)


def _deadline(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", text, re.ASCII):
        msg = "not a number of seconds"
        raise ValueError(msg)
    low, high = DEADLINE_RANGE_S
    if not low <= float(text) <= high:
        msg = f"must be {low:g} to {high:g} seconds"
        raise ValueError(msg)
    return float(text)


def _on_off(text: str) -> bool:
    if text not in {"on", "off"}:
        msg = "must be on or off"
        raise ValueError(msg)
    return text == "on"


def _log_format(text: str) -> Literal["json", "line"]:
    if text == "json":
        return "json"
    if text == "line":
        return "line"
    msg = "must be json or line"
    raise ValueError(msg)
