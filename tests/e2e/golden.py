"""What a client printed, without what differs from one run to the next, kept beside the tests and quoted by docs/clients.md.

    transcript = Transcript("Docker Engine 20.10", {service.host: "localhost:8080", old: "sha256:c899…"})
    transcript.add("first pull", "docker pull …", said, asked)
    transcript.check("docker")                      # tests/e2e/golden/docker.txt

With `GOLDEN=write` in the environment test_clients.py and test_recipes.py write the files anew instead of comparing them, and
then test_page.py writes the page's table of requests from them. A client of another version than the file's first line says
prints other words: it is not compared.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.e2e.processes import Said

FOLDER = Path(__file__).with_name("golden")
WRITE = os.environ.get("GOLDEN") == "write"
# What differs, and what stands for it.
VARIABLE = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),  # colours
    (re.compile(r"sha256:[0-9a-f]{64}"), "sha256:…"),
    (re.compile(r"\b[0-9a-f]{80}\b"), "…"),  # a log entry's UUID
    (re.compile(r"\b[0-9a-f]{64}\b"), "…"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{11,12}\b"), "…"),  # digests cut short
    (re.compile(r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?( [+-]\d{4} UTC)?"), "2026-11-25T23:32:57Z"),
    (re.compile(r"\b[0-9.]+(ms|µs|s)\b"), "…"),  # how long something took
    (re.compile(r"\blogIndex:[0-9]+"), "logIndex:12"),
    (re.compile(r"\bat index [0-9]+"), "at index 12"),
    (re.compile(r"[ \t]+\n"), "\n"),
    # ctr's bar of progress, when the pull is over before it has asked for the last time
    (re.compile(r'^time="[^"]*" level=error msg="failed to get content info" error="[^"]*"\n', re.MULTILINE), ""),
)


def plain(text: str, names: Mapping[str, str]) -> str:
    """Names first, in their order; then whatever else differs."""
    for name, stand_in in names.items():
        text = text.replace(name, stand_in)
    for pattern, stand_in in VARIABLE:
        text = pattern.sub(stand_in, text)
    return text


def steps() -> dict[str, list[str]]:
    """Of each file: its title -> each step, its head line included. Titles that are in several files get the steps of all."""
    found: dict[str, list[str]] = {}
    for file in sorted(FOLDER.glob("*.txt")):
        title, *parts = re.split(r"\n\n?(?=== )", file.read_text())
        found.setdefault(title, []).extend(parts)
    return found


class Transcript:
    """The commands of one client, and what each printed."""

    def __init__(self, title: str, names: Mapping[str, str], keep: Callable[[str], str] = str) -> None:
        """`keep` takes away what depends on how quick everything is, such as bars of progress."""
        self._title = title
        self._names = names
        self._keep = keep
        self._steps: list[str] = []

    def add(self, about: str, command: str, said: Said, asked: str = "") -> None:
        """One command. `asked`: what the upstream was asked meanwhile."""
        printed = self._keep(said.text).strip("\n")
        head = f"== {about}: exit code {said.code}" + (f"; {asked}" if asked else "")
        self._steps.append(plain(f"{head}\n{command}\n{printed}\n".replace("\n\n", "\n"), self._names))

    def check(self, key: str) -> None:
        file = FOLDER / f"{key}.txt"
        text = f"{self._title}\n\n" + "\n".join(self._steps)
        if WRITE:
            file.write_text(text)
        golden = file.read_text()
        if golden.partition("\n")[0] == self._title:
            assert text == golden, "".join(difflib.unified_diff(golden.splitlines(True), text.splitlines(True)))
