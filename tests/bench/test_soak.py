"""A soak of a few seconds against the real processes, and the rule by which one passes. `make soak` is the long run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bench.mix import Results, Sample, Seen
from tests.bench.plot import draw
from tests.bench.soak import JUDGED_S, RISE_MB, flat, report, well

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


def test_a_short_soak_says_what_it_saw_and_draws_it(tmp_path: Path) -> None:
    out = tmp_path / "soak.png"
    done = subprocess.run(
        [sys.executable, "tests/bench/soak.py", "--seconds", "4", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "warm tag ",
        "warm tags while no upstream hangs: p50",
        "p99",
        "memory: median",
        "unexpected answers: 0",
        "PASS",
    ):
        assert words in done.stdout
    assert out.read_bytes().startswith(PNG)


def results(
    mb: Callable[[float], float], descriptors: Callable[[float], int] = lambda _: 100, seconds: int = 300
) -> Results:
    made = Results(seconds)
    made.samples = [Sample(at, mb(at), descriptors(at), at % 40 >= 20) for at in range(seconds)]
    made.seen = [Seen(at, "warm tag", 2.0 + at % 7, at % 40 >= 20) for at in range(seconds)]
    return made


def test_what_grows_only_while_it_warms_up_is_flat() -> None:
    assert well(results(lambda at: 100 + min(at, 90)))


@pytest.mark.parametrize(
    "grown",
    [
        pytest.param(results(lambda at: 100 + at / 4), id="memory"),
        pytest.param(results(lambda _: 100, lambda at: 50 + int(at / 4)), id="descriptors"),
    ],
)
def test_what_grows_all_the_time_is_not_flat_and_fails(grown: Results) -> None:
    assert not well(grown)
    assert "NOT FLAT" in report(grown)
    assert report(grown).endswith("FAIL")


def test_one_high_sample_is_not_a_leak() -> None:
    assert well(results(lambda at: 500 if at == 250 else 100))


def test_a_short_run_is_not_judged_and_says_so() -> None:
    short = results(lambda at: 100 + 10 * at, seconds=JUDGED_S - 1)
    assert well(short)
    assert "not judged" in report(short)


def test_the_limit_itself_is_still_flat() -> None:
    values = [(float(at), 100.0 + (RISE_MB if at >= 200 else 0)) for at in range(300)]
    assert flat(values, 300, RISE_MB).well


def test_an_unexpected_answer_is_counted_by_kind_and_fails() -> None:
    seen = results(lambda _: 100)
    seen.surprise("warm tag: 503")
    seen.surprise("warm tag: 503")
    assert not well(seen)
    assert "     2  warm tag: 503" in report(seen)


def test_a_run_that_failed_is_drawn_too(tmp_path: Path) -> None:
    failed = results(lambda at: 100 + at)
    failed.surprise("blob: other bytes")
    draw(failed, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(PNG)
