"""The documentation against the code: what is in one is in the other."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from lib.config import OTHERS, SETTINGS
from lib.handlers.response import ALLOWED
from lib.oci.error import Code

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HANDLING = (ROOT / "docs" / "request-handling.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "terraform").glob("*.md")])
HEADER = re.compile(r"[A-Z][A-Za-z]*(?:-[A-Z][A-Za-z]+)+|ETag|Location|Allow|Link|Warning")
OURS_TO_ANSWER = ("lib/handlers", "lib/app.py", "lib/oci/endpoint.py")
NEVER_ANSWERED = {"If-Range", "Transfer-Encoding", "X-Forwarded-For"}  # read from requests
FOR_TESTS = {"TLOGISTRY_REQUIRE_E2E"}


def strings(*places: str) -> set[str]:
    """Every string constant, docstrings aside, in these files and folders."""
    found = set()
    for place in places:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


def table(page: str, first_cell: str) -> list[list[str]]:
    """The rows of the table whose head begins with `first_cell`."""
    rows = []
    inside = False
    for line in page.splitlines():
        if line.startswith(f"| {first_cell} |"):
            inside = True
        elif inside and not line.startswith("|"):
            break
        elif inside and not line.startswith("|---"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows, f"no table that begins with {first_cell}"
    return rows


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_has_its_line(setting: str) -> None:
    for page in (README, HANDLING):
        assert any(row[0] == f"`{setting}`" for row in table(page, "setting"))


def test_no_setting_is_documented_that_does_not_exist() -> None:
    known = {*SETTINGS, *OTHERS}
    for page in PAGES:
        assert set(re.findall(r"TLOGISTRY_[A-Z0-9_]*[A-Z0-9]", page.read_text())) <= known, page
    assert set(OTHERS) - FOR_TESTS <= set(re.findall(r"TLOGISTRY_[A-Z_]*[A-Z]", README))


@pytest.mark.parametrize("code", Code)
def test_every_error_code_that_is_used_is_on_the_page(code: Code) -> None:
    used = f"Code.{code.name}" in (ROOT / "lib/handlers/response.py").read_text()
    assert (f"`{code.value}`" in HANDLING) == used or code.value in HANDLING


def test_every_header_of_an_answer_is_on_the_page() -> None:
    answered = {text for text in strings(*OURS_TO_ANSWER) if HEADER.fullmatch(text)} - NEVER_ANSWERED
    assert {"Tlog-Uuid", "Docker-Content-Digest", "Retry-After"} <= answered
    documented = {row[0].strip("`") for row in table(HANDLING, "header")}
    request = {"Range"}
    assert answered - request <= documented
    assert documented <= answered | strings("lib/upstream")


def test_every_endpoint_is_on_the_page() -> None:
    documented = {part for row in table(HANDLING, "path") for part in re.findall(r"`([^`]+)`", row[0])}
    prefixes = {text for text in strings("lib/oci/endpoint.py") if re.fullmatch(r"/[a-z0-9]+/?", text)}
    assert prefixes == {"/v2", "/v2/", "/livez", "/sightings/"} | (prefixes & {"/readyz"})
    for prefix in prefixes:
        assert any(path == prefix or path.startswith(prefix) for path in documented)
    kinds = {text for text in strings("lib/oci/endpoint.py") if text in {"manifests", "blobs", "referrers", "tags"}}
    assert {path.split("/")[3] for path in documented if path.startswith("/v2/<name>/")} == kinds


def test_the_methods_are_on_the_page() -> None:
    assert f"| `Allow` | 405 | `{ALLOWED}` |" in HANDLING


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, target


def test_the_readmes_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        assert set(re.findall(r"^ {4}make ([a-z]+)", page, re.MULTILINE)) <= targets


def test_every_dependency_says_why_it_is_there_and_what_it_is_trusted_with() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    trusted = {row[0].split(" ")[0] for row in table(README, "dependency")}
    for dependency in project["project"]["dependencies"]:
        assert re.search(rf'"{re.escape(dependency)}",\s+# \w+', text), dependency
        assert dependency.partition("[")[0].partition(">")[0] in trusted
    for dependency in (name for group in project["dependency-groups"].values() for name in group):
        assert re.search(rf'"{re.escape(dependency)}",\s+# \w+', text), dependency
    assert len(trusted) == len(project["project"]["dependencies"])


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-audit.txt"])
def test_pins_have_hashes_and_name_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    option, *entries = re.split(r"\n+(?=[a-z])", text.strip())
    assert option == "--only-binary :all:", "nothing is built from source where this is installed"
    for entry in entries:
        assert re.match(r"[a-z0-9-]+(\[[a-z-]+\])?==\S+", entry), entry
        assert "--hash=sha256:" in entry


def test_decisions_are_numbered_without_gaps() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert "**Negative consequences.**" in page.read_text(), page
