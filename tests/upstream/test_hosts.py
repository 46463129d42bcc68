"""What the deployer says about hosts: our own names, allowed and denied registries. And proxies, which nobody asked for."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from lib.config import BaseUrl, RegistryPattern
from lib.errors import NameInvalid
from lib.oci.manifest import OCI_MANIFEST
from lib.oci.reference import canonical_registry
from lib.upstream.addresses import Lookups, of_this_machine
from lib.upstream.connection import Dialer
from lib.upstream.guard import Guard, Hosts, Refused
from lib.upstream.limits import Limits
from tests.fakes.registry import FakeRegistry, Redirect
from tests.framework import Function
from tests.handlers.test_http import manifest, path
from tests.upstream.support import names, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore


def patterns(*texts: str) -> tuple[RegistryPattern, ...]:
    return tuple(RegistryPattern.parse(text) for text in texts)


def origin(text: str) -> BaseUrl:
    return BaseUrl.parse(text)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("denied", "spellings"),
    [
        ("ghcr.io", ["ghcr.io", "GHCR.io", "ghcr.io:443", "ghcr.io."]),
        ("docker.io", ["docker.io", "index.docker.io", "registry-1.docker.io", "Registry-1.Docker.IO:443"]),
        ("*.example.com", ["a.example.com", "a.b.example.com", "A.EXAMPLE.com.", "a.example.com:5000"]),
        ("reg.example:5000", ["reg.example:5000", "REG.example.:5000"]),
    ],
)
def test_no_spelling_of_a_denied_registry_is_served(denied: str, spellings: list[str]) -> None:
    hosts = Hosts(deny=patterns(denied), allow=patterns("*.com", "*.io", "docker.io", "reg.example:5000"))
    for spelling in spellings:
        with pytest.raises(NameInvalid, match="the operator denies it"):
            hosts.check_registry(canonical_registry(spelling))


def test_a_denied_domain_is_not_its_parent_and_no_name_that_ends_alike() -> None:
    hosts = Hosts(deny=patterns("*.example.com", "evil.org"))
    for name in ("example.com", "badexample.com", "a.example.com.evil.net", "good.evil.org"):
        hosts.check_registry(name)
        hosts.check_origin(origin(f"https://{name}"))


def test_where_some_are_allowed_no_other_registry_is_served() -> None:
    hosts = Hosts(allow=patterns("docker.io", "*.example.com"), deny=patterns("evil.example.com"))
    for name in ("docker.io", "a.example.com"):
        hosts.check_registry(name)
    for name in ("ghcr.io", "example.com", "evil.example.com", "docker.io.evil.net", "registry.evil.net"):
        with pytest.raises(NameInvalid, match=f"{name} is not served here"):
            hosts.check_registry(name)


def test_deny_holds_for_every_host_and_over_a_mapping_and_allow_for_the_registry_only() -> None:
    mapped = frozenset({origin("http://127.0.0.1:5000"), origin("http://mirror.corp:80")})
    guard = Guard(
        mapped, Hosts(allow=patterns("ghcr.io"), deny=patterns("evil.example", "mirror.corp:80", "docker.io"))
    )
    guard.check(origin("https://storage.example"))
    guard.check(origin("http://127.0.0.1:5000"))
    for url in (
        "https://evil.example",
        "http://mirror.corp:80",
        "https://registry-1.docker.io",
        "https://index.docker.io",
    ):
        with pytest.raises(Refused, match="the operator denies it"):
            guard.check(origin(url))


def test_our_own_names_are_refused_before_a_mapping_is_looked_at() -> None:
    mapped = frozenset({origin("http://tags.example:8080")})
    guard = Guard(mapped, Hosts(own=frozenset({"tags.example:8080", "tags.example"})))
    for url in ("http://tags.example:8080", "https://tags.example", "https://TAGS.example:443"):
        with pytest.raises(Refused, match="it is this service itself"):
            guard.check(origin(url))


# --- addresses --------------------------------------------------------------------------------------------------------


def own_addresses() -> set[str]:
    """Of this machine, without loopback where it has others."""
    found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, family=socket.AF_INET)}
    return {"127.0.0.1", *found}


def test_the_machines_addresses_are_known_and_no_others_are_taken_for_them() -> None:
    for text in own_addresses():
        assert of_this_machine(ip_address(text)), text
    for text in ("8.8.8.8", "2001:4860:4860::8888", "0.0.0.0", "255.255.255.255", "198.51.100.1", "::"):
        assert not of_this_machine(ip_address(text)), text


def test_a_name_that_leads_to_a_public_address_of_this_machine_is_not_connected_to() -> None:
    asked = []

    def ours(address: object) -> bool:
        asked.append(str(address))
        return str(address) == "8.8.4.4"

    dialer = Dialer(Lookups(names({"self.example": ["8.8.8.8", "8.8.4.4"]}), Limits()), Limits(), ours)
    with pytest.raises(Refused, match="leads back to this machine"):
        dialer.dial(origin("https://self.example"), soon(), vouched=False)
    assert asked == ["8.8.8.8", "8.8.4.4"], "one of several is enough"


# --- over HTTP --------------------------------------------------------------------------------------------------------


@contextmanager
def trap() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that must not be used: its address, and what was sent to it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                with sock:
                    heard.append(sock.recv(100))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_lists_and_proxies_of_the_environment_in_a_whole_service(dev: DevSigstore, tmp_path: Path) -> None:
    """Neither registry nor token service, log, certificate authority or metadata server is asked through a proxy."""
    with FakeRegistry(token_field="token") as registry, FakeRegistry() as other, trap() as (proxy, heard):
        variables = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy)
        settings = {
            **dev.environment(),
            **variables,
            **{name.upper(): value for name, value in variables.items()},
            "TLOGISTRY_STORE": f"sqlite:{tmp_path / 'store.sqlite'}",
            "TLOGISTRY_LOG_FORMAT": "line",
            "TLOGISTRY_UPSTREAMS": json.dumps(
                {
                    "docker.io": registry.base_url,
                    "token.example": registry.token_url.removesuffix("/token"),
                    "denied.example": other.base_url,
                    "unlisted.test": other.base_url,
                }
            ),
            "TLOGISTRY_ALLOW_UPSTREAMS": '["docker.io", "*.example"]',
            "TLOGISTRY_DENY_UPSTREAMS": '["denied.example", "storage.example"]',
        }
        registry.push("library/app", "1.0", manifest(1), OCI_MANIFEST)
        blob = registry.push_blob("library/app", b"blob")
        for fake in (registry, other):
            fake.push("a/b", "1.0", manifest(2), OCI_MANIFEST)
        with Function(settings) as function:
            first = function.ask("GET", path("app"))
            assert (first.status, first.headers.get("tlog-first-seen")) == (200, "true")
            assert registry.token_requests
            for name in ("denied.example", "unlisted.test"):
                for asked in (path(f"{name}/a/b"), f"/v2/{name}/a/b/blobs/{blob}", f"/v2/{name}/a/b/tags/list"):
                    answer = function.ask("GET", asked)
                    assert (answer.status, answer.code) == (400, "NAME_INVALID"), asked
                    assert f"{name} is not served here" in answer.message
            assert not other.requests
            registry.fault("*/a/b/*", Redirect("https://storage.example/x"))
            answer = function.ask("GET", path("a/b"))
            assert (answer.status, answer.code) == (503, "UNAVAILABLE")
            assert "the operator denies it" in answer.message
            registry.heal()
            registry.fault("*/blobs/*", Redirect("https://storage.example/x"))
            answer = function.ask("GET", f"/v2/app/blobs/{blob}")
            assert answer.status == 503, "a client is not sent there either"
            assert function.ask("GET", "https://unknown.invalid/v2/").status == 200
        assert not heard
