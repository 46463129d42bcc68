"""Blobs: handed out, or passed through."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from lib.errors import DeadlineExceeded, NotFound, NotPublic, RateLimited, UpstreamUnavailable
from lib.oci.digest import Digest
from lib.upstream.limits import Limits
from lib.upstream.registry import BlobRedirect, BlobStream
from tests.fakes.registry import CutShort, DripBody, FakeRegistry, Redirect, Status
from tests.upstream.support import ALPINE, Asking, asking, names, soon

if TYPE_CHECKING:
    from lib.deadline import Deadline

CONTENT = bytes(range(256)) * 40
DIGEST = Digest.of(CONTENT)
PATH = f"/v2/library/alpine/blobs/{DIGEST}"


def get(
    asked: Asking,
    *,
    range_: str | None = None,
    if_range: str | None = None,
    head: bool = False,
    deadline: Deadline | None = None,
) -> BlobRedirect | BlobStream:
    return asked.registries.blob(
        ALPINE.repository, DIGEST, head=head, range_=range_, if_range=if_range, deadline=deadline or soon()
    )


def stream(answer: BlobRedirect | BlobStream) -> BlobStream:
    assert isinstance(answer, BlobStream)
    return answer


def test_a_blob_that_the_upstream_serves_is_passed_through_with_its_length_and_little_else() -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push_blob("library/alpine", CONTENT)
        answer = stream(get(asked))
        assert answer.status == 200
        assert answer.headers == {"Accept-Ranges": "bytes", "ETag": f'"{DIGEST}"', "Content-Length": str(len(CONTENT))}
        assert b"".join(answer.chunks()) == CONTENT
        assert b"".join(stream(get(asked)).chunks()) == CONTENT
        assert len({seen.connection for seen in fake.requests}) == 1


RANGES = {
    "bytes=0-9": (206, CONTENT[:10], "bytes 0-9/10240"),
    "bytes=10000-": (206, CONTENT[10000:], "bytes 10000-10239/10240"),
    "bytes=-5": (206, CONTENT[-5:], "bytes 10235-10239/10240"),
    "bytes=20000-": (416, b"", "bytes */10240"),
    "bytes=0-1,5-6": (200, CONTENT, None),
    "bytes=abc": (200, CONTENT, None),
    "items=0-1": (200, CONTENT, None),
    "bytes=0-9\r\nX-Injected: 1": (200, CONTENT, None),
}


@pytest.mark.parametrize("range_", RANGES, ids=ascii)
def test_a_range_is_passed_on_if_it_is_one(range_: str) -> None:
    status, content, content_range = RANGES[range_]
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push_blob("library/alpine", CONTENT)
        answer = stream(get(asked, range_=range_))
        assert (answer.status, b"".join(answer.chunks())) == (status, content)
        assert answer.headers.get("Content-Range") == content_range
        assert answer.headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(f'"{DIGEST}"', 206), ('"other"', 200), ('W/"weak"', 200), ("x\r\nX-Injected: 1", 200),
     ("Tue, 24 Nov 2026 10:00:00 GMT", 200)],
    ids=ascii,
)  # fmt: skip
def test_a_range_is_given_only_under_its_condition(if_range: str, status: int) -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.push_blob("library/alpine", CONTENT)
        answer = stream(get(asked, range_="bytes=0-9", if_range=if_range))
        assert answer.status == status
        answer.close()


def test_a_206_that_was_not_asked_for_is_unavailable() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(PATH, Status(206, {"Content-Range": "bytes 0-1/2"}, b"xx"))
        with pytest.raises(UpstreamUnavailable, match="answered 206"):
            get(asked)


STORAGE = {
    "https://cdn.example/blob?X-Sig=a%2Bb&x=1": "https://cdn.example/blob?X-Sig=a%2Bb&x=1",
    "https://CDN.example:443/blob#x": "https://cdn.example/blob",
    "//cdn.example/blob": None,  # the scheme of the page, which is http here
    "/artifacts-downloads/x": "{base}/artifacts-downloads/x",
    "https://s3.us-east-1.amazonaws.com/my_bucket/x": "https://s3.us-east-1.amazonaws.com/my_bucket/x",
    "http://cdn.example/blob": None,
    "https://cdn.example:8443/blob": None,
    "https://10.0.0.1/blob": None,
    "https://user@cdn.example/blob": None,
    "https://metadata.google.internal/": None,
    "javascript:alert(1)": None,
    "https://cdn.example/\x80": None,
}


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("location", STORAGE, ids=ascii)
def test_a_redirect_to_storage_is_resolved_and_handed_out_without_being_fetched(location: str, *, head: bool) -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise AssertionError

    with FakeRegistry() as fake, asking({"docker.io": fake}, resolver=resolve) as asked:
        fake.fault(PATH, Redirect(location))
        expected = STORAGE[location]
        if expected is None:
            with pytest.raises(UpstreamUnavailable):
                get(asked, head=head)
        else:
            assert get(asked, head=head) == BlobRedirect(expected.replace("{base}", fake.base_url))
        assert fake.count() == 1


def test_a_redirect_into_a_registry_is_followed_and_its_redirect_handed_out() -> None:
    with FakeRegistry(token_field="token") as fake, FakeRegistry(token_field="token") as regional:
        with asking({"docker.io": fake, "regional.example": regional}) as asked:
            fake.fault(PATH, Redirect(f"{regional.base_url}/v2/org/alpine/blobs/{DIGEST}"))
            regional.push_blob("org/alpine", CONTENT)
            assert b"".join(stream(get(asked)).chunks()) == CONTENT
            regional.fault(f"/v2/org/alpine/blobs/{DIGEST}", Redirect("https://cdn.example/x"))
            assert get(asked) == BlobRedirect("https://cdn.example/x")


def test_a_head_gives_the_length_and_no_place_is_held() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}, limits=Limits(calls=1, waiting=0, streams=1)) as asked:
        fake.push_blob("library/alpine", CONTENT)
        for _ in range(3):
            answer = stream(get(asked, head=True))
            assert answer.status == 200
            assert answer.headers["Content-Length"] == str(len(CONTENT))
            assert list(answer.chunks()) == []
        assert fake.count("HEAD") == fake.count() == 3


@pytest.mark.parametrize("status", [401, 403, 405])
def test_a_head_that_is_refused_is_asked_by_a_get_of_one_byte(status: int) -> None:
    with FakeRegistry(token_field="token") as fake, asking({"docker.io": fake}) as asked:
        fake.push_blob("library/alpine", CONTENT)
        fake.fault(PATH, Status(status, {"WWW-Authenticate": f'Bearer realm="{fake.token_url}"'}), method="HEAD")
        answer = stream(get(asked, head=True))
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(CONTENT)))
        assert fake.requests[-1].headers["range"] == "bytes=0-0"


def test_the_get_of_one_byte_follows_redirects_to_storage_without_a_token() -> None:
    with FakeRegistry(token_field="token") as fake, FakeRegistry() as storage:
        with asking({"docker.io": fake, "storage.example": storage}) as asked:
            storage.push_blob("x", CONTENT)
            fake.fault(PATH, Status(403), method="HEAD")
            fake.push_blob("library/alpine", CONTENT)
            fake.fault(PATH, Redirect(f"{storage.base_url}/v2/x/blobs/{DIGEST}"), method="GET")
            assert stream(get(asked, head=True)).headers["Content-Length"] == str(len(CONTENT))
            assert "authorization" not in storage.requests[-1].headers


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (Status(200, {}, b"12345"), "5"),
        (Status(206, {"Content-Range": "bytes 0-0/77"}, b"x"), "77"),
        (Status(416, {"Content-Range": "bytes */0"}), "0"),
        (Status(206, {"Content-Range": "bytes 0-0/*"}, b"x"), None),
        (Status(206, {}, b"x"), None),
        (Status(404), NotFound),
        (Status(401), NotPublic),
        (Status(429), RateLimited),
        (Status(500), UpstreamUnavailable),
    ],
    ids=str,
)
def test_the_length_comes_from_whatever_says_it(answer: Status, length: str | type[Exception] | None) -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(PATH, Status(405), method="HEAD")
        fake.fault(PATH, answer, method="GET")
        if isinstance(length, str):
            assert stream(get(asked, head=True)).headers["Content-Length"] == length
        else:
            with pytest.raises(length or UpstreamUnavailable):
                get(asked, head=True)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (429, RateLimited), (500, UpstreamUnavailable)])
def test_a_status_has_the_meaning_that_it_has_for_manifests(status: int, error: type[Exception], *, head: bool) -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        fake.fault(PATH, Status(status))
        with pytest.raises(error):
            get(asked, head=head)


def test_a_stream_that_breaks_off_does_not_end_well() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}, limits=Limits(streams=1, waiting=0)) as asked:
        fake.push_blob("library/alpine", CONTENT)
        fake.fault(PATH, CutShort())
        for _ in range(2):  # the second one shows that the first one's place came free
            with pytest.raises(UpstreamUnavailable, match="cut short"):
                list(stream(get(asked)).chunks())


def test_a_stream_that_nobody_reads_gives_its_place_back_when_it_is_closed() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}, limits=Limits(streams=1, waiting=0)) as asked:
        fake.push_blob("library/alpine", CONTENT)
        for way in (BlobStream.close, lambda answer: answer.chunks().close(), lambda answer: list(answer.chunks())):
            answer = stream(get(asked))
            way(answer)
            answer.close()


def test_a_stream_holds_a_place_among_streams_and_none_among_calls() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}, limits=Limits(calls=1, streams=1)) as asked:
        fake.push_blob("library/alpine", CONTENT)
        first = stream(get(asked))
        assert stream(get(asked, head=True)).status == 200
        with pytest.raises(DeadlineExceeded):
            get(asked, deadline=soon(0.2))
        threading.Timer(0.1, first.close).start()
        stream(get(asked)).close()


def test_the_deadline_does_not_cut_a_stream_that_moves() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        content = b"x" * 500_000
        digest = Digest.parse(fake.push_blob("library/alpine", content))
        answer = asked.registries.blob(
            ALPINE.repository, digest, head=False, range_=None, if_range=None, deadline=soon(0.3)
        )
        chunks = stream(answer).chunks()
        received = len(next(chunks))
        time.sleep(0.4)
        assert received + sum(len(chunk) for chunk in chunks) == len(content)


def test_a_stream_that_drips_ends() -> None:
    limits = Limits(stream_grace_s=1.5, stream_bytes_per_s=100)
    with FakeRegistry() as fake, asking({"docker.io": fake}, limits=limits) as asked:
        fake.push_blob("library/alpine", CONTENT)
        fake.fault(PATH, DripBody())
        started = time.monotonic()
        with pytest.raises(UpstreamUnavailable, match="too slowly"):
            list(stream(get(asked)).chunks())
        assert time.monotonic() - started < 8


def test_a_stream_takes_constant_memory() -> None:
    with FakeRegistry() as fake, asking({"docker.io": fake}) as asked:
        digest = Digest.parse(fake.push_blob("library/alpine", b"x" * 64_000_000))
        answer = asked.registries.blob(
            ALPINE.repository, digest, head=False, range_=None, if_range=None, deadline=soon()
        )
        gc.collect()
        tracemalloc.start()
        length = sum(len(chunk) for chunk in stream(answer).chunks())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert length == 64_000_000
        assert peak < 2_000_000


def test_names_that_do_not_resolve_are_unavailable() -> None:
    with asking({}, resolver=names({})) as asked, pytest.raises(UpstreamUnavailable, match="could not be resolved"):
        get(asked)
