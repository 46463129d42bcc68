"""Content discovery: tags (distribution-spec "Listing Tags", end-8)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.conformance.conftest import PAGE, TAGS, Site, World
from tests.fakes.registry import Status

if TYPE_CHECKING:
    from tests.framework import Answer


def listed(site: Site, answer: Answer) -> list[str]:
    """The tags of a page, whose shape is checked on the way."""
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    document = json.loads(answer.body)
    assert document.keys() == {"name", "tags"}
    assert document["name"] == site.name, "the name that the client asked for"
    assert isinstance(document["tags"], list)
    return list(document["tags"])


def test_get_request_to_list_tags_should_yield_200_response(site: Site) -> None:
    """1.1.1, "listing tags"; main, `empty/tag list`."""
    listed(site, site.get("tags/list"))


def test_each_tag_is_in_the_list(site: Site) -> None:
    """main, `tag-list`."""
    found = [tag for page in site.pages("tags/list") for tag in listed(site, page)]
    assert found == sorted(TAGS)


@pytest.mark.parametrize("n", [1, len(TAGS) // 2])
def test_get_number_of_tags_should_be_limitable_by_n_query_parameter(site: Site, n: int) -> None:
    """1.1.1: exactly n, if there are more."""
    assert listed(site, site.get("tags/list", n=str(n))) == list(TAGS[:n])


def test_get_start_of_tag_is_set_by_last_query_parameter(site: Site) -> None:
    """1.1.1: with n; `last` itself is not in the page."""
    n = len(TAGS) // 2
    first = listed(site, site.get("tags/list", n=str(n)))
    second = listed(site, site.get("tags/list", n=str(n), last=first[-1]))
    assert second == list(TAGS[n:])


@pytest.mark.parametrize("end", range(1, len(TAGS)))
def test_last_without_n_drops_all_up_to_it_and_keeps_all_after_it(site: Site, end: int) -> None:
    """main, `tag-list`."""
    assert listed(site, site.get("tags/list", last=TAGS[end - 1])) == list(TAGS[end:])


def test_last_may_be_no_tag_of_the_repository(site: Site) -> None:
    """Spec: `last` need not be there."""
    assert listed(site, site.get("tags/list", last="test1a")) == list(TAGS[2:])
    assert listed(site, site.get("tags/list", last="zzz")) == []


def test_n_of_zero_is_an_empty_list_without_a_link(site: Site) -> None:
    """Spec: MUST return an empty list, and MUST NOT include a Link header."""
    answer = site.get("tags/list", n="0")
    assert listed(site, answer) == []
    assert "link" not in answer.headers


@pytest.mark.parametrize("n", ["", "1", "2", "3", "4", "1000", "1001", "9" * 18, "9" * 40])
def test_pages_follow_each_other_by_link_until_all_tags_were_there(site: Site, n: str) -> None:
    """Spec: fewer than n only at the end, or with a Link; whatever n is, each tag is there once, in order."""
    pages = site.pages("tags/list", **({"n": n} if n else {}))
    sizes = [len(listed(site, page)) for page in pages]
    assert [tag for page in pages for tag in listed(site, page)] == list(TAGS)
    expected = min(int(n or PAGE), PAGE)
    assert all(size == expected for size in sizes[:-1])
    assert ("link" in pages[0].headers) == (expected < len(TAGS))


def test_the_next_page_is_of_the_same_repository(site: Site) -> None:
    """`Link` keeps the path that the client used, and its `ns`: without it the next page would be Docker Hub's."""
    link = site.get("tags/list", n="1").headers["link"]
    assert link.startswith(f"</v2/{site.name}/tags/list?")
    assert link.endswith('>; rel="next"')
    assert ("ns=registry.example" in link) == bool(site.query)


@pytest.mark.parametrize("status", [200, 404])
def test_tags_of_a_repository_that_is_not_there_are_as_the_registry_says(world: World, site: Site, status: int) -> None:
    """main, `empty/tag list`: 200 or 404."""
    said = {200: b'{"name": "nowhere", "tags": null}', 404: b'{"errors": [{"code": "NAME_UNKNOWN"}]}'}[status]
    for registry in (world.hub, world.other):
        registry.fault("/v2/*/nowhere/tags/list", Status(status, {"Content-Type": "application/json"}, said))
    name = site.name.replace("conformance", "nowhere")
    answer = site.follow("GET", f"/v2/{name}/tags/list{'?' if site.query else ''}{site.query}")
    assert answer.status == status
    if status == 200:
        assert json.loads(answer.body) == {"name": name, "tags": []}
    else:
        assert answer.code == "NAME_UNKNOWN"


def test_head_is_answered_like_get(site: Site) -> None:
    answer, head = site.get("tags/list"), site.head("tags/list")
    assert (head.status, head.body) == (200, b"")
    for header in ("content-type", "content-length", "link"):
        assert head.headers[header] == answer.headers[header]
