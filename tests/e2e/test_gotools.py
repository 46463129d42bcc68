"""The command that builds clients, with a `go` that does as it is told."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.gotools import TOOLS
from tests.e2e.processes import run

if TYPE_CHECKING:
    from tests.e2e.processes import Said

ROOT = Path(__file__).parents[2]
VERSION = '#!/bin/sh\nif [ "$1" = env ]; then echo go1.{minor}.8; exit; fi\n'
NOTES = VERSION + "echo \"$@\" >>'{folder}/asked'\n"
BUILDS = NOTES + '/bin/touch "$GOBIN/crane"\n'
FAILS = NOTES + '/bin/touch "$GOBIN/crane"\necho no such module\nexit 1\n'


class Machine:
    """One with a cache of its own, and a `go` of the test's making or none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "tlogistry" / "go-tools"
        (folder / "bin").mkdir()

    def build(self, *names: str, go: str | None = None, minor: int = 26) -> Said:
        if go is not None:
            (self.folder / "bin/go").write_text(go.format(folder=self.folder, minor=minor))
            (self.folder / "bin/go").chmod(0o755)
        env = {"PATH": str(self.folder / "bin"), "XDG_CACHE_HOME": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        return run([sys.executable, "-m", "tests.e2e.gotools", *names], env, cwd=ROOT)

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_tool_is_built_once(machine: Machine) -> None:
    for _ in range(2):
        assert machine.build("crane", go=BUILDS).code == 0
    assert machine.asked() == [f"install -v github.com/google/go-containerregistry/cmd/crane@{TOOLS['crane'].version}"]
    assert (machine.tools / TOOLS["crane"].folder.name / "crane").exists()


def test_what_was_not_built_to_its_end_is_never_used(machine: Machine) -> None:
    said = machine.build("crane", "oras", go=FAILS)
    assert said.code == 1
    assert said.err.count("no such module") == 2, "the others are tried all the same"
    assert not (machine.tools / TOOLS["crane"].folder.name).exists()
    assert machine.build("crane", go=BUILDS).code == 0
    assert (machine.tools / TOOLS["crane"].folder.name).exists()


def test_without_go_nothing_is_built_and_nothing_fails(machine: Machine) -> None:
    said = machine.build()
    assert said.code == 0
    assert "no `go` 1.26 on the PATH" in said.err


def test_a_go_that_is_too_old_is_as_good_as_none(machine: Machine) -> None:
    said = machine.build(go=FAILS, minor=25)
    assert said.code == 0
    assert "no `go` 1.26 on the PATH" in said.err


def test_a_name_that_is_none_is_refused(machine: Machine) -> None:
    said = machine.build("cranes", go=BUILDS)
    assert said.code == 2
    assert "there is no cranes" in said.err


def test_every_version_is_pinned() -> None:
    for tool in TOOLS.values():
        assert re.fullmatch(r"v\d+\.\d+\.\d+(-0\.\d+|-\d{14})?(-[0-9a-f]{12})?", tool.version), tool
