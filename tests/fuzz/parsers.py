"""The parsers: each is called with whatever a stranger may send, and raises only what its docstring names.

Beyond that: what parses says the same when it is written and parsed again, and when somebody more lenient than we read it
first, so that one tag has one key. What is signed cannot be changed at all: no changed bundle and no changed log entry is ever
believed to say another thing than the genuine one. The whole service is in `world.py`.
"""

from __future__ import annotations

import base64
import io
import json
import re
import time
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gunicorn import util  # type: ignore[import-untyped]

from lib.config import SETTINGS, Config, TrustFile
from lib.deadline import Deadline
from lib.errors import (
    ConfigInvalid,
    DigestInvalid,
    InputInvalid,
    LogUnavailable,
    ManifestInvalid,
    NameInvalid,
    NoManifest,
    ParameterInvalid,
    RecordInvalid,
    TagSyntaxInvalid,
)
from lib.oci import endpoint
from lib.oci.digest import Digest
from lib.oci.endpoint import Blob, Manifest, SightingRecord
from lib.oci.manifest import MEDIA_TYPES
from lib.oci.manifest import Manifest as Content
from lib.oci.query import QUERY_MAX, Query, opaque, parse_pairs, text
from lib.oci.reference import Repository, Tag, canonical_registry
from lib.sighting.rekor import RekorSearch
from lib.sighting.sighting import Bundle, Found
from lib.sighting.statement import digest_in, statement, tag_key
from lib.sighting.verifier import SightingVerifier
from lib.telemetry import Telemetry, Trace
from lib.upstream import credentials
from lib.upstream.challenge import Challenge
from lib.upstream.link import next_page
from lib.upstream.url import Url
from tests.fakes.canned import Answer, CannedServer
from tests.fuzz.fuzzer import Target
from tests.fuzz.words import AUTH, DOCUMENT, HOSTS, LINK, PARTS, QUERY, SETTING
from tests.sighting.test_rekor import JSON, MOVED, Log
from tests.sighting.test_verifier import ALPINE, OURS, VECTORS, bundle, source, trust_file, verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

QUOTED = re.compile(r"'.*'|[0-9]+|^[^T].*(?=: no such)|(?<=TLOGISTRY_).*(?=: no such)")
HEX = re.compile(r"[0-9a-f]{16,}|[0-9]{3,}")
DIGEST = Digest("sha256", "ab" * 32)
GENUINE = "bundle-v1.sigstore.json"


def kind(error: Exception) -> str:
    """Which refusal it was: what it quotes of the case does not make it another one."""
    return f"{type(error).__name__} {HEX.sub('#', str(error))[:60]}"


def read(case: bytes) -> str:
    """As a header or a path comes to us: one character a byte."""
    return case.decode("latin-1")


def typed(case: bytes) -> str:
    """As an environment or a document comes to us: Unicode, with what is none kept as half characters."""
    return case.decode("utf-8", "surrogateescape")


def lenient(name: str) -> str:
    """What a careless server makes of a path: decoded until nothing is left to decode, slashes and dots resolved."""
    for _ in range(4):
        name = unquote(name)
    done: list[str] = []
    for segment in name.replace("\\", "/").split("/"):
        if segment == "..":
            del done[-1:]
        elif segment not in {"", "."}:
            done.append(segment.strip())
    return "/".join(done)


# --- what clients send ------------------------------------------------------------------------------------------------


def reference(case: bytes) -> Hashable:
    """Repository and tag, in every spelling."""
    said = typed(case)
    try:
        tag = Tag.parse(said)
    except (NameInvalid, TagSyntaxInvalid) as error:
        outcome = kind(error)
    else:
        outcome = f"tag {tag.repository.registry.count('.')} {tag.repository.path.count('/')} {tag.moves_by_design}"
        for spelling in (str(tag), tag.familiar, lenient(said)):
            assert Tag.parse(spelling) == tag, spelling
        assert tag_key(tag) == tag_key(Tag.parse(tag.familiar))
        assert "/" in str(tag.repository)
    try:
        repository = Repository.parse(said)
    except NameInvalid:
        return outcome
    assert Repository.parse(str(repository)) == Repository.parse(repository.familiar) == repository
    assert canonical_registry(repository.registry) == repository.registry
    return outcome


def registry(case: bytes) -> Hashable:
    try:
        canonical = canonical_registry(typed(case))
    except NameInvalid as error:
        return kind(error)
    assert canonical_registry(canonical) == canonical_registry(canonical.upper()) == canonical
    assert re.fullmatch(r"[a-z0-9.-]+(:[1-9][0-9]*)?", canonical, re.ASCII)
    return f"{canonical.count('.')} {':' in canonical}"


def digest(case: bytes) -> Hashable:
    try:
        parsed = Digest.parse(typed(case))
    except DigestInvalid as error:
        return kind(error)
    assert str(parsed) == typed(case)
    return parsed.algorithm


def target(case: bytes) -> Hashable:
    """A request target, read by the web server's own functions before ours."""
    raw = read(case)
    try:
        parts = util.split_request_uri(raw)
    except ValueError:
        return "not a target for the web server"
    path = util.unquote_to_wsgi_str(parts.path or "").encode("latin-1").decode("utf-8", "replace")
    try:
        query = Query.parse(parts.query or "")
        found = endpoint.parse(raw, path, query)
    except (InputInvalid, ParameterInvalid) as error:
        return kind(error)
    namespace = f"{query.namespace is not None} "
    if isinstance(found, SightingRecord):
        assert _again(f"/sightings/{found.tag}") == found
        return namespace + "sighting"
    if not isinstance(found, Manifest | Blob):
        return namespace + type(found).__name__
    what = "blobs" if isinstance(found, Blob) else "manifests"
    reference = found.digest if isinstance(found, Blob) else found.reference
    last = reference.name if isinstance(reference, Tag) else str(reference)
    assert _again(f"/v2/{found.repository}/{what}/{last}") == found
    assert _again("/" + lenient(parts.path or ""), parts.query or "") == found, "a lenient server reads another path"
    return f"{namespace}{what} {type(reference).__name__} {found.repository.registry == 'docker.io'}"


def _again(path: str, query: str = "") -> object:
    return endpoint.parse(path, path, Query.parse(query))


def query(case: bytes) -> Hashable:
    try:
        parsed = Query.parse(read(case))
        more = parsed.opaque("n", "last", "artifactType")
    except (NameInvalid, ParameterInvalid) as error:
        return kind(error)
    again = text(parsed.pairs)
    assert len(again) > QUERY_MAX or parse_pairs(again) == parsed.pairs  # encoded more than it was, it may be too long
    assert opaque(more) == more
    return f"{len(parsed.pairs)} {parsed.namespace is None} {len(more)}"


def trace(case: bytes) -> Hashable:
    first, _, second = read(case).partition("\n")
    found = Trace.parse(lambda name, _: first if name == "traceparent" else second)
    if found is None:
        return "none"
    assert re.fullmatch("[0-9a-f]{32}", found.trace_id, re.ASCII)
    assert found.span_id is None or re.fullmatch("[0-9a-f]{16}", found.span_id, re.ASCII)
    return found.span_id is None


# --- what registries send ---------------------------------------------------------------------------------------------


def challenge(case: bytes) -> Hashable:
    """Header lines of WWW-Authenticate."""
    found = Challenge.find(read(case).split("\n"))
    if found is None:
        return "none"
    assert found.realm
    return f"{found.service is None} {found.scope is None} {_url(found.realm)}"


def link(case: bytes) -> Hashable:
    """Header lines of Link."""
    try:
        found = next_page(read(case).split("\n"))
    except ValueError as error:
        return kind(error)
    if found is None:
        return "the last page"
    again = text(found)
    assert len(again) > QUERY_MAX or parse_pairs(again) == found, (
        "the next request says another thing than the registry"
    )
    assert not any(key.strip().lower() == "ns" for key, _ in found)
    return len(found)


def _url(said: str) -> str:
    try:
        url = Url.parse(said)
    except ValueError as error:
        return kind(error)
    assert Url.parse(str(url)) == url
    assert re.fullmatch(r"[!-\[\]-~]+", url.target, re.ASCII)
    assert "@" not in str(url).removeprefix(url.origin.scheme).split("/")[2], "userinfo"
    return f"{url.origin.scheme} {url.origin.port} {'?' in url.target}"


def url(case: bytes) -> Hashable:
    """An address, and after a newline one that refers to it."""
    said, _, refers = read(case).partition("\n")
    outcome = _url(said)
    try:
        joined = Url.parse(said).join(refers)
    except ValueError as error:
        return outcome, kind(error)
    return outcome, _url(str(joined))


def manifest(case: bytes) -> Hashable:
    """A line of Content-Type, then the body."""
    header, _, body = case.partition(b"\n")
    try:
        parsed = Content.parse(body, read(header) or None)
    except (ManifestInvalid, NoManifest) as error:
        return kind(error)
    assert parsed.content == body
    assert parsed.digest.matches(body)
    assert parsed.media_type in MEDIA_TYPES
    document = json.loads(body)
    assert ("manifests" in document) != ("config" in document)
    assert document.get("mediaType", parsed.media_type) == parsed.media_type
    return parsed.media_type


# --- what the log and the store send ----------------------------------------------------------------------------------


def sighting_statement(case: bytes) -> Hashable:
    try:
        said = digest_in(case, ALPINE)
    except RecordInvalid as error:
        return kind(error)
    assert statement(ALPINE, said) == case, "a statement that is not canonical"
    return "a statement"


@contextmanager
def _bundles() -> Iterator[Callable[[bytes], Hashable]]:
    judge = verifier()
    genuine = judge.verify(bundle(GENUINE), ALPINE)

    def run(case: bytes) -> Hashable:
        try:
            sighting = judge.verify(Bundle(case), ALPINE)
        except RecordInvalid as error:
            return kind(error)
        assert sighting == genuine, "a changed bundle says another thing, and is believed"
        return "verifies"

    yield run


@contextmanager
def _log() -> Iterator[Callable[[bytes], Hashable]]:
    """A case is the log's two answers, or an object with `entries`, whose bodies are put in place and named by their hash."""
    said: list[bytes] = [b"", b""]

    def answer(_: str, path: str, __: bytes) -> Answer:
        return Answer(200, JSON, said[path.endswith("entries/retrieve")])

    with CannedServer(answer) as server:
        text = trust_file().text.replace("http://127.0.0.1:19050", server.url)
        trust = source(TrustFile(VECTORS / "trust-v1.json", text))
        search = RekorSearch(trust, SightingVerifier(trust, (OURS,)), Telemetry("line", io.StringIO()), enabled=True)
        genuine = search_for(search, *_answers(Log(MOVED)), said)

        def run(case: bytes) -> Hashable:
            server.requests.clear()
            try:
                found = search_for(search, *_split(case), said)
            except LogUnavailable as error:
                return kind(error)
            if not isinstance(found, Found):
                return type(found).__name__
            assert found.record.sighting == genuine.record.sighting, (
                "a changed entry says another thing, and is believed"
            )
            return "found"

        yield run


def search_for(search: Any, index: bytes, entries: bytes, said: list[bytes]) -> Any:
    said[:] = index, entries
    tag = Tag.parse(MOVED["tag"])
    return search.search(tag, (DIGEST,), Deadline.after(60, time.monotonic))


def _answers(log: Log) -> tuple[bytes, bytes]:
    entries = [{uuid: log.entries[uuid]} for uuid in log.index]
    return json.dumps(log.index).encode(), json.dumps(entries).encode()


def _split(case: bytes) -> tuple[bytes, bytes]:
    """Entries whose body is JSON are encoded and get the name that the log would have to give them: past the first check."""
    index, _, rest = case.partition(b"\n")
    try:
        bodies = json.loads(index)["entries"]
        named: list[dict[str, Any]] = []
        for entry in bodies:
            body = json.dumps(entry["body"], separators=(",", ":"), sort_keys=True).encode()
            leaf = sha256(b"\x00" + body).hexdigest()
            named.append({entry.get("tree", "") + leaf: {**entry["rest"], "body": base64.b64encode(body).decode()}})
        return json.dumps([uuid for one in named for uuid in one]).encode(), json.dumps(named).encode()
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return index, rest


# --- what deployers set -----------------------------------------------------------------------------------------------


def settings(case: bytes) -> Hashable:
    """NAME=VALUE in lines."""
    env = dict(line.partition("=")[::2] for line in typed(case).split("\n"))
    problems: tuple[str, ...] = ()
    try:
        config = Config.from_env(env)
    except ConfigInvalid as error:
        problems = error.problems
    else:
        assert Config.from_env(env) == config
        assert all(canonical_registry(name) == name for name in config.upstreams)
        assert all(type(base).parse(str(base)) == base for base in config.upstreams.values())
        return " ".join(sorted(name for name in env if name in SETTINGS and env[name]))
    assert problems
    assert all("\n" not in problem for problem in problems), "a problem is a line"
    return " ".join(sorted({QUOTED.sub("", problem)[:60] for problem in problems})[:2])


def accounts(case: bytes) -> Hashable:
    try:
        found = credentials.parse(case)
    except ValueError as error:
        said, outcome = str(error), kind(error)
    else:
        for credential in found.values():
            assert credential.password not in repr(credential) or len(credential.password) < len("dckr_pat_")
            assert re.fullmatch("Basic [A-Za-z0-9+/=]+", credential.basic, re.ASCII)
        return len(found)
    assert not any(secret in said for secret in re.findall(r"dckr_pat_\w+", read(case))), "a password in an error"
    return outcome


def _plain(run: Callable[[bytes], Hashable]) -> Callable[[], nullcontext[Callable[[bytes], Hashable]]]:
    return lambda: nullcontext(run)


PARSERS = (
    Target("reference", 12, _plain(reference), HOSTS),
    Target("registry", 5, _plain(registry), HOSTS),
    Target("digest", 2, _plain(digest), (b"sha256:", b"sha512:")),
    Target("target", 14, _plain(target), (*PARTS, *QUERY)),
    Target("query", 5, _plain(query), QUERY),
    Target("trace", 2, _plain(trace)),
    Target("challenge", 9, _plain(challenge), AUTH),
    Target("link", 7, _plain(link), LINK),
    Target("url", 5, _plain(url), (b"https://", b"http://", b"@", b"[::1]", b":443", b"/..", b"?x=")),
    Target("manifest", 9, _plain(manifest), DOCUMENT),
    Target("statement", 4, _plain(sighting_statement), json=True),
    Target("settings", 6, _plain(settings), SETTING),
    Target("accounts", 2, _plain(accounts), (b"username", b"password", b"docker.io", b"dckr_pat_x"), json=True),
    Target("bundle", 1.5, _bundles, json=True),
    Target("log", 0.3, _log, json=True),
)
