"""Requests that a stranger would have us make to the inside: metadata servers, loopback, private networks.

Four places name a host that we might connect to: the path of a request, the realm of a challenge, the redirect of a
manifest, the redirect of a blob. Each is tried with every spelling of an address, and with names that lead to one. In all of
them nothing is connected to but the registry that says so, which is the deployer's own.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from lib.config import BaseUrl
from lib.errors import InputInvalid, NameInvalid, TlogistryError, UpstreamUnavailable
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.upstream.addresses import Lookups
from lib.upstream.connection import Dialer
from lib.upstream.guard import Refused
from lib.upstream.limits import Limits
from tests.fakes.registry import Drop, FakeRegistry, Redirect, image
from tests.upstream.support import ALPINE, ALPINE_PATH, TYPE, asking, names, soon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.attacks.network import Network
    from tests.handlers.test_http import World
    from tests.upstream.support import Asking

DIGEST = Digest.of(b"blob")
BLOB_PATH = f"/v2/library/alpine/blobs/{DIGEST}"

# The metadata servers of the clouds and this machine itself, as somebody might write them to get past a filter.
HOSTS = (
    "169.254.169.254", "169.254.169.254.", "169.254.169.254:443", "169.254.169.254:80",
    "2852039166", "0xa9fea9fe", "0xA9FEA9FE", "025177524776", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe",
    "169.254.43518", "169.16689662", "0xa9.254.0251.254", "169.254.169.0xfe",
    "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:a9fe:a9fe]", "[::a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[fd00:ec2::254]", "[fe80::1%25eth0]",
    "metadata", "metadata:443", "metadata.google.internal", "metadata.google.internal.", "METADATA.Google.Internal",
    "instance-data.ec2.internal", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254",
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.1", "0x7f.1", "2130706433", "0177.0.0.1",
    "0", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "printer.local",
)  # fmt: skip

# What a name may lead to and must not: one of each kind. `tests/upstream/test_addresses.py` has every block.
INSIDE = {
    "unspecified": "0.0.0.0",
    "unspecified v6": "::",
    "loopback": "127.0.0.1",
    "loopback v6": "::1",
    "private": "10.0.0.1",
    "metadata": "169.254.169.254",
    "Alibaba's metadata, in CGNAT": "100.100.100.200",
    "Oracle's metadata": "192.0.0.192",
    "AWS's metadata, ULA": "fd00:ec2::254",
    "mapped": "::ffff:169.254.169.254",
    "compatible": "::a9fe:a9fe",
    "NAT64": "64:ff9b::a9fe:a9fe",
    "local NAT64": "64:ff9b:1::a9fe:a9fe",
    "6to4": "2002:a9fe:a9fe::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:5601:5601",
    "link local v6": "fe80::a9fe:a9fe",
    "site local": "fec0::1",
    "multicast": "224.0.0.1",
    "multicast v6": "ff02::1",
    "broadcast": "255.255.255.255",
}
PUBLIC = ("93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def _realm(fake: FakeRegistry, asked: Asking, url: str) -> None:
    fake.challenge = f'Bearer realm="{url}",service="x"'
    asked.registries.manifest(ALPINE.repository, ALPINE, soon())


def _manifest(fake: FakeRegistry, asked: Asking, url: str) -> None:
    fake.fault(ALPINE_PATH, Redirect(url))
    asked.registries.manifest(ALPINE.repository, ALPINE, soon())


def _blob(fake: FakeRegistry, asked: Asking, url: str) -> None:
    fake.fault(BLOB_PATH, Redirect(url))
    asked.registries.blob(ALPINE.repository, DIGEST, head=False, range_=None, if_range=None, deadline=soon())


PLACES: dict[str, tuple[Callable[[FakeRegistry, Asking, str], None], str]] = {
    "realm": (_realm, "/computeMetadata/v1/instance/service-accounts/default/token"),
    "manifest redirect": (_manifest, "/computeMetadata/v1/"),
    "blob redirect": (_blob, "/latest/meta-data/"),  # would be handed to the client
    "blob redirect inside": (_blob, "/v2/x/blobs/latest"),  # would be followed
}


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry(token_field="token") as registry:
        registry.push("library/alpine", "3.16.0", image("a"), TYPE)
        yield registry


def assert_only_the_registry(network: Network, fake: FakeRegistry) -> None:
    """Nothing but the registry was connected to, and nobody was told a name."""
    assert network.outside == []
    assert {port for _, port in network.connected} <= {fake.port, _token_port(fake)}
    assert [name for name in network.looked_up if name != "127.0.0.1"] == []


def _token_port(fake: FakeRegistry) -> int:
    return BaseUrl.parse(fake.token_url.removesuffix("/token")).port


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("host", HOSTS)
def test_no_spelling_of_an_inner_address_is_asked(fake: FakeRegistry, network: Network, host: str, place: str) -> None:
    """GGCR#2243, GGCR#2284, google/kf#1108, CVE-2026-33540, CVE-2026-48978, GHSA-28r5-37g7-p6mp, GHSA-x2f5-332j-9xwq."""
    attack, path = PLACES[place]
    for scheme in ("http", "https"):
        with asking({"docker.io": fake}) as asked, pytest.raises(UpstreamUnavailable):
            attack(fake, asked, f"{scheme}://{host}{path}")
    assert fake.token_requests == []
    assert_only_the_registry(network, fake)


@pytest.mark.parametrize("host", HOSTS)
def test_no_spelling_of_an_inner_address_is_a_registry(network: Network, host: str) -> None:
    """CVE-2026-32591, CVE-2026-0600, CVE-2022-27907, CVE-2020-13788: the upstream's host is a stranger's choice."""
    if not {".", ":"} & set(host) and host.lower() != "localhost":
        host += ":443"  # else it is no host, but a repository of Docker Hub
    with asking({}) as asked, pytest.raises(InputInvalid):
        asked.registries.head(Tag.parse(f"{host}/computemetadata/v1:latest"), soon())
    assert (network.connected, network.looked_up) == ([], [])


@pytest.mark.parametrize("host", HOSTS)
def test_no_spelling_of_an_inner_address_in_a_path_gets_anywhere(world: World, host: str) -> None:
    """The same over HTTP, where percent-encoding and the web server's decoding are part of the road."""
    calls, asked = dict(world.dev.calls), world.registry.count() + world.other.count()
    port = "" if {".", ":"} & set(host) or host.lower() == "localhost" else ":443"
    for spelling in (f"{host}{port}", f"{host}{port}".replace(".", "%2e"), f"{host}{port}".replace(":", "%3A")):
        for rest in ("computemetadata/v1/manifests/latest", f"x/blobs/{DIGEST}"):
            answer = world.get(f"/v2/{spelling}/{rest}")
            assert (answer.status, answer.code) in {(400, "NAME_INVALID"), (404, "NAME_UNKNOWN")}
    assert dict(world.dev.calls) == calls
    assert world.registry.count() + world.other.count() == asked


@pytest.mark.parametrize("name", ["metadata", "2852039166", "0xa9fea9fe", "instance-data"])
def test_a_host_without_a_dot_is_a_repository_of_docker_hub_and_no_host(world: World, name: str) -> None:
    assert world.get(f"/v2/{name}/latest/manifests/v1").code == "MANIFEST_UNKNOWN"
    assert world.registry.requests[-1].path == f"/v2/{name}/latest/manifests/v1"


DOWNGRADES = (
    "http://auth.example/token", "http://auth.example:443/token", "https://auth.example:8443/token",
    "https://user:password@auth.example/token", "https://user@auth.example/token",
    "https://auth.example@169.254.169.254/token", "https://169.254.169.254#@auth.example/token",
    "https://auth.example\\@169.254.169.254/token", "https:/auth.example/token", "ftp://auth.example/token",
    "file:///var/run/secrets/token", "gopher://169.254.169.254:80/_GET%20/", "data:application/json,{}",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("url", DOWNGRADES)
def test_only_https_without_userinfo_on_its_own_port_is_asked(
    fake: FakeRegistry, network: Network, url: str, place: str
) -> None:
    """GGCR#2243: the downgrade to http, and userinfo. The name itself is a public one."""
    resolver = names({"auth.example": [PUBLIC[0]]})
    with asking({"docker.io": fake}, resolver=resolver) as asked, pytest.raises(UpstreamUnavailable):
        PLACES[place][0](fake, asked, url)
    assert_only_the_registry(network, fake)


@pytest.mark.parametrize("realm", ["", "token", "/token", "//auth.example/token", "?x", "."])
def test_a_realm_is_not_relative(fake: FakeRegistry, network: Network, realm: str) -> None:
    """GGCR#2243: a realm is no redirect; what it might be relative to is not guessed."""
    with asking({"docker.io": fake}) as asked, pytest.raises(TlogistryError):
        _realm(fake, asked, realm)
    assert fake.token_requests == []
    assert_only_the_registry(network, fake)


# --- names that lead inside -------------------------------------------------------------------------------------------


def _path(fake: FakeRegistry, asked: Asking, url: str) -> None:
    del fake, url
    asked.registries.manifest(Tag.parse("inside.example/a/b:1").repository, DIGEST, soon())


BY_NAME = {**PLACES, "path": (_path, "")}
del BY_NAME["blob redirect"]  # handed out, not looked up: tests/upstream/test_blob.py


@pytest.mark.parametrize("among", ["alone", "between"])
@pytest.mark.parametrize("kind", INSIDE)
@pytest.mark.parametrize("place", BY_NAME)
def test_a_name_that_leads_inside_is_not_connected_to(
    fake: FakeRegistry, network: Network, place: str, kind: str, among: str
) -> None:
    """GGCR#2440, CVE-2026-32591: a check of what is written is not a check of what is connected to."""
    first, last = PUBLIC
    addresses = [INSIDE[kind]] if among == "alone" else [first, INSIDE[kind], last]
    attack, path = BY_NAME[place]
    refused = NameInvalid if place == "path" else Refused
    with asking({"docker.io": fake}, resolver=names({"inside.example": addresses})) as asked:
        with pytest.raises(refused, match="not public"):
            attack(fake, asked, f"https://inside.example{path}")
    assert_only_the_registry(network, fake)


def test_a_public_name_is_looked_up_once_and_connected_to_at_exactly_those_addresses(network: Network) -> None:
    """GGCR#2440, DNS rebinding: a second look-up, with another answer, never happens."""
    answers = iter([list(PUBLIC), ["127.0.0.1"], ["169.254.169.254"]])
    asked_for: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        asked_for.append(host)
        return next(answers)

    with asking({}, resolver=resolve) as asked, pytest.raises(UpstreamUnavailable, match="could not connect"):
        asked.registries.head(Tag.parse("rebinding.example/a/b:1"), soon())
    assert asked_for == ["rebinding.example"]
    assert network.connected == [(address, 443) for address in PUBLIC]
    assert network.looked_up == []


def test_each_connection_is_a_look_up_of_its_own_that_is_checked(network: Network) -> None:
    """DNS rebinding between two requests: a name that was public a moment ago is checked afresh."""
    answers = iter([[PUBLIC[0]], ["169.254.169.254"]])
    with asking({}, resolver=lambda _host, _port: next(answers)) as asked:
        tag = Tag.parse("rebinding.example/a/b:1")
        with pytest.raises(UpstreamUnavailable, match="could not connect"):
            asked.registries.head(tag, soon())
        with pytest.raises(NameInvalid, match="not public"):
            asked.registries.head(tag, soon())
    assert network.connected == [(PUBLIC[0], 443)]


def test_a_kept_connection_needs_no_look_up_and_a_new_one_makes_exactly_one() -> None:
    """DNS rebinding: the address of a connection cannot change, so only making one asks for it."""
    looked_up: Counter[str] = Counter()

    def resolve(host: str, _port: int) -> list[str]:
        looked_up[host] += 1
        return ["127.0.0.1"]

    with FakeRegistry() as fake:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        with asking({"docker.io": f"http://reg.example:{fake.port}"}, resolver=resolve) as asked:
            for _ in range(3):
                asked.registries.head(ALPINE, soon())
            assert looked_up == {"reg.example": 1}
            fake.fault(ALPINE_PATH, Drop(), times=1)  # the kept connection dies
            asked.registries.head(ALPINE, soon())
            assert looked_up == {"reg.example": 2}
        assert {seen.connection for seen in fake.requests} == {1, 2}


def test_a_mapped_mirror_is_not_reachable_for_a_strangers_registry(network: Network) -> None:
    """A mapping vouches for the mapped registry alone: a stranger's name for the same address is judged like any other."""
    with FakeRegistry() as mirror:
        limits = Limits()
        resolver = names({"mirror.example": ["127.0.0.1"]})
        with asking({"mirror.example": f"http://mirror.example:{mirror.port}"}, resolver=resolver) as asked:
            for text in (f"mirror.example:{mirror.port}/a:1", "other.example/a:1", f"127.0.0.1:{mirror.port}/a:1"):
                with pytest.raises((NameInvalid, UpstreamUnavailable)):
                    asked.registries.head(Tag.parse(text), soon())
        with pytest.raises(Refused, match="not public"):
            Dialer(Lookups(resolver, limits), limits).dial(
                BaseUrl("https", "mirror.example", mirror.port), soon(), vouched=False
            )
        assert mirror.count() == 0
        twin = {"mapped.example": f"https://twin.example:{mirror.port}"}  # the very origin that a stranger names
        with asking(twin, resolver=names({"twin.example": ["127.0.0.1"]})) as asked, pytest.raises(NameInvalid):
            asked.registries.head(Tag.parse(f"twin.example:{mirror.port}/a:1"), soon())
    assert network.connected == []


def test_one_mapped_registry_does_not_lead_to_another(network: Network) -> None:
    """What the deployer says of one registry says nothing of the next: a mirror outside must not reach one inside."""
    with FakeRegistry(token_field="token") as mirror, FakeRegistry() as inner, FakeRegistry() as open_mirror:
        secret = inner.push("library/alpine", "3.16.0", image("secret"), TYPE)
        blob = Digest.parse(inner.push_blob("library/alpine", b"secret"))
        inside = f"http://inner.example:{inner.port}"
        mirror.challenge = f'Bearer realm="{inside}/token"'
        open_mirror.fault("*", Redirect(f"{inside}{ALPINE_PATH}"))
        mapping = {
            "mirror.example": f"http://outer.example:{mirror.port}",
            "open.example": f"http://open.example:{open_mirror.port}",
            "inner.example": inside,
        }
        resolver = names({name: ["127.0.0.1"] for name in ("outer.example", "open.example", "inner.example")})
        with asking(mapping, resolver=resolver) as asked:
            assert str(asked.registries.head(Tag.parse("inner.example/library/alpine:3.16.0"), soon()).digest) == secret
            inner.forget_requests()
            for registry in ("mirror.example", "open.example"):
                tag = Tag.parse(f"{registry}/library/alpine:3.16.0")
                with pytest.raises(Refused):
                    asked.registries.manifest(tag.repository, tag, soon())
                with pytest.raises(Refused):
                    asked.registries.blob(tag.repository, blob, head=False, range_=None, if_range=None, deadline=soon())
        assert inner.count() == 0
    assert {port for _, port in network.connected} == {mirror.port, inner.port, open_mirror.port}


def test_a_token_service_that_redirects_is_not_followed(network: Network) -> None:
    """GGCR#2291: inside, or anywhere else, even to a token service that would give a token."""
    with FakeRegistry(token_field="token") as fake, FakeRegistry(token_field="token") as other:
        fake.push("library/alpine", "3.16.0", image("a"), TYPE)
        for location in ("http://169.254.169.254/computeMetadata/v1/", "https://auth.example/token", other.token_url):
            fake.fault("/token", Redirect(location))
            with asking({"docker.io": fake, "other.example": other}) as asked:
                with pytest.raises(UpstreamUnavailable, match=r"token service .* answered 307"):
                    asked.registries.head(ALPINE, soon())
        assert (len(fake.token_requests), other.token_requests) == (3, [])
        assert_only_the_registry(network, fake)
