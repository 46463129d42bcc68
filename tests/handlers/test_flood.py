"""Flood limits over HTTP: 429 for what would be recorded, and for nothing else."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lib.devsigstore.server import DevSigstore
from tests.fakes.registry import FakeRegistry, Status
from tests.framework import Function
from tests.handlers.test_http import OCI, World, manifest, path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.framework import Answer

FORWARDED = "X-Forwarded-For"


@contextmanager
def limited(folder: Path, **settings: str) -> Iterator[World]:
    """A service with these settings besides; the registry has `app:0` to `app:19`."""
    with DevSigstore(folder) as dev, FakeRegistry() as registry, FakeRegistry() as other:
        fixed = {
            **dev.environment(),
            "TLOGISTRY_STORE": f"sqlite:{folder / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps({"docker.io": registry.base_url, "other.example": other.base_url}),
        }
        for number in range(20):
            registry.push("library/app", str(number), manifest(number), OCI)
        with Function({**fixed, **settings}) as function:
            yield World(registry, other, dev, function)


def assert_refused(answer: Answer, words: str) -> None:
    assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
    assert words in answer.message
    assert f"try again in {answer.headers['retry-after']} s" in answer.message
    assert answer.headers["cache-control"] == "no-store"
    assert not {name for name in answer.headers if name.startswith("tlog-")}


def test_over_the_limit_only_a_first_sighting_is_429(tmp_path: Path) -> None:
    """A recorded tag, a moved one, a digest, a blob and a tag that is not there are answered as ever."""
    with limited(tmp_path, TLOGISTRY_NEW_TAGS_PER_CLIENT="2/9999s") as world:
        digest = world.registry.push("library/app", "2", manifest(2), OCI)
        blob = world.registry.push_blob("library/app", b"blob")
        for number in range(10):
            assert world.get(path("app", f"absent{number}")).status == 404
        assert [world.get(path("app", name)).headers.get("tlog-first-seen") for name in "01"] == ["true", "true"]
        calls = dict(world.dev.calls)
        assert_refused(world.get(path("app", "2")), "at most 2 in 9999 s for one client address")
        assert world.head(path("app", "2")).status == 429
        assert 4000 < int(world.head(path("app", "2")).headers["retry-after"]) <= 5000
        assert dict(world.dev.calls) == calls, "neither log nor certificate authority was asked"
        assert world.get("/sightings/app:2").status == 404
        assert world.line("too many new", "app:2", "status=429", "at most 2")
        for header in (FORWARDED, "X-Real-Ip", "Forwarded", "X_Forwarded_For", "True-Client-Ip"):
            assert world.get(path("app", "2"), **{header: "198.51.100.1"}).status == 429, (
                "a spoofed header changes nothing"
            )

        assert [world.get(path("app", name)).status for name in "01"] == [200, 200]
        world.registry.push("library/app", "1", manifest(7), OCI)
        assert world.get(path("app", "1")).status == 403
        assert world.get(path("app", digest)).status == 200
        assert world.get(f"/v2/app/blobs/{blob}").status in {200, 307}
        assert world.get(path("app", "absent")).status == 404
        assert world.get(path("app", f"sha256-{'0' * 64}.sig")).status == 404, "passed through, and not there"
        world.registry.fault("*", Status(503))
        assert world.get(path("app", "3")).status == 503, "what the upstream does not serve is no flood"


def test_behind_one_proxy_the_address_that_it_added_is_limited(tmp_path: Path) -> None:
    settings = {"TLOGISTRY_NEW_TAGS_PER_CLIENT": "1/9999s", "TLOGISTRY_FORWARDED_HOPS": "1"}
    with limited(tmp_path, **settings) as world:

        def ask(number: int, forwarded: str, **more: str) -> int:
            return world.get(path("app", str(number)), **{FORWARDED: forwarded}, **more).status

        assert ask(0, "198.51.100.1") == 200
        assert ask(1, "203.0.113.1, 198.51.100.1") == 429, "the client chose what is on the left"
        assert ask(1, "198.51.100.1", X_Forwarded_For="203.0.113.2") == 429, "gunicorn drops a name with underscores"
        assert ask(1, "198.51.100.2") == 200
        assert ask(2, "2001:db8:1:2::1") == 200
        assert ask(3, "2001:db8:1:2:ffff::2") == 429, "one /64"
        assert ask(3, "not an address") == 200, "the socket's other end has a limit of its own,"
        assert ask(4, "also not an address") == 429, "which no invented value escapes"
        assert ask(4, "198.51.100.9, ") == 429
        two = (
            f"GET {path('app', '4')} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"
        )
        assert b" 429 " in world.function.raw(two.encode()).split(b"\r\n")[0], "two lines are one list"


def test_the_total_and_the_day_hold_for_all_clients(tmp_path: Path) -> None:
    settings = {
        "TLOGISTRY_FORWARDED_HOPS": "1",
        "TLOGISTRY_NEW_TAGS_TOTAL": "3/9999s",
        "TLOGISTRY_NEW_TAGS_PER_DAY": "2",
    }
    with limited(tmp_path, **settings) as world:
        answers = [world.get(path("app", str(n)), **{FORWARDED: f"198.51.100.{n}"}) for n in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 429, 429]
        assert_refused(answers[2], "at most 2 a day for all clients together")


def test_a_limit_by_domain_that_is_set_holds_for_mapped_registries_each_by_itself(tmp_path: Path) -> None:
    with limited(tmp_path, TLOGISTRY_NEW_TAGS_PER_DOMAIN="2/9999s") as world:
        for number in range(3):
            world.other.push("a/b", str(number), manifest(number), OCI)
        for name in ("app", "other.example/a/b"):
            answers = [world.get(path(name, str(number))) for number in range(3)]
            assert [answer.status for answer in answers] == [200, 200, 429]
            assert_refused(answers[2], "at most 2 in 9999 s for the registries of one domain")


def test_everything_can_be_off(tmp_path: Path) -> None:
    names = ("PER_CLIENT", "PER_DOMAIN", "TOTAL", "PER_DAY")
    with limited(tmp_path, **{f"TLOGISTRY_NEW_TAGS_{name}": "off" for name in names}) as world:
        assert {world.get(path("app", str(number))).status for number in range(20)} == {200}
