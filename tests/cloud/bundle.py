"""The function as a build makes it: the zip of exactly the files that Terraform lists, and an environment for them.

The environment is made from `requirements.txt` alone, once for each of these and each Python, and kept in
${XDG_CACHE_HOME:-~/.cache}/tlogistry/. Two runs at once make it once, and one that was not finished is never used. Nothing of
the checkout is reachable from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.terraform.configuration import ROOT, bundle

TRUST = "trust-config.json"  # what Terraform calls a private trust configuration in the zip
REQUIREMENTS = "requirements.txt"
COMPLETE = "complete"  # a file that is there when everything else is
SET_UP_S = 900
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


def zipped() -> bytes:
    """The same content, the same bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in bundle():
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (ROOT / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return made.getvalue()


def unpack(folder: Path, trust: Path) -> None:
    """Into an empty folder, with a trust configuration beside it."""
    folder.mkdir()
    with zipfile.ZipFile(io.BytesIO(zipped())) as archive:
        archive.extractall(folder)
    (folder / TRUST).write_bytes(trust.read_bytes())


def programs() -> Path:
    """The folder of the environment's commands; made now, which takes about a minute, if it is not there yet."""
    requirements = (ROOT / REQUIREMENTS).read_bytes()
    key = hashlib.sha256(requirements + sys.version.encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tlogistry"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"bundle-venv-{key}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not (folder / COMPLETE).exists():
            _make(folder, requirements)
            (folder / COMPLETE).touch()
    return folder / "bin"


def _make(folder: Path, requirements: bytes) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    file = folder / REQUIREMENTS
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "install", "--quiet", "--require-hashes", "-r", str(file)],
        [*pip, "check"],
    ):
        done = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SET_UP_S, check=False
        )
        assert done.returncode == 0, f"the bundle's packages could not be installed:\n{done.stdout}"
        if not file.exists():
            file.write_bytes(requirements)
