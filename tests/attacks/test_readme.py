"""The table of attacks names tests that exist, and leaves none of this folder's out; each defence's row fits the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.attacks.defences import Defence, table

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
DEFENCES = table()
NAMED = re.findall(r"`((?:[a-z_]+/)*test_[a-z_]+\.py)(?:::(test_\w+))?`", (FOLDER / "README.md").read_text())


def functions(path: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize(("path", "test"), NAMED, ids="::".join)
def test_a_named_test_exists(path: str, test: str) -> None:
    file = (ROOT if "/" in path else FOLDER) / path
    assert file.is_file()
    assert not test or test in functions(file)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("test_*.py")), ids=lambda file: file.name)
def test_every_test_of_this_folder_is_named(file: Path) -> None:
    named = {test for path, test in NAMED if path == file.name}
    assert "" in named or file == Path(__file__) or functions(file) <= named


# --- advisories -------------------------------------------------------------------------------------------------------

ID = re.compile(r"CVE-\d{4}-\d+|GHSA(?:-[0-9a-z]{4}){3}|GGCR#\d+|google/kf#\d+|oras-dotnet#\d+")
ROWS = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| ") and "`" in line]
# Everything that was published about registries, their clients and proxies, and what became of it here.
PUBLISHED = {
    "GGCR#2243", "GGCR#2284", "GGCR#2291", "GGCR#2440", "google/kf#1108", "CVE-2026-33540", "CVE-2026-48978",
    "GHSA-28r5-37g7-p6mp", "oras-dotnet#393", "GHSA-vh4v-2xq2-g5cg", "CVE-2020-15157", "GGCR#2193",
    "GHSA-9m43-p3cx-w8j5", "GHSA-jxpm-75mh-9fp7",
    "CVE-2026-50151", "CVE-2026-85732", "CVE-2026-32591", "CVE-2026-0600", "CVE-2022-27907", "CVE-2026-2376", "CVE-2020-13788",
    "GHSA-x2f5-332j-9xwq", "CVE-2021-41190", "GHSA-mc8v-mgrf-8f4m", "GHSA-77vh-xpmg-72qh", "CVE-2023-2253", "CVE-2026-35172",
    "GHSA-f2g3-hh2r-cwgc", "GHSA-f36w-mj3v-6jqv", "CVE-2024-4956", "CVE-2023-45289",
}  # fmt: skip


def docstrings(path: Path) -> dict[str, str]:
    """Of each test function; under "" those of the module and of all of them."""
    module = ast.parse(path.read_text())
    found = {node.name: ast.get_docstring(node) or "" for node in module.body if isinstance(node, ast.FunctionDef)}
    return {**found, "": " ".join([ast.get_docstring(module) or "", *found.values()])}


def test_every_published_attack_is_in_the_table_or_said_not_to_apply() -> None:
    assert set(ID.findall((FOLDER / "README.md").read_text())) == PUBLISHED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_every_advisory_is_in_the_docstring_of_a_test_beside_it(row: str) -> None:
    known_as, named = row.split("|")[2], re.findall(r"`((?:[a-z_]+/)*test_[a-z_]+\.py)(?:::(test_\w+))?`", row)
    said = " ".join(docstrings((ROOT if "/" in path else FOLDER) / path)[test] for path, test in named)
    assert set(ID.findall(known_as)) <= set(ID.findall(said))


# --- defences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.name)
def test_each_defence_can_be_taken_out_and_names_tests_that_exist(defence: Defence) -> None:
    assert (ROOT / defence.file).read_text().count(defence.old) == 1
    assert defence.new != defence.old
    for test in defence.tests:
        path, _, name = test.partition("::")
        assert name.partition("[")[0] in functions(ROOT / path)
    assert defence.tests


def test_no_two_defences_have_one_name() -> None:
    assert len({defence.name for defence in DEFENCES}) == len(DEFENCES)


# Their tests are about texts. A hanging upstream takes long: tests/upstream/test_bulkhead.py has its defence.
WITHOUT = {"test_readme.py", "test_security.py", "test_service_account.py", "test_hanging.py"}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("test_*.py")), ids=lambda file: file.name)
def test_every_file_of_attacks_fails_without_some_defence(file: Path) -> None:
    noticed = {Path(test.partition("::")[0]).name for defence in DEFENCES for test in defence.tests}
    assert (file.name in noticed) != (file.name in WITHOUT)
