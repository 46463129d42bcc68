"""The table of attacks names tests that exist, and leaves none of this folder's out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
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
