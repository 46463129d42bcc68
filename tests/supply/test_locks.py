"""What is deployed: pinned, with hashes, from wheels alone, and listed where others can look."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.canned import Answer, CannedServer

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-audit.txt")
RUNTIMES = ("3.11", "3.12", "3.13", "3.14")  # terraform/variables.tf allows these
PLATFORM = "x86_64-manylinux_2_28"  # older than what Cloud Run functions builds on
MAKE_S = 600  # to set up the tools' environment, once


def pins(name: str) -> dict[str, tuple[str, set[str]]]:
    """Package to version and sha256 hashes."""
    entries = re.split(r"\n(?=[a-z])", (ROOT / name).read_text())
    found = {}
    for entry in entries:
        pin = re.match(r"([a-z0-9-]+)(?:\[[a-z,]+\])?==([^\s;\\]+)", entry)
        if pin is not None:
            found[pin[1]] = pin[2], set(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_no_package_is_built_from_source_where_a_lock_is_installed(name: str) -> None:
    """A source distribution runs its own code while it is built: at deploy, in the build account's hands.

    The buildpack runs pip with this file, and an option in it is as good as one on the command line.
    """
    first = (ROOT / name).read_text().splitlines()[0]
    assert first == "--only-binary :all:"


def test_pip_obeys_that_line(tmp_path: Path) -> None:
    """A package that there is only as source is not installed, however well its hash fits."""
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "only_source-1.0.tar.gz").write_bytes(b"")
    lock = tmp_path / "requirements.txt"
    lock.write_text("--only-binary :all:\nonly-source==1.0 --hash=sha256:" + "0" * 64 + "\n")
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "download", "--no-index"]
    done = subprocess.run(
        [*pip, "--find-links", str(folder), "--dest", str(tmp_path / "got"), "-r", str(lock)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "No matching distribution found for only-source==1.0" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("version", RUNTIMES)
def test_every_pin_has_a_wheel_for_the_platform_of_the_function(version: str, tmp_path: Path) -> None:
    """Asks the package index that this machine uses; downloads and installs nothing."""
    uv = str(Path(sys.executable).parent / "uv")
    done = subprocess.run(
        [uv, "pip", "install", "--dry-run", "--require-hashes", "--only-binary", ":all:", "--target", str(tmp_path),
         "--python-version", version, "--python-platform", PLATFORM, "-r", str(ROOT / "requirements.txt")],
        capture_output=True, text=True, check=False, timeout=MAKE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    would = set(re.findall(r"^ \+ ([a-z0-9-]+)==(\S+)$", done.stderr, re.MULTILINE))
    assert {("functions-framework", pins("requirements.txt")["functions-framework"][0])} <= would
    assert would <= {(name, pinned) for name, (pinned, _) in pins("requirements.txt").items()}


def make(target: str) -> None:
    done = subprocess.run(
        ["make", "-s", target, f"PYTHON={sys.executable}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=MAKE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_bill_of_materials_has_every_pin_with_its_hashes_and_is_the_same_every_time() -> None:
    made = []
    for _ in range(2):
        make("sbom")
        made.append((ROOT / "build" / "sbom.cdx.json").read_bytes())
    assert made[0] == made[1]
    document = json.loads(made[0])
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "tlogistry"
    listed = {
        part["name"]: (
            part["version"],
            {made["content"] for link in part["externalReferences"] for made in link["hashes"]},
        )
        for part in document["components"]
    }
    assert listed == pins("requirements.txt")


# --- make audit ---------------------------------------------------------------------------------------------------------


class Osv:
    """A vulnerability database: POST {"package": {"name": …}, "version": …}. `status` is what it answers to everything."""

    def __init__(self) -> None:
        self.status = 200
        self.vulnerable = ""
        self.asked: set[tuple[str, str]] = set()

    def answer(self, _method: str, _path: str, body: bytes) -> Answer:
        query = json.loads(body)
        name, version = query["package"]["name"], query["version"]
        self.asked.add((name, version))
        fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": [fixed]}]
        known = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "summary": "x", "affected": affected}
        return Answer(self.status, {}, json.dumps({"vulns": [known]} if name == self.vulnerable else {}).encode())


def audit(url: str) -> tuple[int, list[str], list[str]]:
    """Exit code, and the lines of standard output and error."""
    make("build/audit/ready")
    done = subprocess.run(
        [str(ROOT / "build/audit/bin/python"), "scripts/audit.py", "requirements.txt", "--osv-url", url],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=MAKE_S,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.long
def test_an_audit_asks_about_every_pin_and_names_what_is_vulnerable() -> None:
    all_pins = {(name, version) for name, (version, _) in pins("requirements.txt").items()}
    osv = Osv()
    with CannedServer(osv.answer) as server:
        url = f"{server.url}/v1/query"
        code, said, failed = audit(url)
        assert (code, failed) == (0, [])
        assert re.fullmatch(r"audit: [0-9]+ packages, no known vulnerability", said[0])
        assert len(osv.asked) > 40
        assert osv.asked <= all_pins
        osv.vulnerable = "requests"
        version = pins("requirements.txt")["requests"][0]
        assert audit(url) == (1, [f"requests {version}: PYSEC-2026-1 CVE-2026-1 (fixed in 99.1)"], [])


@pytest.mark.long
def test_an_audit_that_could_not_ask_says_so_in_one_line_and_is_no_success() -> None:
    osv = Osv()
    osv.status = 500
    with CannedServer(osv.answer) as server:
        url = f"{server.url}/v1/query"
        refused = audit(url)
    gone = audit(url)
    for code, said, failed in (refused, gone):
        assert (code, said, len(failed)) == (3, [], 1)
        assert failed[0].startswith(f"audit: the database at {url} could not be asked: ")
