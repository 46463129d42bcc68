"""What Terraform zips is what the function can reach, and nothing else."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.terraform.configuration import ROOT, bundle, left_out

if TYPE_CHECKING:
    from pathlib import Path

    from tests.terraform.conftest import Planned

PYTHON = [name for name in bundle() if name.endswith(".py")]


def module_file(module: str) -> str | None:
    """The file of a module of ours, or None."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if (ROOT / name).is_file()), None)


def imported(name: str) -> set[str]:
    """Files of ours that a file imports anywhere, in functions and for types too, with the packages on the way."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(), name)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module is not None
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [module.split(".") for module in modules if module.split(".")[0] == "lib"]
    files = {module_file(".".join(part[: end + 1])) for part in parts for end in range(len(part))}
    return {file for file in files if file is not None}


def reachable(start: str) -> set[str]:
    """Everything that a file needs, itself included."""
    found, todo = {start}, [start]
    while todo:
        new = imported(todo.pop()) - found
        found |= new
        todo += new
    return found


def test_a_module_is_in_the_bundle_if_and_only_if_the_function_can_reach_it() -> None:
    assert sorted(reachable("main.py")) == PYTHON
    assert bundle() == sorted([*PYTHON, "requirements.txt"])


def test_every_file_of_lib_is_either_shipped_or_left_out_by_name() -> None:
    present = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lib").rglob("*") if path.is_file()}
    known = {*bundle(), *left_out()}
    assert {name for name in present if "__pycache__" not in name} <= known


def test_the_development_sigstore_and_the_tests_are_not_in_it() -> None:
    assert not [name for name in bundle() if "devsigstore" in name or name.startswith("tests/")]


def test_terraform_zips_exactly_these_files(planned: Planned) -> None:
    files = planned.files()
    assert sorted(files) == sorted([*bundle(), "trust-config.json"])
    for name in bundle():
        assert files[name] == (ROOT / name).read_text(), name


@pytest.mark.parametrize("name", PYTHON)
def test_it_compiles(name: str) -> None:
    """The buildpack compiles every file, and a syntax error in any of them fails the deployment."""
    compile((ROOT / name).read_bytes(), name, "exec", dont_inherit=True)


def test_the_framework_is_pinned_where_the_buildpack_looks() -> None:
    """Else the buildpack installs a version of its own choice."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert any(line.startswith("functions-framework==") for line in lines)


def test_the_bundle_alone_imports(tmp_path: Path) -> None:
    for name in bundle():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    environment = {
        "PATH": os.environ["PATH"],
        "TLOGISTRY_LOG_FORMAT": "line",
        "TLOGISTRY_IDENTITIES": json.dumps([{"email": "signer@example.com", "issuer": "https://accounts.google.com"}]),
    }
    program = (
        "import sys; sys.path.insert(0, '.'); import main; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n in {'main', 'lib'} or n.startswith('lib.')), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()
    assert len(loaded) > 20
    assert all((tmp_path / file).is_file() and str(ROOT) not in file for file in loaded)
