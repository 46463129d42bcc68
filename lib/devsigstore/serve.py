"""The local Sigstore as a process: `python -m lib.devsigstore.serve FOLDER`. NOT FOR PRODUCTION.

Prints one line, `ready URL`, when it serves. Ends on SIGTERM, SIGINT, or when its standard input ends: whoever started it
holds the other end, so its death, however sudden, ends this process too. Faults come from TLOGISTRY_DEV_FAULT.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path

from lib.devsigstore.server import DevSigstore


def main(folder: str) -> int:
    """Serve until told to stop; the exit code is 2 if it could not start."""
    if not folder:
        print("the local Sigstore cannot start without a folder for its state", file=sys.stderr)  # noqa: T201 - as below
        return 2
    try:
        dev = DevSigstore(Path(folder), faults=os.environ.get("TLOGISTRY_DEV_FAULT", ""))
    except (OSError, ValueError, sqlite3.Error) as error:
        print(f"the local Sigstore cannot start in {folder}: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_until_end_of_input, args=(stop,), name="parent", daemon=True).start()
    with dev:
        print(f"ready {dev.url}", flush=True)  # noqa: T201 - a command's output
        stop.wait()
    return 0


def _until_end_of_input(stop: threading.Event) -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass  # a closed descriptor is an end, too
    stop.set()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2] or ("",)))
