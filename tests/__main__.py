"""Run the tests as two halves side by side: most of them wait for processes and clocks, not for a processor.

    python -m tests             what is quick
    python -m tests --long      everything, as CI does

The first half is shown as it runs; the second one, engines, clients and deployments, is shown when it has ended. Exit code 0
only if both are green. One file or one test is pytest's own business: `python -m pytest tests/oci -k digest`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
APART = ("tests/e2e", "tests/conformance", "tests/cloud", "tests/terraform", "tests/supply")


def main(arguments: list[str]) -> int:
    """0, or pytest's exit code of a half that failed; 2 for an argument that is not known."""
    if arguments not in ([], ["--long"]):
        sys.stderr.write("usage: python -m tests [--long]\n")
        return 2
    command = [sys.executable, "-m", "pytest", *(["-m", "long or not long"] if arguments else [])]
    here = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").iterdir()) if _has_tests(path)]
    with tempfile.TemporaryFile("w+") as output:
        second = subprocess.Popen([*command, *APART], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            first = subprocess.run([*command, *(path for path in here if path not in APART)], cwd=ROOT, check=False)
            sys.stdout.write("\nThe other half: engines, clients and deployments. Waiting for its end.\n")
            sys.stdout.flush()
            ended = second.wait()
        finally:
            second.terminate()
        output.seek(0)
        sys.stdout.write(output.read())
    return first.returncode or ended


def _has_tests(path: Path) -> bool:
    return any(path.glob("**/test_*.py")) if path.is_dir() else path.match("test_*.py")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
