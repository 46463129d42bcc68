"""The kept cases, once more, and some new ones; and that the fuzzer finds what is broken. `make fuzz` is the long run."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.fuzzer import Fuzzer, Target
from tests.fuzz.parsers import PARSERS
from tests.fuzz.parsers import target as request_target

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
KEPT_MAX_BYTES = 32 * 1024
SHORT, LONG = 4_000, 100_000
ENDING = re.compile(r"(\d+) cases in \d+ s with seed \d+: (\d+) failed, (\d+) different failures")


def fuzzed(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it takes the environment, the signals and the output for itself."""
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def counted(done: subprocess.CompletedProcess[str]) -> tuple[int, int]:
    """Cases and failures, as the last line says."""
    ending = ENDING.fullmatch(done.stdout.splitlines()[-1])
    assert ending is not None, done.stdout + done.stderr
    return int(ending[1]), int(ending[2])


def test_kept_and_new_cases_give_no_500_no_page_no_traceback_and_no_second_spelling(tmp_path: Path) -> None:
    """The corpus, all that once failed included, and then changes of it."""
    done = fuzzed("--cases", str(SHORT), "--corpus", str(copied(tmp_path)), timeout=300)
    assert (counted(done), done.returncode) == ((SHORT, 0), 0), done.stdout[-5000:] + done.stderr[-5000:]


@pytest.mark.long
def test_a_hundred_thousand_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = fuzzed("--cases", str(LONG), "--seed", "2", "--corpus", str(copied(tmp_path)), timeout=1200)
    with capsys.disabled():
        sys.stdout.write(f"\n{done.stdout[-2500:]}\n")
    assert (counted(done), done.returncode) == ((LONG, 0), 0), done.stdout[-5000:] + done.stderr[-5000:]


def copied(folder: Path) -> Path:
    """What fails in a test is in the test's output; the tree stays as it is."""
    for path in CORPUS.glob("*/*"):
        (folder / path.parent.name).mkdir(exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    return folder


def test_every_kept_case_belongs_to_a_target_and_is_small() -> None:
    known = {target.name for target in PARSERS} | {"service", "answers", "socket"}
    kept = [path for path in CORPUS.glob("*/*") if path.is_file()]
    assert {path.parent.name for path in kept} == known
    assert max(path.stat().st_size for path in kept) <= KEPT_MAX_BYTES


GENUINE = {
    "reference/official": "tag",
    "target/tag": "manifests Tag",
    "query/next": "True",
    "challenge/hub": "https 443",
    "link/next": "2",
    "url/storage": "https 443",
    "manifest/oci": "manifest.v1+json",
    "statement/genuine": "a statement",
    "bundle/v1": "verifies",
    "log/plain": "found",
    "log/bodies": "found",
    "settings/mapped": "TLOGISTRY_UPSTREAMS",
    "accounts/two": "2",
}


@pytest.mark.parametrize("kept", GENUINE)
def test_what_is_changed_is_genuine_to_begin_with(kept: str) -> None:
    """A corpus of what is refused at the first look would find nothing, and nobody would see it."""
    (target,) = (target for target in PARSERS if target.name == kept.partition("/")[0])
    with target.enter() as run:
        assert GENUINE[kept] in str(run((CORPUS / kept).read_bytes()))


def test_what_is_changed_of_the_whole_service_is_answered_well_to_begin_with() -> None:
    kept = (
        "answers/same",
        "answers/token",
        "answers/redirect",
        "answers/tags",
        "service/tag",
        "service/blob",
        "socket/tag",
    )
    done = fuzzed("--repeat", *(str(CORPUS / name) for name in kept), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, line in zip(kept, done.stdout.splitlines(), strict=True):
        assert re.search(f"{name}: .*20[06]", line), line


# --- the fuzzer itself ------------------------------------------------------------------------------------------------


def run_on(
    run: Callable[[bytes], object], folder: Path, case: bytes, cases: int = 1000, seed: int = 1, hangs_s: float = 30.0
) -> tuple[bool, list[str], list[bytes]]:
    """Whether all went well, what was said, and the cases that were kept as failing."""
    (folder / "broken").mkdir(parents=True, exist_ok=True)
    (folder / "broken" / "seed").write_bytes(case)
    said: list[str] = []
    target = Target("broken", 1, lambda: nullcontext(run))
    went_well = Fuzzer([target], folder, seed, said.append, hangs_s).run(cases)
    return went_well, said, [path.read_bytes() for path in sorted((folder / "broken").glob("failed-*"))]


def test_an_error_that_is_not_documented_is_found_made_small_and_kept(tmp_path: Path) -> None:
    def broken(case: bytes) -> object:
        if b"%" in case:
            raise KeyError(case)
        return len(case) > 20

    went_well, said, kept = run_on(broken, tmp_path, b"a long case of which most is of no importance")
    assert not went_well
    assert b"%" in kept
    assert any("--repeat" in line and "KeyError" in line for line in said)
    assert ENDING.fullmatch(said[-1])


def test_a_tag_with_two_keys_is_found(tmp_path: Path) -> None:
    """The parser of request targets, called by somebody who lets one more spelling through."""

    def broken(case: bytes) -> object:
        return request_target(case.replace(b"%2D", b"-")) if b"%2D" not in case else _two_spellings(case)

    def _two_spellings(case: bytes) -> object:
        assert request_target(case) == request_target(case.replace(b"%2D", b"-")), "two spellings"
        return "one"

    went_well, said, _ = run_on(broken, tmp_path, b"/v2/my%2Duser/my-app/manifests/1")
    assert not went_well
    assert any("two spellings" in line for line in said)


def test_a_regex_that_backtracks_is_broken_off_and_kept(tmp_path: Path) -> None:
    slow = re.compile(rb"(a+)+$")
    went_well, said, kept = run_on(
        lambda case: bool(slow.match(case)), tmp_path, b"a" * 60 + b"!", cases=1, hangs_s=0.5
    )
    assert not went_well
    assert kept == [b"a" * 60 + b"!"]
    assert any("took longer" in line for line in said)


def test_a_seed_gives_the_same_cases_again_and_another_seed_others(tmp_path: Path) -> None:
    def cases_of(name: str, seed: int) -> list[bytes]:
        seen: list[bytes] = []
        run_on(seen.append, tmp_path / name, b"docker.io/library/alpine:3.16.0", cases=200, seed=seed)
        return seen

    first = cases_of("first", 1)
    assert first == cases_of("again", 1)
    assert first != cases_of("other", 2)


def test_every_target_gets_its_share_and_no_case_is_lost(tmp_path: Path) -> None:
    counts = {"much": 0, "little": 0}

    def target(name: str, share: float) -> Target:
        def run(_: bytes) -> object:
            counts[name] += 1
            return None

        return Target(name, share, lambda: nullcontext(run))

    assert Fuzzer([target("much", 9), target("little", 1)], tmp_path, 1, lambda _: None).run(1003)
    assert sum(counts.values()) == 1003
    assert counts["little"] == pytest.approx(100, abs=1)
