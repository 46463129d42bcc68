"""The table of addresses, and the bounded look-up."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Self

import pytest

from lib.deadline import Deadline
from lib.errors import DeadlineExceeded, UpstreamUnavailable
from lib.upstream.addresses import PLATFORM_V4, SPECIAL_V4, SPECIAL_V6, Lookups, public
from lib.upstream.limits import Limits
from tests.upstream.support import soon

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def test_azures_platform_address_is_not_public_and_its_neighbours_are() -> None:
    """168.63.129.16 is a global address by the registries, and answers on every machine of Azure as 169.254.169.254 does."""
    assert [str(block) for block in PLATFORM_V4] == ["168.63.129.16/32"]
    for text in ("168.63.129.16", "::ffff:168.63.129.16"):
        assert not public(ip_address(text))
    for text in ("168.63.129.15", "168.63.129.17"):
        assert public(ip_address(text))


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


# --- silent name servers ----------------------------------------------------------------------------------------------


class Names:
    """Look-ups with a resolver that answers at once, but for names in or below `silent`, until the silence is over.

    `now` is the clock: a look-up that hangs is as old as the test says.
    """

    def __init__(self, limits: Limits | None = None, known: Iterable[str] = ()) -> None:
        self.silent: set[str] = set()
        self.now = 0.0
        self._lookups = Lookups(self._resolve, limits if limits is not None else Limits(), known)
        self._over = threading.Event()
        self._hanging = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.speak()

    def ask(self, host: str) -> None:
        """Raises UpstreamUnavailable."""
        assert self._lookups.addresses(host, 443, Deadline.after(60.0, lambda: self.now))

    def hang(self, *hosts: str) -> None:
        """A look-up of each that gets no answer, and is slow by the end."""
        self.silent |= set(hosts)
        for host in hosts:
            self._threads.append(threading.Thread(target=self._try, args=(host,)))
            self._threads[-1].start()
            assert self._hanging.acquire(timeout=10), f"{host} is not looked up"
        self.now += 2.0

    def speak(self) -> None:
        """All that hang are answered, late."""
        self.silent = set()
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._over = threading.Event()

    def refused(self, host: str) -> None:
        """At once: the clock of the test stands still."""
        started = time.monotonic()
        with pytest.raises(UpstreamUnavailable, match=f"{host} is not looked up: too many look-ups get no answer"):
            self.ask(host)
        assert time.monotonic() - started < 2

    def _try(self, host: str) -> None:
        with suppress(UpstreamUnavailable):
            self.ask(host)

    def _resolve(self, host: str, _port: int) -> list[str]:
        if any(f".{host}".endswith(f".{name}") for name in self.silent):
            self._hanging.release()
            self._over.wait(20)
        return ["1.1.1.1"]


def silent_domains(count: int) -> list[str]:
    return [f"r.silent{number}.example" for number in range(count)]


def test_abandoned_lookups_of_one_name_do_not_use_up_the_lookups_of_others() -> None:
    with Names() as names:
        for host in ("one.silent.example", "silent.example"):
            names.ask(host)
        names.hang(*["silent.example"] * 4)
        names.refused("silent.example")
        names.ask("reg.example")
        names.speak()
        names.ask("silent.example")


def test_a_silent_name_server_does_not_use_up_the_lookups_of_others_with_names_below_its_domain() -> None:
    """Names below a domain are free: forty loops over `a1-1.silent.example`, … stopped connections to every registry."""
    with Names() as names:
        names.hang(*[f"a{number}.silent.example" for number in range(4)])
        for number in range(80):
            names.refused(f"b{number}.silent.example")
        names.ask("reg.good.example")
        names.ask("fresh.example")


def test_any_number_of_silent_domains_leave_lookups_for_names_that_resolved_before() -> None:
    with Names() as names:
        names.ask("reg.good.example")
        names.hang(*silent_domains(32))
        names.refused("fresh.example")
        names.ask("reg.good.example")
        names.refused("other.good.example")
        names.hang(*["reg.good.example"] * 4)  # all of what one name may take is still there
        names.speak()
        names.ask("fresh.example")


def test_a_silent_zone_below_a_domain_leaves_lookups_for_its_names_that_resolved_before() -> None:
    """A limit by domain must not be a stranger's way to one registry: big domains have zones whose servers are gone."""
    with Names() as names:
        names.ask("reg.big.example")
        names.hang(*[f"a{number}.lame.big.example" for number in range(4)])
        names.refused("a5.lame.big.example")
        for _ in range(3):
            names.ask("reg.big.example")
        names.hang("a.silent.example", *["reg.big.example"] * 4)
        names.refused("reg.big.example")


def test_a_domain_that_resolved_and_is_silent_then_takes_what_is_kept_once() -> None:
    hosts = ["a.turns.example", "b.turns.example"] * 4
    with Names(Limits(lookups=16)) as names:  # 8 for unknown names
        for host in ("reg.good.example", *hosts):
            names.ask(host)
        names.hang(*hosts)
        names.refused("fresh.example")  # those who are silent are counted as unknown
        names.ask("reg.good.example")
        names.speak()
        names.hang(*silent_domains(7))
        for _ in range(3):
            for host in hosts:  # it resolves again, and quickly
                names.ask(host)
        names.hang("a.turns.example")
        names.refused("b.turns.example")
        names.ask("reg.good.example")
        names.speak()
        names.now += Limits().lookup_fallen_s
        names.ask("a.turns.example")
        names.hang(*silent_domains(8))
        names.ask("a.turns.example")


def test_a_name_server_that_answers_late_every_time_gains_nothing() -> None:
    """Just before the time is over, so that nobody gives a look-up up: that would be as good as silence."""
    with Names() as names:
        for _ in range(2):
            names.hang("reg.late.example")
            names.speak()
        names.hang(*silent_domains(32))
        names.refused("reg.late.example")


def test_one_slow_lookup_is_no_sign_of_silence() -> None:
    """A packet that was lost, or a request that was nearly out of time."""
    with Names() as names:
        names.ask("reg.good.example")
        names.hang("reg.good.example")
        names.speak()
        names.hang(*silent_domains(32))
        names.ask("reg.good.example")


def test_names_that_are_not_there_change_nothing() -> None:
    def resolve(host: str, _port: int) -> list[str]:
        raise OSError(host)

    lookups = Lookups(resolve, Limits())
    for number in range(200):
        with pytest.raises(UpstreamUnavailable, match="could not be resolved"):
            lookups.addresses(f"a{number}.example.com", 443, soon())


def test_domains_that_are_known_to_begin_with_may_take_what_is_kept() -> None:
    with Names(known=["good.example"]) as names:
        names.hang(*silent_domains(32))
        names.refused("fresh.example")
        names.ask("reg.good.example")
        names.hang(*[f"a{number}.lame.good.example" for number in range(4)])
        names.refused("b.lame.good.example")
        names.ask("reg.good.example")


@pytest.mark.parametrize("limits", [Limits(lookup_domains=2), Limits(lookup_names=2)], ids=["domains", "names"])
def test_the_name_that_was_not_used_for_the_longest_time_is_forgotten_first(limits: Limits) -> None:
    below = "{}.good.example" if limits.lookup_names == 2 else "reg.{}.example"
    first, second, third = (below.format(name) for name in ("first", "second", "third"))
    with Names(limits) as names:
        for host in (first, second, first, third):
            names.ask(host)
        names.hang(*silent_domains(32))
        names.ask(first)
        names.ask(third)
        names.refused(second)


def test_a_burst_waits_for_its_turn_as_long_as_the_lookups_before_it_are_answered() -> None:
    """As many as a registry has places ask for one name at once, and four are looked up at a time."""
    inside: list[int] = []
    most: list[int] = []

    def resolve(_host: str, _port: int) -> list[str]:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return ["1.1.1.1"]

    lookups = Lookups(resolve, Limits(lookup_slow_s=5.0))
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(lookups.addresses("reg.example", 443, soon(30))))
        for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 32
    assert max(most) <= 4


def test_who_waits_for_a_place_has_no_more_time_than_a_lookup() -> None:
    over = threading.Event()
    lookups = Lookups(
        lambda _host, _port: ["1.1.1.1"] if over.wait(10) else [], Limits(lookup_s=0.1, lookups_per_name=1)
    )
    for match in ("not resolved within", "not resolved within"):  # the second has no place
        with pytest.raises(UpstreamUnavailable, match=match):
            lookups.addresses("reg.example", 443, soon())
    over.set()
