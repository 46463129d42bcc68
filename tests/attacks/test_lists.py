"""Lists of tags and of referrers: the only bodies that an upstream writes and a client reads without a digest to check."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lib.oci.manifest import OCI_INDEX
from lib.upstream.limits import Limits
from lib.upstream.lists import MAX_MARKS
from tests.fakes.registry import EndlessBody, Html, Status
from tests.handlers.test_http import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.framework import Function
    from tests.handlers.test_http import World

SUBJECT = "sha256:" + "5" * 64
JSON = "application/json"
INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
# Where a next page could lead. {other} is a registry that a mapping allows us to reach, with the same repository.
ELSEWHERE = (
    "http://169.254.169.254/computeMetadata/v1/?last=1.0",
    "https://evil.example/v2/library/{name}/tags/list?last=1.0",
    "//evil.example/v2/library/{name}/tags/list?last=1.0",
    "{other}/v2/library/{name}/tags/list?last=1.0",
    "/v2/library/secret/tags/list?last=1.0",
    "../../../../token?last=1.0",
    "javascript:alert(1)?last=1.0",
    "?last=1.0&ns=evil.example",
)


@pytest.fixture
def lists(world: World, name: str) -> Iterator[dict[str, str]]:
    """The paths of a repository's lists, and what its registry would be asked."""
    for number in range(3):
        world.registry.push(
            f"library/{name}", f"{number}.0", manifest(number), "application/vnd.oci.image.manifest.v1+json"
        )
    world.registry.forget_requests()
    world.other.forget_requests()
    yield {"tags": f"/v2/{name}/tags/list", "referrers": f"/v2/{name}/referrers/{SUBJECT}"}
    world.registry.heal()


def answers(world: World, name: str, kind: str, fault: Status | Html | EndlessBody) -> None:
    where = "tags/list" if kind == "tags" else f"referrers/{SUBJECT}"
    world.registry.fault(f"/v2/library/{name}/{where}", fault)


@pytest.mark.parametrize("kind", ["tags", "referrers"])
@pytest.mark.parametrize("link", ELSEWHERE)
def test_a_link_leads_nowhere_but_to_the_next_page_of_the_same_list(
    world: World, name: str, lists: dict[str, str], kind: str, link: str
) -> None:
    """CVE-2026-85732: a registry's `Link` neither sends us nor a client's credentials to another host or repository."""
    target = link.format(name=name, other=world.other.base_url)
    body = INDEX if kind == "referrers" else json.dumps({"name": "x", "tags": ["0.0", "1.0"]}).encode()
    media_type = OCI_INDEX if kind == "referrers" else JSON
    served = Status(200, {"Content-Type": media_type, "Link": f'<{target}>; rel="next"'}, body)
    answers(world, name, kind, served)
    first = world.get(lists[kind])
    assert (first.status, first.headers["link"]) == (200, f'<{lists[kind]}?last=1.0>; rel="next"')
    second = world.get(f"{lists[kind]}?last=1.0")
    assert second.status == 200
    asked = {seen.path.partition("?")[0] for seen in world.registry.requests}
    assert asked == {lists[kind].replace(f"/{name}/", f"/library/{name}/")}
    assert world.other.count() == 0


@pytest.mark.parametrize(
    "n", [1001, 10**9, 2**31, 2**63, 10**30, int("9" * 2000)], ids=lambda n: f"{len(str(n))} digits"
)
def test_a_huge_n_is_clamped_before_anybody_is_asked_for_it(
    world: World, name: str, lists: dict[str, str], n: int
) -> None:
    """CVE-2023-2253: a page of so many would be memory, here and at the registry."""
    assert world.get(f"{lists['tags']}?n={n}").status == 200
    assert world.registry.requests[-1].query == "n=1000"


@pytest.mark.parametrize(
    "n", ["-1", "1e9", "0x10", "%2B1", "1.0", "", "00", "%D9%A1", "1%20", "9" * 5000, "1&n=1000000000"]
)
def test_what_is_no_number_of_tags_is_refused_and_asks_nobody(
    world: World, name: str, lists: dict[str, str], n: str
) -> None:
    """CVE-2023-2253."""
    answer = world.get(f"{lists['tags']}?n={n}")
    assert (answer.status, answer.code) in {(400, "UNSUPPORTED"), (404, "NAME_UNKNOWN")}
    assert not world.registry.requests


def test_there_is_no_catalogue(world: World, name: str, lists: dict[str, str]) -> None:
    """CVE-2023-2253, where it was found."""
    for asked in ("/v2/_catalog?n=1000000000", "/v2/_catalog", "/v2/library/_catalog?n=9"):
        answer = world.get(asked)
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    assert not world.registry.requests


@pytest.mark.parametrize("kind", ["tags", "referrers"])
def test_an_endless_list_ends_at_its_cap(world: World, name: str, lists: dict[str, str], kind: str) -> None:
    """GHSA-f36w-mj3v-6jqv: pages are bounded like manifests."""
    for framing in ("length", "chunked", "close"):
        answers(world, name, kind, EndlessBody(framing))
        answer = world.get(lists[kind])
        if kind == "tags":
            assert f"longer than {Limits().tags_bytes} bytes" in answer.message
        assert answer.status == 503


BODIES = {
    "a page": b"<!doctype html><title>Sorry</title>",
    "nothing": b"",
    "a deep document": b"[" * 200_000,
    "a deep document under tags": b'{"tags":' + b"[" * 200_000,
    "no list": b'{"name": "x", "tags": "1.0"}',
    "a list": b'["1.0"]',
    "half of one": b'{"name": "x", "tags": ["1.0"',
    "not UTF-8": b'{"name": "x", "tags": ["\xff"]}',
}


def test_a_list_of_tags_that_is_larger_in_memory_is_refused_before_it_is_parsed(
    world: World, name: str, lists: dict[str, str]
) -> None:
    """8 MiB of `{"":0}` are 250 MiB of objects."""
    for element in (b'{"":0},', b"[],", b'"1",'):
        body = b'{"tags":[%s[]]}' % (element * (Limits().tags_bytes // len(element) - 10))
        answers(world, name, "tags", Status(200, {"Content-Type": JSON}, body))
        answer = world.get(lists["tags"])
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        assert f"more than {MAX_MARKS} values" in answer.message


def test_a_whole_page_of_what_gcr_says_about_each_tag_is_served(world: World, name: str, lists: dict[str, str]) -> None:
    about = {
        "imageSizeBytes": "1234",
        "layerId": "",
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "tag": ["1.0"],
        "timeCreatedMs": "1520000000000",
        "timeUploadedMs": "1520000000000",
    }
    each = b'"sha256:%064x":' + json.dumps(about, separators=(",", ":")).encode()
    number = Limits().tags_bytes // (len(each % 0) + len(b',"1.0",'))
    digests, tags = b",".join(each % n for n in range(number)), b",".join([b'"1.0"'] * number)
    body = b'{"manifest":{%s},"tags":[%s]}' % (digests, tags)
    assert Limits().tags_bytes - 300 < len(body) <= Limits().tags_bytes
    answers(world, name, "tags", Status(200, {"Content-Type": JSON}, body))
    assert len(json.loads(world.get(lists["tags"]).body)["tags"]) == number


def memory(function: Function) -> int:
    """The most MiB that one of its processes ever had."""
    found, left = 0, [function.process.pid]
    while left:
        process = Path(f"/proc/{left.pop()}")
        found = max(found, int((process / "status").read_text().partition("VmHWM:")[2].split()[0]) // 1024)
        left += [int(child) for task in process.glob("task/*/children") for child in task.read_text().split()]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_forty_hostile_lists_at_once_leave_room_in_memory_and_the_rest_as_it_was(
    world: World, name: str, lists: dict[str, str]
) -> None:
    """Of the longest and costliest that is taken. Forty at once took 1,200 MiB, and the ping 9 s; an instance has 1 GiB."""
    body = b'{"tags":[%s]}' % b",".join(b'"%024d"' % number for number in range(MAX_MARKS - 2))
    assert len(body) <= Limits().tags_bytes
    answers(world, name, "tags", Status(200, {"Content-Type": JSON}, body))
    before, asked = memory(world.function), lists["tags"]
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(world.get(asked).status)) for _ in range(40)]
    for thread in threads:
        thread.start()
    pings = []
    while any(thread.is_alive() for thread in threads):
        started = time.monotonic()
        assert world.function.ask("GET", "/livez").status == 200
        pings.append(time.monotonic() - started)
        time.sleep(0.1)
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
    assert memory(world.function) - before < 400
    assert max(pings) < 5


@pytest.mark.parametrize("body", BODIES)
def test_what_is_no_list_is_never_repeated(world: World, name: str, lists: dict[str, str], body: str) -> None:
    """GHSA-x2f5-332j-9xwq, and HTML through lists: what an upstream says that is no list is not reflected."""
    for media_type in ("text/html", JSON, OCI_INDEX):
        for kind, asked in lists.items():
            answers(world, name, kind, Status(200, {"Content-Type": media_type}, BODIES[body]))
            answer = world.get(asked)
            assert answer.headers["x-content-type-options"] == "nosniff"
            if answer.status == 200:
                assert (body, kind, json.loads(answer.body)["tags"]) == ("a list", "tags", [])
                continue
            assert answer.code == ("MANIFEST_UNKNOWN" if kind == "referrers" else "UNAVAILABLE")
            assert b"Sorry" not in answer.body
            assert b"[[" not in answer.body


def test_only_tags_come_out_of_a_list_of_tags(world: World, name: str, lists: dict[str, str]) -> None:
    """HTML, paths and control characters in the place of tags, as a client's next request would have them in its path."""
    texts = ["../../x", "<script>alert(1)</script>", "1.0\r\nX: y", "a/b", "", "x" * 129, "1.0?ns=x", "é"]
    hostile: list[object] = [*texts, None, 7, {}, ["1.0"]]
    page = {"name": "<b>", "tags": [*hostile, "1.0", *hostile], "next": "http://evil.example/", "errors": []}
    answers(world, name, "tags", Status(200, {"Content-Type": "text/html"}, json.dumps(page).encode()))
    answer = world.get(lists["tags"])
    assert json.loads(answer.body) == {"name": name, "tags": ["1.0"]}
    assert answer.headers["content-type"] == JSON


def test_headers_of_a_list_are_ours(world: World, name: str, lists: dict[str, str]) -> None:
    hostile = {
        "Set-Cookie": "a=b",
        "Location": "https://evil.example/",
        "OCI-Filters-Applied": "x\tartifactType, <b>",
        "X-Y": "1",
    }
    for kind, (media_type, body) in {"tags": (JSON, b'{"tags":[]}'), "referrers": (OCI_INDEX, INDEX)}.items():
        answers(world, name, kind, Status(200, {"Content-Type": media_type, **hostile}, body))
        answer = world.get(lists[kind])
        assert answer.status == 200
        assert not {"set-cookie", "location", "x-y", "oci-filters-applied"} & answer.headers.keys()
