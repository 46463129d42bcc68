"""How many tags may be recorded, for whom, and who is counted as whom."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lib.config import Rate
from lib.domain import registered_domain
from lib.errors import LogUnavailable, TooManyNew
from lib.flood import ADMITTED, SHARED, Buckets, Flood, FloodLimits
from lib.oci.digest import Digest
from lib.oci.reference import Tag
from lib.peer import UNKNOWN, client
from lib.recorder import Same
from tests.clock import Clock
from tests.seams import Gate
from tests.sigstore import Parts, digests_logged, seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lib.devsigstore.server import DevSigstore

HERE, THERE = "192.0.2.1", "192.0.2.2"
TAG, DIGEST = Tag.parse("my-user/my-app:v1"), Digest.of(b"x")


def flood(
    clock: Clock,
    *,
    per_client: str = "off",
    per_domain: str = "off",
    total: str = "off",
    per_day: str = "off",
    every_domain: bool = False,
    mapped: tuple[str, ...] = (),
) -> Flood:
    rates = (Rate.parse(per_client), Rate.parse(per_domain), Rate.parse(total), Rate.parse_daily(per_day))
    return Flood(FloodLimits(*rates, every_domain=every_domain, mapped=mapped), clock.now)


def new(number: int, registry: str = "docker.io") -> Tag:
    return Tag.parse(f"{registry}/a/b:{number}")


def admitted(limits: Flood, tags: list[Tag], who: Callable[[int], str] = lambda _: HERE) -> int:
    """How many of these are let through."""
    count = 0
    for number, tag in enumerate(tags):
        try:
            limits.admit(tag, who(number))
        except TooManyNew:
            continue
        count += 1
    return count


# --- the four limits --------------------------------------------------------------------------------------------------


def test_one_client_gets_so_many_and_then_as_many_as_the_time_gives() -> None:
    clock = Clock()
    limits = flood(clock, per_client="3/60s")
    assert admitted(limits, [new(number) for number in range(10)]) == 3
    with pytest.raises(TooManyNew, match=r"at most 3 in 60 s for one client address; try again in 20 s") as refused:
        limits.admit(new(10), HERE)
    assert refused.value.retry_after == 20
    limits.admit(new(10), THERE)
    clock.advance(19.9)
    assert admitted(limits, [new(11)]) == 0
    clock.advance(0.2)
    assert admitted(limits, [new(11), new(12)]) == 1
    clock.advance(10_000)
    assert admitted(limits, [new(number) for number in range(20, 40)]) == 3, "a bucket holds no more than its count"


def test_a_thousand_subdomains_of_one_domain_are_one_upstream() -> None:
    limits = flood(Clock(), per_domain="5/60s")
    tags = [new(0, f"r{number}.evil.co.uk") for number in range(1000)]
    assert admitted(limits, tags, lambda number: f"192.0.2.{number % 250}") == 5
    with pytest.raises(TooManyNew, match="for the registries of one domain"):
        limits.admit(new(1, "evil.co.uk"), HERE)
    assert admitted(limits, [new(0, "good.co.uk")]) == 1, "a neighbour below the same public suffix"


def test_registries_where_anybody_may_push_and_mapped_ones_are_not_limited_by_domain() -> None:
    """One stranger would use up everybody's."""
    limits = flood(Clock(), per_domain="1/60s", mapped=("mirror.example", "127.0.0.1:5000"))
    for registry in (
        "docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "us-docker.pkg.dev", "mcr.microsoft.com", "public.ecr.aws",
        "1.dkr.ecr.eu-west-1.amazonaws.com", "registry.gitlab.com", "mirror.example", "127.0.0.1:5000",
    ):  # fmt: skip
        assert admitted(limits, [new(number, registry) for number in range(5)]) == 5, registry
    assert admitted(limits, [new(number, "x.mirror.example") for number in range(5)]) == 1


def test_a_limit_by_domain_that_the_deployer_chose_holds_for_every_domain() -> None:
    limits = flood(Clock(), per_domain="2/60s", every_domain=True, mapped=("a.mirror.example", "b.mirror.example"))
    assert admitted(limits, [new(number, "docker.io") for number in range(5)]) == 2
    assert admitted(limits, [new(number, f"{name}.gcr.io") for name in ("eu", "us") for number in range(5)]) == 2
    assert admitted(limits, [new(number, f"{name}.mirror.example") for name in "ab" for number in range(5)]) == 2


def test_the_total_holds_however_many_clients_and_domains_there_are() -> None:
    clock = Clock()
    limits = flood(clock, per_client="500/60s", per_domain="500/60s", total="7/60s")
    tags = [new(0, f"reg.evil{number}.example") for number in range(100)]
    assert admitted(limits, tags, lambda number: f"198.51.100.{number}") == 7
    with pytest.raises(TooManyNew, match=r"at most 7 in 60 s for all clients together"):
        limits.admit(new(1), HERE)


def test_a_days_budget_comes_back_over_a_day() -> None:
    clock = Clock()
    limits = flood(clock, per_day="24")
    assert admitted(limits, [new(number) for number in range(100)]) == 24
    with pytest.raises(TooManyNew, match=r"at most 24 a day") as refused:
        limits.admit(new(100), HERE)
    assert refused.value.retry_after == 3600
    clock.advance(3600)
    assert admitted(limits, [new(number) for number in range(200, 300)]) == 1
    clock.advance(10 * 86_400)
    assert admitted(limits, [new(number) for number in range(300, 400)]) == 24


def test_off_is_no_limit() -> None:
    assert admitted(flood(Clock()), [new(number) for number in range(5000)]) == 5000


def test_what_one_limit_refuses_costs_the_others_nothing() -> None:
    """Else a client over its own limit could use up the total."""
    clock = Clock()
    limits = flood(clock, per_client="1/60s", per_domain="3/60s", total="3/60s", per_day="3")
    assert admitted(limits, [new(number, "reg.example") for number in range(50)]) == 1
    tags = [new(number, "reg.example") for number in range(50, 60)]
    assert admitted(limits, tags, lambda number: f"192.0.2.{number + 10}") == 2


def test_the_longest_wait_is_the_one_that_is_named() -> None:
    limits = flood(Clock(), per_client="1/60s", per_day="1")
    limits.admit(new(0), HERE)
    with pytest.raises(TooManyNew, match="a day for all") as refused:
        limits.admit(new(1), HERE)
    assert refused.value.retry_after == 86_400


def test_a_tag_is_charged_once_however_often_its_recording_is_tried() -> None:
    """Else an outage of the log would use up the budget."""
    limits = flood(Clock(), per_client="2/60s", total="2/60s")
    assert admitted(limits, [new(0)] * 1000, lambda number: f"192.0.2.{number % 200}") == 1000
    assert admitted(limits, [new(number) for number in range(1, 10)]) == 1


def test_threads_that_race_get_no_more_than_there_is() -> None:
    limits = flood(Clock(), per_client="50/60s", total="100/60s")
    with ThreadPoolExecutor(16) as pool:
        counts = pool.map(
            lambda who: admitted(
                limits, [new(who * 1000 + number) for number in range(100)], lambda _: f"10.0.0.{who}"
            ),
            range(16),
        )
        assert sum(counts) == 100


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_strangers_do_not_fill_the_memory() -> None:
    buckets = Buckets(Rate(500, 60), most=1000)
    for number in range(100_000):
        buckets.take(f"address {number}", 0.0)
        assert len(buckets) <= 1000


def test_a_full_bucket_is_forgotten_first_and_an_empty_one_last() -> None:
    buckets = Buckets(Rate(10, 60), most=100)
    for _ in range(10):
        buckets.take("greedy", 0.0)
    for number in range(10_000):
        buckets.take(f"address {number}", 0.0)
    assert buckets.wait("greedy", 0.0) == pytest.approx(6.0), "strangers do not buy somebody a new bucket"
    for number in range(1000):
        buckets.take(f"later {number}", 600.0)
    assert buckets.wait("greedy", 600.0) == 0.0


def test_the_tags_that_were_admitted_are_bounded() -> None:
    limits = flood(Clock(), total=f"{ADMITTED + 2}/60s")
    assert admitted(limits, [new(number) for number in range(ADMITTED + 1)]) == ADMITTED + 1
    assert admitted(limits, [new(1), new(0), new(-0)]) == 3, "the oldest is charged again, and then known"
    assert admitted(limits, [new(-1 % 10**6)]) == 0


# --- whose request it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "hops", "whose"),
    [
        ("", 0, "10.0.0.1"),
        ("198.51.100.7", 0, "10.0.0.1"),  # nobody said that there is a proxy
        ("198.51.100.7", 1, "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7", 1, "198.51.100.7"),  # a client sent the first
        ("203.0.113.9,198.51.100.7,192.0.2.1", 2, "198.51.100.7"),
        ("203.0.113.9, 203.0.113.8 , 198.51.100.7\t,\t192.0.2.1", 2, "198.51.100.7"),
        (", , ,198.51.100.7", 1, "198.51.100.7"),
        ("x" * 60_000 + ", 198.51.100.7", 1, "198.51.100.7"),
        ("::ffff:198.51.100.7", 1, "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", 1, "2001:db8:1:2::/64"),
        # too short, or no address where a proxy's should be: never another value from the header
        ("", 1, "10.0.0.1"),
        ("198.51.100.7", 2, "10.0.0.1"),
        ("198.51.100.7, unknown", 1, "10.0.0.1"),
        ("198.51.100.7, 192.0.2.1:8080", 1, "10.0.0.1"),
        ("198.51.100.7, [2001:db8::1]", 1, "10.0.0.1"),
        ("198.51.100.7, fe80::1%eth0", 1, "10.0.0.1"),
        ("198.51.100.7, 0300.1.1.1", 1, "10.0.0.1"),
        ("198.51.100.7, 3221225985", 1, "10.0.0.1"),
        ("198.51.100.7, \u0661.1.1.1", 1, "10.0.0.1"),
        ("198.51.100.7,", 1, "10.0.0.1"),
        ("198.51.100.7,,192.0.2.1", 2, "10.0.0.1"),
        ("198.51.100.7, " + "1" * 60_000, 1, "10.0.0.1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_spoofed_x_forwarded_for_chooses_nothing(forwarded: str, hops: int, whose: str) -> None:
    assert client("10.0.0.1", forwarded, hops) == whose


def test_a_64_of_addresses_is_one_client() -> None:
    assert {client(f"2001:db8:1:2::{number:x}", "", 0) for number in range(1, 1000)} == {"2001:db8:1:2::/64"}
    assert client("2001:db8:1:3::1", "", 0) == "2001:db8:1:3::/64"
    assert {client("10.0.0.1", f"2001:db8:1:2:{number:x}::1", 1) for number in range(1, 1000)} == {"2001:db8:1:2::/64"}


@pytest.mark.parametrize("peer", [None, "", "unix:", "localhost"])
def test_sockets_without_an_address_are_one_client(peer: str | None) -> None:
    assert client(peer, "", 0) == client(peer, "x", 1) == UNKNOWN


# --- which upstreams are one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registry", "domain"),
    [
        ("evil.example", "evil.example"),
        ("a.b.c.evil.com", "evil.com"),
        ("a.b.c.evil.com:5000", "evil.com"),
        ("a.evil.co.uk", "evil.co.uk"),
        ("a.evil.xn--p1ai", "evil.xn--p1ai"),
        ("a.b.xn--55qx5d.cn", "b.xn--55qx5d.cn"),
        ("x.city.kawasaki.jp", "city.kawasaki.jp"),  # an exception to *.kawasaki.jp
        ("x.y.z.kawasaki.jp", "y.z.kawasaki.jp"),
        # names that providers give out for nothing are the provider's
        ("a.github.io", "github.io"),
        ("a.run.app", "run.app"),
        ("a.b.trycloudflare.com", "trycloudflare.com"),
        # what has no registered domain stands for itself
        ("127.0.0.1:5000", "127.0.0.1"),
        ("localhost:5000", "localhost"),
        ("co.uk", "co.uk"),
    ],
)
def test_what_is_counted_as_one_upstream(registry: str, domain: str) -> None:
    assert registered_domain(registry) == domain


def test_the_registries_that_are_not_limited_by_domain_are_registered_domains() -> None:
    assert {registered_domain(name) for name in SHARED} == SHARED


# --- in the recorder --------------------------------------------------------------------------------------------------


def refuse() -> None:
    msg = "too many"
    raise TooManyNew(msg, 7)


def test_who_is_not_admitted_costs_neither_claim_nor_log_nor_certificate(dev: DevSigstore, tmp_path: Path) -> None:
    parts = Parts(dev, tmp_path / "store.sqlite")
    recorder = parts.recorder()
    with pytest.raises(TooManyNew) as refused:
        recorder.observe(TAG, DIGEST, seconds(30), refuse)
    assert refused.value.retry_after == 7
    assert parts.store.claim(TAG) is None
    assert not dev.calls
    verdict = recorder.observe(TAG, DIGEST, seconds(30), lambda: None)
    assert isinstance(verdict, Same)
    assert verdict.first_seen


def test_a_recorded_tag_is_never_asked_about(dev: DevSigstore, tmp_path: Path) -> None:
    made = Parts(dev, tmp_path / "store.sqlite").recorder().observe(TAG, DIGEST, seconds(30))
    for recorder in (Parts(dev, tmp_path / "store.sqlite").recorder() for _ in range(2)):
        assert recorder.observe(TAG, DIGEST, seconds(30), refuse) == Same(made.sighting, first_seen=False)
        assert recorder.observe(TAG, DIGEST, seconds(30), refuse) == Same(made.sighting, first_seen=False)


def test_those_who_wait_for_one_that_is_not_admitted_elect_another(dev: DevSigstore, tmp_path: Path) -> None:
    recorder = Parts(dev, tmp_path / "store.sqlite").recorder()
    gate = Gate()
    asked: list[str] = []

    def refuse_slowly() -> None:
        gate.pass_()
        refuse()

    def admit() -> None:
        asked.append(threading.current_thread().name)

    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(recorder.observe, TAG, DIGEST, seconds(60), refuse_slowly)
        gate.reached()
        others = [pool.submit(recorder.observe, TAG, DIGEST, seconds(60), admit) for _ in range(8)]
        assert not asked, "somebody leads, and it is not known yet whether it may"
        gate.open()
        with pytest.raises(TooManyNew):
            first.result()
        verdicts = [other.result() for other in others]
    assert len(asked) == 1, "only the one who leads is asked"
    assert sum(isinstance(verdict, Same) and verdict.first_seen for verdict in verdicts) == 1
    assert len({verdict.sighting for verdict in verdicts}) == 1
    assert len(digests_logged(dev.url, TAG)) == 1
    assert dev.calls["append"] == 1


def test_a_fault_while_asking_leaves_the_tag_free(dev: DevSigstore, tmp_path: Path) -> None:
    recorder = Parts(dev, tmp_path / "store.sqlite").recorder()

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        recorder.observe(TAG, DIGEST, seconds(30), broken)
    assert isinstance(recorder.observe(TAG, DIGEST, seconds(30)), Same)


def test_an_outage_of_the_log_does_not_use_up_the_budget(dev: DevSigstore, tmp_path: Path) -> None:
    recorder = Parts(dev, tmp_path / "store.sqlite").recorder()
    limits = flood(Clock(), total="2/60s")
    dev.faults.set("index:before")
    for _ in range(5):
        with pytest.raises(LogUnavailable):
            recorder.observe(TAG, DIGEST, seconds(30), lambda: limits.admit(TAG, HERE))
    dev.faults.set("")
    for tag in (TAG, Tag.parse("my-user/my-app:v2")):
        assert isinstance(recorder.observe(tag, DIGEST, seconds(30), partial(limits.admit, tag, HERE)), Same)
    with pytest.raises(TooManyNew):
        limits.admit(Tag.parse("my-user/my-app:v3"), HERE)
