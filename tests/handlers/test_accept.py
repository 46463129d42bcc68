"""The client's Accept never changes a tag's digest, nor the bytes of an answer.

The digest of a tag depends on Accept (distribution#2395). If the client's list reached the registry, two honest clients would
see a moved tag where none is, and anybody could spoil a tag's first record with one request for its schema-1 form.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.devsigstore.server import DevSigstore
from lib.oci.manifest import ACCEPT, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.fakes.negotiating import SCHEMA_1, NegotiatingRegistry, digest
from tests.framework import Answer, Function
from tests.handlers.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Lines = tuple[tuple[str, str], ...]

SCHEMA_1_UNSIGNED = "application/vnd.docker.distribution.manifest.v1+json"
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
GGCR = f"{SCHEMA_1_UNSIGNED},{SCHEMA_1},{DOCKER_MANIFEST},{OCI_MANIFEST},{DOCKER_LIST},{OCI_INDEX}"


def accept(*values: str) -> Lines:
    """A header line for each."""
    return tuple(("Accept", value) for value in values)


# What real clients send for a tag, as their sources have it.
CLIENTS: dict[str, Lines] = {
    # distribution/registry/client/repository.go: a line for each type, in a map's order
    "docker classic": accept(DOCKER_MANIFEST, SCHEMA_1, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX, "application/json"),
    "docker classic, another time": accept(OCI_MANIFEST, "application/json", DOCKER_LIST, OCI_INDEX, SCHEMA_1),
    "containerd, buildkit": accept(f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*"),
    "podman, buildah, skopeo": accept(
        OCI_MANIFEST, DOCKER_MANIFEST, SCHEMA_1, SCHEMA_1_UNSIGNED, DOCKER_LIST, OCI_INDEX
    ),
    "crane, ko, cosign, kaniko": accept(GGCR),
    "ggcr, an index": accept(f"{DOCKER_LIST},{OCI_INDEX}"),
    "ggcr, one platform": accept(f"{DOCKER_MANIFEST},{OCI_MANIFEST}"),
    "oras, helm": accept(f"{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, {ARTIFACT}"),
    "regctl": accept(OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, SCHEMA_1, SCHEMA_1_UNSIGNED, ARTIFACT),
    "conformance 1.1.1": accept(OCI_MANIFEST),
    "conformance main": accept(OCI_INDEX, OCI_MANIFEST),
    "docker before 1.10": accept(SCHEMA_1),
    "curl": accept("*/*"),
    "a browser": accept("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    "python urllib": (),
}
# They must not matter either: content negotiation by other means, and conditions.
OTHER_HEADERS = st.lists(
    st.sampled_from(
        [
            ("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"),
            ("Accept-Language", "de"),
            ("Accept-Charset", "utf-16"),
            ("If-None-Match", "*"),
            ("If-Modified-Since", "Thu, 01 Jan 2037 00:00:00 GMT"),
            ("Range", "bytes=0-9"),
            ("Cache-Control", "only-if-cached"),
        ]
    ),
    max_size=3,
    unique=True,
)
TYPES = st.sampled_from([SCHEMA_1, SCHEMA_1_UNSIGNED, DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX, ARTIFACT])
PART = st.one_of(
    TYPES,
    st.sampled_from(["*/*", "application/*", "application/json", "text/html", ""]),
    st.builds("{};q={:.1f}".format, TYPES, st.floats(0, 1)),
    TYPES.map(str.upper),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30),
)
LINE = st.builds(
    lambda parts, comma: ("Accept", comma.join(parts)), st.lists(PART, max_size=8), st.sampled_from([",", ", ", " ,"])
)
RANDOM = st.builds(lambda lines, others: (*lines, *others), st.lists(LINE, max_size=4), OTHER_HEADERS)
ASKED = st.tuples(st.sampled_from(["GET", "HEAD"]), RANDOM)

_numbers = itertools.count()


class World:
    """The service in front of a registry whose answers depend on Accept."""

    def __init__(self, registry: NegotiatingRegistry, function: Function) -> None:
        self.registry, self.function = registry, function

    def ask(self, name: str, method: str, lines: Sequence[tuple[str, str]], reference: str = "1.0") -> Answer:
        return exchange(self.function.port, method, f"/v2/{name}/manifests/{reference}", lines)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("accept")
    with DevSigstore(folder) as dev, NegotiatingRegistry() as registry:
        environment = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": registry.url}),
        }
        with Function(environment) as function:
            yield World(registry, function)
        assert set(registry.accepts) == {(ACCEPT,)}, "the registry was asked with one list, always"


def fresh() -> str:
    """A tag that was never seen."""
    return f"accept/app{next(_numbers)}"


def is_the_index(world: World, answer: Answer, method: str) -> None:
    """The one right answer, in full."""
    content = world.registry.content(OCI_INDEX)
    assert answer.status == 200
    assert answer.headers["docker-content-digest"] == digest(content)
    assert answer.headers["content-type"] == OCI_INDEX
    assert answer.headers["content-length"] == str(len(content))
    assert answer.body == (content if method == "GET" else b"")


def test_the_registry_itself_gives_these_clients_different_digests(world: World) -> None:
    """Or else nothing here would be shown."""
    forms = {world.registry.choice([value for _, value in lines], "1.0") for lines in CLIENTS.values()}
    assert forms == {SCHEMA_1, DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("first", CLIENTS)
def test_whoever_asks_first_everybody_gets_the_same_digest_and_bytes(world: World, first: str, method: str) -> None:
    name = fresh()
    seen = world.ask(name, method, CLIENTS[first])
    is_the_index(world, seen, method)
    assert seen.headers["tlog-first-seen"] == "true"
    for other in CLIENTS.values():
        for again in ("HEAD", "GET"):
            answer = world.ask(name, again, other)
            is_the_index(world, answer, again)
            assert answer.headers["tlog-uuid"] == seen.headers["tlog-uuid"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ASKED, ASKED)
def test_no_list_at_all_changes_the_digest_or_the_bytes(
    world: World, first: tuple[str, Lines], second: tuple[str, Lines]
) -> None:
    name = fresh()
    for method, lines in (first, second):
        is_the_index(world, world.ask(name, method, lines), method)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ASKED, st.sampled_from([DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST, OCI_INDEX]))
def test_by_digest_the_bytes_come_whatever_the_client_accepts(
    world: World, asked: tuple[str, Lines], media_type: str
) -> None:
    method, lines = asked
    content = world.registry.content(media_type)
    answer = world.ask("accept/by-digest", method, lines, digest(content))
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)
    assert answer.headers["docker-content-digest"] == digest(content)
    assert answer.body == (content if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_tag_that_moved_is_refused_to_everybody_and_only_then(world: World, method: str) -> None:
    """A form that moved under the same tag, and which nobody is served, is no movement; the served one is for all."""
    name = fresh()
    recorded = world.ask(name, "GET", ()).headers["docker-content-digest"]
    for media_type in (SCHEMA_1, DOCKER_MANIFEST, OCI_MANIFEST, DOCKER_LIST):
        world.registry.move(media_type)
    for lines in CLIENTS.values():
        is_the_index(world, world.ask(name, method, lines), method)
    world.registry.move(OCI_INDEX)
    for lines in CLIENTS.values():
        refused = world.ask(name, method, lines)
        assert refused.status == 403
        if method == "GET":
            assert (refused.code, recorded in refused.message) == ("TAG_INVALID", True)
