"""Every defence, taken out of a copy of the tree one at a time: the tests that must then fail are in `defences.toml`.

    python -m tests.attacks.defences            all of them; DEFENCES="--only token" make defences: those whose name has "token"

A test that passes with and without its defence shows nothing. `test_readme.py` holds every row of the table to the tree, so
that none rots. The working tree is never touched. Exit code 0: each was noticed; 1: a line for each that was not.

Not here: mutations that nobody thought of. For those a mutation tester is the tool, on one module at a time.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_suffix(".toml")
LEFT_OUT = (".git", ".venv", ".tlogistry", "build", "__pycache__", ".*_cache", ".hypothesis", ".terraform", ".build")
RUN_S = 300  # seconds for the tests of one row; without some defences they never end
ALL_S = 3600  # and for all of them together
NICE = 10


@dataclass(frozen=True, slots=True)
class Defence:
    """What it is called, and how it is taken out: `old`, which is in `file` exactly once, becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def table() -> tuple[Defence, ...]:
    """All rows."""
    rows = tomllib.loads(TABLE.read_text())["defence"]
    return tuple(Defence(**{**row, "tests": tuple(row["tests"])}) for row in rows)


def run(tree: Path, tests: tuple[str, ...], seconds: float, *options: str) -> tuple[str, str]:
    """passed, failed or broken, and what was printed. Broken: no test failed by itself, but something else did."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *options, *tests]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return "failed", f"no end after {seconds:.0f} s"  # a drip that nobody ends, for instance
    lines = done.stdout.strip().splitlines() or [""]
    if done.returncode == 0:
        return "passed", lines[-1]
    if done.returncode == 1 and re.search(r"\b[0-9]+ failed\b", lines[-1]):
        return "failed", lines[-1]
    return "broken", done.stdout[-3000:] + done.stderr[-1000:]


def without(tree: Path, defence: Defence) -> tuple[str, str]:
    """What the defence's tests say when it is not there."""
    file = tree / defence.file
    text = file.read_text()
    if text.count(defence.old) != 1:
        return "broken", f"{defence.file} has the text {text.count(defence.old)} times"
    file.write_text(text.replace(defence.old, defence.new))
    try:
        return run(tree, defence.tests, RUN_S, "-x")
    finally:
        file.write_text(text)


def say(line: str) -> None:
    """At once: this takes long."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Take them out, one after the other."""
    parser = argparse.ArgumentParser(description="take each defence out of a copy of the tree")
    parser.add_argument("--only", default="", help="those whose name or file has this in it")
    given = parser.parse_args(arguments)
    chosen = [defence for defence in table() if given.only in f"{defence.name} {defence.file}"]
    os.nice(NICE)
    bad = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="defences-") as folder:
        tree = Path(shutil.copytree(ROOT, Path(folder) / "tree", ignore=shutil.ignore_patterns(*LEFT_OUT)))
        every = tuple(dict.fromkeys(test for defence in chosen for test in defence.tests))
        outcome, said = run(tree, every, ALL_S, "-rfE")
        say(f"{outcome:7} with all defences: {said}")
        if outcome != "passed":
            return 1
        for defence in chosen:
            outcome, said = without(tree, defence)
            say(f"{outcome:7} without {defence.name} ({defence.file}): {said}")
            if outcome != "failed":
                bad.append(f"{defence.name} ({defence.file}): the tests {outcome}")
    say(f"{len(chosen) - len(bad)} of {len(chosen)} noticed, in {time.monotonic() - started:.0f} s")
    for line in bad:
        say(f"NOT NOTICED: {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
