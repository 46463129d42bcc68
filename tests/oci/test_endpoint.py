"""Endpoints: one spelling for each thing that can be asked for."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import DigestInvalid, InputInvalid, NameInvalid, ParameterInvalid, PathInvalid, TagSyntaxInvalid
from lib.oci.digest import Digest
from lib.oci.endpoint import (
    TARGET_MAX,
    Blob,
    Endpoint,
    Livez,
    Manifest,
    Ping,
    Referrers,
    SightingRecord,
    TagsList,
    parse,
)
from lib.oci.query import NO_QUERY, Page, Query
from lib.oci.reference import Repository, Tag
from tests.strategies import digests, repositories, tags

ONE = Digest.of(b"one")
LONG = Digest.of(b"one", "sha512")
ALPINE = Repository.parse("alpine")


def ask(target: str) -> Endpoint:
    """As gunicorn does it: the target as it was sent, the path decoded (leading slashes merged), the query as sent."""
    path, _, query = target.partition("#")[0].partition("?")
    origin = path.lower().startswith(("http://", "https://"))
    path = "/" + path.split("/", 3)[3] if origin and path.count("/") > 2 else path
    merged = "/" + path.lstrip("/") if path.startswith("/") else path
    return parse(target, unquote(merged, errors="replace"), Query.parse(query))


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        ("/v2/", Ping()),
        ("/v2", Ping()),
        ("/livez", Livez()),
        ("/v2/alpine/manifests/3.16.0", Manifest(ALPINE, Tag.parse("alpine:3.16.0"))),
        ("/v2/library/alpine/manifests/3.16.0", Manifest(ALPINE, Tag.parse("alpine:3.16.0"))),
        (f"/v2/alpine/manifests/{ONE}", Manifest(ALPINE, ONE)),
        (f"/v2/alpine/manifests/{LONG}", Manifest(ALPINE, LONG)),
        (f"/v2/alpine/manifests/{quote(str(ONE))}", Manifest(ALPINE, ONE)),
        (f"/v2/alpine/manifests/{quote(str(ONE)).lower()}", Manifest(ALPINE, ONE)),
        (f"/v2/alpine/blobs/{ONE}", Blob(ALPINE, ONE)),
        (f"/v2/alpine/blobs/{LONG}", Blob(ALPINE, LONG)),
        ("/v2/GHCR.io/a/b/manifests/1", Manifest(Repository("ghcr.io", "a/b"), Tag.parse("ghcr.io/a/b:1"))),
        (
            "/v2/localhost:5000/x/manifests/1",
            Manifest(Repository("localhost:5000", "x"), Tag.parse("localhost:5000/x:1")),
        ),
        (
            "/v2/localhost%3A5000/x/manifests/1",
            Manifest(Repository("localhost:5000", "x"), Tag.parse("localhost:5000/x:1")),
        ),
        ("/v2/a/manifests/manifests/b", Manifest(Repository.parse("a/manifests"), Tag.parse("a/manifests:b"))),
        ("/v2/a/blobs/manifests/b", Manifest(Repository.parse("a/blobs"), Tag.parse("a/blobs:b"))),
        ("/v2/v2/manifests/manifests", Manifest(Repository.parse("v2"), Tag.parse("v2:manifests"))),
        ("/v2/sightings/x/manifests/1", Manifest(Repository.parse("sightings/x"), Tag.parse("sightings/x:1"))),
        ("/sightings/alpine:3.16.0", SightingRecord(Tag.parse("alpine:3.16.0"))),
        ("/sightings/alpine%3a3.16.0", SightingRecord(Tag.parse("alpine:3.16.0"))),
        ("/sightings/ghcr.io/a/b:tag", SightingRecord(Tag.parse("ghcr.io/a/b:tag"))),
        ("/sightings/localhost:5000/x:1", SightingRecord(Tag.parse("localhost:5000/x:1"))),
        ("http://localhost:8080/v2/", Ping()),
        ("http://localhost:8080/v2/alpine/manifests/3", Manifest(ALPINE, Tag.parse("alpine:3"))),
        ("HTTPS://user@evil.example/v2/alpine/manifests/3", Manifest(ALPINE, Tag.parse("alpine:3"))),
        ("/v2/?a=b", Ping()),
        ("/v2/alpine/manifests/3?platform=linux", Manifest(ALPINE, Tag.parse("alpine:3"))),
        ("/v2/alpine/manifests/3?xns=1&ns2=%6e&%6ex=ns", Manifest(ALPINE, Tag.parse("alpine:3"))),
        ("/v2/alpine/manifests/3?", Manifest(ALPINE, Tag.parse("alpine:3"))),
        ("/v2/alpine/manifests/3?/../%2f", Manifest(ALPINE, Tag.parse("alpine:3"))),
        ("/v2/alpine/manifests/3?%00", Manifest(ALPINE, Tag.parse("alpine:3"))),
    ],
)
def test_endpoints(target: str, endpoint: Endpoint) -> None:
    assert ask(target) == endpoint


@pytest.mark.parametrize(
    "target",
    [
        # no such path
        "",
        "/",
        "*",
        "/v1/",
        "/v3/",
        "/V2/",
        "/v2x",
        "/v2/x",
        "/v2/foo/bar",
        "/v2/foo/bar/baz",
        "/v2/_catalog",
        "/v2/_oci/ext/discover",
        "/v2/alpine/Manifests/3",
        "/v2/alpine/manifest/3",
        "/sightings",
        "/livez/x",
        "/favicon.ico",
        "/robots.txt",
        "http://localhost:8080",
        "ftp://localhost/v2/",
        # a slash too many
        "//v2/",
        "//v2",
        "///v2/alpine/manifests/3",
        "/v2//",
        "/v2//alpine/manifests/3",
        "/v2/library//alpine/manifests/3",
        "/v2/alpine//manifests/3",
        "/v2/alpine/manifests//3",
        "http://localhost//v2/",
        "/v2/alpine/manifests/3/",
        "/v2/alpine/manifests/",
        f"/v2/alpine/blobs/{ONE}/",
        "/livez/",
        "/sightings/",
        "/sightings/alpine:3/",
        "//sightings/alpine:3",
        # dots
        "/v2/../v2/alpine/manifests/3",
        "/v2/a/../alpine/manifests/3",
        "/v2/./alpine/manifests/3",
        "/v2/alpine/manifests/../manifests/3",
        "/v2/alpine/manifests/..",
        "/v2/alpine/manifests/.",
        "/v2/%2e%2e/alpine/manifests/3",
        "/v2/%2E/alpine/manifests/3",
        "/v2/.%2e/alpine/manifests/3",
        "/sightings/../sightings/alpine:3",
        # percent-encoding: of a separator, of a letter, doubled, cut
        "/v2/library%2Falpine/manifests/3",
        "/v2/library%2falpine/manifests/3",
        "/v2/alpine%2Fmanifests%2F3",
        "/v2/alpine%5cx/manifests/3",
        "/v2/%61lpine/manifests/3",
        "/v2/alpine/manifests/3%2e16",
        "/v2/alpine/%6danifests/3",
        "/%76%32/",
        "/v2/alpine/manifests/3%253A",
        "/v2/alpine/manifests/sha256%253A00",
        "/v2/alpine/manifests/3%",
        "/v2/alpine/manifests/3%3",
        "/v2/alpine/manifests/3%3g",
        "/v2/alpine/manifests/%u0033",
        # bytes that are none of a name's
        "/v2/alpine%00/manifests/3",
        "/v2/alpine\x00/manifests/3",
        "/v2/alpine%ff/manifests/3",
        "/v2/alpine%0a/manifests/3",
        "/v2/alpine\n/manifests/3",
        "/v2/alpine/manifests/3%0d%0aX",
        "/v2/alpine/manifests/3%20",
        "/v2/alpine/manifests/3 ",
        "/v2/alpine\\x/manifests/3",
        "/v2/alpine;a=b/manifests/3",
        "/v2/alpine/manifests/3;a=b",
        "/v2/alpine/manifests/3+4",
        "/v2/alpine/manifests/3#fragment",
        "/v2/alpine/manifests/3?a#fragment",
        "/v2/alpin\u00e9/manifests/3",
        "/v2/alpin%c3%a9/manifests/3",
        "/v2/[::1]:5000/x/manifests/3",
        # over-long
        "/v2/" + "a/" * TARGET_MAX + "manifests/3",
        "/v2/alpine/manifests/3?" + "a" * TARGET_MAX,
    ],
    ids=lambda target: ascii(target[:48]),
)
def test_an_unknown_path_or_a_second_spelling_of_one_is_refused(target: str) -> None:
    with pytest.raises(PathInvalid, match="no such path"):
        ask(target)


@pytest.mark.parametrize(
    "target",
    [
        "/v2/Alpine/manifests/3",
        "/v2/ghcr.io/A/b/manifests/3",
        "/v2/my-user/My-App/manifests/3",
        "/v2/manifests/3",
        "/v2/_catalog/manifests/3",
        "/v2/a___b/manifests/3",
        "/v2/.hidden/manifests/3",
        "/v2/a@b/manifests/3",
        "/v2/~root/manifests/3",
        "/v2/gh_cr.io/a/manifests/3",
        "/v2/ghcr.io:0/a/manifests/3",
        "/v2/ghcr.io:0443/a/manifests/3",
        "/v2/127.1/a/manifests/3",
        "/v2/0x7f.1/a/manifests/3",
        "/v2/user@ghcr.io/a/manifests/3",
        "/v2/" + "a" * 250 + "/manifests/3",
        "/v2/" + "a/" * 1000 + "a/manifests/3",
        f"/v2/Alpine/blobs/{ONE}",
        f"/v2/Alpine/manifests/{ONE}",
        "/v2/Alpine/manifests/sha256:totallywrong",
        f"/sightings/alpine@{ONE}",
        "/sightings/Alpine:3",
    ],
    ids=lambda target: target[:48],
)
def test_a_bad_name_is_refused_as_such(target: str) -> None:
    with pytest.raises(NameInvalid):
        ask(target)


@pytest.mark.parametrize(
    "target",
    [
        "/v2/alpine/manifests/.INVALID_MANIFEST_NAME",
        "/v2/alpine/manifests/-3",
        "/v2/alpine/manifests/3~1",
        "/v2/alpine/manifests/3@4",
        "/v2/alpine/manifests/" + "3" * 129,
        "/sightings/alpine",
        "/sightings/localhost:5000/x",
        "/sightings/alpine:",
        "/sightings/alpine:-3",
    ],
    ids=lambda target: target[:48],
)
def test_a_tag_that_no_registry_can_have_is_unknown(target: str) -> None:
    with pytest.raises(TagSyntaxInvalid):
        ask(target)


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
@pytest.mark.parametrize(
    "reference",
    [
        "sha256:totallywrong",
        "sha256:baddigeststring",
        "sha256:",
        ":",
        f"sha256:{ONE.encoded.upper()}",
        f"SHA256:{ONE.encoded}",
        f"{ONE}0",
        f"sha512:{ONE.encoded}",
        f"sha384:{ONE.encoded}",
        "md5:00",
        f"{ONE}@{ONE}",
        f"3.16.0@{ONE}",
    ],
    ids=lambda reference: reference[:24],
)
def test_a_reference_with_a_colon_is_a_digest_and_a_bad_one_is_refused_as_such(kind: str, reference: str) -> None:
    with pytest.raises(DigestInvalid):
        ask(f"/v2/alpine/{kind}/{reference}")


@pytest.mark.parametrize("reference", ["3.16.0", "uploads", f"sha256-{ONE.encoded}"])
def test_a_blob_has_no_tag(reference: str) -> None:
    with pytest.raises(DigestInvalid):
        ask(f"/v2/alpine/blobs/{reference}")


@pytest.mark.parametrize(
    ("target", "repository"),
    [
        ("/v2/library/alpine/manifests/1?ns=docker.io", ALPINE),
        ("/v2/alpine/manifests/1?ns=docker.io", ALPINE),
        ("/v2/alpine/manifests/1?a=b&ns=registry-1.docker.io", ALPINE),
        ("/v2/docker.io/library/alpine/manifests/1?ns=docker.io", ALPINE),
        ("/v2/index.docker.io/alpine/manifests/1?ns=docker.io", ALPINE),
        ("/v2/distroless/static/manifests/1?ns=ghcr.io", Repository("ghcr.io", "distroless/static")),
        ("/v2/static/manifests/1?ns=GHCR.io.", Repository("ghcr.io", "static")),
        ("/v2/static/manifests/1?ns=ghcr.io%3A443", Repository("ghcr.io", "static")),
        ("/v2/ghcr.io/static/manifests/1?ns=ghcr.io", Repository("ghcr.io", "static")),
        ("/v2/r/ghcr.io/static/manifests/1?ns=ghcr.io", Repository("ghcr.io", "static")),
        ("/v2/x/manifests/1?ns=localhost:5000", Repository("localhost:5000", "x")),
        ("/v2/ghcr.io/manifests/1?ns=quay.io", Repository("quay.io", "ghcr.io")),  # one component is never a host
        # the one public registry whose own repositories begin with a domain
        ("/v2/google.com/cloudsdktool/x/manifests/1?ns=gcr.io", Repository("gcr.io", "google.com/cloudsdktool/x")),
        (
            "/v2/google.com/cloudsdktool/x/manifests/1?ns=eu.gcr.io",
            Repository("eu.gcr.io", "google.com/cloudsdktool/x"),
        ),
        ("/v2/gcr.io/google.com/x/manifests/1?ns=gcr.io", Repository("gcr.io", "google.com/x")),
        ("/v2/r/ghcr.io/distroless/static/manifests/1", Repository("ghcr.io", "distroless/static")),
        ("/v2/r/docker.io/alpine/manifests/1", ALPINE),
        ("/v2/r/localhost:5000/x/manifests/1", Repository("localhost:5000", "x")),
        ("/v2/r/alpine/manifests/1", Repository("docker.io", "r/alpine")),
        ("/v2/r/ghcr.io/manifests/1", Repository("docker.io", "r/ghcr.io")),
        ("/v2/r/a/b/manifests/1", Repository("docker.io", "r/a/b")),
    ],
)
def test_a_mirrors_namespace_and_the_dotless_alias_do_not_change_which_repository_it_is(
    target: str, repository: Repository
) -> None:
    assert ask(target) == Manifest(repository, Tag.of(repository, "1"))
    blob = target.replace("/manifests/1", f"/blobs/{ONE}")
    assert ask(blob) == Blob(repository, ONE)
    name, _, query = target.removeprefix("/v2/").partition("/manifests/1")
    assert ask(f"/sightings/{name}:1{query}") == SightingRecord(Tag.of(repository, "1"))
    assert ask(f"/v2/{name}/tags/list{query}") == TagsList(
        repository, name, Page(None, None, (("a", "b"),) if "a=b" in query else ())
    )


@pytest.mark.parametrize(
    "query",
    [
        "ns=",
        "ns",
        "ns=a",
        "ns=a&ns=b",
        "ns=ghcr.io&ns=ghcr.io",
        "NS=docker.io",
        "Ns=docker.io",
        "nS=docker.io",
        "+ns=docker.io",
        "ns%20=docker.io",
        "%6e%73=https://docker.io",
        "ns=docker.io/x",
        "ns=docker.io%2fx",
        "ns=docker.io%00",
        "ns=127.1",
        "ns=[::1]",
        "ns=user@docker.io",
        "ns=..",
        "ns=" + "a" * 300 + ".io",
    ],
)
@pytest.mark.parametrize(
    "path", ["/v2/", "/v2/alpine/manifests/3.16.0", f"/v2/alpine/blobs/{ONE}", "/v2/alpine/tags/list"]
)
def test_a_namespace_that_is_no_registry_is_refused(path: str, query: str) -> None:
    with pytest.raises(NameInvalid):
        ask(f"{path}?{query}")


@pytest.mark.parametrize(
    "target",
    [
        "/v2/ghcr.io/static/manifests/1?ns=quay.io",
        "/v2/quay.io/a/b/tags/list?ns=docker.io",
        "/v2/r/ghcr.io/static/manifests/1?ns=docker.io",
        "/v2/localhost/x/manifests/1?ns=docker.io",
        "/sightings/ghcr.io/static:1?ns=docker.io",
        "/v2/google.com/x/manifests/1?ns=ghcr.io",
        "/v2/google.com/x/manifests/1?ns=evilgcr.io",
        "/v2/example.com/x/manifests/1?ns=gcr.io",
    ],
)
def test_a_path_and_a_namespace_that_name_two_registries_are_refused(target: str) -> None:
    with pytest.raises(NameInvalid, match="another registry"):
        ask(target)


def test_our_own_name_is_no_namespace() -> None:
    assert Query.parse("ns=mirror.example", ("mirror.example",)).namespace is None
    assert Query.parse("ns=Mirror.Example:443", ("mirror.example",)).namespace is None
    assert Query.parse("ns=ghcr.io", ("mirror.example",)).namespace == "ghcr.io"


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", Page(None, None, ())),
        ("n=0", Page(0, None, ())),
        ("n=2&last=3.16.0", Page(2, "3.16.0", ())),
        ("last=3.16.0", Page(None, "3.16.0", ())),
        ("last=", Page(None, None, ())),
        ("n=1000", Page(1000, None, ())),
        ("n=1001", Page(1000, None, ())),
        ("n=99999999999999999999999", Page(1000, None, ())),
        (f"last={ONE}", Page(None, str(ONE), ())),
        ("last=eyJ2ZXJzaW9uIjoi%2B%2F%3D%3D", Page(None, "eyJ2ZXJzaW9uIjoi+/==", ())),  # Amazon ECR's
        ("next_page=gAAAA%3D%3D&n=5&ns=docker.io", Page(5, None, (("next_page", "gAAAA=="),))),
    ],
)
def test_pages_of_tags(query: str, page: Page) -> None:
    assert ask(f"/v2/alpine/tags/list?{query}") == TagsList(ALPINE, "alpine", page)


@pytest.mark.parametrize(
    "query",
    [
        "n=", "n=-1", "n=+1", "n=1.0", "n=01", "n=%D9%A1", "n=1e3", "n=abc", "n=1&n=2",
        "last=a&last=b", "last=" + "a" * 2049, "last=%00", "last=a%0Ab",
        "x%20y=1", "x=%0A", "x=" + "y" * 3000, "&".join(f"k{number}=1" for number in range(20)), "x=%ff",
    ],
)  # fmt: skip
def test_parameters_that_no_registry_understands_are_refused(query: str) -> None:
    with pytest.raises(ParameterInvalid):
        ask(f"/v2/alpine/tags/list?{query}")


def test_referrers() -> None:
    target = f"/v2/ghcr.io/a/b/referrers/{ONE}"
    repository = Repository("ghcr.io", "a/b")
    assert ask(target) == Referrers(repository, "ghcr.io/a/b", ONE, None, ())
    assert ask(f"{target}?artifactType=application%2Fspdx%2Bjson&nextToken=x") == Referrers(
        repository, "ghcr.io/a/b", ONE, "application/spdx+json", (("nextToken", "x"),)
    )
    for wrong in (
        "artifactType=spdx",
        "artifactType=a/b/c",
        "artifactType=a%20/b",
        "artifactType=a/b&artifactType=a/c",
    ):
        with pytest.raises(ParameterInvalid):
            ask(f"{target}?{wrong}")
    with pytest.raises(DigestInvalid):
        ask("/v2/ghcr.io/a/b/referrers/sha256:totallywrong")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v2/alpine/manifests/3", "/v2/alpine/manifests/4"),
        ("/v2/alpine/manifests/3", "/v2//alpine/manifests/3"),
        ("/v2/alpine/manifests/3", "/v2/alpine/manifests/3\x00"),
        ("/v2/alpine/manifests/3%3A", "/v2/alpine/manifests/3%3A"),
        ("//v2/", "/v2/"),
        ("", "/v2/"),
        ("/v2/", ""),
        ("http://localhost", "/"),
    ],
)
def test_the_path_as_sent_and_the_path_as_decoded_must_be_one(target: str, path: str) -> None:
    with pytest.raises(PathInvalid):
        parse(target, path, NO_QUERY)


@given(repositories(), digests())
def test_blobs_and_manifests_by_digest_are_read_back(repository: Repository, digest: Digest) -> None:
    for name in (str(repository), repository.familiar):
        assert ask(f"/v2/{name}/blobs/{digest}") == Blob(repository, digest)
        assert ask(f"/v2/{name}/manifests/{digest}") == Manifest(repository, digest)


@given(tags())
def test_tags_are_read_back(tag: Tag) -> None:
    name, _, reference = str(tag).rpartition(":")
    assert ask(f"/v2/{name}/manifests/{reference}") == Manifest(tag.repository, tag)
    assert ask(f"/sightings/{tag}") == SightingRecord(tag) == ask(f"/sightings/{tag.familiar}")


@given(st.text(max_size=60) | st.text("/v2.%:aAmnifests?#\\;\x00", max_size=40).map("/v2/".__add__))
def test_no_other_spelling_of_a_path_gets_through(target: str) -> None:
    try:
        endpoint = ask(target)
    except InputInvalid:
        return
    path = target.partition("?")[0].replace("%3A", ":").replace("%3a", ":")
    assert ask(path) == endpoint
    assert not {"%", "\\", "\x00", "//"} & {
        path[index : index + width] for index in range(len(path)) for width in (1, 2)
    }
