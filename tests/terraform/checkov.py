"""checkov, in an environment of its own: 190 MB and a hundred packages, which nothing else should have to agree with.

    .venv/bin/python -m tests.terraform.checkov     sets it up, once for each version of checkov.txt

It is kept in ${XDG_CACHE_HOME:-~/.cache}/tlogistry/. The pins, with hashes, are made by
    echo checkov==VERSION | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-strip-extras - -o tests/terraform/checkov.txt
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("checkov.txt")
SET_UP_S = 900


def folder() -> Path:
    """Where this version is kept."""
    version = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tlogistry" / f"checkov-{version}-py{sys.version_info.major}.{sys.version_info.minor}"


def is_ready() -> bool:
    """Whether it can be used without a download."""
    return (folder() / "ready").exists()


def set_up() -> None:
    """Install it, whole or not at all. Raises CalledProcessError."""
    if is_ready():
        return
    folder().parent.mkdir(parents=True, exist_ok=True)
    half = folder().with_name(f"{folder().name}.{os.getpid()}")
    uv = [sys.executable, "-m", "uv", "--quiet"]
    install = [
        *uv,
        "pip",
        "sync",
        "--require-hashes",
        "--compile-bytecode",
        "--python",
        str(half / "bin" / "python"),
        str(LOCK),
    ]
    try:
        for command in ([*uv, "venv", "--relocatable", "--python", sys.executable, str(half)], install):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SET_UP_S)
        (half / "ready").touch()
        if not folder().exists():  # else another run was first
            half.rename(folder())
    finally:
        shutil.rmtree(half, ignore_errors=True)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """One run; it must be ready. It looks for configuration files in `cwd` and at home, so both are `cwd`."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd)}
    command = [str(folder() / "bin" / "python"), "-m", "checkov.main", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=SET_UP_S
    )


if __name__ == "__main__":
    set_up()
    sys.stdout.write(f"{folder()}\n")
