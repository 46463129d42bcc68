"""Loops: through another instance, through oneself, and by our own names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lib.devsigstore.server import DevSigstore
from lib.handlers.loop import VIA
from tests.fakes.registry import FakeRegistry, Redirect
from tests.framework import Function
from tests.handlers.test_http import OCI, World, manifest, name, path, world

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["name", "world"]
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "via",
    [
        "1.1 tlogistry",
        "HTTP/1.1 tlogistry",
        "1.1 google, 1.1 tlogistry",
        "1.1 tlogistry (x), 1.1 google",
        "2 Tlogistry,1.1 b",
    ],
)
@pytest.mark.parametrize(
    "asked",
    [
        "/v2/{}/manifests/1.0", f"/v2/{{}}/manifests/{DIGEST}", f"/v2/{{}}/blobs/{DIGEST}", "/v2/{}/tags/list",
        f"/v2/{{}}/referrers/{DIGEST}", "/sightings/{}:1.0",
    ],
)  # fmt: skip
def test_what_came_through_us_already_is_508_and_asks_nobody(world: World, name: str, asked: str, via: str) -> None:
    world.push(name)
    world.registry.forget_requests()
    answer = world.get(asked.format(name), Via=via)
    assert (answer.status, answer.code) == (508, "UNSUPPORTED")
    assert "come through tlogistry already" in answer.message
    assert not world.registry.requests


@pytest.mark.parametrize("asked", ["/v2/", "/livez", "/readyz"])
def test_what_asks_no_upstream_is_answered_all_the_same(world: World, asked: str) -> None:
    assert world.get(asked, Via="1.1 tlogistry").status == 200


@pytest.mark.parametrize(
    "via", ["1.1 google", "1.1 tlogistry.example", "1.1 x (tlogistry)", "1.1 my-tlogistry", "tlogistry"]
)
def test_other_proxies_are_none_of_our_business(world: World, name: str, via: str) -> None:
    world.push(name)
    assert world.get(path(name), Via=via).status == 200


def test_a_via_that_a_client_made_long_takes_no_time_to_read() -> None:
    """No form of the header makes the pattern look at it more than a few times."""
    for text in ("1.1 " * 16_000, "," * 64_000, "1.1 tlogistr, " * 4000, " \t" * 32_000, "a/" * 32_000, "a" * 64_000):
        assert VIA.search(text) is None


@pytest.mark.parametrize("host", ["ghcr.io", "GHCR.io:443", "ghcr.io."])
def test_a_registry_called_as_the_client_calls_us_is_refused(world: World, host: str) -> None:
    answer = world.get(path("ghcr.io/a/b"), Host=host)
    assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert "ghcr.io is this service" in answer.message
    assert world.get(f"/v2/ghcr.io/a/b/blobs/{DIGEST}", Host=host).status == 400


def test_a_mapped_registry_may_have_the_name_that_the_client_calls_us_by(world: World, name: str) -> None:
    """The deployer said where it is; clients that are led here by their resolver call us so."""
    world.other.push(f"library/{name}", "1.0", manifest(1), OCI)
    assert world.get(path(f"other.example/library/{name}"), Host="other.example").status == 200


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Function]]:
    """A service with a registry, and another one whose registries are that service and, by mistake, itself."""
    tmp_path = tmp_path_factory.mktemp("pair")
    with DevSigstore(tmp_path) as dev, FakeRegistry() as registry, FakeRegistry() as other:
        fixed = {**dev.environment(), "TLOGISTRY_LOG_FORMAT": "line"}

        def settings(which: str, upstreams: dict[str, str], **more: str) -> dict[str, str]:
            store = f"sqlite:{tmp_path / which}.sqlite"
            return {**fixed, "TLOGISTRY_STORE": store, "TLOGISTRY_UPSTREAMS": json.dumps(upstreams), **more}

        behind = Function(settings("behind", {"docker.io": registry.base_url}))
        with behind:
            own = json.dumps(["tlogistry.localhost:5000", "tags.example.com"])

            def in_front(port: int) -> dict[str, str]:
                mapped = {
                    "behind.example": f"http://127.0.0.1:{behind.port}",
                    "self.example": f"http://127.0.0.1:{port}",
                    "own.example": "http://tlogistry.localhost:5000",
                    "other.example": other.base_url,
                }
                return settings("front", mapped, TLOGISTRY_OWN_HOSTS=own)

            with Function(in_front) as front:
                yield World(registry, other, dev, front), behind


def test_a_loop_through_another_instance_or_oneself_ends_at_its_first_turn(pair: tuple[World, Function]) -> None:
    front, behind = pair
    front.push("app")
    assert behind.ask("GET", path("app")).status == 200
    for registry in ("behind.example", "self.example"):
        answer = front.get(path(f"{registry}/library/app"))
        assert (answer.status, answer.code) == (503, "UNAVAILABLE"), registry
        assert "508" in answer.message
    assert front.get("/v2/self.example/self.example/app/manifests/1.0").status == 503


def test_our_own_names_are_no_registry_and_no_place_to_be_redirected_to(pair: tuple[World, Function]) -> None:
    front, _ = pair
    answer = front.get(path("tags.example.com/a/b"))
    assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert "it is this service itself" in answer.message
    assert front.get(path("own.example/a/b")).status == 400, "not even where it is mapped"
    front.other.push("a/b", "1.0", manifest(1), OCI)
    front.other.fault("*", Redirect("https://tags.example.com/v2/a/b/manifests/1.0"))
    answer = front.get(path("other.example/a/b"))
    assert (answer.status, answer.code) == (503, "UNAVAILABLE")
    assert "it is this service itself" in answer.message
