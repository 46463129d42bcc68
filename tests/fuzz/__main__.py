"""`python -m tests.fuzz`: so many cases, with a line of progress every few seconds; exit code 1 if one fails.

--cases 1000000         in all; FUZZ_CASES sets it, too
--seed 1                another seed, other cases; FUZZ_SEED sets it, too
--only NAME …           these targets only
--corpus FOLDER         begin from the cases there, and keep failing ones there
--repeat FILE …         kept cases once more, and nothing else
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.fuzz.fuzzer import Fuzzer
from tests.fuzz.parsers import PARSERS
from tests.fuzz.world import SERVICE

CORPUS = Path(__file__).parent / "corpus"
OUT = sys.stdout  # what the service prints goes elsewhere
TARGETS = (*PARSERS, *SERVICE)


def say(line: str) -> None:
    OUT.write(line + "\n")
    OUT.flush()


def main(arguments: list[str]) -> int:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzzing; see tests/fuzz/__init__.py.")
    parser.add_argument("--cases", type=int, default=int(os.environ.get("FUZZ_CASES") or 1_000_000))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED") or 1))
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--repeat", nargs="+", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    fuzzer = Fuzzer([target for target in TARGETS if target.name in asked.only], asked.corpus, asked.seed, say)
    well = fuzzer.repeat(asked.repeat) if asked.repeat else fuzzer.run(asked.cases)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
