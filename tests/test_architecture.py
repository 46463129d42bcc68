"""Who may import whom. Each row of ROOMS is a module or folder and what it may import of ours; anything else is a fault.

Floors, from below: values and parsing that touch nothing; what talks to the outside (registries, Sigstore, the store); the
algorithm; handlers; the composition root; commands. A sentence on each is in docs/architecture.md.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = ("lib.errors", "lib.deadline", "lib.oci", "lib.sighting.statement", "lib.sighting.sighting")
SHARED = (*PURE, "lib.config", "lib.telemetry", "lib.http")

ROOMS: dict[str, tuple[str, ...]] = {
    # floor 0: values, parsing, formatting
    "lib.errors": (),
    "lib.deadline": ("lib.errors",),
    "lib.oci": ("lib.errors",),
    "lib.sighting.statement": ("lib.errors", "lib.oci"),
    "lib.sighting.sighting": ("lib.deadline", "lib.oci"),
    "lib.settings": ("lib.errors", "lib.oci"),
    "lib.policy": ("lib.errors", "lib.oci", "lib.settings"),
    "lib.config": ("lib.errors", "lib.oci", "lib.settings", "lib.policy"),
    "lib.domain": (),
    "lib.telemetry": (),
    "lib.http": ("lib.errors", "lib.deadline"),
    # floor 1: the outside; never each other
    "lib.upstream": (*SHARED, "lib.domain"),
    "lib.sighting": SHARED,
    "lib.store": SHARED,
    # floor 2: the algorithm, which knows contracts only; and what it may cost
    "lib.flood": (*PURE, "lib.policy", "lib.domain"),
    "lib.peer": (),
    "lib.crowd": ("lib.errors",),
    "lib.recorder": (*PURE, "lib.store.store", "lib.telemetry"),
    "lib.stages": (*PURE, "lib.store.store", "lib.upstream.upstream", "lib.telemetry"),
    # floor 3
    "lib.handlers": (*PURE, "lib.recorder", "lib.crowd", "lib.upstream.upstream", "lib.telemetry"),
    # floor 4: the only one that names every concrete class
    "lib.app": (
        *SHARED,
        "lib.stages",
        "lib.recorder",
        "lib.flood",
        "lib.peer",
        "lib.crowd",
        "lib.handlers",
        "lib.upstream",
        "lib.sighting",
        "lib.store",
    ),
    # floor 5
    "main": ("lib.app", "lib.config", "lib.errors", "lib.telemetry"),
    "lib.local": ("lib.config", "lib.errors", "lib.devsigstore"),
    "lib.cli": ("lib.app", "lib.config", "lib.errors", "lib.local", "lib.oci", "lib.telemetry"),
    "lib.__main__": ("lib.cli",),
    # not deployed
    "lib.devsigstore": ("lib.errors", "lib.oci", "lib.sighting.statement"),
}
TOUCHES_NOTHING = ("lib.errors", "lib.deadline", "lib.oci", "lib.sighting.statement", "lib.sighting.sighting")
OUTSIDE = {
    "os",
    "socket",
    "time",
    "logging",
    "requests",
    "sigstore",
    "sqlite3",
    "subprocess",
    "threading",
    "google",
    "flask",
}
LINES_MAX = 400


def modules() -> dict[str, Path]:
    found = {"main": ROOT / "main.py"}
    for path in sorted((ROOT / "lib").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def room(name: str) -> str:
    """The most specific row that a module falls under."""
    fitting = [row for row in ROOMS if name == row or name.startswith(f"{row}.")]
    assert fitting, f"{name} belongs to no room: add a row to ROOMS"
    return max(fitting, key=len)


def imports(path: Path) -> set[str]:
    """Every module that is imported anywhere in a file, for types alone included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(
                full if (full := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            )
    return found


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "lib"])
def test_a_module_imports_only_what_its_floor_allows(name: str) -> None:
    mine = room(name)
    ours = {other for other in imports(MODULES[name]) if other.split(".")[0] in {"lib", "main", "tests"}} - {"lib"}
    wrong = sorted(other for other in ours if not within(other, (*ROOMS[mine], mine)))
    assert not wrong, f"{name} ({mine}) must not import {', '.join(wrong)}"


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, TOUCHES_NOTHING)])
def test_the_language_is_pure(name: str) -> None:
    """No client, no clock, no environment, no logging."""
    wrong = sorted(other for other in imports(MODULES[name]) if other.split(".")[0] in OUTSIDE)
    assert not wrong, f"{name} must not import {', '.join(wrong)}"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_fits_in_a_head(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= LINES_MAX


def test_every_room_is_used() -> None:
    used = {room(name) for name in MODULES if name != "lib"}
    assert used == set(ROOMS)
