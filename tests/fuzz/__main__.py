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


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = "must be a number, 1 or more"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _kept(text: str) -> Path:
    path = Path(text)
    if not path.is_file() or path.absolute().parent.name not in {target.name for target in TARGETS}:
        msg = f"{text} is no file in a target's folder"
        raise argparse.ArgumentTypeError(msg)
    return path


def main(arguments: list[str]) -> int:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Random input for everything that reads any."
    )
    cases, seed = os.environ.get("FUZZ_CASES") or "1000000", os.environ.get("FUZZ_SEED") or "1"
    parser.add_argument("--cases", type=_count, default=cases, help=f"how many (default {cases})")
    parser.add_argument("--seed", type=int, default=seed, help=f"which (default {seed})")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--corpus", type=Path, default=CORPUS, help="begin from the cases there, and keep failing ones there"
    )
    parser.add_argument("--repeat", nargs="+", type=_kept, metavar="FILE", help="run these kept cases, and no others")
    asked = parser.parse_args(arguments)
    fuzzer = Fuzzer([target for target in TARGETS if target.name in asked.only], asked.corpus, asked.seed, say)
    well = fuzzer.repeat(asked.repeat) if asked.repeat else fuzzer.run(asked.cases)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
