"""The composition root: `Config` to `App`, the only place that names every concrete class; dispatch, and the net under it.

Nothing here opens a connection or starts a thread before the first request: gunicorn imports this in its master process and
forks the worker afterwards.
"""

from __future__ import annotations

import contextvars
import errno
import os
import traceback
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, assert_never

import flask
from werkzeug.datastructures import Headers

from lib import VERSION
from lib.config import FirestoreDatabase, SecretName, SqlitePath
from lib.crowd import Crowd
from lib.deadline import Deadline
from lib.errors import NameInvalid, PathInvalid, TlogistryError
from lib.flood import SHARED, Flood, FloodLimits
from lib.handlers import loop
from lib.handlers import response as wire
from lib.handlers.blobs import blob
from lib.handlers.health import Readiness, live
from lib.handlers.lists import referrers, tags
from lib.handlers.manifests import Manifests
from lib.handlers.ping import ping
from lib.handlers.sightings import sighting
from lib.handlers.visit import visiting
from lib.oci import endpoint
from lib.oci.endpoint import Blob, Livez, Manifest, Ping, Readyz, Referrers, SightingRecord, TagsList
from lib.oci.query import NO_QUERY, Query
from lib.oci.reference import Tag, canonical_registry
from lib.peer import client
from lib.recorder import Recorder, Threads
from lib.sighting.rekor import RekorSearch
from lib.sighting.trust import TrustSource
from lib.sighting.verifier import SightingVerifier
from lib.stages import OnFirstUse, TimedLog, TimedSigner, TimedStore, TimedUpstream
from lib.store.firestore import CALL_S, FirestoreStore
from lib.store.sqlite import BUSY_S, SqliteStore
from lib.upstream.guard import Hosts
from lib.upstream.registry import Registries
from lib.upstream.secret import ManagedSecret, SecretFile
from lib.upstream.shared import SharedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lib.config import Config
    from lib.handlers.response import Response
    from lib.handlers.response import Response as WireResponse
    from lib.handlers.visit import Aside
    from lib.oci.endpoint import Endpoint
    from lib.sighting.identity import MetadataIdentity
    from lib.sighting.signer import KeylessSigner
    from lib.store.store import RecordStore
    from lib.telemetry import Request, Severity, Telemetry
    from lib.upstream.secret import Secret

PATH_SHOWN = 300  # characters
PROBE = Tag.parse("tlogistry.invalid/readyz:probe")
READ_METHODS = frozenset({"GET", "HEAD"})
NOSNIFF = ("X-Content-Type-Options", "nosniff")


class App:
    """One process's service. `handle` is safe from any thread."""

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        """Wire everything. Raises ConfigInvalid if the trust configuration cannot be used."""
        self._runtime = runtime = Threads()
        self._trust = trust = TrustSource(config.trust, runtime.now, telemetry)
        verifier = SightingVerifier(trust, config.identities)
        store = TimedStore(_store(config), telemetry)
        log = RekorSearch(trust, verifier, telemetry, enabled=config.log_search)
        identity = OnFirstUse(lambda: _identity(config))
        self._warm = False
        self._signer = signer = OnFirstUse(lambda: _signer(trust, identity.get(), verifier, runtime, telemetry))
        self.recorder = Recorder(
            store=store,
            log=TimedLog(log, telemetry),
            signer=TimedSigner(signer, telemetry),
            verifier=verifier,
            runtime=runtime,
            telemetry=telemetry,
        )
        hosts = Hosts(config.own_hosts, config.allow_upstreams, config.deny_upstreams)
        registries = Registries(
            config.upstreams, runtime.now, telemetry, secret=_secret(config), hosts=hosts, known=SHARED
        )
        self._upstream = TimedUpstream(SharedUpstream(registries), telemetry)
        self._manifests = Manifests(self._upstream, self.recorder)
        self._ready = Readiness(
            {
                "store": lambda _: _absent(store),
                "identity": lambda deadline: _token(identity.get(), deadline),
                "trust": lambda _: trust.state(),
                "log": log.answers,
            },
            runtime,
        )
        self._telemetry = telemetry
        self._flood = Flood(_flood_limits(config), runtime.now)
        threads = config.threads or 4 * (os.cpu_count() or 1)  # the web server's own default
        self._crowd = Crowd(threads, runtime.now, big=SHARED, mapped=config.upstreams)
        self._config = config
        self._deadline_s = config.deadline_s
        self._now = runtime.now

    def deadline(self) -> Deadline:
        """The budget of a request that starts now."""
        return Deadline.after(self._deadline_s, self._now)

    def say_started(self, config: Config, revision: str | None) -> None:
        """The first line of an instance: version, revision, trust configuration and settings. None of them is a secret."""
        self._telemetry.log(
            "INFO",
            "started",
            version=VERSION,
            revision=revision,
            trust=f"production, {self._trust.state()}" if config.trust is None else config.trust.path,
            identities=", ".join(f"{identity.email} of {identity.issuer}" for identity in config.identities),
            store=config.store,
            upstreams={name: str(url) for name, url in config.upstreams.items()} or "the real registries",
            deadline=config.deadline_s,
            logSearch="on"
            if config.log_search
            else "OFF (TLOGISTRY_LOG_SEARCH): a lost store is not mended from the log",
            credentials=config.credentials,
            threads=config.threads,
            newTags={
                "perClient": str(config.new_tags_per_client or "off"),
                "perDomain": str(config.new_tags_per_domain or "off"),
                "total": str(config.new_tags_total or "off"),
                "perDay": str(config.new_tags_per_day or "off"),
            },
            forwardedHops=config.forwarded_hops,
            allow="all registries" if config.allow_upstreams is None else ", ".join(map(str, config.allow_upstreams)),
            deny=", ".join(map(str, config.deny_upstreams)) or None,
            own=", ".join(sorted(config.own_hosts)) or None,
        )

    def handle(self, request: flask.Request) -> flask.Response:
        """Answer one request; never raises."""
        with self._telemetry.request(request.headers.get) as gathered:
            self._trust.keep_fresh(self._runtime.start)
            tag: Tag | None = None
            namespace: str | None = None
            try:
                if request.method not in READ_METHODS:
                    answer = wire.method_not_allowed()
                    with suppress(TlogistryError):
                        namespace = self._query(request).namespace
                else:
                    query = self._query(request)
                    namespace = query.namespace
                    asked = _endpoint(request, query)
                    tag = asked.reference if isinstance(asked, Manifest) and isinstance(asked.reference, Tag) else None
                    via = request.headers.get("Via", "")
                    loop.check(asked, host=request.host, via=via, mapped=self._config.upstreams)
                    if isinstance(asked, Ping | Livez | Readyz | SightingRecord):
                        answer = self._dispatch(asked, request, namespace)
                    else:
                        answer = visiting(
                            self._crowd.enter(self._flood.upstream(asked.repository.registry)),
                            partial(self._dispatch, asked, request, namespace),
                            was_answered=lambda: gathered.upstream_status is not None,
                            sends_to=None if request.method == "HEAD" else partial(self._client, request),
                        )
            except TlogistryError as failure:
                answer = wire.error(failure)
            except Exception:  # noqa: BLE001 - the net: whatever went wrong, the client gets an OCI error and no internals
                self._telemetry.log("CRITICAL", "internal error", stack=traceback.format_exc(), path=request.path[:300])
                answer = wire.internal()
            self._log(request, tag, answer, gathered)
            self._warm_up()
            return _flask(answer, request, self._telemetry, namespace)

    def _warm_up(self) -> None:
        """After its first answer an instance imports what its first sighting will need; racing for this costs nothing."""
        if not self._warm:
            self._warm = True
            with suppress(RuntimeError):  # no thread to be had: then the first sighting waits for it
                self._runtime.start("warm-up", self._signer.make)

    def unknown_path(self) -> flask.Response:
        """404 for what the framework does not hand to `handle`."""
        return _flask(wire.error(PathInvalid("no such path")), flask.request, self._telemetry)

    def _dispatch(  # noqa: PLR0911 - one each
        self, asked: Endpoint, request: flask.Request, namespace: str | None, aside: Aside = nullcontext
    ) -> WireResponse:
        head = request.method == "HEAD"
        match asked:
            case Ping():
                return ping()
            case Livez():
                return live()
            case Readyz():
                return self._ready.answer()
            case SightingRecord(tag):
                return sighting(self.recorder, tag)
            case Manifest(repository, reference):
                return self._manifests.handle(
                    repository,
                    reference,
                    head=head,
                    host=wire.reached(request.host),
                    deadline=self.deadline(),
                    aside=aside,
                    admit=lambda new: self._flood.admit(new, self._client(request)),
                )
            case Blob(repository, digest):
                return blob(
                    self._upstream,
                    repository,
                    digest,
                    head=head,
                    range_=request.headers.get("Range"),
                    if_range=request.headers.get("If-Range"),
                    deadline=self.deadline(),
                )
            case TagsList():
                return tags(self._upstream, asked, namespace, self.deadline())
            case Referrers():
                return referrers(self._upstream, asked, namespace, self.deadline())
            case _:
                assert_never(asked)

    def _query(self, request: flask.Request) -> Query:
        """`ns` may say the name that the client calls us by, where it reaches us by another one: that is no registry's."""
        sent = request.query_string
        if not sent:
            return NO_QUERY
        own = set(self._config.own_hosts)
        with suppress(NameInvalid):
            own.add(canonical_registry(request.host))
        return Query.parse(sent.decode("latin-1"), own)

    def _client(self, request: flask.Request) -> str:
        """Whose limit it is."""
        forwarded = request.headers.get("X-Forwarded-For", "")
        return client(request.environ.get("REMOTE_ADDR"), forwarded, self._config.forwarded_hops)

    def _log(self, request: flask.Request, tag: Tag | None, answer: WireResponse, gathered: Request) -> None:
        """One line for each request by tag, and for any other that could not be answered: Docker does not show why."""
        severity: Severity = "INFO"
        if answer.verdict in {"moved", "first seen"}:
            severity = "NOTICE"
        elif answer.status >= 500:  # noqa: PLR2004 - HTTP's own number
            severity = "WARNING"
        elif tag is None:
            return
        self._telemetry.log(
            severity,
            answer.verdict or str(answer.status) if tag is not None else "not answered",
            tag=tag.familiar if tag is not None else None,
            path=request.path[:PATH_SHOWN] if tag is None else None,
            verdict=answer.verdict if tag is not None else None,
            status=answer.status,
            upstreamStatus=gathered.upstream_status,
            reason=answer.reason,
            ms=gathered.milliseconds(),
        )


def _flood_limits(config: Config) -> FloodLimits:
    return FloodLimits(
        per_client=config.new_tags_per_client,
        per_domain=config.new_tags_per_domain,
        total=config.new_tags_total,
        per_day=config.new_tags_per_day,
        every_domain=config.every_domain,
        mapped=config.upstreams.keys(),
    )


def _identity(config: Config) -> MetadataIdentity:
    """google-auth costs a cold start a tenth of a second, and only a first sighting needs it."""
    from lib.sighting.identity import MetadataIdentity  # noqa: PLC0415 - as said

    return MetadataIdentity(config.identities[0])


def _signer(
    trust: TrustSource, identity: MetadataIdentity, verifier: SightingVerifier, runtime: Threads, telemetry: Telemetry
) -> KeylessSigner:
    """As for `_identity`."""
    from lib.sighting.signer import KeylessSigner  # noqa: PLC0415 - as said

    return KeylessSigner(
        trust=trust,
        identity=identity,
        verifier=verifier,
        telemetry=telemetry,
        clock=runtime.now,
        start=runtime.start,
    )


def _absent(store: RecordStore) -> str:
    """The store answers: of a tag that nobody can have."""
    store.sighting(PROBE)
    return "ok"


def _token(identity: MetadataIdentity, deadline: Deadline) -> str:
    """There is a token, and it is the configured identity's."""
    identity.token(deadline)
    return "ok"


def _store(config: Config) -> RecordStore:
    match config.store:
        case SqlitePath(path):
            return SqliteStore(path, busy_s=min(BUSY_S, config.deadline_s))
        case FirestoreDatabase():
            return FirestoreStore(config.store, config.firestore_emulator, call_s=min(CALL_S, config.deadline_s))
        case _:
            assert_never(config.store)


def _secret(config: Config) -> Secret | None:
    """Where accounts at registries are kept, if anywhere."""
    match config.credentials:
        case None:
            return None
        case SecretName():
            return ManagedSecret(config.credentials, config.secret_manager)
        case _:
            return SecretFile(config.credentials)


def _endpoint(request: flask.Request, query: Query) -> Endpoint:
    raw = request.environ.get("RAW_URI")
    if not isinstance(raw, str):
        msg = "the server does not pass the request target on as it was sent"
        raise PathInvalid(msg)
    return endpoint.parse(raw, request.path, query)


class _Body:
    """A stream for the web server: what breaks it off cuts the client's connection, so that short never looks whole.

    gunicorn closes the connection without a traceback for exactly this errno.
    """

    def __init__(self, chunks: Iterator[bytes], telemetry: Telemetry) -> None:
        self._chunks = chunks
        self._telemetry = telemetry
        self._context = contextvars.copy_context()  # read after `handle`, it still belongs to the request

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except TlogistryError as failure:
            self._context.run(self._telemetry.log, "WARNING", "stream broken off", reason=str(failure))
            raise ConnectionResetError(errno.ECONNRESET, "the upstream's stream broke off") from failure

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


def _flask(
    answer: Response, request: flask.Request, telemetry: Telemetry, namespace: str | None = None
) -> flask.Response:
    """To the framework's response, with exactly our headers.

    functions-framework reads the whole request body before it sends an answer, unless that is a stream: so
    whoever sends a body gets a stream, and an unwanted upload ends when the connection does.
    """
    body: bytes | Iterator[bytes] = answer.body if isinstance(answer.body, bytes) else _Body(answer.body, telemetry)
    sent_body = bool(request.content_length) or "Transfer-Encoding" in request.headers
    if isinstance(body, bytes) and (sent_body or request.method not in READ_METHODS):
        body = iter((body,))
    if request.method == "HEAD" and isinstance(body, bytes):
        made = flask.Response(status=answer.status)
    else:
        made = flask.Response(body, status=answer.status, direct_passthrough=not isinstance(body, bytes))
    made.automatically_set_content_length = False
    named = () if namespace is None else (("OCI-Namespace", namespace),)  # distribution-spec, "Registry Proxying"
    made.headers = Headers([*answer.headers.items(), NOSNIFF, *named])  # quicker than setting each
    return made
