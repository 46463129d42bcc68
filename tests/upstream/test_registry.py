"""Tags and manifests: what the registries serve, and what it means."""

from __future__ import annotations

import hashlib
import threading

import pytest

from lib.errors import (
    DeadlineExceeded,
    ManifestInvalid,
    NameInvalid,
    NoManifest,
    NotFound,
    NotPublic,
    Overloaded,
    RateLimited,
    TlogistryError,
    UpstreamUnavailable,
)
from lib.oci.digest import Digest
from lib.oci.manifest import OCI_INDEX
from lib.oci.reference import Repository, Tag
from lib.upstream.limits import Limits
from lib.upstream.registry import Hint, Registries, Upstream
from tests.fakes.registry import DigestHeader, EndlessBody, FakeRegistry, Hang, Html, Redirect, Status, image
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, asking, names, soon

REPOSITORY = ALPINE.repository
OTHER = "sha256:" + "0" * 64
NO_HINT = Hint(None, None, None)


def test_registries_are_an_upstream() -> None:
    with asking({}) as asked:
        upstream: Upstream = asked.registries
        assert isinstance(upstream, Registries)


def test_a_head_is_one_call_and_gives_digest_type_and_length() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        digest = fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        for _ in range(3):
            assert asked.registries.head(ALPINE, soon()) == Hint(Digest.parse(digest), TYPE, len(image("a")))
        assert fake.count("HEAD") == fake.count() == 3


HINTS = {
    ("Docker-Content-Digest", None): (None, TYPE, True),
    ("Docker-Content-Digest", "sha512:" + "0" * 128): (None, TYPE, True),
    ("Docker-Content-Digest", "SHA256:" + "0" * 64): (None, TYPE, True),
    ("Docker-Content-Digest", f"{OTHER}, {OTHER}"): (None, TYPE, True),
    ("Content-Type", "text/html"): (OTHER, None, True),
    ("Content-Type", TYPE.upper() + "; charset=utf-8"): (OTHER, TYPE, True),
    ("Content-Type", None): (OTHER, None, True),
    ("Content-Length", "0"): (OTHER, TYPE, False),
    ("Content-Length", "4194305"): (OTHER, TYPE, False),
}


@pytest.mark.parametrize("change", HINTS, ids=str)
def test_a_header_that_is_no_hint_is_left_out(change: tuple[str, str | None]) -> None:
    digest, media_type, has_length = HINTS[change]
    headers = {"Docker-Content-Digest": OTHER, "Content-Type": TYPE, "Content-Length": "9"}
    name, value = change
    headers = {**headers, name: value} if value is not None else {k: v for k, v in headers.items() if k != name}
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(ALPINE_PATH, Status(200, headers))
        hint = asked.registries.head(ALPINE, soon())
        assert hint.digest == (Digest.parse(digest) if digest is not None else None)
        assert hint.media_type == media_type
        assert hint.length == (9 if has_length else None)


@pytest.mark.parametrize("status", [400, 403, 405, 406, 418, 501])
def test_a_head_that_is_refused_is_no_hint(status: int) -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(ALPINE_PATH, Status(status), method="HEAD")
        assert asked.registries.head(ALPINE, soon()) == NO_HINT


def test_a_head_that_is_refused_even_with_a_token_is_no_hint() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        fake.fault(ALPINE_PATH, Status(401, {"WWW-Authenticate": f'Bearer realm="{fake.token_url}"'}), method="HEAD")
        assert asked.registries.head(ALPINE, soon()) == NO_HINT
        assert asked.registries.manifest(REPOSITORY, ALPINE, soon()).content == image("a")


def test_a_manifest_is_its_bytes() -> None:
    content = image("a", size=3000)
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        digest = fake.push("library/alpine", "3.16.0", content, TYPE)
        sha512 = Digest.of(content, "sha512")
        for reference in (ALPINE, Digest.parse(digest), sha512):
            manifest = asked.registries.manifest(REPOSITORY, reference, soon())
            assert (manifest.content, manifest.media_type) == (content, TYPE)
            assert manifest.digest == (sha512 if reference == sha512 else Digest.parse(digest))
        assert asked.log == []


def test_other_registries_are_asked_where_they_are_mapped() -> None:
    with FakeRegistry() as fake, asking({"ghcr.io": fake, "reg.example:5000": fake}) as asked:
        fake.push("distroless/static", "1", image("a"), TYPE)
        for text in ("ghcr.io/distroless/static:1", "reg.example:5000/distroless/static:1"):
            assert asked.registries.head(Tag.parse(text), soon()).digest is not None
        with pytest.raises(UpstreamUnavailable, match=r"registry-1\.docker\.io"):
            asked.registries.head(ALPINE, soon(0.5))


MEANINGS: dict[int, tuple[type[Exception], str]] = {
    404: (NotFound, r"does not have alpine:3\.16\.0"),
    401: (NotPublic, "without an account"),
    403: (NotPublic, "without an account"),
    429: (RateLimited, "asks to wait"),
    400: (UpstreamUnavailable, r"127\.0\.0\.1:\d+ answered 400"),
    406: (UpstreamUnavailable, "answered 406"),
    410: (UpstreamUnavailable, "answered 410"),
    500: (UpstreamUnavailable, "answered 500"),
    502: (UpstreamUnavailable, "answered 502"),
    503: (UpstreamUnavailable, "answered 503"),
    204: (UpstreamUnavailable, "answered 204"),
    206: (UpstreamUnavailable, "answered 206"),
    302: (UpstreamUnavailable, "answered 302"),
    304: (UpstreamUnavailable, "answered 304"),
    999: (UpstreamUnavailable, "answered 999"),
}


@pytest.mark.parametrize("status", MEANINGS)
def test_a_status_has_one_meaning(status: int) -> None:
    error, text = MEANINGS[status]
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        fake.fault(ALPINE_PATH, Status(status, {}, b"<b>secret</b>"))
        with pytest.raises(error, match=text) as caught:
            asked.registries.manifest(REPOSITORY, ALPINE, soon())
        assert type(caught.value) is error
        assert "secret" not in str(caught.value)


def test_where_a_registry_is_mapped_to_is_not_told() -> None:
    """Whoever asks is anonymous, and a mirror inside has a name that is nobody's business."""
    with FakeRegistry() as fake:
        inside = f"mirror.corp.example:{fake.port}"
        with asking({"docker.io": f"http://{inside}"}, resolver=names({"mirror.corp.example": ["127.0.0.1"]})) as asked:
            for status in MEANINGS:
                fake.fault("*", Status(status))
                with pytest.raises(TlogistryError, match=r"docker\.io") as caught:
                    asked.registries.manifest(REPOSITORY, ALPINE, soon())
                assert "corp" not in str(caught.value)


@pytest.mark.parametrize("status", [404, 429, 500])
def test_a_head_has_the_same_meanings(status: int) -> None:
    error, text = MEANINGS[status]
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(ALPINE_PATH, Status(status))
        with pytest.raises(error, match=text):
            asked.registries.head(ALPINE, soon())


WAITS = {
    "7": 7,
    "0": 1,
    "99999999": 21600,
    "": None,
    "soon": None,
    "-1": None,
    "Tue, 24 Nov 2026 10:00:30 GMT": 30,
    "Tue, 24 Nov 2026 09:00:00 GMT": 1,
    "Tue, 24 Nov 2099 09:00:00 GMT": 21600,
    "Tue, 99 Nov 2026 09:00:00 GMT": None,
    "Tue, 24 Nov 2026 10:00:30": None,
}


@pytest.mark.parametrize("value", WAITS)
def test_retry_after_is_read_in_both_forms_and_bounded(value: str) -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(ALPINE_PATH, Status(429, {"Retry-After": value, "Date": "Tue, 24 Nov 2026 10:00:00 GMT"}))
        with pytest.raises(RateLimited) as caught:
            asked.registries.head(ALPINE, soon())
        assert caught.value.retry_after == WAITS[value]


def test_retry_after_may_be_missing_and_a_date_needs_a_date() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        absurd = {"Retry-After": f"31 Dec 9 9:{'5' * 200}", "Date": "Tue, 24 Nov 2026 10:00:00 GMT"}  # found by fuzzing
        for headers in ({}, {"Retry-After": "Tue, 24 Nov 2026 10:00:30 GMT"}, absurd, {**absurd, "Date": "FT"}):
            fake.fault(ALPINE_PATH, Status(429, headers))
            with pytest.raises(RateLimited) as caught:
                asked.registries.head(ALPINE, soon())
            assert caught.value.retry_after is None


LIES = (OTHER, "sha512:" + "0" * 128, "sha256:x", "md5:" + "0" * 32)


@pytest.mark.parametrize("header", LIES)
def test_the_bytes_decide_where_the_header_differs_and_a_log_line_says_so(header: str) -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        digest = fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        fake.fault(ALPINE_PATH, DigestHeader(header))
        assert str(asked.registries.manifest(REPOSITORY, ALPINE, soon()).digest) == digest
        (line,) = asked.log
        assert line["severity"] == "WARNING"
        assert (line["reference"], line["header"], line["got"]) == ("alpine:3.16.0", header, digest)


def test_a_missing_header_and_one_of_the_other_algorithm_are_no_lie() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        for header in (None, "sha512:" + hashlib.sha512(image("a")).hexdigest()):
            fake.fault(ALPINE_PATH, DigestHeader(header))
            asked.registries.manifest(REPOSITORY, ALPINE, soon())
        assert asked.log == []


def test_other_bytes_than_the_digest_asked_for_are_unavailable_and_logged() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault("/v2/library/alpine/manifests/*", Status(200, {"Content-Type": TYPE}, image("a")))
        with pytest.raises(UpstreamUnavailable, match="served other bytes than alpine@sha256:0000"):
            asked.registries.manifest(REPOSITORY, Digest.parse(OTHER), soon())
        (line,) = asked.log
        assert line["got"] == str(Digest.of(image("a")))


NO_MANIFESTS = (
    Html(), Status(200, {"Content-Type": TYPE}), Status(200, {"Content-Type": TYPE}, b"{}"), Status(200, {}, b"null"),
    Status(200, {"Content-Type": "application/json"}, b'{"errors": []}'),
)  # fmt: skip
INVALID = (
    Status(200, {"Content-Type": OCI_INDEX}, image("a")),
    Status(200, {"Content-Type": TYPE}, b'{"schemaVersion": 1, "name": "x"}'),
    EndlessBody("chunked"), EndlessBody("length"), EndlessBody("close"),
)  # fmt: skip


@pytest.mark.parametrize("fault", NO_MANIFESTS, ids=lambda fault: ascii(fault)[:80])
def test_a_200_that_is_no_manifest_is_named_with_its_host(fault: Html | Status) -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault("*", fault)
        for reference in (ALPINE, Digest.parse(OTHER)):
            with pytest.raises(NoManifest, match=r"^docker\.io: 127\.0\.0\.1:\d+ answered 200 for alpine.*: "):
                asked.registries.manifest(REPOSITORY, reference, soon())


@pytest.mark.parametrize("fault", INVALID, ids=lambda fault: ascii(fault)[:80])
def test_a_manifest_that_is_not_served_is_a_definite_answer(fault: EndlessBody | Status) -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault("*", fault)
        for reference in (ALPINE, Digest.parse(OTHER)):
            with pytest.raises(ManifestInvalid, match=r"^docker\.io: 127\.0\.0\.1:\d+ answered 200 for alpine.*: "):
                asked.registries.manifest(REPOSITORY, reference, soon())


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_manifest_redirect_is_followed_inside(code: int) -> None:
    with (
        FakeRegistry() as fake,
        FakeRegistry() as regional,
        asking({"docker.io": fake, "regional.example": regional}) as asked,
    ):
        digest = regional.push("k8s/images/alpine", "3.16.0", image("a"), TYPE)
        fake.fault(ALPINE_PATH, Redirect(f"{regional.base_url}/v2/k8s/images/alpine/manifests/3.16.0", code))
        assert str(asked.registries.head(ALPINE, soon()).digest) == digest
        assert asked.registries.manifest(REPOSITORY, ALPINE, soon()).content == image("a")


def test_a_redirect_may_be_relative() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push("mirror/alpine", "3.16.0", image("a"), TYPE)
        fake.fault(ALPINE_PATH, Redirect("../../../mirror/alpine/manifests/3.16.0"))
        assert asked.registries.manifest(REPOSITORY, ALPINE, soon()).content == image("a")


def test_a_redirect_target_may_challenge_and_has_a_token_of_its_own() -> None:
    with FakeRegistry(token_field="token") as fake, FakeRegistry(token_field="access_token") as target:
        with asking({"docker.io": fake, "target.example": target}) as asked:
            target.push("org/alpine", "3.16.0", image("a"), TYPE)
            fake.push("library/alpine", "3.16.0", image("b"), TYPE)
            asked.registries.head(ALPINE, soon())
            fake.fault(ALPINE_PATH, Redirect(f"{target.base_url}/v2/org/alpine/manifests/3.16.0"))
            for _ in range(2):
                assert asked.registries.manifest(REPOSITORY, ALPINE, soon()).content == image("a")
            assert target.count() == 3
            assert len(target.token_requests) == 1


def test_a_redirect_loop_ends() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(ALPINE_PATH, Redirect(ALPINE_PATH))
        with pytest.raises(UpstreamUnavailable, match="redirects more than 5 times"):
            asked.registries.manifest(REPOSITORY, ALPINE, soon())
        assert fake.count() == 6


@pytest.mark.parametrize("text", ["127.0.0.1/a:1", "169.254.169.254/a:1", "localhost/a:1", "reg.example:8443/a/b:1",
                                  "metadata.google.internal/a:1", "localhost:5000/a:1"])  # fmt: skip
def test_a_registry_that_the_guard_refuses_is_the_clients_mistake(text: str) -> None:
    with asking({}) as asked:
        tag = Tag.parse(text)
        with pytest.raises(NameInvalid, match="is not a public registry"):
            asked.registries.head(tag, soon())
        with pytest.raises(NameInvalid):
            asked.registries.manifest(tag.repository, tag, soon())
        with pytest.raises(NameInvalid):
            asked.registries.blob(
                tag.repository, Digest.parse(OTHER), head=False, range_=None, if_range=None, deadline=soon()
            )


def test_a_registry_name_that_does_not_resolve_is_unavailable() -> None:
    with (
        asking({}, resolver=names({})) as asked,
        pytest.raises(UpstreamUnavailable, match=r"the name reg\.example could"),
    ):
        asked.registries.head(Tag.parse("reg.example/a/b:1"), soon())


def test_docker_hub_is_at_registry_1() -> None:
    asked_for: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked_for.append((host, port))
        raise OSError

    with asking({}, resolver=resolve) as asked, pytest.raises(UpstreamUnavailable):
        asked.registries.head(ALPINE, soon())
    assert asked_for == [("registry-1.docker.io", 443)]


def test_a_hanging_upstream_fills_its_own_places_and_nobody_elses() -> None:
    limits = Limits(calls=2, waiting=1)
    with FakeRegistry() as hanging, FakeRegistry() as fake:
        with asking({"docker.io": hanging, "reg.example": fake}, limits=limits) as asked:
            fake.push("a/b", "1", image("a"), TYPE)
            hanging.fault("*", Hang())
            failures: list[Exception] = []

            def hang() -> None:
                try:
                    asked.registries.head(ALPINE, soon(1.0))
                except (DeadlineExceeded, Overloaded) as error:
                    failures.append(error)

            threads = [threading.Thread(target=hang) for _ in range(6)]
            for thread in threads:
                thread.start()
            for _ in range(10):
                assert asked.registries.head(Tag.parse("reg.example/a/b:1"), soon(0.5)).digest is not None
            for thread in threads:
                thread.join()
            assert sorted(type(error).__name__ for error in failures) == ["DeadlineExceeded"] * 3 + ["Overloaded"] * 3
            hanging.heal()
            hanging.push("library/alpine", "3.16.0", image("a"), TYPE)
            assert asked.registries.head(ALPINE, soon()).digest is not None


def test_a_request_that_needs_a_token_and_redirects_takes_one_place() -> None:
    with (
        FakeRegistry(token_field="token") as fake,
        asking({"docker.io": fake}, limits=Limits(calls=1, waiting=0)) as asked,
    ):
        fake.push("mirror/alpine", "3.16.0", image("a"), TYPE)
        fake.fault(ALPINE_PATH, Redirect("/v2/mirror/alpine/manifests/3.16.0"))
        assert asked.registries.manifest(REPOSITORY, ALPINE, soon()).content == image("a")


def test_a_repository_is_asked_for_by_its_canonical_path() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push("library/alpine", "1", image("a"), TYPE)
        for text in ("alpine:1", "docker.io/alpine:1", "index.docker.io/library/alpine:1"):
            asked.registries.head(Tag.parse(text), soon())
        assert {seen.path for seen in fake.requests} == {"/v2/library/alpine/manifests/1"}
        assert Repository.parse("alpine") == REPOSITORY
