"""A name server that a stranger runs: it answers each question differently (DNS rebinding), or does not answer at all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from lib.errors import NameInvalid, UpstreamUnavailable
from lib.oci.reference import Tag
from lib.upstream.guard import Refused
from lib.upstream.limits import Limits
from tests.attacks.test_private_addresses import PUBLIC, fake
from tests.fakes.dns import AAAA, A, NameServer
from tests.fakes.registry import Redirect
from tests.upstream.support import ALPINE, ALPINE_PATH, asking, soon

if TYPE_CHECKING:
    from tests.attacks.network import Network
    from tests.fakes.registry import FakeRegistry

__all__ = ["fake"]
TAG = Tag.parse("rebinding.example/a/b:1")
BOTH = [("rebinding.example", A), ("rebinding.example", AAAA)]
INSIDE = ("127.0.0.1", "169.254.169.254", "::1", "::ffff:169.254.169.254", "10.0.0.1", "fd00:ec2::254")


def test_the_first_answer_is_the_one_that_is_checked_and_connected_to(network: Network) -> None:
    """GGCR#2440: public while it is checked, inside by the time of the connection, had there been a second question."""
    with NameServer({"rebinding.example": [PUBLIC, INSIDE]}) as server:
        with (
            asking({}, resolver=server.resolve) as asked,
            pytest.raises(UpstreamUnavailable, match="could not connect"),
        ):
            asked.registries.head(TAG, soon(30))
        assert server.queries == BOTH
    assert network.connected == [(address, 443) for address in PUBLIC]


@pytest.mark.parametrize("inside", INSIDE)
def test_a_name_that_turns_inside_between_two_requests_is_refused_at_the_second(network: Network, inside: str) -> None:
    """GGCR#2440: what was found public a moment ago is no reason to believe it now."""
    with NameServer({"rebinding.example": [PUBLIC, [inside]]}) as server:
        with asking({}, resolver=server.resolve) as asked:
            with pytest.raises(UpstreamUnavailable, match="could not connect"):
                asked.registries.head(TAG, soon(30))
            for _ in range(2):
                with pytest.raises(NameInvalid, match="not public"):
                    asked.registries.head(TAG, soon(30))
        assert server.queries == BOTH * 3
    assert network.connected == [(address, 443) for address in PUBLIC]


@pytest.mark.parametrize("inside", INSIDE)
def test_one_family_that_leads_inside_is_enough_to_refuse_the_name(network: Network, inside: str) -> None:
    """GGCR#2440: A is public and AAAA is not, or the other way round; which one a connection takes is not ours to say."""
    with NameServer({"rebinding.example": [[*PUBLIC, inside]]}) as server, asking({}, resolver=server.resolve) as asked:
        with pytest.raises(NameInvalid, match="not public"):
            asked.registries.head(TAG, soon(30))
    assert network.connected == []


@pytest.mark.parametrize("place", ["realm", "redirect"])
def test_a_realm_and_a_redirect_are_looked_up_afresh(fake: FakeRegistry, network: Network, place: str) -> None:
    """GGCR#2440, GGCR#2291: public at the first request, the metadata server at the second."""
    with NameServer({"auth.rebinding.example": [PUBLIC, ["169.254.169.254"]]}) as server:
        with asking({"docker.io": fake}, resolver=server.resolve) as asked:
            url = "https://auth.rebinding.example/v2/library/alpine/manifests/3.16.0"
            if place == "realm":
                fake.challenge = f'Bearer realm="{url}"'
            else:
                fake.fault(ALPINE_PATH, Redirect(url))
            with pytest.raises(UpstreamUnavailable, match="could not connect"):
                asked.registries.manifest(ALPINE.repository, ALPINE, soon(30))
            with pytest.raises(Refused, match="not public"):
                asked.registries.manifest(ALPINE.repository, ALPINE, soon(30))
        assert len(server.queries) == 4
    assert network.outside == [(address, 443) for address in PUBLIC]
    assert all("authorization" not in seen.headers for seen in fake.requests)


def test_a_name_that_is_not_there_is_connected_to_nowhere(network: Network) -> None:
    with NameServer({}) as server, asking({}, resolver=server.resolve) as asked:
        with pytest.raises(UpstreamUnavailable, match="could not be resolved"):
            asked.registries.head(TAG, soon(30))
    assert network.connected == []


@pytest.mark.parametrize("below", ["a{}.silent.example", "reg.silent{}.example"], ids=["one domain", "many domains"])
def test_silent_name_servers_do_not_stop_connections_to_a_registry_that_was_asked_before(
    network: Network, below: str
) -> None:
    """Each look-up that is abandoned goes on for 10 to 20 s, and there are 64 of them at once."""
    over = threading.Event()

    def resolve(host: str, _port: int) -> list[str]:
        if "silent" in host:
            over.wait(20)
        return list(PUBLIC)

    with asking({}, resolver=resolve, limits=Limits(lookup_s=0.5, lookup_slow_s=0.4, lookups=8)) as asked:
        for turn in range(2):
            with pytest.raises(UpstreamUnavailable, match="could not connect"):
                asked.registries.head(TAG, soon(30))
            for number in range(0 if turn else 12):
                with pytest.raises(UpstreamUnavailable, match=r"not resolved within|is not looked up"):
                    asked.registries.head(Tag.parse(f"{below.format(number)}/a/b:1"), soon(30))
        over.set()
    assert network.connected == [(address, 443) for address in PUBLIC] * 2
