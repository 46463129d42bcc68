"""The table of addresses, and the bounded lookup."""

from __future__ import annotations

import threading
import time
from ipaddress import ip_address, ip_network

import pytest

from lib.errors import DeadlineExceeded, UpstreamUnavailable
from lib.upstream.addresses import SPECIAL_V4, SPECIAL_V6, Lookups, public
from lib.upstream.limits import Limits
from tests.upstream.support import soon

# Every block of the two IANA registries as of 2025-10, and what else is no unicast address of the public internet.
REFUSED = (
    "0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/32", "192.0.0.171/32",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16",
    "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "255.255.255.255/32",
    "::1/128", "::/128", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64",
    "100:0:0:1::/64", "2001::/23", "2001::/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48",
    "2001:3::/32", "2001:4:112::/48", "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "2002::/16",
    "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "128.0.0.0", "169.253.255.255",
    "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255",
    "2000::1", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700::1111", "2a00:1450::1", "3fff:1000::1",
)  # fmt: skip
# What a metadata server, or loopback, can be called. Nothing inside an embedding form is judged: the form is refused.
METADATA = (
    "169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe", "::a9fe:a9fe", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:5601:5601", "::ffff:0:a9fe:a9fe", "fe80::1%eth0", "2606:4700::1%eth0", "0.0.0.0", "::",
    "127.0.0.53", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
)  # fmt: skip


@pytest.mark.parametrize("block", REFUSED)
def test_no_address_of_a_special_block_is_public(block: str) -> None:
    """GGCR#2284: a check of some blocks was passed by 0.0.0.0 and ::."""
    network = ip_network(block)
    middle = network.network_address + network.num_addresses // 2
    for address in (network.network_address, middle, network.broadcast_address):
        assert not public(address)


@pytest.mark.parametrize("text", PUBLIC)
def test_an_ordinary_address_is_public(text: str) -> None:
    assert public(ip_address(text))


@pytest.mark.parametrize("text", METADATA)
def test_no_form_of_a_metadata_or_loopback_address_is_public(text: str) -> None:
    assert not public(ip_address(text))


@pytest.mark.parametrize("block", [*SPECIAL_V4, *SPECIAL_V6], ids=str)
def test_every_entry_of_our_table_is_one_of_the_registries(block: object) -> None:
    assert str(block) in REFUSED


def test_a_lookup_gives_every_address_once_and_in_order() -> None:
    answers = ["2606:4700::1111", "1.1.1.1", "2606:4700::1111"]
    found = Lookups(lambda _host, _port: answers, Limits()).addresses("reg.example", 443, soon())
    assert [str(address) for address in found] == ["2606:4700::1111", "1.1.1.1"]


@pytest.mark.parametrize("error", [OSError("no such name"), UnicodeError("label too long")], ids=repr)
def test_a_name_that_cannot_be_resolved_is_unavailable(error: Exception) -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise error

    with pytest.raises(UpstreamUnavailable, match=r"reg\.example could not be resolved"):
        Lookups(resolve, Limits()).addresses("reg.example", 443, soon())


def test_a_name_without_addresses_is_unavailable() -> None:
    with pytest.raises(UpstreamUnavailable, match="could not be resolved"):
        Lookups(lambda _host, _port: [], Limits()).addresses("reg.example", 443, soon())


def test_an_address_is_not_looked_up() -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise AssertionError

    found = Lookups(resolve, Limits()).addresses("127.0.0.1", 443, soon())
    assert [str(address) for address in found] == ["127.0.0.1"]


def test_a_silent_name_server_costs_the_lookup_limit_and_no_more() -> None:
    over = threading.Event()
    lookups = Lookups(lambda _host, _port: ["1.1.1.1"] if over.wait(10) else [], Limits(lookup_s=0.2))
    started = time.monotonic()
    with pytest.raises(UpstreamUnavailable, match="not resolved within"):
        lookups.addresses("reg.example", 443, soon())
    assert time.monotonic() - started < 5
    over.set()


def test_a_silent_name_server_holds_no_more_than_the_deadline() -> None:
    over = threading.Event()
    lookups = Lookups(lambda _host, _port: ["1.1.1.1"] if over.wait(10) else [], Limits())
    with pytest.raises(DeadlineExceeded):
        lookups.addresses("reg.example", 443, soon(0.2))
    over.set()


def test_abandoned_lookups_of_one_name_do_not_use_up_the_lookups_of_others() -> None:
    over = threading.Event()

    def resolve(host: str, _port: int) -> list[str]:
        if host == "silent.example":
            over.wait(10)
        return ["1.1.1.1"]

    lookups = Lookups(resolve, Limits(lookup_s=0.05, lookups=3, lookups_per_name=2))
    for _ in range(6):
        with pytest.raises(UpstreamUnavailable):
            lookups.addresses("silent.example", 443, soon())
    assert lookups.addresses("reg.example", 443, soon())
    over.set()
    time.sleep(0.05)
    assert lookups.addresses("silent.example", 443, soon())
