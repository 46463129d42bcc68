"""The settings, read once: `Config.from_env(mapping)` is one frozen value, and all problems are reported at once.

Standard library only, because a local start checks the settings before anything is installed. Every field says its unit,
its default and its *trust*: what the person who may set it can do. The README's table of settings is held to `SETTINGS` by a
test. Not here: what one setting may look like (`lib/settings.py`, `lib/policy.py`); the metadata server's address, which
google-auth reads by itself (GCE_METADATA_HOST, GCE_METADATA_IP); and what is in the credentials' secret, which is read when it
is needed and never at start (`lib/upstream/credentials.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar

from lib.errors import ConfigInvalid, NameInvalid
from lib.policy import (
    DAY_S,
    Rate,
    RegistryPattern,
    parse_hops,
    parse_own_hosts,
    parse_registries,
    parse_some_registries,
)
from lib.settings import (
    BaseUrl,
    FirestoreDatabase,
    Identity,
    SecretName,
    SqlitePath,
    TrustFile,
    is_first,
    parse_deadline,
    parse_emulator,
    parse_identities,
    parse_log_format,
    parse_loopback,
    parse_project,
    parse_store,
    parse_threads,
    parse_trust,
    parse_upstreams,
    strict_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "OTHERS",
    "SETTINGS",
    "BaseUrl",
    "Config",
    "FirestoreDatabase",
    "Identity",
    "Rate",
    "RegistryPattern",
    "SecretName",
    "SqlitePath",
    "TrustFile",
    "strict_json",
]

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
    "TLOGISTRY_NEW_TAGS_PER_CLIENT",
    "TLOGISTRY_NEW_TAGS_PER_DOMAIN",
    "TLOGISTRY_NEW_TAGS_TOTAL",
    "TLOGISTRY_NEW_TAGS_PER_DAY",
    "TLOGISTRY_FORWARDED_HOPS",
    "TLOGISTRY_ALLOW_UPSTREAMS",
    "TLOGISTRY_DENY_UPSTREAMS",
    "TLOGISTRY_OWN_HOSTS",
    "FIRESTORE_EMULATOR_HOST",
    "GOOGLE_CLOUD_PROJECT",
    "THREADS",
)
DEFAULT_STORE = "sqlite:.tlogistry/store.sqlite"
DEFAULT_DEADLINE_S = 30.0
DEFAULT_PER_CLIENT: Rate | None = Rate(500, 60)  # a fleet behind one address that starts afresh
DEFAULT_PER_DOMAIN: Rate | None = Rate(500, 60)
DEFAULT_TOTAL: Rate | None = Rate(1000, 60)  # more than one instance on one processor signs
DEFAULT_PER_DAY: Rate | None = Rate(50_000, DAY_S)
PUBLIC_SIGSTORE = re.compile(r"sigstore\.dev|sigstage\.dev", re.ASCII | re.IGNORECASE)


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
    new_tags_per_client, new_tags_per_domain, new_tags_total, new_tags_per_day
                    how many tags may be recorded for one client address, one registered domain of upstreams, and in all; None
                    is no limit; defaults 500/60s, 500/60s, 1000/60s, 50000 a day. Trust: how much can be put into a public
                    log for ever by anybody who asks.
    every_domain    the limit by domain is the deployer's own, and so holds for Docker Hub and mapped registries, too.
    forwarded_hops  proxies in front of us that each add an address to X-Forwarded-For; default 0, the header is not read.
                    Trust: too many, and a client chooses the address that its limit is counted for.
    allow_upstreams only these registries are served; default None, all that are public. Trust: availability only.
    deny_upstreams  these are not, nor are their hosts asked for tokens or redirected to; default none. Trust: as above.
    own_hosts       the names that clients reach us by, which are no upstreams; default none. Trust: as above.
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
    new_tags_per_client: Rate | None
    new_tags_per_domain: Rate | None
    new_tags_total: Rate | None
    new_tags_per_day: Rate | None
    every_domain: bool
    forwarded_hops: int
    allow_upstreams: tuple[RegistryPattern, ...] | None
    deny_upstreams: tuple[RegistryPattern, ...]
    own_hosts: frozenset[str]
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
            upstreams=read("TLOGISTRY_UPSTREAMS", parse_upstreams, MappingProxyType({})),
            trust=read("TLOGISTRY_TRUST", parse_trust, None),
            identities=read("TLOGISTRY_IDENTITIES", parse_identities, ()),
            store=read("TLOGISTRY_STORE", parse_store, parse_store(DEFAULT_STORE)),
            deadline_s=read("TLOGISTRY_DEADLINE", parse_deadline, DEFAULT_DEADLINE_S),
            log_search=read("TLOGISTRY_LOG_SEARCH", lambda text: is_first(text, "on", "off"), default=True),
            log_format=read("TLOGISTRY_LOG_FORMAT", parse_log_format, "json"),
            credentials=read("TLOGISTRY_CREDENTIALS_SECRET", SecretName.parse, None)
            or read("TLOGISTRY_CREDENTIALS_FILE", Path, None),
            secret_manager=read("TLOGISTRY_SECRET_MANAGER_ENDPOINT", parse_loopback, None),
            new_tags_per_client=read("TLOGISTRY_NEW_TAGS_PER_CLIENT", Rate.parse, DEFAULT_PER_CLIENT),
            new_tags_per_domain=read("TLOGISTRY_NEW_TAGS_PER_DOMAIN", Rate.parse, DEFAULT_PER_DOMAIN),
            new_tags_total=read("TLOGISTRY_NEW_TAGS_TOTAL", Rate.parse, DEFAULT_TOTAL),
            new_tags_per_day=read("TLOGISTRY_NEW_TAGS_PER_DAY", Rate.parse_daily, DEFAULT_PER_DAY),
            every_domain=bool(env.get("TLOGISTRY_NEW_TAGS_PER_DOMAIN")),
            forwarded_hops=read("TLOGISTRY_FORWARDED_HOPS", parse_hops, 0),
            allow_upstreams=read("TLOGISTRY_ALLOW_UPSTREAMS", parse_some_registries, None),
            deny_upstreams=read("TLOGISTRY_DENY_UPSTREAMS", parse_registries, ()),
            own_hosts=read("TLOGISTRY_OWN_HOSTS", parse_own_hosts, frozenset()),
            firestore_emulator=read("FIRESTORE_EMULATOR_HOST", parse_emulator, None),
            project=read("GOOGLE_CLOUD_PROJECT", parse_project, None),
            threads=read("THREADS", parse_threads, None),
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
        problems.extend(
            f"TLOGISTRY_OWN_HOSTS: {name} is mapped in TLOGISTRY_UPSTREAMS"
            for name in sorted(config.own_hosts & config.upstreams.keys())
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
