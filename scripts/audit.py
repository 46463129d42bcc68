#!/usr/bin/env python3
"""Known vulnerabilities of the pins in a lock, by pip-audit from the OSV database: `scripts/audit.py requirements.txt`.

pip-audit alone ends with 0 when packages could not be looked up, and with a traceback when nothing could. Here:

    exit code 0     every pin was looked up, and none has a known vulnerability
    exit code 1     one line for each vulnerability: package, version, ids, versions that fix it
    exit code 3     one line: the database could not be asked, or not about every pin. Nothing is known then

`make audit` runs it with a pip-audit of its own. Not here: whether a vulnerability matters to this service.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OSV = "https://api.osv.dev/v1/query"
CALL_S = 15  # seconds for one package
TOTAL_S = 600
VULNERABLE, NOT_KNOWN = 1, 3


def main(arguments: list[str]) -> int:
    """Look up every pin, and say what was found."""
    parser = argparse.ArgumentParser(description="known vulnerabilities of the pins in a lock")
    parser.add_argument("lock", type=Path)
    parser.add_argument("--osv-url", default=OSV, help="another OSV database, a mirror for instance")
    given = parser.parse_args(arguments)
    found = _ask(given.lock, given.osv_url)
    if isinstance(found, str):
        sys.stderr.write(f"audit: the database at {given.osv_url} could not be asked: {found}\n")
        return NOT_KNOWN
    missed = sorted(package["name"] for package in found if "skip_reason" in package)
    if missed or not found:
        sys.stderr.write(f"audit: {len(missed)} of {len(found)} packages were not looked up: {', '.join(missed)}\n")
        return NOT_KNOWN
    lines = [_line(package, known) for package in found for known in package["vulns"]]
    for line in lines:
        sys.stdout.write(f"{line}\n")
    if lines:
        return VULNERABLE
    sys.stdout.write(f"audit: {len(found)} packages, no known vulnerability\n")
    return 0


def _ask(lock: Path, url: str) -> list[dict[str, Any]] | str:
    """What pip-audit found for each package; or why it found nothing, in a line."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip"]
    command += ["--vulnerability-service", "osv", "--osv-url", url, "--timeout", str(CALL_S)]
    command += ["--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TOTAL_S)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        return f"no end after {TOTAL_S} s"
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines()
        return said[-1][:300] if said else f"pip-audit ended with {done.returncode}"
    return packages


def _line(package: dict[str, Any], known: dict[str, Any]) -> str:
    ids = " ".join([known["id"], *known.get("aliases", [])])
    fixed = ", ".join(known.get("fix_versions", [])) or "no version yet"
    return f"{package['name']} {package['version']}: {ids} (fixed in {fixed})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
