"""`python -m lib …`: what people and operators run.

    python -m lib check                 port, state folder and settings of a local start; needs nothing installed
    python -m lib run                   the service with a local Sigstore: what `make run` starts (`lib/local.py`)
    python -m lib adopt TAG DIGEST      complete a tag that is stuck because the log holds an unexplained entry of ours

Exit codes: 0 done; 1 refused, or could not tell; 2 usage, a bad setting, or a place that cannot be used. Every failure is
one line on standard error, or one for each problem. The deployed function imports nothing of this.
"""

from __future__ import annotations

import argparse
import os
import sys

from lib.config import Config
from lib.errors import ConfigInvalid, InputInvalid, TlogistryError
from lib.local import Local, run
from lib.oci.digest import Digest
from lib.oci.reference import Tag

OK, REFUSED, UNUSABLE = 0, 1, 2


def main(arguments: list[str]) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lib", description="tlogistry: tags that cannot move quietly")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check port, state folder and settings of a local start")
    commands.add_parser("run", help="start the service with a local Sigstore, NOT FOR PRODUCTION")
    adopt = commands.add_parser("adopt", help="complete a stuck tag with a digest that an entry of ours proves")
    adopt.add_argument("tag", help="for example alpine:3.16.0")
    adopt.add_argument("digest", help="sha256:…")
    asked = parser.parse_args(arguments)
    try:
        match asked.command:
            case "check":
                Local.from_env(os.environ).close()
                return OK
            case "run":
                return run(Local.from_env(os.environ))
            case _:
                return _adopt(asked.tag, asked.digest)
    except ConfigInvalid as error:
        return _say(*error.problems)
    except InputInvalid as error:
        return _say(str(error))


def _adopt(tag_text: str, digest_text: str) -> int:
    tag, digest = Tag.parse(tag_text), Digest.parse(digest_text)
    config = Config.from_env(os.environ)
    from lib.app import App  # noqa: PLC0415 - `check` and `--help` work before anything is installed
    from lib.telemetry import Telemetry  # noqa: PLC0415

    app = App(config, Telemetry("line", sys.stderr))
    try:
        record = app.recorder.adopt(tag, digest, app.deadline())
    except TlogistryError as error:
        return _say(str(error), code=REFUSED)
    seen = record.sighting
    sys.stdout.write(f"{tag.familiar} is recorded as {seen.digest} (log index {seen.log_index}, uuid {seen.uuid})\n")
    return OK


def _say(*problems: str, code: int = UNUSABLE) -> int:
    for problem in problems:
        sys.stderr.write(f"tlogistry: {' '.join(problem.split())}\n")
    return code
